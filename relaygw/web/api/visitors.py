"""Who may log in, and which clients were throttled, by the gateway's API."""

from __future__ import annotations

from typing import Any

from relaygw.mail.clock import clock_ms
from relaygw.operations.access import (
    access_object,
    exempt_networks,
    exempt_object,
    review,
    throttled_object,
)
from relaygw.web.api.answer import Answer, Time, said
from relaygw.web.api.answers import Login
from relaygw.web.api.endpoint import answer_with
from relaygw.web.api.requests import Call
from relaygw.web.context import WebContext

_SINCE_MS = 14 * 86_400_000


class ThrottledClient(Answer):
    """A client of a listener that was told to come later."""

    listener: str
    client: str = said("address, of IPv6 the /64; or `user NAME`")
    cause: str = said("rate, connections or logins")
    times: int
    first_seen: Time
    last_seen: Time


class ExemptNetwork(Answer):
    """A network whose clients a listener does not limit."""

    listener: str
    network: str
    by: str = said("key of the listener that names it: allow or exempt")
    limits: list[str] = said("keys of the limits that do not hold for it")


async def list_access(web: WebContext, _: Call) -> dict[str, Any]:
    """List who may log in.

    To pages and API, by tokens and by SMTP: with which role, since when, and when last, to the
    minute.
    """
    found = await web.read(lambda: review(web.store, web.settings, web.uses))
    return {"logins": list(map(access_object, found))}


async def list_clients(web: WebContext, _: Call) -> dict[str, Any]:
    """List throttled clients of the last 14 days, and exempt networks."""
    since_ms = clock_ms() - _SINCE_MS
    found = await web.read(lambda: web.store.visitors.throttled(since_ms))
    exempt = exempt_networks(web.settings)
    return {
        "throttled": list(map(throttled_object, found)),
        "exempt": list(map(exempt_object, exempt)),
    }


LISTS = (
    ("/access", answer_with(logins=list[Login]), list_access),
    (
        "/clients",
        answer_with(throttled=list[ThrottledClient], exempt=list[ExemptNetwork]),
        list_clients,
    ),
)
"""For admins: each with its path, its answer, and what lists it."""
