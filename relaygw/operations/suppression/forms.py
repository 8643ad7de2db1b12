"""Lists of suppressed addresses as providers and Postfix write them: what their fields mean.

A form is known by its heading, or by the keys of its JSON objects. Sources: the providers' pages on
their suppression lists; what an export has that means no suppression is refused, line by line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from relaygw.errors import InvalidAddress
from relaygw.mail.clock import rfc3339, rfc3339_or_none, utc_time
from relaygw.mail.suppression import STREAMS, Cause, Suppression, as_promotional, read_domain
from relaygw.mail.words import printable, unstorable_sign
from relaygw.policy.recipients import read_address

MAX_DETAIL = 300
Values = Mapping[str, str]
"""Fields by their headings, in small letters without blanks, `-` and `_`."""


class Misread(ValueError):
    """A line that is no suppression; the text says what is wrong and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What holds for what a file does not tell."""

    now_ms: int
    sender_domain: str = ""
    stream: str = ""
    cause: Cause = Cause.MANUAL
    expires_at_ms: Callable[[Cause], int | None] = lambda _cause: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to write the list. `columns`: how a heading names it; `extra`: one of these as well.

    `write` returns the fields of a row, None for what the form cannot say.
    """

    name: str
    address: str  # the heading of the address
    columns: frozenset[str]
    extra: frozenset[str] = frozenset()
    cause: Callable[[Values, Cause], Cause]
    heading: Sequence[str] = ()  # of what is written; empty: none
    write: Callable[[Suppression], Sequence[str] | None] | None = None


# --- reading ------------------------------------------------------------------------------

_CAUSES = {
    **{cause.value: cause for cause in Cause},
    **dict.fromkeys(("hardbounce", "hard_bounce", "hard bounce", "bounced"), Cause.BOUNCE),
    **dict.fromkeys(("spamcomplaint", "spam", "spamreport", "complained"), Cause.COMPLAINT),
    **dict.fromkeys(("manualsuppression", "admin", "customer"), Cause.MANUAL),
    **dict.fromkeys(("unsubscribed", "unsubscription"), Cause.UNSUBSCRIBE),
}
_ENDED = re.compile(r"4(\.|\d\d\b)")
_WHEN = ("createdat", "created", "lastupdatetime", "bouncedat", "date")


def read_values(form: Form, values: Values, defaults: Defaults) -> Suppression:
    """Return what the fields of a line say. Raises Misread."""
    if not any(values.values()):
        raise Misread("is empty; expected an address")
    bad = next((key for key, value in values.items() if unstorable_sign(value) is not None), None)
    if bad is not None:
        raise Misread(f"{bad} has a sign that cannot be stored; expected text in UTF-8")
    cause = form.cause(values, defaults.cause)
    created_at_ms = _time_ms(values, _WHEN, defaults.now_ms)
    assert created_at_ms is not None
    if "expiresat" in values:
        expires_at_ms = _time_ms(values, ("expiresat",), None)
    else:
        expires_at_ms = defaults.expires_at_ms(cause)
    entry = Suppression(
        address=read_own_address(values.get(form.address, "")),
        sender_domain=_domain(values, defaults),
        stream=_stream(values, defaults),
        cause=cause,
        source=_text(values.get("source", "")) or f"import {form.name}",
        detail=_text(values.get("detail") or _told(form, values)),
        created_at_ms=min(created_at_ms, defaults.now_ms),
        expires_at_ms=expires_at_ms,
    )
    return as_promotional(entry)


def read_own_address(text: str) -> str:
    """Return the mailbox that a field names. Raises Misread."""
    try:
        return read_address(text)
    except InvalidAddress as error:
        shown = printable(text.strip())[:80]
        raise Misread(f"{shown!r} is not an address: {error}; expected user@example.com") from error


def _domain(values: Values, defaults: Defaults) -> str:
    written = values.get("senderdomain")
    if written is None:
        return defaults.sender_domain
    try:
        return read_domain(written)
    except InvalidAddress as error:
        shown = printable(written)[:80]
        raise Misread(
            f"sender_domain {shown!r} is not a domain: {error}; expected one, or nothing for any"
        ) from error


def _stream(values: Values, defaults: Defaults) -> str:
    written = values.get("stream")
    if written is None:
        return defaults.stream
    if written.strip().lower() not in ("", *STREAMS):
        raise Misread(
            f"stream {printable(written)[:40]!r} is none; expected {' or '.join(STREAMS)}"
        )
    return written.strip().lower()


def _text(written: str) -> str:
    return printable(" ".join(unprotected(written).split()))[:MAX_DETAIL]


def _told(form: Form, values: Values) -> str:
    names = {"sendgrid": ("status", "reason"), "mailgun": ("code", "error")}.get(form.name, ())
    return " ".join(filter(None, (values.get(name, "") for name in names)))


def _time_ms(values: Values, names: Sequence[str], default_ms: int | None) -> int | None:
    for name in names:
        written = values.get(name, "").strip()
        if written:
            return read_time(written)
    return default_ms


def read_time(written: str) -> int:
    """Return a time in ms: seconds or ms since 1970, RFC 3339, or RFC 2822. Raises Misread."""
    try:
        if re.fullmatch(r"\d{1,13}(\.\d+)?", written):
            number = float(written)
            return int(number if number > _MOST_SECONDS else number * 1000)
        try:
            when = datetime.fromisoformat(written.removesuffix(" UTC").replace("Z", "+00:00"))
        except ValueError:
            when = parsedate_to_datetime(written)
        when = when.replace(tzinfo=when.tzinfo or UTC)
        return max(0, int(when.timestamp() * 1000))
    except (ValueError, OverflowError, TypeError, IndexError) as error:
        shown = printable(written)[:40]
        raise Misread(
            f"{shown!r} is not a time; expected 2026-01-31T12:00:00Z, seconds since 1970 or "
            "Sat, 31 Jan 2026 12:00:00 +0000"
        ) from error


_MOST_SECONDS = 100_000_000_000  # a greater number counts milliseconds


def named_cause(written: str, default: Cause) -> Cause:
    """Return the cause that a word names; the default where there is none. Raises Misread."""
    word = written.strip().lower()
    if not word:
        return default
    if word not in _CAUSES:
        expected = ", ".join(Cause)
        raise Misread(
            f"reason {printable(written)[:40]!r} is not known; expected one of {expected}"
        )
    return _CAUSES[word]


def _by_reason(values: Values, default: Cause) -> Cause:
    return named_cause(values.get("reason", ""), default)


def _of_sendgrid(values: Values, default: Cause) -> Cause:
    if "ip" in values:  # spam reports
        return Cause.COMPLAINT
    if not {"reason", "status"} & set(values):  # unsubscribes, or a group's: the file does not say
        return default
    if _ENDED.match(values.get("status", "")):
        status = printable(values["status"])[:20]
        raise Misread(f"status {status} is a refusal for the time being; expected 5.x.x")
    return Cause.BOUNCE


def _of_mailgun(values: Values, default: Cause) -> Cause:
    if "code" in values or "error" in values:
        if _ENDED.match(values.get("code", "")):
            code = printable(values["code"])[:20]
            raise Misread(f"code {code} is a refusal for the time being; expected 5xx")
        return Cause.BOUNCE
    if {"tag", "tags"} & set(values):
        return Cause.UNSUBSCRIBE
    return Cause.COMPLAINT


def _of_postmark(values: Values, default: Cause) -> Cause:
    cause = named_cause(values.get("suppressionreason", ""), default)
    is_recipients = values.get("origin", "").strip().lower() == "recipient"
    return Cause.UNSUBSCRIBE if cause is Cause.MANUAL and is_recipients else cause


# --- writing ------------------------------------------------------------------------------

_IS_BOUNCE = (Cause.BOUNCE, Cause.REFUSED)


def protected(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula; `unprotected` gives it back."""
    return f"'{text}" if text[:1] in _FORMULA else text


def unprotected(text: str) -> str:
    """Return what `protected` made of it."""
    return text[1:] if text[:1] == "'" and text[1:2] in _FORMULA else text


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def written_address(address: str) -> str:
    """Return an address that no spreadsheet takes for a formula.

    Quotes around its local part do not make it another (RFC 5321 section 4.1.2).
    """
    if address[:1] not in _FORMULA:
        return address
    local, _, domain = address.rpartition("@")
    return f'"{local}"@{domain}'


def _day(at_ms: int) -> str:
    return format_datetime(utc_time(at_ms))


def _own_row(one: Suppression) -> Sequence[str]:
    return (
        *(one.cause.value, protected(one.source), one.stream, rfc3339(one.created_at_ms)),
        *(rfc3339_or_none(one.expires_at_ms) or "", one.sender_domain, protected(one.detail)),
    )


def _ses_row(one: Suppression) -> Sequence[str] | None:
    if one.cause in _IS_BOUNCE:
        return ("BOUNCE",)
    return ("COMPLAINT",) if one.cause is Cause.COMPLAINT else None


def _sendgrid_row(one: Suppression) -> Sequence[str] | None:
    if one.cause not in _IS_BOUNCE:
        return None
    return (str(one.created_at_ms // 1000), protected(one.detail), "5.1.1")


def _mailgun_row(one: Suppression) -> Sequence[str] | None:
    if one.cause not in _IS_BOUNCE:
        return None
    return ("550", protected(one.detail), _day(one.created_at_ms))


_AT_POSTMARK = {
    **dict.fromkeys(_IS_BOUNCE, ("HardBounce", "Recipient")),
    Cause.COMPLAINT: ("SpamComplaint", "Recipient"),
    Cause.UNSUBSCRIBE: ("ManualSuppression", "Recipient"),
    Cause.MANUAL: ("ManualSuppression", "Customer"),
}
_AT_RESEND = {**dict.fromkeys(_IS_BOUNCE, "bounce"), Cause.COMPLAINT: "complaint"}


OWN = Form(
    name="own",
    address="address",
    columns=frozenset({"address"}),
    extra=frozenset({"reason", "source", "stream", "expiresat", "senderdomain"}),
    cause=_by_reason,
    heading=(
        *("address", "reason", "source", "stream", "created_at", "expires_at"),
        *("sender_domain", "detail"),
    ),
    write=_own_row,
)
SES = Form(
    name="ses",
    address="emailaddress",
    columns=frozenset({"emailaddress", "reason"}),
    cause=_by_reason,
    write=_ses_row,
)
SENDGRID = Form(
    name="sendgrid",
    address="email",
    columns=frozenset({"email"}),
    extra=frozenset({"created", "reason", "status", "ip"}),
    cause=_of_sendgrid,
    heading=("email", "created", "reason", "status"),
    write=_sendgrid_row,
)
MAILGUN = Form(
    name="mailgun",
    address="address",
    columns=frozenset({"address"}),
    extra=frozenset({"code", "error", "tags", "tag", "createdat"}),
    cause=_of_mailgun,
    heading=("address", "code", "error", "created_at"),
    write=_mailgun_row,
)
POSTMARK = Form(
    name="postmark",
    address="emailaddress",
    columns=frozenset({"emailaddress", "suppressionreason"}),
    cause=_of_postmark,
    heading=("EmailAddress", "SuppressionReason", "Origin", "CreatedAt"),
    write=lambda one: (*_AT_POSTMARK[one.cause], rfc3339(one.created_at_ms)),
)
RESEND = Form(
    name="resend",
    address="email",
    columns=frozenset({"email", "origin"}),
    cause=lambda values, default: named_cause(values.get("origin", ""), default),
    heading=("email", "origin", "source_id", "created_at"),
    write=lambda one: (_AT_RESEND.get(one.cause, "manual"), "", rfc3339(one.created_at_ms)),
)
POSTFIX = Form(
    name="postfix",
    address="address",
    columns=frozenset({"address"}),
    cause=lambda _values, default: default,
    write=lambda one: (f"REJECT suppressed: {one.cause.value}",),
)
LIST = replace(POSTFIX, name="list", columns=frozenset({"email"}), address="email")
FORMS = (OWN, RESEND, POSTMARK, SES, SENDGRID, MAILGUN, POSTFIX, LIST)
"""In the order in which headings are compared with them."""


def form_of(names: Iterable[str]) -> Form | None:
    """Return the form that these headings are of, None if there is none."""
    known = set(names)
    for form in FORMS:
        if form.columns <= known and (not form.extra or form.extra & known):
            return form
    return None


WRITTEN = {
    **{form.name: form for form in (OWN, SES, SENDGRID, MAILGUN, POSTMARK, RESEND, POSTFIX)},
    "mailgun-complaints": replace(
        MAILGUN,
        heading=("address", "created_at"),
        write=lambda one: (_day(one.created_at_ms),) if one.cause is Cause.COMPLAINT else None,
    ),
    "mailgun-unsubscribes": replace(
        MAILGUN,
        heading=("address", "tags", "created_at"),
        write=lambda one: (
            ("*", _day(one.created_at_ms)) if one.cause is Cause.UNSUBSCRIBE else None
        ),
    ),
}
"""What `export` writes, by name."""
