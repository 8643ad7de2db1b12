"""What runs in a fleet campaign, and who watches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.fleet_faults.plans import GATEWAYS
from bench.history import OK, Event, History, Tail, open_history
from bench.killing.programs import Program
from bench.killing.sink_watch import wait_until
from bench.rig.gateway import Gateway, provider
from bench.rig.limited_provider import LimitedProvider
from bench.rig.limited_terms import Terms
from bench.rig.long_line import LongLine
from bench.rig.postgres import rows_of
from bench.rig.standby import Pair

HISTORY = "history.jsonl"
PROVIDER = "main"
_REPLY_S = 0.1  # from the final dot to its answer: a fault finds mail on its way
_SLOTS = 6
_CLIENTS = 2  # connections to each gateway
_RATE_PER_S = 25.0  # to each gateway
_SEVERAL_EACH = 8
_NAMES_EACH = 0x100
_ALWAYS = 1_000_000  # no backlog holds a client up
_PATIENCE_S = 30.0
_RETRY = {"first": "1s", "max": "3s", "jitter": "20%"}
_TIMEOUTS = {"connect": "2s", "command": "2s", "final_reply": "5s"}


def gateway_of(client: str) -> int:
    """Return which gateway a client of a history sends to."""
    return int(client.rpartition("-")[2]) // _NAMES_EACH


class Watch:
    """What clients and provider have told so far."""

    def __init__(self, history: Path) -> None:
        self._tail = Tail(history)
        self.acknowledged = [0] * GATEWAYS
        self.taken = 0

    def look(self) -> None:
        """Read on."""
        for event in self._tail.read():
            self._note(event)

    def _note(self, event: Event) -> None:
        if event.f == "send" and event.type == OK:
            self.acknowledged[gateway_of(event.process)] += 1
        elif event.f == "dot":
            self.taken += 1


@dataclass(frozen=True, slots=True)
class Rig:
    """A fleet that serves under load."""

    directory: Path
    pair: Pair
    database: str
    gateways: Sequence[Gateway]
    provider: LimitedProvider
    lines: Sequence[LongLine]  # of the gateway that may be cut off, one to each server
    watch: Watch
    history: History
    mended_ns: dict[int, int] = field(default_factory=dict)  # by gateway: when its cause was gone

    @property
    def queue(self) -> str:
        """The URL of the queue, wherever it takes writes."""
        return self.pair.url(self.database)

    def ask(self, query: str) -> list[list[str]]:
        """Return what a query of the queue finds."""
        return rows_of(self.queue, query, patience_s=_PATIENCE_S)

    def mend(self, *gateways: int) -> None:
        """Note that from now on nothing keeps gateways from working."""
        now_ns = time.monotonic_ns()
        self.mended_ns.update(dict.fromkeys(gateways, now_ns))

    def wait_for_more(self, count: int) -> None:
        """Return once each gateway answered 250 so often again, and the provider took some."""
        self.watch.look()
        wanted = [before + count for before in self.watch.acknowledged]
        taken = self.watch.taken + count

        def is_there() -> bool:
            self.watch.look()
            pairs = zip(self.watch.acknowledged, wanted, strict=True)
            return self.watch.taken >= taken and all(now >= most for now, most in pairs)

        wait_until(is_there, f"{count} more 250 of each gateway, and as many at the provider")


@contextmanager
def running(
    directory: Path, pair: Pair, *, cut_off: int | None = None, wrong: tuple[int, str] | None = None
) -> Iterator[Rig]:
    """Run a fleet on a new database of a pair, but no clients.

    `cut_off`: which gateway reaches the servers by lines that can be cut; `wrong`: which one has
    a clock that is wrong, by how much.
    """
    path = directory / HISTORY
    history = open_history(path)
    with ExitStack() as stack:
        database = stack.enter_context(pair.database())
        terms = Terms(reply_delay_s=_REPLY_S)
        upstream = stack.enter_context(LimitedProvider(directory, PROVIDER, terms, history=path))
        lines = []
        for server in (pair.primary, pair.standby) if cut_off is not None else ():
            line = LongLine(connect_port=server.port, round_trip_ms=0)
            lines.append(stack.enter_context(line))
        gateways = []
        for number in range(GATEWAYS):
            url = pair.url(database)
            if number == cut_off:
                url = pair.url(database, ports=(lines[0].port, lines[1].port))
            gateways.append(_gateway(directory, number, upstream.port, url))
        if wrong is not None:
            gateways[wrong[0]].more_environment = wrong_clock(wrong[1])
        with ThreadPoolExecutor() as beside:
            list(beside.map(stack.enter_context, gateways))
        yield Rig(directory, pair, database, gateways, upstream, lines, Watch(path), history)


def _gateway(directory: Path, number: int, port: int, url: str) -> Gateway:
    upstream: dict[str, Any] = provider(port, max_connections=_SLOTS, timeouts=_TIMEOUTS)
    return Gateway(
        directory / f"gw{number + 1}",
        providers={PROVIDER: upstream},
        hostname=f"gw{number + 1}.bench.test",
        queue={"url": url, "min_free": "0%"},
        retry=_RETRY,
    )


def wrong_clock(offset: str) -> dict[str, str]:
    """Return an environment in which the time of day, and only that, is wrong."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise RuntimeError("libfaketimeMT.so.1 is missing; install Debian's package libfaketime")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # it makes a wait for Python's lock last for ever
    }


@contextmanager
def steady_mail(rig: Rig) -> Iterator[None]:
    """Have mail sent to each gateway; at the end what was begun is taken to its end."""
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                Program(
                    "bench.killing.clients",
                    history=rig.directory / HISTORY,
                    port=gateway.smtp_port,
                    backlog=_ALWAYS,
                    connections=_CLIENTS,
                    first_name=number * _NAMES_EACH,
                    rate_per_s=_RATE_PER_S,
                    several_each=_SEVERAL_EACH,
                )
            )
            for number, gateway in enumerate(rig.gateways)
        ]
        yield
        for program in programs:
            program.check()
            program.end()
