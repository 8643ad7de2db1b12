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
from functools import partial

from relaygw.mail.clock import rfc3339, rfc3339_or_none, utc_time
from relaygw.mail.suppression import STREAMS, Cause, Suppression, as_promotional
from relaygw.mail.words import printable, unstorable_sign
from relaygw.operations.readers import read_mailbox, read_sender_domain

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

    `write` returns the fields of a row behind the address.
    """

    name: str
    address: str  # the heading of the address
    columns: frozenset[str]
    extra: frozenset[str] = frozenset()
    cause: Callable[[Values, Cause], Cause]
    heading: Sequence[str] = ()  # of what is written; empty: none
    says: frozenset[Cause] = frozenset(Cause)  # the causes that it has a word for
    write: Callable[[Suppression], Sequence[str]]


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
    """Return the entry in the fields of a line. Raises Misread."""
    if not any(values.values()):
        raise Misread("is empty; expected an address")
    bad = next((key for key, value in values.items() if unstorable_sign(value) is not None), None)
    if bad is not None:
        raise Misread(f"{bad} has a sign that cannot be stored; expected text in UTF-8")
    cause = form.cause(values, defaults.cause)
    created_at_ms = _time_ms(values, *_WHEN)
    if created_at_ms is None:
        created_at_ms = defaults.now_ms
    if "expiresat" in values:
        expires_at_ms = _time_ms(values, "expiresat")
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
    shown = printable(text.strip())[:80]
    try:
        return read_mailbox(text)
    except ValueError as error:
        raise Misread(f"{shown!r} {error}; expected user@example.com") from error


def _domain(values: Values, defaults: Defaults) -> str:
    written = values.get("senderdomain")
    if written is None:
        return defaults.sender_domain
    shown = printable(written)[:80]
    try:
        return read_sender_domain(written)
    except ValueError as error:
        what = f"sender_domain {shown!r} {error}"
        raise Misread(f"{what}; expected one, or nothing for any") from error


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


def _time_ms(values: Values, *names: str) -> int | None:
    written = (values.get(name, "").strip() for name in names)
    first = next(filter(None, written), None)
    return None if first is None else read_time(first)


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


def _named_cause(values: Values, default: Cause, name: str = "reason") -> Cause:
    """Return the cause that a field names; the default where it names none. Raises Misread."""
    word = values.get(name, "").strip().lower()
    if not word:
        return default
    if word not in _CAUSES:
        expected = ", ".join(Cause)
        raise Misread(
            f"reason {printable(values[name])[:40]!r} is not known; expected one of {expected}"
        )
    return _CAUSES[word]


def _of_sendgrid(values: Values, default: Cause) -> Cause:
    if "ip" in values:  # spam reports
        return Cause.COMPLAINT
    if not {"reason", "status"} & set(values):  # unsubscribes, or a group's: the file does not say
        return default
    return _refused(values, "status", "5.x.x")


def _of_mailgun(values: Values, default: Cause) -> Cause:
    if "code" in values or "error" in values:
        return _refused(values, "code", "5xx")
    if {"tag", "tags"} & set(values):
        return Cause.UNSUBSCRIBE
    return Cause.COMPLAINT


def _refused(values: Values, name: str, expected: str) -> Cause:
    code = values.get(name, "")
    if _ENDED.match(code):
        shown = printable(code)[:20]
        raise Misread(f"{name} {shown} is a refusal for the time being; expected {expected}")
    return Cause.BOUNCE


def _of_postmark(values: Values, default: Cause) -> Cause:
    cause = _named_cause(values, default, "suppressionreason")
    is_recipients = values.get("origin", "").strip().lower() == "recipient"
    return Cause.UNSUBSCRIBE if cause is Cause.MANUAL and is_recipients else cause


# --- writing ------------------------------------------------------------------------------

_BOUNCES = frozenset({Cause.BOUNCE, Cause.REFUSED})


def protected(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula; `unprotected` gives it back."""
    return f"'{text}" if text[:1] in _FORMULA else text


def unprotected(text: str) -> str:
    """Return the text that `protected` was given."""
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


def _own_row(suppression: Suppression) -> Sequence[str]:
    return (
        *(
            suppression.cause.value,
            protected(suppression.source),
            suppression.stream,
            rfc3339(suppression.created_at_ms),
        ),
        *(
            rfc3339_or_none(suppression.expires_at_ms) or "",
            suppression.sender_domain,
            protected(suppression.detail),
        ),
    )


_AT_SES = {**dict.fromkeys(_BOUNCES, "BOUNCE"), Cause.COMPLAINT: "COMPLAINT"}
_AT_POSTMARK = {
    **dict.fromkeys(_BOUNCES, ("HardBounce", "Recipient")),
    Cause.COMPLAINT: ("SpamComplaint", "Recipient"),
    Cause.UNSUBSCRIBE: ("ManualSuppression", "Recipient"),
    Cause.MANUAL: ("ManualSuppression", "Customer"),
}
_AT_RESEND = {**dict.fromkeys(_BOUNCES, "bounce"), Cause.COMPLAINT: "complaint"}


OWN = Form(
    name="own",
    address="address",
    columns=frozenset({"address"}),
    extra=frozenset({"reason", "source", "stream", "expiresat", "senderdomain"}),
    cause=_named_cause,
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
    cause=_named_cause,
    says=frozenset(_AT_SES),
    write=lambda suppression: (_AT_SES[suppression.cause],),
)
SENDGRID = Form(
    name="sendgrid",
    address="email",
    columns=frozenset({"email"}),
    extra=frozenset({"created", "reason", "status", "ip"}),
    cause=_of_sendgrid,
    heading=("email", "created", "reason", "status"),
    says=_BOUNCES,
    write=lambda suppression: (
        str(suppression.created_at_ms // 1000),
        protected(suppression.detail),
        "5.1.1",
    ),
)
MAILGUN = Form(
    name="mailgun",
    address="address",
    columns=frozenset({"address"}),
    extra=frozenset({"code", "error", "tags", "tag", "createdat"}),
    cause=_of_mailgun,
    heading=("address", "code", "error", "created_at"),
    says=_BOUNCES,
    write=lambda suppression: (
        "550",
        protected(suppression.detail),
        _day(suppression.created_at_ms),
    ),
)
POSTMARK = Form(
    name="postmark",
    address="emailaddress",
    columns=frozenset({"emailaddress", "suppressionreason"}),
    cause=_of_postmark,
    heading=("EmailAddress", "SuppressionReason", "Origin", "CreatedAt"),
    write=lambda suppression: (
        *_AT_POSTMARK[suppression.cause],
        rfc3339(suppression.created_at_ms),
    ),
)
RESEND = Form(
    name="resend",
    address="email",
    columns=frozenset({"email", "origin"}),
    cause=partial(_named_cause, name="origin"),
    heading=("email", "origin", "source_id", "created_at"),
    write=lambda suppression: (
        _AT_RESEND.get(suppression.cause, "manual"),
        "",
        rfc3339(suppression.created_at_ms),
    ),
)
POSTFIX = Form(
    name="postfix",
    address="address",
    columns=frozenset({"address"}),
    cause=lambda _values, default: default,
    write=lambda suppression: (f"REJECT suppressed: {suppression.cause.value}",),
)
LIST = replace(POSTFIX, name="list", columns=frozenset({"email"}), address="email")
FORMS = (OWN, RESEND, POSTMARK, SES, SENDGRID, MAILGUN, POSTFIX, LIST)
"""In the order in which headings are compared with them."""


def form_of(names: Iterable[str]) -> Form | None:
    """Return the form that these headings are of, None if there is none."""
    known = set(names)
    fitting = (form for form in FORMS if form.columns <= known)
    return next((form for form in fitting if not form.extra or form.extra & known), None)


WRITTEN = {
    **{form.name: form for form in (OWN, SES, SENDGRID, MAILGUN, POSTMARK, RESEND, POSTFIX)},
    "mailgun-complaints": replace(
        MAILGUN,
        heading=("address", "created_at"),
        says=frozenset({Cause.COMPLAINT}),
        write=lambda suppression: (_day(suppression.created_at_ms),),
    ),
    "mailgun-unsubscribes": replace(
        MAILGUN,
        heading=("address", "tags", "created_at"),
        says=frozenset({Cause.UNSUBSCRIBE}),
        write=lambda suppression: ("*", _day(suppression.created_at_ms)),
    ),
}
"""What `export` writes, by name."""
