"""How much of a provider's unknown limits is used, and what finding them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.checking.report import Report
from bench.rig.gateway import Gateway
from bench.rig.latency import Load, Sample, told
from bench.rig.limited_provider import Event, LimitedProvider
from bench.rig.limited_terms import Terms
from bench.rig.queue_fates import read_fates, wait_until_drained
from bench.standing.account import with_login, write_secret
from bench.standing.books import check_load, figures, first_at_s, notes
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

SIZE_BYTES = 4096
TOLD_RATE, TOLD_CONNECTIONS = "500/s", 30
FINDING_S = 10.0  # after this the limits should be known
_BACKLOG_S = 10.0  # so much of what the provider allows is there at once
_DRAIN_S = 120.0


@dataclass(frozen=True)
class Use:
    """What a span of time at the provider came to."""

    accepted: int
    refused: int  # at the final dot
    turned_away: int  # at the greeting

    @property
    def refused_share(self) -> float:
        """Refusals of both kinds in each hundred messages."""
        return (self.refused + self.turned_away) / max(1, self.accepted) * 100


def throttle(setting: Setting) -> Result:
    """Goodput and refusals at a provider that allows less than relaygw is told."""
    size = setting.size
    rate_per_s, connections = size.throttle_per_s, size.throttle_connections
    secret = "s3cret-of-the-bench"
    terms = Terms(rate_per_s=rate_per_s, connections=connections, password=secret)
    with (
        setting.directory() as directory,
        LimitedProvider(directory, "provider", terms) as provider,
        _gateway(directory, provider.port, secret) as gateway,
    ):
        setting.say(
            f"{size.throttle_s:.0f} s at {rate_per_s:g} msg/s and {connections} connections; "
            f"relaygw is told {TOLD_RATE} and {TOLD_CONNECTIONS}"
        )
        samples = _offer(gateway, rate_per_s, size.throttle_s)
        setting.say("waiting for the rest of the queue")
        wait_until_drained(gateway.database, patience_s=_DRAIN_S)
        events, fates = provider.events(), read_fates(gateway.database)
        books = check_load(directory, samples, [provider], fates)
        setting.keep(directory, "throttle")
    charged = max(fate.attempts for fate in fates.values())
    return _result(setting, samples, events, books, charged)


def _gateway(directory: Path, port: int, secret: str) -> Gateway:
    told_limits = {"preset": "ses", "rate": TOLD_RATE, "max_connections": TOLD_CONNECTIONS}
    ses = with_login(port, write_secret(directory, secret), region="eu-west-1", **told_limits)
    return Gateway(directory / "gateway", providers={"ses": ses})


def _offer(gateway: Gateway, rate_per_s: float, load_s: float) -> list[Sample]:
    """Offer a backlog at once and then as much as the provider allows: the queue never ends."""
    backlog = int(rate_per_s * _BACKLOG_S)
    burst_per_s = min(400.0, max(100.0, 4 * rate_per_s))
    port = gateway.smtp_port
    with (
        Load(
            port,
            rate_per_s=burst_per_s,
            messages=backlog,
            size_bytes=SIZE_BYTES,
            prefix="backlog",
        ) as first,
        Load(
            port,
            rate_per_s=rate_per_s,
            messages=int(rate_per_s * load_s),
            size_bytes=SIZE_BYTES,
            prefix="steady",
        ) as steady,
    ):
        return first.samples() + steady.samples()


def _result(
    setting: Setting, samples: list[Sample], events: list[Event], books: Report, charged: int
) -> Result:
    size = setting.size
    begun_s = min(each.scheduled_s for each in samples)
    ended_s = begun_s + size.throttle_s
    whole = use(events, begun_s, ended_s)
    late = use(events, begun_s + FINDING_S, ended_s)
    goodput = whole.accepted / size.throttle_s / size.throttle_per_s * 100
    found = use(events, begun_s, begun_s + FINDING_S)
    return Result(
        [
            Figure("goodput of what is allowed", goodput, "%", 90, 95, is_more_better=True),
            Figure("refusals after the first 10 s", late.refused_share, "%", 2, 2),
            *figures(books),
        ],
        [
            f"allowed {size.throttle_per_s:g}/s and {size.throttle_connections} connections; "
            f"{whole.accepted / size.throttle_s:.1f}/s over {size.throttle_s:.0f} s",
            _told("first 10 s", found),
            _told("later", late),
            f"least waiting after the first second: "
            f"{least_waiting(samples, events, begun_s + 1, ended_s)} messages",
            f"attempts charged: at most {charged}",
            f"replies: {told(samples)}",
            *_course(events, begun_s, ended_s, size.throttle_per_s),
            *notes(books),
        ],
    )


def use(events: Sequence[Event], from_s: float, to_s: float) -> Use:
    """Count what happened in a span."""
    kinds = [event.kind for event in events if from_s <= event.at_s < to_s]
    return Use(kinds.count("accepted"), kinds.count("refused"), kinds.count("turned-away"))


def least_waiting(
    samples: Sequence[Sample], events: Sequence[Event], from_s: float, to_s: float
) -> int:
    """Return the least number of messages that were in the gateway at once in a span."""
    steps = [(each.answered_s, 1) for each in samples if each.code == 250]
    steps += [(at_s, -1) for at_s in first_at_s(events, "accepted").values()]
    waiting, least = 0, len(steps)
    for at_s, step in sorted(steps):
        waiting += step
        if from_s <= at_s < to_s:
            least = min(least, waiting)
    return least


def _told(when: str, part: Use) -> str:
    return (
        f"{when}: {part.accepted} accepted, {part.refused} refused at the dot, "
        f"{part.turned_away} at the greeting"
    )


def _course(
    events: Sequence[Event], begun_s: float, ended_s: float, rate_per_s: float
) -> list[str]:
    """Return the share used in each tenth of the time, and the refusals of each."""
    part_s = (ended_s - begun_s) / 10
    parts = [use(events, begun_s + n * part_s, begun_s + (n + 1) * part_s) for n in range(10)]
    shares = " ".join(f"{part.accepted / part_s / rate_per_s * 100:.0f}" for part in parts)
    refused = " ".join(str(part.refused + part.turned_away) for part in parts)
    return [f"by tenths: {shares} %", f"refusals:  {refused}"]
