"""The order of the blows, and the processes around the gateway while they fall."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.killing.evidence import CLIENTS, GATEWAY, KILLS, SINK, Kill
from bench.killing.programs import Program
from bench.killing.queue_view import QueueView
from bench.killing.sink_watch import SinkWatch, wait_until
from bench.killing.strike import Striker
from bench.rig.gateway import Gateway, provider

SLOTS = 20
"""Connections to the provider: as many deliveries can be under way."""
DEATHS_PER_START = 2
"""A supervisor restarts a role at once, then after 0.5 s, then after more and more, until its
role lived for 30 s. Before the third death it is stopped cleanly and started, so that the
campaign does not spend its time in these waits."""
LOAD_MS = (50.0, 400.0)
_WARM_UP_MESSAGES = 200
_RETRY = {"first": "100ms", "max": "1s", "jitter": "0%"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign shall do."""

    kills: Mapping[str, int]  # by role
    seed: int
    sink_delay_ms: float
    sink_delay_at: str  # dot | replies
    connections: int  # of clients
    backlog: int  # messages acknowledged and not yet taken, at most


def order(kills: Mapping[str, int], chance: random.Random) -> list[str]:
    """Return the roles to kill in random order, with clean stops between."""
    roles = [role for role, count in kills.items() for _ in range(count)]
    chance.shuffle(roles)
    ordered: list[str] = []
    deaths: Counter[str] = Counter()
    for role in roles:
        if deaths[role] == DEATHS_PER_START:
            ordered.append("stop")
            deaths.clear()
        ordered.append(role)
        if role in ("supervisor", "all"):
            deaths.clear()
        else:
            deaths[role] += 1
    return ordered


def run(directory: Path, plan: Plan) -> None:
    """Carry out a campaign; its logs and its queue are left in `directory`."""
    chance = random.Random(plan.seed)
    with ExitStack() as stack:
        journals = directory / SINK, directory / CLIENTS
        sink = stack.enter_context(
            Program(
                "bench.killing.sink",
                journal=journals[0],
                delay_ms=plan.sink_delay_ms,
                delay_at=plan.sink_delay_at,
            )
        )
        gateway = stack.enter_context(
            Gateway(
                directory / GATEWAY,
                providers={"main": provider(int(sink.first_line), max_connections=SLOTS)},
                retry=_RETRY,
            )
        )
        clients = stack.enter_context(
            Program(
                "bench.killing.clients",
                journal=journals[1],
                sink_journal=journals[0],
                port=gateway.smtp_port,
                connections=plan.connections,
                backlog=plan.backlog,
            )
        )
        watch = SinkWatch(journals[0])
        watch.wait_for_takes(_WARM_UP_MESSAGES)
        progress = Progress(watch, journals[1], total=sum(plan.kills.values()))
        striker = Striker(gateway, watch)
        for role in order(plan.kills, chance):
            time.sleep(chance.uniform(*LOAD_MS) / 1000)
            for program in (sink, clients):
                program.check()
            kill = striker.strike(role)
            with (directory / KILLS).open("a") as lines:
                lines.write(kill.to_json())
            progress.tell(kill)
        clients.end()
        progress.end("the queue drains")
        _drain(gateway)
        gateway.stop()


def _drain(gateway: Gateway) -> None:
    """Wait until nothing is due; what then still waits is counted as queued."""
    queue = QueueView(gateway.database)
    try:
        wait_until(lambda: not queue.open_ids("incoming", "active", "deferred"), "an empty queue")
    except TimeoutError as late:
        sys.stderr.write(f"{late}; some mail stays queued\n")


class Progress:
    """One line on standard error that is written over."""

    def __init__(self, watch: SinkWatch, clients_journal: Path, *, total: int) -> None:
        self._watch = watch
        self._journal = clients_journal.open("rb")
        self._total = total
        self._kills = self._sent = self._acknowledged = 0
        self._begun_s = time.monotonic()

    def tell(self, kill: Kill) -> None:
        """Count a blow and show where the campaign is."""
        self._kills += kill.role != "stop"
        new = self._journal.read()
        self._sent += new.count(b" content ")
        self._acknowledged += new.count(b" acknowledged ")
        sys.stderr.write(
            f"\r{time.monotonic() - self._begun_s:5.0f} s: {self._kills} of {self._total} kills, "
            f"{self._sent} sent, {self._acknowledged} acknowledged, "
            f"{self._watch.taken} arrivals "
        )
        sys.stderr.flush()

    def end(self, what: str) -> None:
        """Say what comes next on a line of its own."""
        self._journal.close()
        sys.stderr.write(f"\n{what}\n")
