"""A provider that answers later than three leases last, while another instance has time."""

from __future__ import annotations

import time

from bench.rig.fleet import Fleet, running_fleet, wait_until
from bench.rig.latency import Load, Sample, told
from bench.rig.limited_terms import Terms
from bench.rig.queue_fates import read_fates, wait_until_drained
from bench.standing.books import check_load, figures, first_at_s, notes
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

CONNECTIONS = 20
SIZE_BYTES = 4096
_SLOW, _QUICK = "slow", "quick"
_WATCHED_S = 25.0  # after the answers: a lease more
_DRAIN_S = 60.0


def fleet_slow_reply(setting: Setting) -> Result:
    """The answer to the final dot comes after 65 s; the instance lives, another one is idle."""
    size = setting.size
    terms = Terms(slow_prefix=_SLOW, slow_reply_delay_s=size.slow_reply_s)
    with (
        setting.directory() as directory,
        running_fleet(directory, terms, max_connections=CONNECTIONS) as fleet,
    ):
        samples = _run(setting, fleet)
        wait_until_drained(fleet.server.url, patience_s=_DRAIN_S)
        events, fates = fleet.provider.events(), read_fates(fleet.server.url)
        books = check_load(directory, samples, [fleet.provider], fates)
        setting.keep(directory, "fleet-slow-reply")
    taken, answered = first_at_s(events, "taken"), first_at_s(events, "accepted")
    waits_s = [answered[one] - taken[one] for one in answered if one.startswith(_SLOW)]
    return Result(
        [
            Figure("duplicates", books.duplicated.total(), "", 0, 0),
            *figures(books),
            Figure("still queued", books.waiting, "", 0, 0),
        ],
        [
            f"{len(waits_s)} answers after {min(waits_s, default=0):.1f} to "
            f"{max(waits_s, default=0):.1f} s",
            f"replies: {told(samples)}",
            *notes(books),
        ],
    )


def _run(setting: Setting, fleet: Fleet) -> list[Sample]:
    """Let one instance send slow mail, the other look on; at the end that one sends, too."""
    size = setting.size
    busy = fleet.start("gw1")
    samples = _send(busy.smtp_port, _SLOW, size.slow_replies)
    wait_until(
        lambda: len(first_at_s(fleet.provider.events(), "taken")) == size.slow_replies,
        "the slow mail at the provider",
    )
    idle = fleet.start("gw2")
    setting.say(f"the provider answers after {size.slow_reply_s:.0f} s")
    time.sleep(size.slow_reply_s + _WATCHED_S)
    fleet.wait_for_workers(2)  # neither died meanwhile
    busy.kill_all()  # so that it is the other one that sends this
    return samples + _send(idle.smtp_port, _QUICK, size.slow_replies)


def _send(port: int, prefix: str, messages: int) -> list[Sample]:
    with Load(port, rate_per_s=20, messages=messages, size_bytes=SIZE_BYTES, prefix=prefix) as load:
        return load.samples()
