"""/metrics: everything of a host in one answer, in the form of Prometheus.

What processes counted comes from their files, gauges of the queue from the store, at most each
5 s. A store that does not answer takes its own gauges away and nothing else: `store_up` says so.
"""

from __future__ import annotations

import logging
from pathlib import Path

import anyio.to_thread
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.observe.metrics.exposition import GaugeFamily, exposition
from relaygw.settings.model import Settings
from relaygw.settings.web import Web
from relaygw.store.store import Store
from relaygw.web.context import SharedRead
from relaygw.web.dashboard.gauges import host_gauges, store_gauges
from relaygw.web.gate.guards import STRICT_HEADERS, host_name

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
        self._gauges = SharedRead(self._read, fresh_s=FRESH_S)

    def routes(self) -> list[Route]:
        """Return the one route."""
        return [Route(PATH, self.show)]

    def app(self) -> Starlette:
        """Return an application with nothing else."""
        return Starlette(routes=self.routes())

    async def show(self, request: Request) -> Response:
        """Answer a scrape."""
        try:
            of_store = await self._gauges.get(within_s=PATIENCE_S)
        except TimeoutError:
            of_store = [_store_up(0)]
        accept = request.headers.get("accept", "")

        def compose() -> tuple[bytes, str]:
            gauges = [*host_gauges(self._settings, self._state_dir), *of_store]
            return exposition(self._state_dir, gauges, accept=accept)

        body, content_type = await anyio.to_thread.run_sync(compose)
        return Response(body, headers={**STRICT_HEADERS, "Content-Type": content_type})

    async def _read(self) -> list[GaugeFamily]:
        def read() -> list[GaugeFamily]:
            now_ms = clock_ms()
            return [_store_up(1), *store_gauges(self._store, self._settings, now_ms=now_ms)]

        try:
            return await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
        except StoreUnavailable as error:
            _log.warning("metrics without the store: %s", error)
            return [_store_up(0)]


def _store_up(number: float) -> GaugeFamily:
    return GaugeFamily(
        name="store_up", meaning="0 while the store does not answer.", numbers={(): number}
    )


class LocalMetrics:
    """Answers with the metrics ahead of all that looks at who is asking, for this host only.

    Captured mail is not served in mode production without a login. Numbers are: to whoever is
    on this host, under a name that is no other site's.
    """

    def __init__(self, app: ASGIApp, *, page: MetricsPage, web: Web) -> None:
        self._app = app
        self._page = page
        self._is_open = web.bind.is_loopback and not web.has_logins
        self._hosts = frozenset(host.strip("[]").lower() for host in web.hosts)
        self._paths = {PATH, web.base_path.rstrip("/") + PATH}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if self._is_open and self._is_asked(scope):
            response = await self._page.show(Request(scope, receive))
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_asked(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["path"] not in self._paths:
            return False
        hosts = Headers(scope=scope).getlist("host")
        is_known = len(hosts) == 1 and host_name(hosts[0]) in self._hosts
        return is_known and scope["method"] in ("GET", "HEAD")
