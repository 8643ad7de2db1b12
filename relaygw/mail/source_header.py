"""X-Relaygw-Source: where a message came from, told by one relaygw to the next.

    X-Relaygw-Source: v=1; host=web1; uid=33; user="shop"; client=172.17.0.5; script="60:index.php"

Each part stands at most once and in this order; what is not known is left out. `; archived` at the
end: by its archive_to the relaygw that tells has seen to that. Texts are printable Unicode, in
ASCII: whatever is not plain is `%XX` of its UTF-8 bytes. There is one form for each source and the
parser takes no other. The field is worth as much as its sender: at acceptance it is always taken
out, and believed from the networks in `trust_source` only.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from relaygw.mail.content import SOURCE_FIELD
from relaygw.mail.envelope import Source
from relaygw.mail.words import printable

DENIED_FIELD = "X-Relaygw-Denied"  # where it cannot be taken out; as long, so nothing moves
MAX_TEXT_BYTES = 220  # what is told of one text, as it stands in the field; the rest is cut off
MAX_VALUE_BYTES = 960  # with the name within one line of RFC 5321
_MAX_UID = 2**32 - 1

_PLAIN = r"[!-~]"
_FORM = re.compile(
    r"v=1"
    rf"(?:; host=({_PLAIN}+))?"
    r"(?:; uid=([0-9]{1,10}))?"
    rf'(?:; user="({_PLAIN}*)")?'
    rf"(?:; client=({_PLAIN}+))?"
    rf'(?:; script="({_PLAIN}*)")?'
    r"(; archived)?"
)
_IN_WORD = "!$&*+-./:@_~()[],#"  # these and letters and digits stand for themselves
_IN_QUOTES = _IN_WORD + "'<=>?^`{|}"
_FOLD = re.compile(r"\r\n(?=[ \t])")
_LATE = re.compile(rb"(\n)" + SOURCE_FIELD.encode() + rb"(?=[ \t:\r])", re.IGNORECASE)


class ToldSource(NamedTuple):
    """What the field tells."""

    source: Source
    is_archived: bool  # by archive_to of who tells


def format_source(source: Source, *, is_archived: bool = False) -> bytes:
    """Return the field's value for `source`, one line of at most MAX_VALUE_BYTES."""
    parts = ["v=1"]
    if source.host:
        parts.append(f"host={_escaped(source.host, _IN_WORD)}")
    if source.uid is not None and 0 <= source.uid <= _MAX_UID:
        parts.append(f"uid={source.uid}")
    if source.user is not None:
        parts.append(f'user="{_escaped(source.user, _IN_QUOTES)}"')
    if source.client:
        parts.append(f"client={_escaped(source.client, _IN_WORD)}")
    if source.script is not None:
        parts.append(f'script="{_escaped(source.script, _IN_QUOTES)}"')
    if is_archived:
        parts.append("archived")
    return "; ".join(parts).encode("ascii")


def source_line(source: Source, *, is_archived: bool = False) -> bytes:
    """Return the whole field with its line end."""
    value = format_source(source, is_archived=is_archived)
    return b"%s: %s\r\n" % (SOURCE_FIELD.encode(), value)


def parse_source(raw: bytes) -> ToldSource | None:
    """Read what stands behind the colon; None for all that `format_source` does not write."""
    if len(raw) > MAX_VALUE_BYTES or not raw.isascii():
        return None
    value = _FOLD.sub("", raw.decode("ascii")).strip(" \t")
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    host, uid, user, client, script, archived = found.groups()
    try:
        source = Source(
            host=_unescaped(host),
            uid=None if uid is None else int(uid),
            user=_unescaped(user),
            client=_unescaped(client),
            script=_unescaped(script),
        )
    except UnicodeDecodeError:
        return None
    told = ToldSource(source, archived is not None)
    is_same = format_source(source, is_archived=told.is_archived).decode("ascii") == value
    return told if is_same else None


def rename_late(block: bytes) -> bytes:
    """Return part of a header, this field renamed; at its start that is for the part before."""
    return _LATE.sub(rb"\1" + DENIED_FIELD.encode(), block)


def _escaped(text: str, plain: str) -> str:
    """Return `text` in ASCII, cut at a whole character."""
    shown = printable(text[:MAX_TEXT_BYTES])
    escaped = quote(shown, safe=plain)
    while len(escaped) > MAX_TEXT_BYTES:
        shown = shown[: -max(1, (len(escaped) - MAX_TEXT_BYTES) // 12)]
        escaped = quote(shown, safe=plain)
    return escaped


def _unescaped(text: str | None) -> str | None:
    return None if text is None else unquote(text, errors="strict")
