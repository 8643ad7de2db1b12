"""A key that is revoked at the provider, and put right a while later in its file."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.rig.gateway import Gateway
from bench.rig.latency import Load, told
from bench.rig.limited_provider import Event, LimitedProvider
from bench.rig.limited_terms import Terms
from bench.rig.queue_fates import read_fates, wait_until_drained
from bench.standing.account import with_login, write_secret
from bench.standing.books import check_load, figures, notes
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

RATE_PER_S = 20.0
SIZE_BYTES = 4096
CONNECTIONS = 5
OLD, NEW = "the-key-of-before", "the-key-from-now-on"
_STEADY_S = 5.0
_DRAIN_S = 120.0


def rotation(setting: Setting) -> Result:
    """20 msg/s; the key is revoked, and its file has the new one 15 s later."""
    size = setting.size
    messages = int(RATE_PER_S * (_STEADY_S + size.revoked_s + size.resumed_s))
    with (
        setting.directory() as directory,
        LimitedProvider(directory, "provider", Terms(password=OLD)) as provider,
    ):
        upstream = with_login(
            provider.port, write_secret(directory, OLD), max_connections=CONNECTIONS
        )
        with (
            Gateway(directory / "gateway", providers={"main": upstream}) as gateway,
            Load(
                gateway.smtp_port, rate_per_s=RATE_PER_S, messages=messages, size_bytes=SIZE_BYTES
            ) as load,
        ):
            time.sleep(_STEADY_S)
            setting.say("the key is revoked")
            revoked_s = provider.change(Terms(password=NEW))
            time.sleep(size.revoked_s)
            setting.say("the file has the new key")
            write_secret(directory, NEW)
            changed_s = time.monotonic()
            samples = load.samples()
            wait_until_drained(gateway.database, patience_s=_DRAIN_S)
            events, fates = provider.events(), read_fates(gateway.database)
            books = check_load(directory, samples, [provider], fates)
            setting.keep(directory, "rotation")
    waited = {each.bench_id for each in samples if each.code == 250 and each.answered_s < changed_s}
    late_s = [e.at_s for e in events if e.kind == "accepted" and e.bench_id in waited]
    return Result(
        [
            Figure("resumed after", first_accepted_s(events, changed_s) - changed_s, "s", 10, 10),
            *figures(books),
        ],
        [
            f"accepted while the key was refused: {_accepted(events, revoked_s, changed_s)}",
            f"what waited was there {max(late_s) - changed_s:.1f} s after the change",
            f"logins refused: {sum(event.kind == 'login-refused' for event in events)}; "
            f"attempts charged: at most {max(fate.attempts for fate in fates.values())}",
            f"replies: {told(samples)}",
            *notes(books),
        ],
    )


def first_accepted_s(events: Sequence[Event], from_s: float) -> float:
    """Return when the provider accepted a message again; infinity if it never did."""
    times = (e.at_s for e in events if e.kind == "accepted" and e.at_s >= from_s)
    return min(times, default=float("inf"))


def _accepted(events: Sequence[Event], from_s: float, to_s: float) -> int:
    return sum(event.kind == "accepted" and from_s <= event.at_s < to_s for event in events)
