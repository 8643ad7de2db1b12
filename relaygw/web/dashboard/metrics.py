"""/metrics: everything of a host in one answer, in the form of Prometheus.

What processes counted comes from their files, gauges of the queue from the store, at most each
5 s. A store that does not answer takes its own gauges away and nothing else: `store_up` says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relaygw.errors import StoreUnavailable
from relaygw.observe.metrics.exposition import GaugeFamily, exposition
from relaygw.settings.model import Settings
from relaygw.store.protocol import Store
from relaygw.web.dashboard.gauges import store_gauges
from relaygw.web.dashboard.host_gauges import host_gauges
from relaygw.web.gate.guards import STRICT_HEADERS

PATH = "/metrics"
FRESH_S = 5.0
"""For how long what the store said is told again."""
PATIENCE_S = 4.0
"""How long an answer waits for the store; Prometheus gives up after 10 s."""
_log = logging.getLogger("relaygw.web")


class MetricsPage:
    """The metrics of one host; one object for all addresses where they are served."""

    def __init__(self, store: Store, settings: Settings, *, state_dir: Path) -> None:
        self._store = store
        self._settings = settings
        self._state_dir = state_dir
        self._reading: asyncio.Task[list[GaugeFamily]] | None = None
        self._fresh_until_s = float("-inf")

    def routes(self) -> list[Route]:
        """Return the one route."""
        return [Route(PATH, self.show)]

    def app(self) -> Starlette:
        """Return an application with nothing else."""
        return Starlette(routes=self.routes())

    async def show(self, request: Request) -> Response:
        """Answer a scrape."""
        of_store = await self._store_gauges()
        accept = request.headers.get("accept", "")

        def compose() -> tuple[bytes, str]:
            gauges = [*host_gauges(self._settings, self._state_dir), *of_store]
            return exposition(self._state_dir, gauges, accept=accept)

        body, content_type = await anyio.to_thread.run_sync(compose)
        return Response(body, headers={**STRICT_HEADERS, "Content-Type": content_type})

    async def _store_gauges(self) -> Sequence[GaugeFamily]:
        """Return what the store says, or said a moment ago; several scrapes ask it once."""
        is_due = asyncio.get_running_loop().time() >= self._fresh_until_s
        if self._reading is None or (self._reading.done() and is_due):
            self._reading = asyncio.create_task(self._read())
        await asyncio.wait({self._reading}, timeout=PATIENCE_S)
        return self._reading.result() if self._reading.done() else [_store_up(0)]

    async def _read(self) -> list[GaugeFamily]:
        def read() -> list[GaugeFamily]:
            now_ms = time.time_ns() // 1_000_000
            return [_store_up(1), *store_gauges(self._store, self._settings, now_ms=now_ms)]

        try:
            return await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
        except StoreUnavailable as error:
            _log.warning("metrics without the store: %s", error)
            return [_store_up(0)]
        finally:
            self._fresh_until_s = asyncio.get_running_loop().time() + FRESH_S


def _store_up(number: float) -> GaugeFamily:
    return GaugeFamily(
        name="store_up", meaning="0 while the store does not answer.", numbers={(): number}
    )
