"""Suppressed addresses by the gateway's API: the list, and the answers to what changes it."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import QueryParams

from relaygw.mail.suppression import STREAMS, Cause
from relaygw.operations.suppression import suppression_object
from relaygw.operations.suppression.verbs import REASON, REASONS, SENDER_DOMAIN, STREAM
from relaygw.operations.verb import Mistake, Parameter
from relaygw.store.suppression_list import SuppressionFilter
from relaygw.web.api import requests
from relaygw.web.api.answers import Answer, Time, said
from relaygw.web.api.endpoint import answer_with
from relaygw.web.api.requests import Call
from relaygw.web.context import WebContext
from relaygw.web.page import Problem
from relaygw.web.suppression_place import place_of, read_place


class SuppressedAddress(Answer):
    """An address that gets no more mail of a sender's domain."""

    address: str
    sender_domain: str | None = said("null: of any sender; <>: of mail without one")
    stream: str | None = said("null: both")
    reason: str = said(", ".join(REASONS))
    source: str = said("a provider, an import, or who added it")
    detail: str
    queue_id: str | None = said("the message that it came of")
    created_at: Time
    expires_at: Time | None = said("null: never")


LIST_PARAMETERS = {
    "q": "a part of the address",
    "sender_domain": "of mail whose sender is there; * is any",
    "stream": " or ".join(STREAMS),
    "reason": ", ".join(REASONS),
    "limit": f"1 to {requests.MAX_LISTED}, default {requests.DEFAULT_LISTED}",
    "after": "`next` of the page before",
}
_NEXT = (str | None, said("`after` of the next page; null on the last one"))
LISTED = answer_with(suppressions=list[SuppressedAddress], next=_NEXT)
SUPPRESSED = answer_with(
    dry_run=bool,
    number=int,
    suppressions=list[SuppressedAddress],
    effects=(list[str], said("what happens to mail for each of them from now on")),
)
LIFTED = answer_with(
    dry_run=bool,
    number=int,
    suppressions=list[SuppressedAddress],
    left=(list[str], said("addresses that are not suppressed, or not so")),
)


async def list_suppressions(web: WebContext, call: Call) -> dict[str, Any]:
    """List suppressed addresses.

    Newest first.
    """
    given, limit = call.given, requests.limit_of(call.given)
    reason = _taken(REASON, given)
    wanted = SuppressionFilter(
        text=given.get("q"),
        sender_domain=_taken(SENDER_DOMAIN, given),
        stream=_taken(STREAM, given),
        causes=frozenset() if reason is None else frozenset({Cause(reason)}),
    )
    unknown = Problem(400, "after is not valid", expected="`next` of the page before")
    after = read_place(given.get("after", ""), unknown)
    found = await web.read(
        lambda: web.store.suppressions.suppressed(limit=limit + 1, wanted=wanted, after=after)
    )
    following = place_of(found[limit - 1]) if len(found) > limit else None
    return {"suppressions": list(map(suppression_object, found[:limit])), "next": following}


def _taken(parameter: Parameter, given: QueryParams) -> str | None:
    """Return a condition, None if it is not given. Raises Problem."""
    text = given.get(parameter.name)
    try:
        return None if text is None else parameter.read_alone(text)
    except Mistake as error:
        raise Problem(400, f"{parameter.name} {error.what}", expected=error.expected) from None
