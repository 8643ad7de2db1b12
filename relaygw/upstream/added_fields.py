"""Header fields that a provider gets in front of the content; what is stored stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.header import Header

from relaygw.mail.content import read_header

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
Field = tuple[str, str]
"""Name and value."""


def missing_fields(fields: Iterable[Field], start: bytes) -> bytes:
    """Return those of `fields` whose name is not in the header at the `start` of a content."""
    wanted = frozenset(name.lower() for name, _ in fields)
    present = read_header(start, wanted).values if wanted else {}
    return b"".join(_line(name, value) for name, value in fields if name.lower() not in present)


def _line(name: str, value: str) -> bytes:
    shown = _CONTROL.sub(" ", value).strip()
    if not shown.isascii():
        shown = Header(shown, "utf-8", header_name=name).encode(linesep="\r\n")
    return f"{name}: {shown}\r\n".encode("ascii")
