"""Storms: which mail is the same, when it is too much, and what is told of it. Pure."""

from __future__ import annotations

import re
import struct
from binascii import Error, a2b_base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

from relaygw.mail.content import header_fields
from relaygw.mail.mime_tree import ID_FIELD, read_tree
from relaygw.mail.words import counted
from relaygw.settings.section import format_duration
from relaygw.settings.storms import Storms

SLICES = 6
"""The window moves in so many steps."""
SAME_ID_MS = 600_000  # two messages with one Message-ID within this time are told of
MOST_TOLD = 20  # hosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """The same mail to one recipient, more than once within a window; as all fronts counted it."""

    messages: int
    held: int  # of them
    same_ids: int  # of them: they had the Message-ID of the one before
    host: str  # where the last one came from, see mail.mail_class
    script: str
    template: str
    recipient_domain: str
    first_id: str
    last_id: str
    first_ms: int


class Told(NamedTuple):
    """What an alert tells of the storms of a host."""

    key: str
    summary: str
    remedy: str
    since_ms: int


def slice_ms(window_s: float) -> int:
    """Return the length of a step of the window."""
    return max(1, int(window_s * 1000) // SLICES)


def reason_of(storms: Storms) -> str:
    """Return why mail of a storm is held, as the end of a sentence."""
    times = counted(storms.same, "time")
    return f"the same mail went to the same recipient more than {times} within {_window(storms)}"


def told_of(found: Iterable[Storm], storms: Storms) -> Iterator[Told]:
    """Yield what is told of storms, the largest of each host; and of Message-IDs used twice."""
    largest: dict[str, Told] = {}
    for storm in sorted(found, key=lambda storm: (-storm.messages, storm.first_id)):
        is_storm = storm.messages > storms.same
        if not is_storm and not storm.same_ids:
            continue
        key = storm.host if is_storm else f"{storm.host} Message-ID"
        if key not in largest and storm.host not in largest and len(largest) < MOST_TOLD:
            largest[key] = Told(key, *_words(storm, storms, is_storm=is_storm), storm.first_ms)
    yield from largest.values()


def _words(storm: Storm, storms: Storms, *, is_storm: bool) -> tuple[str, str]:
    script = f", script {storm.script}" if storm.script else ""
    what = (
        f"{storm.template!r} from {storm.host}{script} to a recipient at {storm.recipient_domain}"
    )
    if not is_storm:
        return (
            f"a Message-ID came again within minutes: {what} ({storm.first_id} and "
            f"{storm.last_id})",
            f"relaygw queue explain {storm.last_id} shows it; the client sent one mail twice, or "
            "gives several the same id. duplicates: once accepts exact copies once",
        )
    held = f", {storm.held} of them held" if storm.held else ""
    then = "storms.action: hold stops exact copies"
    if storms.action == "hold":
        then = (
            "none is held: they differ in links or codes, have more than 1 MiB, or came to "
            "several gateways at once"
        )
    if storm.held:
        then = "relaygw queue list --reason storm shows what is held, release or delete it"
    return (
        f"the same mail came {counted(storm.messages, 'time')} within {_window(storms)}{held}: "
        f"{what} (first {storm.first_id}, last {storm.last_id})",
        f"relaygw queue explain {storm.last_id} shows it; stop the program that sends it; {then}",
    )


def _window(storms: Storms) -> str:
    return format_duration(storms.window)


# --- what copies have in common ---------------------------------------------------------
# What two copies of a mail have in common: their content without what differs in each.
#
# Left out of both fingerprints are all fields but those that people read (so Message-ID, Date,
# Received and signatures), MIME boundaries, Content-IDs, and blanks at the end; all else of the
# content counts in `exact`. Of mail that is `alike` tokens are left out, too: in links, and
# hexadecimal words such as UUIDs. Numbers stay. Time grows with the size alone.


TOKEN_BYTES = 65_536
"""Of larger text, what stands behind this counts byte by byte, and so does a larger field."""
_READ = ("subject", "from", "to", "cc", "reply-to")
_BASE64 = re.compile(
    rb"(?:^[A-Za-z0-9+/]{40,1000}={0,2}(?:\r\n|\Z))+(?:[A-Za-z0-9+/]{1,1000}={0,2}(?:\r\n|\Z))?",
    re.M,
)
_LINK = re.compile(rb"(https?://[^\s\"'<>]+)")
# a word of letters and digits, or a very long one; words of digits alone are numbers
_TOKEN_OF_LINK = re.compile(
    rb"(?<![A-Za-z0-9_-])(?:(?=[A-Za-z_-]*+[0-9])(?![0-9]{8,31}(?![A-Za-z0-9_-]))[A-Za-z0-9_-]{8,}"
    rb"|[A-Za-z0-9_-]{32,})"
)
_MAX_PARTS = 100
_PART_NAME_BYTES = range(8, 201)
_MAX_NAMES = 10  # of a kind
_HEX_SIGNS = b"0123456789ABCDEFabcdef-"
_SIGNS = bytes(ord("x" if byte in _HEX_SIGNS else " ") for byte in range(256))
_LONG_HEX = b"x" * 16
_OPENING_BYTES = 8192
_OPENING_WORDS = 160
_SHORTEST_NAME = 8  # of tokens and names, in bytes; no sign in them ends a word
_WORDS = bytes(ord(" ") if byte in b"\t\r\n<>" else byte for byte in range(256))


class Fingerprint(NamedTuple):
    """16 bytes each, the same of the same mail; `alike` is `exact` where there are no tokens."""

    alike: bytes
    exact: bytes


def fingerprint(content: bytes, header_bytes: int) -> Fingerprint:
    """Return the fingerprints of normalised content."""
    known = blake2b(digest_size=16)
    for field in header_fields(content, 0, header_bytes, names=_READ):
        value = content[field.value_start : field.value_end]
        words = b" ".join(value.split()) if len(value) <= TOKEN_BYTES else value
        known.update(b"%b:%b\n" % (field.name.lower(), words))
    small = content.lower()
    body = content[header_bytes:]
    for name in _part_names(content):
        body = body.replace(name, b"")
    body = body.rstrip()
    text, rest = body[:TOKEN_BYTES], body[TOKEN_BYTES:]
    is_base64 = b"e64" in small and b"base64" in small
    decoded = _readable(_BASE64.sub(_decoded, text) if is_base64 else text)
    bare = _without_tokens(decoded)
    alike = known.copy()
    known.update(text)
    known.update(rest)
    exact = known.digest()
    if bare == decoded and decoded == text:
        return Fingerprint(exact, exact)
    alike.update(b"alike\0")  # never that of an exact one, whatever somebody writes
    alike.update(bare)
    alike.update(rest)
    return Fingerprint(alike.digest(), exact)


def opening(content: bytes, header_bytes: int) -> int | None:
    """Return a hash of how the text begins, the same of the same mail; None where it tells nothing.

    It is of the first words that are too short for what differs in each copy.
    """
    # what stands in front of it is of a template
    start = max(header_bytes, content.find(b"<body", header_bytes, header_bytes + TOKEN_BYTES // 4))
    text = _readable(content[start : start + _OPENING_BYTES])
    words = text.translate(_WORDS).split(None, 2 * _OPENING_WORDS)[:-1]  # the last may be cut
    short = [word for word in words if len(word) < _SHORTEST_NAME][:_OPENING_WORDS]
    is_base64 = b"base64" in text.lower()  # words of that are none
    return None if is_base64 or len(short) < _OPENING_WORDS else hash(tuple(short))


def _part_names(content: bytes) -> Iterator[bytes]:
    """Yield boundaries, then Content-IDs, which differ in each copy; the longest first."""
    tree = read_tree(content, max_parts=_MAX_PARTS, with_messages=True)
    parts = (tree.root, *tree.parts) if tree.parts else ()
    ids = (part.field_value(ID_FIELD).strip(b"<> ") for part in parts)
    for names in ((part.boundary for part in parts), ids):
        several = dict.fromkeys(name for name in names if len(name) in _PART_NAME_BYTES)
        yield from sorted(islice(several, _MAX_NAMES), key=len, reverse=True)


def _readable(text: bytes) -> bytes:
    if b"=\r\n" in text or b"=3D" in text:  # quoted-printable: lines break elsewhere in each
        text = text.replace(b"=\r\n", b"").replace(b"=3D", b"=")
    return text


def _without_tokens(text: bytes) -> bytes:
    if b"://" in text:
        pieces = _LINK.split(text)  # each second one is a link, and no link has a line end
        if len(pieces) > 1:
            links = _TOKEN_OF_LINK.sub(b"*", b"\n".join(pieces[1::2]))
            pieces[1::2] = links.split(b"\n")
            text = b"".join(pieces)
    return _without_hex(text).rstrip()


def _without_hex(text: bytes) -> bytes:
    """Return text without hexadecimal words; numbers stay. Quicker than a pattern by far."""
    signs = text.translate(_SIGNS)
    kept, end = [], 0
    while (start := signs.find(_LONG_HEX, end)) >= 0:
        kept.append(text[end:start])
        end = signs.find(b" ", start) % (len(signs) + 1)  # -1: at its end
        word = text[start:end].replace(b"-", b"")
        kept.append(b"*" if len(word) >= 16 and not word.isdigit() else text[start:end])
    return b"".join([*kept, text[end:]]) if kept else text


def _decoded(found: re.Match[bytes]) -> bytes:
    try:
        return a2b_base64(found[0])
    except Error:
        return found[0]


_NUMBERS = struct.Struct("<qqqB")  # its time, two hashes, flags; its queue id follows


# --- what a front remembers; tens of thousands are kept, so packed -------------------------


class Seen(NamedTuple):
    """The last mail with a key."""

    queue_id: str
    at_ms: int
    message_id: int  # its hash
    text: int | None  # its hash, of short text and who it is from
    is_counted: bool = False

    def packed(self) -> bytes:
        """Return it as it is remembered: one object instead of five."""
        flags = (self.text is not None) | self.is_counted << 1
        numbers = _NUMBERS.pack(self.at_ms, self.message_id, self.text or 0, flags)
        return numbers + self.queue_id.encode()

    @classmethod
    def of(cls, packed: bytes) -> Seen:
        """Return an entry from its packed form."""
        at_ms, message_id, text, flags = _NUMBERS.unpack_from(packed)
        queue_id = packed[_NUMBERS.size :].decode()
        return cls(queue_id, at_ms, message_id, text if flags & 1 else None, flags > 1)
