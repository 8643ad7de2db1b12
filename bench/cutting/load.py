"""The gateway, its database and everyone around it, on one volume, until the power is cut.

Once they run, they send `messages` and are killed; which cuts there were is chosen afterwards.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.cutting.volume import Volume
from bench.killing.programs import Program
from bench.killing.sink_watch import SinkWatch
from bench.rig.gateway import Gateway, provider
from bench.rig.postgres import PostgresServer
from bench.rig.repeated import repeated
from bench.rig.sendmail import install_ours

HISTORY = "history.jsonl"
SLOTS = 20
"""Connections to the provider: as many deliveries can be under way."""
_MIB = 1 << 20
SIZE_BYTES = {"sqlite": 320 * _MIB, "postgres": 512 * _MIB}
_WARM_UP_MESSAGES = 20
_CHECKPOINT_EVERY_S = 1.0  # so that cuts fall into checkpoints, too
_RETRY = {"first": "100ms", "max": "1s", "jitter": "0%"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is on the volume, and how much it has to do."""

    database: str  # sqlite | postgres
    is_control: bool  # commits are not synced
    messages: int
    sink_delay_ms: float = 20.0
    connections: int = 8
    callers: int = 1
    backlog: int = 300


@dataclass(frozen=True, slots=True)
class Run:
    """Between these moments the load was whole (CLOCK_MONOTONIC)."""

    begun_ns: int
    ended_ns: int


def server_on(place: Path, plan: Plan) -> PostgresServer | None:
    """Return the database server of a volume, not started; None: the queue is a file."""
    if plan.database == "sqlite":
        return None
    settings = {"fsync": "off" if plan.is_control else "on"}
    return PostgresServer(place / "postgres", **settings)


def gateway_on(
    place: Path, directory: Path, plan: Plan, *, port: int, server: PostgresServer | None
) -> Gateway:
    """Return a gateway whose queue and maildrop are on a volume, not started."""
    url = f"sqlite:///{place}/state/queue.db" if server is None else server.url
    gateway = Gateway(
        directory,
        providers={"main": provider(port, max_connections=SLOTS)},
        retry=_RETRY,
        queue={"url": url, "min_free": "0%", "allow_unsafe": plan.is_control},
        maildrop={"path": str(place / "maildrop")},
    )
    gateway.database = place / "state" / "queue.db"
    if server is None and plan.is_control:
        gateway.program = ("-m", "bench.cutting.unsynced")
    return gateway


def run(volume: Volume, directory: Path, plan: Plan, server: PostgresServer | None) -> Run:
    """Let mail flow on a volume until enough was delivered; then nothing of it runs any more."""
    history = directory / HISTORY
    with ExitStack() as stack:
        sink = stack.enter_context(
            Program("bench.killing.sink", history=history, delay_ms=plan.sink_delay_ms)
        )
        stack.enter_context(volume.recorded())
        if server is not None:
            stack.enter_context(server)
            stack.enter_context(repeated(lambda: _checkpoint(server), each_s=_CHECKPOINT_EVERY_S))
        port = int(sink.first_line)
        gateway = gateway_on(volume.place, directory / "gateway", plan, port=port, server=server)
        stack.enter_context(gateway)
        launcher = install_ours(directory / "installed", volume.place / "maildrop")
        callers = Program(
            "bench.cutting.callers",
            history=history,
            sendmail=launcher.words[0],
            maildrop=volume.place / "maildrop",
            count=plan.callers,
        )
        clients = Program(
            "bench.killing.clients",
            history=history,
            port=gateway.smtp_port,
            connections=plan.connections,
            backlog=plan.backlog,
        )
        with callers, clients:
            watch = SinkWatch(history)
            watch.wait_for_takes(_WARM_UP_MESSAGES)
            begun_ns = time.monotonic_ns()
            wait_for(watch, plan.messages)
            ended_ns = time.monotonic_ns()
    return Run(begun_ns, ended_ns)


def wait_for(watch: SinkWatch, count: int) -> None:
    """Return once the provider took as many messages; tells how far it is."""
    for step in range(1, 51):
        watch.wait_for_takes(count * step // 50)
        sys.stderr.write(f"\r{min(watch.taken, count)} of {count} messages delivered ")
        sys.stderr.flush()
    sys.stderr.write("\n")


def _checkpoint(server: PostgresServer) -> None:
    """Have pages written beside the log."""
    with suppress(subprocess.CalledProcessError):
        server.execute("CHECKPOINT")
