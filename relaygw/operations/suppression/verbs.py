"""The verbs of suppressed addresses: added, and lifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relaygw.mail.suppression import (
    ANY,
    STREAMS,
    Action,
    Cause,
    Suppression,
    SuppressionRules,
    as_promotional,
)
from relaygw.operations.readers import read_line, read_mailbox, read_sender_domain
from relaygw.operations.suppression import batched, row_words, suppression_object, until_words
from relaygw.operations.verb import Asked, Done, Kind, Parameter, Verb
from relaygw.settings.suppression import parse_expiry
from relaygw.store.audit import AuditEntry

REASONS = tuple(cause.value for cause in Cause)
_ADDRESSES = Parameter(
    name="addresses", kind=Kind.LIST, metavar="ADDRESS...", example="user@example.com",
    read=read_mailbox,
)  # fmt: skip
SENDER_DOMAIN = Parameter(
    name="sender_domain", metavar="DOMAIN", example="example.com, or * for any sender",
    help="Of mail whose sender is at DOMAIN; * is any sender.",
    field_help="of mail whose sender is there; empty: of any",
    read=read_sender_domain, takes_empty=True, is_syntax=True,
)  # fmt: skip
STREAM = Parameter(
    name="stream", choices=STREAMS, takes_empty=True,
    help="Of mail of this stream.",
    field_help="of mail of this stream; empty: of both",
)  # fmt: skip
REASON = Parameter(
    name="reason", choices=REASONS, default=Cause.MANUAL.value, takes_empty=True,
    help="Why.",
    field_help=", ".join(REASONS),
)  # fmt: skip
EXPIRES = Parameter(
    name="expires", metavar="AGE",
    help="For so long, such as 30d, or never; default: suppression.expire.",
    field_help="an age like 30d, or never; empty: suppression.expire",
    read=parse_expiry, takes_empty=True, is_syntax=True,
)  # fmt: skip
_DRY_RUN = Parameter(
    name="dry_run", kind=Kind.FLAG,
    help="Only show what would happen.",
    field_help="change nothing, only list the addresses",
)  # fmt: skip


def _add(asked: Asked, given: Mapping[str, Any]) -> Done:
    cause = Cause(given.get("reason") or Cause.MANUAL)
    rules = asked.settings.suppression.rules()
    expires_at_ms = rules.expiry(cause, asked.now_ms, given.get("expires") or None)
    entries = [
        as_promotional(
            Suppression(
                address=address,
                sender_domain=given.get("sender_domain", ANY),
                stream=given.get("stream", ANY),
                cause=cause,
                source=asked.actor,
                detail=given.get("note", ""),
                created_at_ms=asked.now_ms,
                expires_at_ms=expires_at_ms,
            )
        )
        for address in given["addresses"]
    ]
    is_dry_run = given.get("dry_run", False)
    for step in batched(() if is_dry_run else entries, _STEP):
        asked.store.suppressions.suppress(step, entry=_audit("add", step, asked))
    result = "would be suppressed" if is_dry_run else "suppressed"
    effects = [_effect(entry, rules) for entry in entries]
    return Done(
        answer={**_answer(entries, is_dry_run), "effects": effects},
        objects=[{**suppression_object(entry), "result": result} for entry in entries],
        lines=[
            f"{entry.address} {result}{until_words(entry, asked.now_ms)}: {told}"
            for entry, told in zip(entries, effects, strict=True)
        ],
    )


def _remove(asked: Asked, given: Mapping[str, Any]) -> Done:
    wanted: list[str] = given["addresses"]
    is_dry_run = given.get("dry_run", False)
    domain, stream = given.get("sender_domain"), given.get("stream")
    known = asked.store.suppressions.suppressed_of(wanted)
    found = [
        entry
        for entries in known.values()
        for entry in entries
        if domain in (None, entry.sender_domain) and stream in (None, entry.stream)
    ]
    for step in batched(() if is_dry_run else found, _STEP):
        keys = [entry.key for entry in step]
        asked.store.suppressions.lift(keys, entry=_audit("remove", step, asked))
    result = "would be lifted" if is_dry_run else "lifted"
    lifted = {entry.address for entry in found}
    left = [address for address in wanted if address not in lifted]
    return Done(
        answer={**_answer(found, is_dry_run), "left": left},
        objects=[{**suppression_object(entry), "result": result} for entry in found],
        lines=[f"{row_words(entry, asked.now_ms)}: {result}" for entry in found],
        left=[
            f"{address}: not suppressed, or not for these; relaygw suppress list {address} shows it"
            for address in sorted(left)
        ],
    )


def _answer(entries: list[Suppression], is_dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": is_dry_run,
        "number": len(entries),
        "suppressions": list(map(suppression_object, entries)),
    }


_STEP = 500
_SHOWN = 5


def _audit(verb: str, entries: Sequence[Suppression], asked: Asked) -> AuditEntry:
    shown = [entry.address for entry in entries[:_SHOWN]]
    more = f" and {len(entries) - len(shown)} more" if len(entries) > len(shown) else ""
    scopes = {f"{entry.sender_domain or 'any sender'} {entry.stream}".strip() for entry in entries}
    detail = f"for {', '.join(sorted(scopes)[:_SHOWN])}"
    return asked.audited(
        f"suppression.{verb}",
        ", ".join(shown) + more,
        affected=len(entries),
        detail="; ".join(filter(None, [detail, asked.way])),
    )


_DOES = {
    Action.OFF: "is sent",
    Action.WARN: "is sent with a warning",
    Action.BLOCK: "is not sent",
}


def _effect(suppression: Suppression, rules: SuppressionRules) -> str:
    """Return the fate of mail for an address from now on, in a sentence."""
    whose = f"mail of {suppression.sender_domain}" if suppression.sender_domain else "all mail"
    told = [
        f"{stream} mail {_DOES[rules.action(suppression, stream)]}"
        for stream in STREAMS
        if suppression.stream in (ANY, stream)
    ]
    return f"{whose}: {', '.join(told)}"


ADD = Verb(
    name="add",
    help="Suppress addresses, for mail of any sender unless --sender-domain says whose.",
    endpoint_help="Suppress addresses.\n"
    "Whatever was known of them; the settings say what happens to mail for them.",
    parameters=(
        _ADDRESSES,
        SENDER_DOMAIN,
        STREAM,
        REASON,
        Parameter(name="note", metavar="TEXT", example="a shorter one", takes_empty=True,
                  help="Shown with the address.", field_help="shown with the address",
                  read=read_line),
        EXPIRES,
        _DRY_RUN,
    ),
    run=_add,
)  # fmt: skip
REMOVE = Verb(
    name="remove",
    help="Lift suppressions of addresses: all of them, or those of a sender's domain or a stream.",
    endpoint_help="Lift suppressions.\n"
    "Of an address all, or those of a sender's domain or a stream.",
    parameters=(_ADDRESSES, SENDER_DOMAIN, STREAM, _DRY_RUN),
    run=_remove,
)
