"""Gateways that share one PostgreSQL database and one provider."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rig.gateway import PATIENCE_S, Gateway, provider
from bench.rig.latency import Load
from bench.rig.limited_provider import LimitedProvider
from bench.rig.limited_terms import Terms
from bench.rig.postgres import PostgresServer
from bench.rig.queue_fates import ask, bench_id_of

_POLL_S = 0.1
_LEASED = """
    SELECT m.message_id FROM message m JOIN delivery d ON d.queue_id = m.queue_id
    WHERE d.lease IN (SELECT incarnation FROM instance WHERE name = '{name}')
"""
_WORKERS = "SELECT count(*) FROM instance WHERE role = 'delivery'"


@dataclass(frozen=True)
class Fleet:
    """What runs; `start` adds a gateway, all with the same settings."""

    directory: Path
    server: PostgresServer
    provider: LimitedProvider
    _upstream: dict[str, Any]
    _running: ExitStack

    def start(self, name: str) -> Gateway:
        """Start a gateway by a name and wait until it serves; it is killed with the fleet."""
        upstream = provider(self.provider.port, **self._upstream)
        gateway = Gateway(
            self.directory / name,
            providers={"provider": upstream},
            hostname=_hostname(name),
            queue={"url": self.server.url},
        )
        return self._running.enter_context(gateway)

    def leased_by(self, name: str) -> set[str]:
        """Return the bench ids of the mail that a gateway, dead or alive, holds leases of."""
        found = ask(self.server.url, _LEASED.format(name=_hostname(name)))
        return {bench_id_of(message_id) for (message_id,) in found}

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many delivery workers are registered."""
        wait_until(lambda: int(ask(self.server.url, _WORKERS)[0][0]) == count, f"{count} workers")


@contextmanager
def running_fleet(directory: Path, terms: Terms, **upstream: Any) -> Iterator[Fleet]:
    """Run a database and a provider for the length of a with block; no gateway yet.

    `upstream` are relaygw's settings of the provider, `terms` what the provider does.
    """
    with (
        PostgresServer() as server,
        LimitedProvider(directory, "provider", terms) as limited,
        ExitStack() as running,
    ):
        yield Fleet(directory, server, limited, upstream, running)


def load_each(
    running: ExitStack,
    gateways: Mapping[str, Gateway],
    *,
    rate_per_s: float,
    length_s: float,
    size_bytes: int,
) -> list[Load]:
    """Start a client of each gateway; together they send at a rate for so long."""
    share_per_s = rate_per_s / len(gateways)
    messages = int(share_per_s * length_s)
    return [
        running.enter_context(
            Load(
                gateway.smtp_port,
                rate_per_s=share_per_s,
                messages=messages,
                size_bytes=size_bytes,
                prefix=name,
            )
        )
        for name, gateway in gateways.items()
    ]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return when a condition holds; raises TimeoutError."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s in vain for {what}")
        time.sleep(_POLL_S)


def _hostname(name: str) -> str:
    return f"{name}.bench.test"
