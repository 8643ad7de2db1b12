"""The order of the blows, and the processes around the gateway while they fall."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.history import History, open_history
from bench.killing.programs import Program
from bench.killing.queue_view import QueueView, view_of
from bench.killing.sink_watch import PATIENCE_S, SinkWatch
from bench.killing.strike import Striker
from bench.rig.mta import Mta

HISTORY = "history.jsonl"
SLOTS = 20
"""Connections to the provider: as many deliveries can be under way."""
DEATHS_PER_START = 2
"""A supervisor restarts a role at once, then after 0.5 s, then after more and more, until its
role lived for 30 s. Before the third death it is stopped cleanly and started, so that the
campaign does not spend its time in these waits."""
LOAD_MS = (50.0, 400.0)
_DRAIN_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign shall do."""

    kills: Mapping[str, int]  # by role
    seed: int
    sink_delay_ms: float
    sink_delay_at: str  # dot | replies
    connections: int  # of clients
    backlog: int  # messages acknowledged and not yet taken, at most
    server: Callable[[Path, int], AbstractContextManager[Mta]]
    """Runs the server in a directory, relaying to a port."""
    about: Mapping[str, object]  # what the history says of the campaign
    warm_up: int = 200  # messages before the first blow


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
    """Carry out a campaign; its history and the server's files are left in `directory`."""
    chance = random.Random(plan.seed)
    path = directory / HISTORY
    history = open_history(path)
    history.info("campaign", "campaign", seed=plan.seed, **plan.about)
    with ExitStack() as stack:
        sink = stack.enter_context(
            Program(
                "bench.killing.sink",
                history=path,
                delay_ms=plan.sink_delay_ms,
                delay_at=plan.sink_delay_at,
            )
        )
        server = stack.enter_context(plan.server(directory / "server", int(sink.first_line)))
        queue = view_of(server)
        clients = stack.enter_context(
            Program(
                "bench.killing.clients",
                history=path,
                port=server.smtp_port,
                connections=plan.connections,
                backlog=plan.backlog,
            )
        )
        watch = SinkWatch(path)
        watch.wait_for_takes(plan.warm_up)
        progress = Progress(watch, total=sum(plan.kills.values()))
        striker = Striker(server, watch, queue, history)
        for role in order(plan.kills, chance):
            time.sleep(chance.uniform(*LOAD_MS) / 1000)
            for program in (sink, clients):
                program.check()
            try:
                striker.strike(role)
            except TimeoutError:
                if not plan.about.get("control"):
                    raise
                progress.end("the load stands still: what was lost fills the backlog")
                break
            progress.tell(role)
        clients.end()
        progress.end("the queue drains")
        _drain(queue)
        server.stop()
        _tell_fates(queue, watch, history)


def _drain(queue: QueueView) -> None:
    """Wait until nothing is due; what then still waits is counted as queued."""
    deadline_s = time.monotonic() + PATIENCE_S
    while queue.due_ids():
        if time.monotonic() > deadline_s:
            sys.stderr.write("the queue does not get empty; some mail stays queued\n")
            return
        time.sleep(_DRAIN_POLL_S)


def _tell_fates(queue: QueueView, watch: SinkWatch, history: History) -> None:
    """Tell what is still queued, and the doubts of what is, or came more than once."""
    still_open = set(queue.open_ids())
    doubts = queue.doubts(sorted(still_open | watch.twice))
    for message in sorted(still_open | doubts.keys()):
        counted = {"doubts": doubts[message]} if message in doubts else {}
        state = "queued" if message in still_open else "delivered"
        history.info("queue", "fate", message=message, state=state, **counted)


class Progress:
    """One line on standard error that is written over."""

    def __init__(self, watch: SinkWatch, *, total: int) -> None:
        self._watch = watch
        self._total = total
        self._kills = 0
        self._begun_s = time.monotonic()

    def tell(self, role: str) -> None:
        """Count a blow and show where the campaign is."""
        self._kills += role != "stop"
        self._watch.look()
        sys.stderr.write(
            f"\r{time.monotonic() - self._begun_s:5.0f} s: {self._kills} of {self._total} kills, "
            f"{self._watch.sent} sent, {self._watch.acknowledged} acknowledged, "
            f"{self._watch.taken} arrivals "
        )
        sys.stderr.flush()

    def end(self, what: str) -> None:
        """Say what comes next on a line of its own."""
        sys.stderr.write(f"\n{what}\n")
