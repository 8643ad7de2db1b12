"""Address lists as they stand in To, Cc and Bcc fields (RFC 5322 section 3.4, RFC 2047).

Reads what real programs write: comments, groups, routes, commas in quoted names and in encoded
words, a missing comma. An address is never invented: what is not surely one is left out, and the
caller learns that the value was not clean.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_ADDRESS_BYTES = 1000

_Token = tuple[str, bytes]
# kinds of tokens; a separator is its own kind, a comment is space
_ATOM, _QUOTED, _LITERAL, _SPACE = "atom", "quoted", "literal", "space"
BROKEN = "broken"
"""The kind of a token that has no end: a quoted string, a comment or a literal."""
_SEPARATORS = b"<>,:;@"
_BLANKS = b" \t\r\n"
_ATOM_ENDS = _SEPARATORS + _BLANKS + b'("['
_CONTROLS = bytes(range(0x20)) + b"\x7f"
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~."


def read_addresses(value: bytes) -> tuple[list[bytes], bool]:
    """Return the addresses in `value`, in order, and whether all of it could be read."""
    if (plain := _plain_addresses(value)) is not None:
        return plain, True
    reader = _ListReader(value)
    at = 0
    while at < len(value):
        kind, end = _next_token(value, at)
        reader.take(kind, at, end)
        at = end
    reader.end()
    return reader.addresses, reader.is_clean


def _plain_addresses(value: bytes) -> list[bytes] | None:
    """Return the addresses of a list of nothing else, None if there is more in it.

    Most are such lists, and one of millions must not take a step of this program for each letter.
    """
    words = [word.strip(_BLANKS) for word in value.split(b",")]
    joined = b",%b," % b",".join(words)
    signs = joined.translate(None, _PLAIN)
    is_plain = (
        not signs.translate(None, b"@,")
        and b"@@" not in signs
        and not any(sign in joined for sign in (b",@", b"@,", b",-", b"=?"))
        and len(max(words, key=len)) <= MAX_ADDRESS_BYTES
    )
    return list(filter(None, words)) if is_plain else None


class _ListReader:
    """Takes the tokens of one list; of what is outside of <> it knows where it is, no more."""

    def __init__(self, value: bytes) -> None:
        self.addresses: list[bytes] = []
        self.is_clean = True
        self._value = value
        self._phrase: tuple[int, int] | None = None  # outside of <>
        self._angle: list[_Token] | None = None  # inside
        self._has_angle = False  # this mailbox had its <address>

    def take(self, kind: str, at: int, end: int) -> None:
        if kind == BROKEN:
            self.is_clean = False
            self._angle = None  # who knows where it was to end
        if self._angle is not None:
            self._take_inside(self._angle, kind, at, end)
        elif kind == "<":
            self._open_angle()
        elif kind in (",", ";"):
            self._end_mailbox()
        elif kind == ":":  # so far it was the name of a group
            self._phrase = None
        else:
            self.is_clean = self.is_clean and kind != ">"
            self._phrase = (at if self._phrase is None else self._phrase[0], end)

    def end(self) -> None:
        if self._angle is not None:
            self.is_clean = False
            self._close_angle()
        self._end_mailbox()

    def _take_inside(self, angle: list[_Token], kind: str, at: int, end: int) -> None:
        has_route = bool(angle) and angle[0][0] == "@"
        if kind == ">":
            self._close_angle()
        elif kind == ":" and has_route:
            self._angle = []
        elif kind in (",", ";", "<") and not has_route:
            self.is_clean = False
            self._close_angle()
            self.take(kind, at, end)
        elif (kind != _SPACE or angle) and len(angle) <= 2 * MAX_ADDRESS_BYTES:
            angle.append((kind, self._value[at:end]))

    def _open_angle(self) -> None:
        if self._has_angle:  # a comma is missing
            self.is_clean = False
        self._phrase = None
        self._angle = []

    def _close_angle(self) -> None:
        address = _join(self._angle or [])
        self._angle = None
        self._has_angle = True
        if address is None:
            self.is_clean = False
        else:
            self.addresses.append(address)

    def _end_mailbox(self) -> None:
        phrase, self._phrase = self._phrase or (0, 0), None
        has_angle, self._has_angle = self._has_angle, False
        has_words = any(kind != _SPACE for kind, _ in read_tokens(self._value, *phrase))
        if not has_words:
            return
        if has_angle:
            self.is_clean = False  # text behind <address>
            return
        address = _join(read_tokens(self._value, *phrase))
        if address is not None:
            self.addresses.append(address)
            return
        self.is_clean = False
        for words in _split_apart(read_tokens(self._value, *phrase)):
            address = _join(words)
            if address is not None and b"@" in address:
                self.addresses.append(address)


def _split_apart(tokens: Iterable[_Token]) -> Iterator[list[_Token]]:
    words: list[_Token] = []
    for token in tokens:
        if token[0] in (_SPACE, BROKEN, ">"):
            yield words
            words = []
        elif len(words) <= MAX_ADDRESS_BYTES:  # more are no address any more
            words.append(token)
    yield words


def _join(tokens: Iterable[_Token]) -> bytes | None:
    """Return the address that the tokens spell, None if they spell none for sure."""
    text = b""
    kinds: list[str] = []
    must_link = False  # a blank or a quoted string: only `.` or `@` may join what follows
    for kind, part in tokens:
        if kind == _SPACE:
            must_link = bool(text)
            continue
        is_linked = text[-1:] in b".@" or part[:1] in b".@"
        if text and (must_link or kind == _QUOTED) and not is_linked:
            return None
        must_link = kind == _QUOTED
        text += part
        if len(text) > MAX_ADDRESS_BYTES:
            return None
        kinds.append(kind)
    return text if _is_address(text, kinds) else None


def _is_address(text: bytes, kinds: list[str]) -> bool:
    if not _is_sound(text):
        return False
    if "@" not in kinds:
        return kinds == [_ATOM]  # a bare name; a quoted one is rather a person's
    at = kinds.index("@")
    local, domain = kinds[:at], kinds[at + 1 :]
    if not local or not domain or not {_ATOM, _QUOTED}.issuperset(local):
        return False
    return domain == [_LITERAL] or {_ATOM}.issuperset(domain)


def _is_sound(text: bytes) -> bool:
    """True unless some program down the line could read it as something else."""
    if not text or text[:1] == b"-":
        return False
    if len(text.translate(None, _CONTROLS)) != len(text):
        return False
    if text[:1] != b'"' and (b"\\" in text or b"=?" in text):
        return False
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_tokens(value: bytes, at: int = 0, last: int | None = None) -> Iterator[_Token]:
    """Yield kind and text of the tokens in `value`, which are all of it."""
    last = len(value) if last is None else last
    while at < last:
        kind, end = _next_token(value, at)
        yield kind, value[at:end]
        at = end


def _next_token(value: bytes, at: int) -> tuple[str, int]:
    """Return the kind of the token at `at` and where it ends."""
    byte = value[at]
    if byte in _BLANKS:
        end = at + 1
        while end < len(value) and value[end] in _BLANKS:
            end += 1
        return _SPACE, end
    if byte in _SEPARATORS:
        return chr(byte), at + 1
    if byte == 0x28:
        return _closed(_SPACE, value, _comment_end(value, at))
    if byte == 0x22:
        return _closed(_QUOTED, value, _end_behind(value, at + 1, 0x22))
    if byte == 0x5B:
        return _closed(_LITERAL, value, _end_behind(value, at + 1, 0x5D))
    if value.startswith(b"=?", at):
        end = _encoded_word_end(value, at)
        if end:
            return _ATOM, end
    end = at + 1
    while end < len(value) and value[end] not in _ATOM_ENDS:
        end += 1
    return _ATOM, end


def _closed(kind: str, value: bytes, end: int) -> tuple[str, int]:
    return (kind, end) if end else (BROKEN, len(value))


def _end_behind(value: bytes, at: int, closing: int) -> int:
    """Return where the quoted string or literal is over, 0 if it never is."""
    while at < len(value):
        if value[at] == closing:
            return at + 1
        at += 2 if value[at] == 0x5C else 1
    return 0


def _comment_end(value: bytes, at: int) -> int:
    depth = 0
    while at < len(value):
        byte = value[at]
        if byte == 0x5C:
            at += 1
        elif byte == 0x28:
            depth += 1
        elif byte == 0x29:
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return 0


def _encoded_word_end(value: bytes, at: int) -> int:
    """Return where `=?charset?B or Q?text?=` is over, 0 if it is no encoded word."""
    charset_end = value.find(b"?", at + 2)
    text_start = charset_end + 3
    if charset_end < 0 or value[charset_end + 1 : text_start].lower() not in (b"b?", b"q?"):
        return 0
    text_end = value.find(b"?", text_start)
    return text_end + 2 if text_end >= 0 and value[text_end + 1 : text_end + 2] == b"=" else 0
