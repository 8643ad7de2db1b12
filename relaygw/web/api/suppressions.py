"""Suppressed addresses by the gateway's API: what requests say, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from relaygw.mail.clock import clock_ms
from relaygw.mail.suppression import STREAMS, Cause, read_domain
from relaygw.operations.suppression import effect, lift_of, suppress, suppression_object
from relaygw.operations.suppression.entry import Read, entries_of, read_field
from relaygw.policy.recipients import read_address
from relaygw.settings.suppression import parse_expiry
from relaygw.store.suppression_list import SuppressionFilter
from relaygw.web.api import requests
from relaygw.web.api.answers import Answer, Time, said
from relaygw.web.api.endpoint import answer_with
from relaygw.web.api.requests import Body, Call, Flag, Line, read_line
from relaygw.web.context import WebContext
from relaygw.web.page import Problem
from relaygw.web.suppression_place import place_of, read_place

MAX_ADDRESSES = 1000
MAX_NOTE_CHARACTERS = 300
_REASONS = tuple(cause.value for cause in Cause)


class SuppressedAddress(Answer):
    """An address that gets no more mail of a sender's domain."""

    address: str
    sender_domain: str | None = said("null: of any sender; <>: of mail without one")
    stream: str | None = said("null: both")
    reason: str = said(", ".join(_REASONS))
    source: str = said("a provider, an import, or who added it")
    detail: str
    queue_id: str | None = said("the message that it came of")
    created_at: Time
    expires_at: Time | None = said("null: never")


def _read(read: Callable[[str], Read], name: str, text: str, expected: str) -> Read:
    what = f"{name} {text[:80]!r} is not valid"
    return read_field(read, text, lambda why: Problem(400, f"{what}: {why}", expected=expected))


def _known(name: str | None, word: str, choices: tuple[str, ...]) -> str:
    if word not in ("", *choices):
        raise Problem(400, f"{name} {word[:40]!r} is not known", expected=", ".join(choices))
    return word


def _choice(choices: tuple[str, ...], value: object, info: ValidationInfo) -> str:
    return _known(info.field_name, read_line(value, info), choices)


def _addresses(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(address, str) for address in value):
        raise Problem(400, "addresses is not a list of texts", expected='["ann@example.com"]')
    if not 0 < len(value) <= MAX_ADDRESSES:
        what, remedy = f"addresses has {len(value)} of them", "send several requests"
        raise Problem(400, what, expected=f"1 to {MAX_ADDRESSES}", remedy=remedy)
    read = partial(_read, read_address, "address", expected="one like ann@example.com")
    return list(dict.fromkeys(read(address) for address in value))


_Addresses = Annotated[list[str], BeforeValidator(_addresses), Field(max_length=MAX_ADDRESSES)]
_Stream = Annotated[str, BeforeValidator(partial(_choice, STREAMS))]
_Reason = Annotated[str, BeforeValidator(partial(_choice, _REASONS))]


class _Named(Body):
    addresses: _Addresses
    sender_domain: Line = said("of mail whose sender is there; empty: of any", default="")
    stream: _Stream = said("of mail of this stream; empty: of both", default="")
    dry_run: Flag = said("change nothing, only list the addresses", default=False)

    @model_validator(mode="before")
    @classmethod
    def _check_addresses(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "addresses" not in given:
            expected = '{"addresses": ["ann@example.com"]}'
            raise Problem(400, "no address is named", expected=expected)
        return given

    def domain(self) -> str:
        """Return the sender's domain. Raises Problem."""
        return _read(read_domain, "sender_domain", self.sender_domain, "one like example.com")


class Suppress(_Named):
    """Which addresses are suppressed, and why."""

    reason: _Reason = said(", ".join(_REASONS), default=Cause.MANUAL.value)
    note: Line = said("shown with the address", default="")
    expires: Line = said("an age like 30d, or never; empty: suppression.expire", default="")


class Lift(_Named):
    """Which suppressions are lifted; without a sender's domain and a stream all of an address."""


LIST_PARAMETERS = {
    "q": "a part of the address",
    "sender_domain": "of mail whose sender is there; * is any",
    "stream": " or ".join(STREAMS),
    "reason": ", ".join(_REASONS),
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
    domain = given.get("sender_domain")
    wanted = SuppressionFilter(
        text=given.get("q"),
        sender_domain=None
        if domain is None
        else _read(read_domain, "sender_domain", domain, "one like example.com"),
        stream=_known("stream", given.get("stream", ""), STREAMS) or None,
        causes=frozenset(
            Cause(reason)
            for reason in [_known("reason", given.get("reason", ""), _REASONS)]
            if reason
        ),
    )
    unknown = Problem(400, "after is not valid", expected="`next` of the page before")
    after = read_place(given.get("after", ""), unknown)
    found = await web.read(
        lambda: web.store.suppressions.suppressed(limit=limit + 1, wanted=wanted, after=after)
    )
    following = place_of(found[limit - 1]) if len(found) > limit else None
    return {"suppressions": list(map(suppression_object, found[:limit])), "next": following}


async def add_suppressions(web: WebContext, call: Call) -> dict[str, Any]:
    """Suppress addresses.

    Whatever was known of them; the settings say what happens to mail for them.
    """
    body, now, actor = call.body, clock_ms(), call.principal.name
    rules, lasts_s = web.settings.suppression.rules(), None
    if body.expires:
        lasts_s = _read(parse_expiry, "expires", body.expires, "an age like 30d, or never")
    entries = entries_of(
        body.addresses,
        sender_domain=body.domain(),
        stream=body.stream,
        cause=Cause(body.reason or Cause.MANUAL),
        source=actor,
        note=body.note[:MAX_NOTE_CHARACTERS],
        rules=rules,
        now_ms=now,
        lasts_s=lasts_s,
    )
    if not body.dry_run:
        await web.change(lambda: suppress(web.store, entries, actor=actor, now_ms=now, way="api"))
    return {
        "dry_run": body.dry_run,
        "number": len(entries),
        "suppressions": list(map(suppression_object, entries)),
        "effects": [effect(entry, rules) for entry in entries],
    }


async def remove_suppressions(web: WebContext, call: Call) -> dict[str, Any]:
    """Lift suppressions.

    Of an address all, or those of a sender's domain or a stream.
    """
    body, now, actor = call.body, clock_ms(), call.principal.name
    domain = body.domain() if "sender_domain" in body.model_fields_set else None
    wanted: list[str] = body.addresses
    found = await web.change(
        lambda: lift_of(
            web.store,
            wanted,
            sender_domain=domain,
            stream=body.stream or None,
            actor=actor,
            now_ms=now,
            way="api",
            is_dry_run=body.dry_run,
        )
    )
    known = {suppression.address for suppression in found}
    return {
        "dry_run": body.dry_run,
        "number": len(found),
        "suppressions": list(map(suppression_object, found)),
        "left": [address for address in wanted if address not in known],
    }
