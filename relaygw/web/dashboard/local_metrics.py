"""Metrics for the programs of this host, where the pages ask for no login or are not shown.

Captured mail is not served in mode production without a login. Numbers are: to whoever is on this
host, under a name that is no other site's.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from relaygw.settings.web import Web
from relaygw.web.dashboard.metrics import PATH, MetricsPage
from relaygw.web.gate.guards import host_name


class LocalMetrics:
    """Answers for the page of metrics ahead of all that looks at who is asking."""

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
