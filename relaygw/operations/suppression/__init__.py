"""Suppressed addresses in the hands of operators: added, lifted, shown, imported and exported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from relaygw.mail.address import check_address, mailbox
from relaygw.mail.clock import rfc3339, rfc3339_or_none
from relaygw.mail.suppression import (
    ANY,
    NULL_SENDER,
    PROMOTIONAL,
    STREAMS,
    Action,
    Cause,
    Suppression,
    SuppressionRules,
    domain_of,
)
from relaygw.mail.words import fields
from relaygw.policy.recipients import check_typed
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store

ADD, REMOVE, IMPORT = "suppression.add", "suppression.remove", "suppression.import"
ANY_DOMAIN = "*"
"""What people write for every sender's domain."""


def suppression_object(one: Suppression) -> dict[str, Any]:
    """Return a suppression; `--json` and the API have the same names of fields."""
    return {
        "address": one.address,
        "sender_domain": one.sender_domain or None,
        "stream": one.stream or None,
        "reason": one.cause.value,
        **fields(one, "source", "detail", "queue_id"),
        "created_at": rfc3339(one.created_at_ms),
        "expires_at": rfc3339_or_none(one.expires_at_ms),
    }


def read_address(text: str) -> str:
    """Return the mailbox of an address as people write it. Raises InvalidAddress."""
    address = text.strip().removeprefix("<").removesuffix(">")
    check_typed(address)
    return mailbox(address)


def read_domain(text: str) -> str:
    """Return a sender's domain as people write it, with or without @. Raises InvalidAddress."""
    written = text.strip()
    if written in (ANY, ANY_DOMAIN, NULL_SENDER):
        return ANY if written == ANY_DOMAIN else written
    sender = written if "@" in written.lstrip("@") else f"postmaster@{written.lstrip('@')}"
    check_address(sender)
    return domain_of(sender)


_DOES = {
    Action.OFF: "is sent",
    Action.WARN: "is sent with a warning",
    Action.BLOCK: "is not sent",
}


def effect(one: Suppression, rules: SuppressionRules) -> str:
    """Return what happens to mail for an address from now on, in a sentence."""
    whose = f"mail of {one.sender_domain}" if one.sender_domain else "all mail"
    told = [
        f"{stream} mail {_DOES[rules.action(one, stream)]}"
        for stream in STREAMS
        if one.stream in (ANY, stream)
    ]
    return f"{whose}: {', '.join(told)}"


def suppress(
    store: Store, entries: Sequence[Suppression], *, actor: str, now_ms: int, way: str = ""
) -> int:
    """Suppress addresses, whatever was known of them; audited. Raises StoreUnavailable."""
    sound = [as_promotional(one) for one in entries]
    for start in range(0, len(sound), _STEP):
        step = sound[start : start + _STEP]
        entry = _audit(ADD, step, actor=actor, now_ms=now_ms, way=way)
        store.suppressions.suppress(step, entry=entry)
    return len(sound)


def as_promotional(one: Suppression) -> Suppression:
    """Return an entry with the stream that it can be about: an unsubscribe has no other."""
    return replace(one, stream=PROMOTIONAL) if one.cause is Cause.UNSUBSCRIBE else one


def found_for(
    store: Store, addresses: Sequence[str], *, sender_domain: str | None, stream: str | None
) -> list[Suppression]:
    """Return what is in force of addresses; None: for any sender, any stream."""
    known = store.suppressions.suppressed_of(addresses)
    return [
        one
        for entries in known.values()
        for one in entries
        if sender_domain in (None, one.sender_domain) and stream in (None, one.stream)
    ]


def lift(
    store: Store, entries: Sequence[Suppression], *, actor: str, now_ms: int, way: str = ""
) -> int:
    """Lift suppressions; audited. Returns how many there were. Raises StoreUnavailable."""
    removed = 0
    for start in range(0, len(entries), _STEP):
        step = entries[start : start + _STEP]
        entry = _audit(REMOVE, step, actor=actor, now_ms=now_ms, way=way)
        removed += store.suppressions.lift([one.key for one in step], entry=entry)
    return removed


_STEP = 500
_SHOWN = 5


def _audit(
    action: str, entries: Sequence[Suppression], *, actor: str, now_ms: int, way: str
) -> AuditEntry:
    shown = [one.address for one in entries[:_SHOWN]]
    more = f" and {len(entries) - len(shown)} more" if len(entries) > len(shown) else ""
    scopes = {f"{one.sender_domain or 'any sender'} {one.stream}".strip() for one in entries}
    detail = f"for {', '.join(sorted(scopes)[:_SHOWN])}"
    return AuditEntry(
        at_ms=now_ms,
        actor=actor,
        action=action,
        target=", ".join(shown) + more,
        affected=len(entries),
        detail="; ".join(filter(None, [detail, way])),
    )
