"""Header fields with 8-bit bytes said in ASCII: what people read stays the same.

Text, and the display names and comments of addresses, become encoded words (RFC 2047), parameters
the extended form of RFC 2231. Of a structured field only comments can be encoded: ContentInvalid.
Each byte is read a bounded number of times, and only space, tab and a folded line part words, so
that no other control character becomes a line end.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from typing import NamedTuple

from relaygw.errors import ContentInvalid
from relaygw.mail.content import HeaderField
from relaygw.upstream.mime_parts import BLANKS, Parameter, read_parameters

_MAX_PARAMETERS = 1000
_MAX_TOKENS = 10_000  # of a Received field
_ADDRESS_FIELD = re.compile(
    r"(?:resent-)?(?:from|sender|reply-to|to|cc|bcc)|apparently-to|disposition-notification-to"
    r"|errors-to|mail-(?:followup|reply)-to|return-receipt-to"
    r"|list-id"  # a phrase and an identifier in angle brackets: the same rules (RFC 2919)
)
_STRUCTURED_FIELD = re.compile(
    r"arc-(?:authentication-results|message-signature|seal)|archived-at|authentication-results"
    r"|auto-submitted|autocrypt|bimi-selector|(?:dkim|domainkey)-signature|mime-version"
    r"|content-(?:base|id|language|location|md5|transfer-encoding)|delivered-to|return-path"
    r"|list-(?:archive|help|owner|post|subscribe|unsubscribe(?:-post)?)|received(?:-spf)?"
    r"|in-reply-to|references|(?:resent-)?(?:date|message-id)|original-message-id"
)
_ASCII_SUPERSETS = re.compile(  # Python's names
    r"utf-8|cp125[0-8]|cp866|cp932|cp949|cp950|iso8859-\d{1,2}|koi8-[ru]|mac-roman|gb2312|gbk|gb18030"
    r"|big5|big5hkscs|euc_jp|euc_kr|shift_jis"
)
_LINE_BYTES = 76  # RFC 2047 section 2: a line with an encoded word is no longer
_WORD_BYTES = 45  # of text in one encoded word: 60 in base64
_SHORTEST_WORD_BYTES = 6  # more than a character
_WORD_MARKS = len("=?utf-8?b??=")
_PARAMETER_BYTES = 18  # 54 in the extended form, so that a piece has a line of its own

# an encoded word as readers take it: white space may be missing around it and stand in it
_ENCODED_WORD = re.compile(rb"=\?[!->@-~]+\?(?:[bB]\?[ !->@-~]*+|[qQ]\?[^?\t\r\n]*+)\?=")
# words with 8-bit bytes, with the white space between them
_RUN = re.compile(
    rb"(?<![^ \t\r\n])[^ \t\r\n\x80-\xff]*+[\x80-\xff][^ \t\r\n]*+"
    rb"(?:[ \t\r\n]++[^ \t\r\n\x80-\xff]*+[\x80-\xff][^ \t\r\n]*+)*+"
)
_TOKEN = re.compile(
    rb'(?P<quoted>"(?:[^"\\]|\\.)*+"?)'
    rb'|(?P<angle><(?:[^<>"]|"(?:[^"\\]|\\.)*+")*+>?)'
    rb"|(?P<encoded>=\?[!->@-~]+\?[bBqQ]\?[!->@-~]*+\?=)"
    rb"|(?P<space>[ \t\r\n]++)"
    rb"|(?P<literal>\[[^\[\]]*+\]?)"
    rb"|(?P<special>[(),:;])"
    rb'|(?P<atom>(?:[^"<()\[,:; \t\r\n\\=]|=(?!\?[!->@-~]+\?[bBqQ]\?)|\\.)++|.)',
    re.DOTALL,
)
_PHRASE_PIECE = re.compile("w(?:s?w)*|.")  # in the marks of tokens
_COMMENT_SPECIAL = re.compile(rb"(?:\\.|[^()\\])++|[()\\]", re.DOTALL)
_BACKSLASHED = re.compile(rb"\\(.)", re.DOTALL)
_BLANK = re.compile(rb"[ \t\r\n]*+")
_EIGHT_BIT = re.compile(rb"[\x80-\xff]")
_ATTRIBUTE = re.compile(rb"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+")
_NOT_PLAIN = re.compile(rb"[^!#$&+.0-9A-Z^_`a-z{|}~-]")  # RFC 2231 attribute-char


def convert_field(content: bytes, found: HeaderField, declared: str) -> bytes:
    """Return a whole field with its line end in ASCII; ContentInvalid if that cannot be.

    It is taken for UTF-8 if it can be, else for the charset `declared`, else for Windows-1252.
    """
    raw = content[found.value_start : found.value_end]
    writer = _Writer(content[found.start : found.value_start])
    kind = found.name.decode("ascii").lower()
    try:
        if kind in ("content-type", "content-disposition"):
            _write_parameters(writer, _as_utf8(_repaired_parameters(raw), declared))
        elif _ADDRESS_FIELD.fullmatch(kind):
            _write_addresses(writer, _as_utf8(raw, declared))
        elif _STRUCTURED_FIELD.fullmatch(kind):
            tokens = _tokens(_as_utf8(raw, declared))
            _write_structured(writer, _without_audience(tokens) if kind == "received" else tokens)
        else:
            _write_text(writer, _as_utf8(_ENCODED_WORD.sub(_repaired_word, raw), declared))
    except ContentInvalid as error:
        shown = found.name.decode("ascii")[:60]
        raise ContentInvalid(f"its field {shown} {error}") from None
    return bytes(writer.text + content[found.value_end : found.end])


def _as_utf8(value: bytes, declared: str) -> bytes:
    for charset in ("utf-8", declared, "cp1252"):
        try:
            name = codecs.lookup(charset).name
            if _ASCII_SUPERSETS.fullmatch(name):
                return value.decode(name).encode("utf-8")
        except (LookupError, ValueError):
            continue
    return value.decode("latin-1").encode("utf-8")


class _Writer:
    def __init__(self, prefix: bytes) -> None:
        self.text = bytearray(prefix)  # many parts would take many times its size
        self._column = len(prefix)
        self._is_blank = True  # nothing but the name stands on the line

    def add(self, text: bytes) -> None:
        """Write ASCII text as it is."""
        if not text:
            return
        self.text += text
        line_end = text.rfind(b"\r\n")
        self._column = self._column + len(text) if line_end < 0 else len(text) - line_end - 2
        if not text.isspace():
            self._is_blank = False

    def add_words(self, space: bytes, text: bytes) -> None:
        """Write `space` (b"" in front of nothing) and `text` as encoded words, folded."""
        need = min(len(text), _WORD_BYTES) * 4 // 3 + 4 + _WORD_MARKS
        is_tight = self._column + len(space) + need > _LINE_BYTES
        if is_tight and space and not self._is_blank and b"\r\n" not in space:
            space = b"\r\n" + space
        self.add(space)
        room = _LINE_BYTES - self._column - _WORD_MARKS
        first = max(min(room // 4 * 3, _WORD_BYTES), _SHORTEST_WORD_BYTES)
        for number, piece in enumerate(_slices(text, first, _WORD_BYTES)):
            encoded = binascii.b2a_base64(piece, newline=False)
            self.add((b"\r\n " if number else b"") + b"=?utf-8?b?%b?=" % encoded)

    def add_on_line(self, text: bytes) -> None:
        """Write `text` on a new line if it does not fit on this one."""
        if self._column + 1 + len(text) > _LINE_BYTES and not self._is_blank:
            self.add(b"\r\n")
        self.add(b" " + text)


def _slices(text: bytes, first: int, most: int) -> Iterator[bytes]:
    """Yield UTF-8 in whole characters: at most `first` bytes, then at most `most` at a time."""
    start, end = 0, first
    while start < len(text):
        while end < len(text) and text[end] & 0xC0 == 0x80:
            end -= 1
        yield text[start:end]
        start, end = end, end + most


def _unfolded(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"")


def _in_hex(text: bytes, mark: bytes) -> bytes:
    """Return `text` with each 8-bit byte as `mark` and two hexadecimal digits."""
    return _EIGHT_BIT.sub(lambda byte: b"%b%02X" % (mark, ord(byte[0])), text)


# --- text


def _write_text(writer: _Writer, value: bytes) -> None:
    """Write unstructured text: encoded words that stand there stay, others are added."""
    body = value.lstrip(BLANKS)
    writer.add(value[: len(value) - len(body)] or b" ")
    end = 0
    follows = False  # an encoded word: white space behind it is lost to readers
    for match in _ENCODED_WORD.finditer(body):
        if match[0].isascii():
            _write_piece(writer, body[end : match.start()], follows=follows, leads=True)
            writer.add(match[0])
            end, follows = match.end(), True
    _write_piece(writer, body[end:], follows=follows, leads=False)


def _repaired_word(word: re.Match[bytes]) -> bytes:
    """Return an encoded word in ASCII; one in base64 cannot be repaired."""
    return _in_hex(word[0], b"=") if word[0].split(b"?", 3)[2] in b"qQ" else word[0]


def _write_piece(writer: _Writer, piece: bytes, *, follows: bool, leads: bool) -> None:
    """Write text between encoded words; `follows` and `leads` say on which sides there is one."""
    end = 0
    for match in _RUN.finditer(piece):
        text = _unfolded(match[0])
        before = piece[end : match.start()].rstrip(BLANKS)
        space = piece[end + len(before) : match.start()]
        if not end and follows and not before:  # between two encoded words
            text, space = _unfolded(space) + text, space or b" "
        else:
            writer.add(before)
        end = match.end()
        if leads and _BLANK.fullmatch(piece, end):
            rest = piece[end:]
            writer.add_words(space, text + _unfolded(rest))
            writer.add(rest or b" ")
            return
        writer.add_words(space, text)
    writer.add(piece[end:])


# --- addresses and other structured fields


class _Token(NamedTuple):
    kind: str
    raw: bytes

    @property
    def mark(self) -> str:
        """One letter of what it is to a phrase: `w` is a word with 8-bit bytes, `a` one without."""
        if self.kind in ("space", "encoded", "comment"):
            return self.kind[0]
        return "a" if self.raw.isascii() else "w"


def _tokens(value: bytes) -> Iterator[_Token]:
    """Yield the tokens of a structured field; a comment with all that is nested in it is one."""
    position = 0
    while position < len(value):
        match = _TOKEN.match(value, position)
        assert match is not None  # the last alternative takes any byte
        if match[0] == b"(":
            position = _comment_end(value, position)
            yield _Token("comment", value[match.start() : position])
        else:
            position = match.end()
            yield _Token(match.lastgroup or "atom", match[0])


def _comment_end(value: bytes, start: int) -> int:
    depth = 0
    for match in _COMMENT_SPECIAL.finditer(value, start):
        depth += {b"(": 1, b")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return len(value)


def _write_addresses(writer: _Writer, value: bytes) -> None:
    pending: list[_Token] = []
    for token in chain(_tokens(value), (_Token("special", b""),)):
        is_angle = token.kind == "angle"
        if not is_angle and not (token.kind == "special" and token.raw in b",:;"):
            pending.append(token)
            continue
        addresses = [token] if is_angle else []
        if not is_angle and token.raw != b":":  # an address without brackets, or text that is none
            words = [one for one in pending if one.kind not in ("comment", "space")]
            if any(b"@" in word.raw for word in words if word.kind == "atom"):
                addresses = words
        if not all(address.raw.isascii() for address in addresses):
            raise ContentInvalid("holds an address that is not ASCII")
        _write_phrase(writer, pending, precedes=is_angle)
        writer.add(token.raw)
        pending = []


def _write_phrase(writer: _Writer, tokens: list[_Token], *, precedes: bool) -> None:
    """Write words and comments; `precedes`: an address follows at once."""
    marks = "".join(token.mark for token in tokens)
    follows = False  # an encoded word was the last word
    space = b""
    for match in _PHRASE_PIECE.finditer(marks):
        start, end = match.span()
        mark, raw = marks[start], tokens[start].raw
        if mark == "s":
            writer.add(space)
            space = raw
        elif mark != "w":
            writer.add(space)
            write = _write_comment if mark == "c" else _Writer.add
            write(writer, raw)
            space, follows = b"", mark == "e"
        else:
            leads = marks[end : end + 2]
            text = b" ".join(_said(token) for token in tokens[start:end] if token.kind != "space")
            text = (b" " if follows and space else b"") + text + (b" " if leads == "se" else b"")
            writer.add_words(space or b" ", text)
            # nothing may touch an encoded word (RFC 2047 section 5)
            space = b" " if (leads[0] != "s" if leads else precedes) else b""
            follows = True
    writer.add(space)


def _said(token: _Token) -> bytes:
    if token.kind != "quoted":
        return token.raw
    return _BACKSLASHED.sub(rb"\1", _unfolded(token.raw[1:].removesuffix(b'"')))


def _write_comment(writer: _Writer, comment: bytes) -> None:
    for match in _COMMENT_SPECIAL.finditer(comment):
        piece = match[0]
        if piece.isascii():
            writer.add(piece)
        else:
            _write_piece(writer, _BACKSLASHED.sub(rb"\1", piece), follows=False, leads=False)


def _write_structured(writer: _Writer, tokens: Iterable[_Token]) -> None:
    for token in tokens:
        if token.kind == "comment":
            _write_comment(writer, token.raw)
        elif token.raw.isascii():
            writer.add(token.raw)
        else:
            raise ContentInvalid("holds 8-bit bytes and no text that could be encoded")


def _without_audience(all_tokens: Iterator[_Token]) -> list[_Token]:
    """Return a Received field without a recipient that is not ASCII (RFC 6857 section 3.2.1)."""
    tokens = list(islice(all_tokens, _MAX_TOKENS + 1))
    if len(tokens) > _MAX_TOKENS:
        raise ContentInvalid(f"has more than {_MAX_TOKENS} words and signs")
    words = [place for place, token in enumerate(tokens) if token.kind != "space"]
    for word, address in pairwise(words):
        if tokens[word].raw.lower() == b"for" and not tokens[address].raw.isascii():
            start = word - (word > 0 and tokens[word - 1].kind == "space")
            return tokens[:start] + tokens[address + 1 :]
    return tokens


# --- parameters


def _repaired_parameters(value: bytes) -> bytes:
    """Return a value in whose extended parameters (RFC 2231) no byte is left as it was."""
    parts, end = [], 0
    for name, _, start, stop in read_parameters(value):
        if name.endswith(b"*"):
            parts += [value[end:start], _in_hex(value[start:stop], b"%")]
            end = stop
    return b"".join([*parts, value[end:]])


def _write_parameters(writer: _Writer, value: bytes) -> None:
    parameters = list(islice(read_parameters(value), _MAX_PARAMETERS + 1))
    if len(parameters) > _MAX_PARAMETERS:
        raise ContentInvalid(f"has more than {_MAX_PARAMETERS} parameters")
    taken = {parameter.name for parameter in parameters}
    written = 0
    for parameter in parameters:
        raw = value[parameter.start : parameter.end]
        if raw.isascii():
            continue
        writer.add(value[written : parameter.start].rstrip(BLANKS))
        written = parameter.end
        _write_parameter(writer, parameter, raw[: len(parameter.name)], taken)
    writer.add(value[written:])


def _write_parameter(
    writer: _Writer, parameter: Parameter, shown: bytes, taken: set[bytes]
) -> None:
    """Write a parameter whose name is written as `shown`, next to those with the names `taken`."""
    name = parameter.name
    if name in (b"boundary", b"charset") or not _ATTRIBUTE.fullmatch(name):
        raise ContentInvalid("has a parameter that cannot be said in ASCII")
    if b"*" in name:
        raise ContentInvalid("has a parameter in pieces with 8-bit bytes")
    elif taken & {name + b"*", name + b"*0", name + b"*0*"}:
        # the old form beside the extended one: as old readers expect it
        writer.add_on_line(shown + b'="')
        writer.add_words(b"", parameter.value)
        writer.add(b'"')
    else:
        taken.add(name + b"*")
        _write_extended(writer, shown, parameter.value)


def _write_extended(writer: _Writer, name: bytes, text: bytes) -> None:
    """Write a parameter in the form of RFC 2231, in pieces when it is long."""
    pieces = [
        _NOT_PLAIN.sub(lambda found: b"%%%02X" % ord(found[0]), piece)
        for piece in _slices(text, _PARAMETER_BYTES, _PARAMETER_BYTES)
    ]
    pieces[0] = b"utf-8''" + pieces[0]
    whole = b"%b*=%b" % (name, b"".join(pieces))
    if len(whole) < _LINE_BYTES:
        writer.add_on_line(whole)
        return
    for number, piece in enumerate(pieces):
        more = b";" if number < len(pieces) - 1 else b""
        writer.add_on_line(b"%b*%d*=%b%b" % (name, number, piece, more))
