"""The login page: a session for whoever knows a password of `web.users`, and its end.

And the page of all who may log in, by whatever way.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from relaygw.mail.clock import DAY_MS, clock_ms
from relaygw.mail.words import counted
from relaygw.operations.access import CAUSES, exempt_networks, review
from relaygw.passwords import LOCKED_S, LoginBusy
from relaygw.web.context import WebContext, reads
from relaygw.web.gate.access import form_field
from relaygw.web.gate.credentials import COOKIE, cookie_of
from relaygw.web.gate.guards import LOGIN, LOGOUT, own_path
from relaygw.web.gate.identity import Identity, Role, require
from relaygw.web.page import redirect, render

_WRONG = "Name or password is wrong."
_BUSY = "Too many failed logins. Try again in {minutes} minutes."
_NOBODY = "Nobody can log in here: there are no web.users in relaygw.yaml."
_THROTTLED_DAYS = 14
_KINDS = {"web": "person", "token": "token", "smtp": "sender by SMTP"}


class LoginPages:
    """The endpoints of one web role."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def routes(self) -> list[Route]:
        """Return the routes; the first is open to everybody."""
        return [
            Route(LOGIN, self.show, methods=["GET"]),
            Route(LOGIN, self.log_in, methods=["POST"]),
            Route(LOGOUT, self.log_out, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Show the form, or go on where somebody has a session."""
        wanted = own_path(request.query_params.get("next", ""), _root(request))
        identity, cookie = self._identity, cookie_of(request)
        is_in = identity.is_open
        if not is_in and cookie is not None:
            is_in = await run_in_threadpool(identity.sessions.user, cookie) is not None
        if is_in:
            return RedirectResponse(wanted, status_code=303)
        if request.headers.get("sec-fetch-site") == "cross-site":
            # the browser asks again by itself: who follows a link from another site sends no
            # SameSite=Strict cookie, and would have to log in again
            again = f"{_root(request)}{LOGIN}?next={quote(wanted, safe='/')}"
            return Response(headers={"Refresh": f"0; url={again}"})
        return _form(request, wanted, problem="" if identity.has_users else _NOBODY)

    async def log_in(self, request: Request) -> Response:
        """Begin a session and go where the browser wanted to, or show the form again."""
        body = await request.body()
        name = form_field(request, body, "name")
        password = form_field(request, body, "password").encode()
        wanted = own_path(form_field(request, body, "next"), _root(request))
        guesser = self._identity.forwarded.guesser(request)
        try:
            user = await self._identity.logins.log_in(name, password, guesser=guesser)
        except LoginBusy:
            problem = _BUSY.format(minutes=round(LOCKED_S / 60))
            return _form(request, wanted, name=name, problem=problem, status_code=429)
        if user is None:
            self._identity.failed(request)
            return _form(request, wanted, name=name, problem=_WRONG, status_code=403)
        sessions = self._identity.sessions
        earlier = cookie_of(request)
        if earlier is not None:  # it ends: one that somebody planted is never worth anything
            await run_in_threadpool(sessions.end, earlier)
        cookie = await run_in_threadpool(sessions.begin, user)
        response = RedirectResponse(wanted, status_code=303)
        response.set_cookie(COOKIE, cookie, **self._flags(request))  # until the browser closes
        return response

    async def log_out(self, request: Request) -> Response:
        """End the session; `access` has asked for its token."""
        cookie = cookie_of(request)
        if cookie is not None:
            await run_in_threadpool(self._identity.sessions.end, cookie)
        response = redirect(request, LOGIN)
        response.delete_cookie(COOKIE, **self._flags(request))
        return response

    def _flags(self, request: Request) -> dict[str, Any]:
        is_https = self._identity.forwarded.is_https(request)
        path = _root(request) or "/"
        return {"path": path, "secure": is_https, "httponly": True, "samesite": "strict"}


def _root(request: Request) -> str:
    root_path: str = request.scope.get("root_path", "")
    return root_path


def _form(
    request: Request, wanted: str, *, name: str = "", problem: str = "", status_code: int = 200
) -> Response:
    context = {"next": wanted, "name": name, "problem": problem}
    return render(request, "login.html", context, status_code=status_code)


@reads
def show_access(web: WebContext, request: Request) -> Response:
    """Show who may log in, and who did last; which clients were throttled, and who never is."""
    require(request, Role.ADMIN)
    now_ms = clock_ms()
    logins = [
        (
            access_rule,
            ""
            if access_rule.since_ms is None
            else counted((now_ms - access_rule.since_ms) // DAY_MS, "day"),
        )
        for access_rule in review(web.store, web.settings, web.uses)
    ]
    context = {
        "logins": logins,
        "kinds": _KINDS,
        "throttled": web.store.visitors.throttled(now_ms - _THROTTLED_DAYS * DAY_MS),
        "exempt": list(exempt_networks(web.settings)),
        "causes": CAUSES,
    }
    return render(request, "access.html", context, mode=web.mode)
