"""What service managers, load balancers and Prometheus ask: health and metrics.

`/healthz` says that this process answers. `/readyz` says that mail is taken: the store
answers, and a front is running whose heartbeat is fresh by the database's clock. The reason
in a 503 is one line and names no path or address, because these pages are open to all.

`/metrics` is everything of a host in one answer. What processes counted comes from their files,
gauges of the queue from the store, at most each 5 s. A store that does not answer takes its own
gauges away and nothing else: `store_up` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.observe.metrics.files import GaugeFamily, exposition
from relaygw.settings.model import Settings
from relaygw.settings.web import Web
from relaygw.store.instances import silent_incarnations
from relaygw.store.store import Store
from relaygw.web.context import SharedRead
from relaygw.web.dashboard.gauges import host_gauges, store_gauges
from relaygw.web.gate.guards import STRICT_HEADERS, host_name

STALE_AFTER_S = 15.0
"""A front without a heartbeat for longer does not count."""
READY_WITHIN_S = 3.0
"""How long a look at the store may take: load balancers wait no longer."""
_SILENT_STORE = "the store does not answer"

ReadyCheck = Callable[[], Awaitable[str | None]]
"""Returns why the gateway is not ready, in one line for everyone, or None."""


def front_problem(store: Store, instance: str | None) -> str | None:
    """Return why no front takes mail, or None; blocks on the store.

    `instance`: only fronts of that name count, for the others have addresses of their own.
    """
    try:
        fronts = [
            entry
            for entry in store.instances.registered()
            if entry.role == "front" and instance in (None, entry.name)
        ]
        stale = silent_incarnations(fronts, STALE_AFTER_S, now_ms=clock_ms())
    except StoreUnavailable:
        return _SILENT_STORE
    if not fronts:
        return "no front is registered"
    running = [entry for entry in fronts if entry.state == "running"]
    if not running:
        return "every front is stopping"
    if all(entry.incarnation in stale for entry in running):
        return f"no front has given a sign of life in {STALE_AFTER_S:.0f} s"
    return None


def health_routes(
    store: Store, is_ready: ReadyCheck | None, instance: str | None = None
) -> list[Route]:
    """Return the routes; `is_ready` is asked too, once the store and a front are fine."""
    look = SharedRead(lambda: run_in_threadpool(front_problem, store, instance))

    async def show_life(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def show_readiness(_: Request) -> Response:
        try:
            problem = await look.get(within_s=READY_WITHIN_S)
        except TimeoutError:
            problem = _SILENT_STORE
        if problem is None and is_ready is not None:
            problem = await is_ready()
        if problem is not None:
            return PlainTextResponse(f"not ready: {problem}\n", status_code=503)
        return PlainTextResponse("ok\n")

    return [
        Route("/healthz", show_life),
        Route("/livez", show_life),
        Route("/readyz", show_readiness),
    ]


PATH = "/metrics"
FRESH_S = 5.0
"""For how long what the store said is told again."""
SCRAPE_WITHIN_S = 4.0
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
            of_store = await self._gauges.get(within_s=SCRAPE_WITHIN_S)
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
