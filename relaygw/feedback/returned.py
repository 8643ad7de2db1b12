"""The mail that a report is about: what its header shows of it, whole, cut or only as text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import getaddresses

from relaygw.feedback import document
from relaygw.feedback.format import MARK, MARK_HEADER
from relaygw.mail.content import normalise_line_ends
from relaygw.mail.mime_header import read_fields

_MARK_FIELDS = (  # where our mark stands among other things; see the presets
    *("x-smtpapi", "x-mailgun-variables", "x-ses-message-tags", "x-mailin-custom"),
)
_MARK_ALONE = (MARK_HEADER, f"x-pm-metadata-{MARK}")
_OURS = re.compile(r"\bby (\S{1,255}) \(relaygw\b.{0,100}?\bid ([0-9A-Z]{8,32})\b", re.DOTALL)
_MOST_FIELDS = 500
_HEADER_IN_TEXT = re.compile(
    r"^[ \t>|]*((?:received|message-id|x-relaygw-mark|x-pm-metadata-relaygw|x-smtpapi|to"
    r"|x-mailgun-variables|x-ses-message-tags|x-mailin-custom):[^\r\n]{0,1000}"
    r"(?:\r?\n[ \t]+[^\s:][^\r\n]{0,1000}){0,9})",
    re.IGNORECASE | re.MULTILINE,
)
Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Returned:
    """What names a mail, and the addresses in its field To."""

    mark: str | None = None
    message_id: str | None = None
    queue_id: str | None = None
    to: tuple[str, ...] = ()

    @property
    def is_named(self) -> bool:
        """True if it can be found by this."""
        return any((self.mark, self.message_id, self.queue_id))


def fields_of(header: bytes) -> Fields:
    """Return the fields of a header, names in lower case, values on one line."""
    return [
        (name.lower(), document.words(" ".join(value.split()), 10_000))
        for name, value in read_fields(normalise_line_ends(header))[:_MOST_FIELDS]
    ]


def value_of(fields: Fields, *names: str) -> str:
    """Return the first value of a field with one of these names; "" without any."""
    return next((value for name, value in fields if name in names), "")


def from_fields(fields: Fields, hostname: str) -> Returned:
    """Return the mail that a header names."""
    return Returned(
        mark=_mark(fields),
        message_id=document.bare_id(value_of(fields, "message-id")),
        queue_id=_queue_id((v for name, v in fields if name == "received"), hostname),
        to=_addresses(value_of(fields, "to")),
    )


def from_text(text: str, hostname: str) -> Returned:
    """Return the mail that a header somewhere in a text names."""
    found = [match[1] for match in _HEADER_IN_TEXT.finditer(text)][:_MOST_FIELDS]
    return from_fields(fields_of("\n".join(found).encode("utf-8", "replace")), hostname)


def _addresses(value: str) -> tuple[str, ...]:
    """Return the addresses that a field names."""
    found = (document.address(address) for _, address in getaddresses([value[:2000]]))
    return tuple(dict.fromkeys(filter(None, found)))


def _mark(fields: Fields) -> str | None:
    for name, value in fields:
        if name in _MARK_ALONE and (alone := document.mark(value)):
            return alone
        if name in _MARK_FIELDS and (within := document.mark_within(value)):
            return within
    return None


def _queue_id(received: Iterable[str], hostname: str) -> str | None:
    """Return the queue id that this gateway gave it, else that of another one."""
    found = [(match[1], match[2]) for value in received if (match := _OURS.search(value))]
    ours = [queue_id for host, queue_id in found if host.lower() == hostname.lower()]
    return next(iter([*ours, *(queue_id for _, queue_id in found)]), None)
