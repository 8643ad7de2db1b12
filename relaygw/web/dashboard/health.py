"""Health for service managers, load balancers and container platforms.

`/healthz` says that this process answers. `/readyz` says that mail is taken: the store
answers, and a front is running whose heartbeat is fresh by the database's clock. The reason
in a 503 is one line and names no path or address, because these pages are open to all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.store.instances import silent_incarnations
from relaygw.store.store import Store
from relaygw.web.context import SharedRead

STALE_AFTER_S = 15.0
"""A front without a heartbeat for longer does not count."""
PATIENCE_S = 3.0
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
            problem = await look.get(within_s=PATIENCE_S)
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
