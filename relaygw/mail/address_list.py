"""Address lists as they stand in To, Cc and Bcc fields (RFC 5322 section 3.4, RFC 2047).

Reads what real programs write: comments, groups, routes, commas in quoted names and in encoded
words, a missing comma. An address is never invented: what is not surely one is left out, and the
caller learns that the value was not clean.
"""

from __future__ import annotations

MAX_ADDRESS_BYTES = 1000

_Token = tuple[str, bytes]
# kinds of tokens; a separator is its own kind
_ATOM, _QUOTED, _LITERAL, _SPACE, _BROKEN = "atom", "quoted", "literal", "space", "broken"
_SEPARATORS = b"<>,:;@"
_BLANKS = b" \t\r\n"
_ATOM_ENDS = _SEPARATORS + _BLANKS + b'("['
_CONTROLS = bytes(range(0x20)) + b"\x7f"


def read_addresses(value: bytes) -> tuple[list[bytes], bool]:
    """Return the addresses in `value`, in order, and whether all of it could be read."""
    reader = _ListReader()
    for token in _tokens(value):
        reader.take(token)
    reader.end()
    return reader.addresses, reader.is_clean


class _ListReader:
    """Takes the tokens of one list."""

    def __init__(self) -> None:
        self.addresses: list[bytes] = []
        self.is_clean = True
        self._phrase: list[_Token] = []  # outside of <>
        self._angle: list[_Token] | None = None  # inside
        self._has_angle = False  # this mailbox had its <address>

    def take(self, token: _Token) -> None:
        kind = token[0]
        if kind == _BROKEN:
            self.is_clean = False
            self._phrase.append(token)
            self._angle = None  # who knows where it was to end
        elif self._angle is not None:
            self._take_inside(token)
        elif kind == "<":
            self._open_angle()
        elif kind in (",", ";"):
            self._end_mailbox()
        elif kind == ":":  # so far it was the name of a group
            self._phrase = []
        elif kind == ">":
            self.is_clean = False
            self._phrase.append((_BROKEN, b">"))
        else:
            self._phrase.append(token)

    def end(self) -> None:
        if self._angle is not None:
            self.is_clean = False
            self._close_angle()
        self._end_mailbox()

    def _take_inside(self, token: _Token) -> None:
        assert self._angle is not None
        kind = token[0]
        has_route = bool(self._angle) and self._angle[0][0] == "@"
        if kind == ">":
            self._close_angle()
        elif kind == ":" and has_route:
            self._angle = []
        elif kind in (",", ";", "<") and not has_route:
            self.is_clean = False
            self._close_angle()
            self.take(token)
        elif kind != _SPACE or self._angle:
            self._angle.append(token)

    def _open_angle(self) -> None:
        if self._has_angle:  # a comma is missing
            self.is_clean = False
        self._phrase = []
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
        phrase, self._phrase = self._phrase, []
        has_angle, self._has_angle = self._has_angle, False
        has_words = any(kind != _SPACE for kind, _ in phrase)
        if not has_words:
            return
        if has_angle:
            self.is_clean = False  # text behind <address>
            return
        address = _join(phrase)
        if address is not None:
            self.addresses.append(address)
            return
        self.is_clean = False
        for words in _split_apart(phrase):
            address = _join(words)
            if address is not None and b"@" in address:
                self.addresses.append(address)


def _split_apart(tokens: list[_Token]) -> list[list[_Token]]:
    parts: list[list[_Token]] = [[]]
    for token in tokens:
        if token[0] in (_SPACE, _BROKEN):
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _join(tokens: list[_Token]) -> bytes | None:
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


def _tokens(value: bytes) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(value):
        kind, end = _next_token(value, at)
        tokens.append((kind, value[at:end]))
        at = end
    return tokens


def _next_token(value: bytes, at: int) -> tuple[str, int]:
    """Return the kind of the token at `at` and where it ends."""
    byte = value[at]
    if byte in _BLANKS:
        return _SPACE, at + 1
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
    return (kind, end) if end else (_BROKEN, len(value))


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
