"""What runs in a soak, and the witnesses of what is done to it."""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.history import History, open_history
from bench.killing.programs import Program
from bench.killing.queue_view import QueueView, view_of
from bench.killing.sink_watch import SinkWatch, wait_until
from bench.killing.strike import Striker
from bench.rig.gateway import Gateway, provider
from bench.rig.limited_provider import LimitedProvider
from bench.rig.limited_terms import Terms
from bench.rig.postgres import PostgresServer
from bench.rig.sendmail import install_ours

HISTORY = "history.jsonl"
PROVIDER = "main"
CONTROL = ("-m", "bench.soaking.controls")
_CONNECTIONS = 6
_SENDMAIL_EVERY_S = 1.0
_SEVERAL_EACH, _LARGE_EACH = 8, 60  # of each client's messages
_SLOTS = 20
_RETRY = {"first": "1s", "max": "5s", "jitter": "20%"}
_TIMEOUTS = {"connect": "2s", "command": "2s", "final_reply": "2s"}
_POSTGRES = {
    # in minutes what a server of its defaults does in hours: log files of a size, space reused
    "checkpoint_timeout": "30s",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
    "autovacuum_naptime": "5s",
}
Sections = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run shall be."""

    database: str  # sqlite | postgres
    minutes: float
    seed: int
    rate_per_s: float
    retention_s: float
    is_control: bool = False


@dataclass(frozen=True, slots=True)
class Rig:
    """A gateway that serves under load, and who watches."""

    directory: Path
    gateway: Gateway
    provider: LimitedProvider
    server: PostgresServer | None
    watch: SinkWatch
    history: History
    queue: QueueView
    striker: Striker
    rate_per_s: float

    @property
    def log(self) -> Path:
        """The mail log, a file that is rotated."""
        return _log_of(self.directory)

    def taken(self) -> int:
        """Return how often the provider took a message so far."""
        self.watch.look()
        return self.watch.taken

    def acknowledged(self) -> int:
        """Return how many messages clients have a 250 of."""
        self.watch.look()
        return self.watch.acknowledged

    def refused(self) -> int:
        """Return how often the provider refused so far."""
        self.watch.look()
        return self.watch.refused

    def wait_for_more_taken(self, count: int) -> None:
        """Return once the provider took so many more."""
        wanted = self.taken() + count
        wait_until(lambda: self.taken() >= wanted, "messages at the provider")

    def wait_for_more_acknowledged(self, count: int) -> None:
        """Return once clients heard so many more 250."""
        wanted = self.acknowledged() + count
        wait_until(lambda: self.acknowledged() >= wanted, "messages that are accepted")

    def told_size(self) -> str:
        """Return the SIZE that the front offers; empty when it does not answer."""
        with (
            contextlib.suppress(OSError, smtplib.SMTPException),
            smtplib.SMTP(
                "127.0.0.1", self.gateway.smtp_port, timeout=5, local_hostname="client.test"
            ) as client,
        ):
            client.ehlo("bench.test")
            return client.esmtp_features.get("size", "")
        return ""

    def change_listener(self, **values: Any) -> None:
        """Write the configuration with other values of its listener; nobody reads it yet."""
        self.gateway.settings["listeners"][0].update(values)
        self.gateway.prepare()


@contextmanager
def running(directory: Path, plan: Plan) -> Iterator[tuple[Rig, ExitStack]]:
    """Run everything but the clients; what the stack gets ends before it does."""
    path = directory / HISTORY
    history = open_history(path)
    with ExitStack() as stack:
        upstream = stack.enter_context(LimitedProvider(directory, PROVIDER, Terms(), history=path))
        server = None
        if plan.database == "postgres":
            server = stack.enter_context(PostgresServer(None, **_POSTGRES))
        gateway = Gateway(
            directory / "gateway",
            providers={
                PROVIDER: provider(upstream.port, max_connections=_SLOTS, timeouts=_TIMEOUTS)
            },
            **_sections(directory, plan, server),
        )
        if server is None:
            gateway.settings["queue"]["url"] = f"sqlite:///{gateway.database}"
        gateway.program = CONTROL if plan.is_control else gateway.program
        stack.enter_context(gateway)
        watch = SinkWatch(path)
        view = view_of(gateway)
        striker = Striker(gateway, watch, view, history)
        rig = Rig(
            *(directory, gateway, upstream, server, watch),
            *(history, view, striker, plan.rate_per_s),
        )
        with ExitStack() as beside:
            yield rig, beside


@contextmanager
def steady_mail(rig: Rig) -> Iterator[None]:
    """Have mail sent by SMTP and by sendmail; at the end what was begun is taken to its end."""
    path = rig.directory / HISTORY
    launcher = install_ours(rig.directory / "installed", rig.directory / "gateway" / "maildrop")
    with (
        Program(
            "bench.cutting.callers",
            history=path,
            sendmail=launcher.words[0],
            maildrop=rig.directory / "gateway" / "maildrop",
            count=1,
            every_s=_SENDMAIL_EVERY_S,
        ) as callers,
        Program(
            "bench.killing.clients",
            **client_options(rig),
            connections=_CONNECTIONS,
            rate_per_s=max(1.0, rig.rate_per_s - 1 / _SENDMAIL_EVERY_S),
            several_each=_SEVERAL_EACH,
            large_each=_LARGE_EACH,
        ) as clients,
    ):
        yield
        for program in (callers, clients):
            program.check()
            program.end()


def client_options(rig: Rig) -> dict[str, object]:
    """Return what all clients by SMTP are told; a backlog holds up none of them."""
    path = rig.directory / HISTORY
    return {"history": path, "port": rig.gateway.smtp_port, "backlog": 1_000_000}


def _sections(directory: Path, plan: Plan, server: PostgresServer | None) -> Sections:
    retention = "3650d" if plan.is_control else f"{plan.retention_s:g}s"
    queue: dict[str, Any] = {"retention": retention, "min_free": "0%"}
    if server is not None:
        queue["url"] = server.url
    return {
        "retry": _RETRY,
        "queue": queue,
        "log": {"target": f"file:{_log_of(directory)}"},
    }


def _log_of(directory: Path) -> Path:
    return directory / "relaygw.log"
