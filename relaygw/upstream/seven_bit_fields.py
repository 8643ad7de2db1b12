"""Header fields with 8-bit bytes said in ASCII: what people read stays the same.

Text (Subject, X-..., whatever is not listed here) and the display names and comments of addresses
become encoded words (RFC 2047), file names and other parameters the extended form of RFC 2231.
Only the words and parameters that hold 8-bit bytes are touched. Of a structured field only comments
can be encoded; the rest of it, and addresses, cannot be said in ASCII: ContentInvalid. Each byte
is read a bounded number of times, and only space, tab and a folded line part words, so that no
other control character becomes a line end.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

from relaygw.errors import ContentInvalid

MAX_PARAMETERS = 1000
_PARAMETER_FIELDS = frozenset(("content-type", "content-disposition"))
_ADDRESS_FIELDS = frozenset(
    (
        *(
            prefix + name
            for prefix in ("", "resent-")
            for name in ("from", "sender", "reply-to", "to", "cc", "bcc")
        ),
        "apparently-to",
        "disposition-notification-to",
        "errors-to",
        "list-id",  # a phrase and an identifier in angle brackets: the same rules (RFC 2919)
        "mail-followup-to",
        "mail-reply-to",
        "return-receipt-to",
    )
)
_STRUCTURED_FIELDS = frozenset(
    (
        "arc-authentication-results",
        "arc-message-signature",
        "arc-seal",
        "archived-at",
        "authentication-results",
        "auto-submitted",
        "autocrypt",
        "bimi-selector",
        "content-base",
        "content-id",
        "content-language",
        "content-location",
        "content-md5",
        "content-transfer-encoding",
        "date",
        "delivered-to",
        "dkim-signature",
        "domainkey-signature",
        "in-reply-to",
        "list-archive",
        "list-help",
        "list-owner",
        "list-post",
        "list-subscribe",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "message-id",
        "mime-version",
        "original-message-id",
        "received",
        "received-spf",
        "references",
        "resent-date",
        "resent-message-id",
        "return-path",
    )
)
_ASCII_SUPERSETS = re.compile(  # Python's names
    r"cp125[0-8]|cp866|cp932|cp949|cp950|iso8859-\d{1,2}|koi8-[ru]|mac-roman|gb2312|gbk|gb18030"
    r"|big5|big5hkscs|euc_jp|euc_kr|shift_jis"
)
_LINE_BYTES = 76  # RFC 2047 section 2: a line with an encoded word is no longer
_WORD_BYTES = 45  # of text in one encoded word: 60 in base64
_SHORTEST_WORD_BYTES = 6  # more than a character
_WORD_MARKS = len("=?utf-8?b??=")
_PARAMETER_BYTES = 18  # 54 in the extended form, so that a piece has a line of its own

# an encoded word as readers take it: white space may be missing around it and stand in it
_ENCODED_WORD = re.compile(
    rb"=\?[!->@-~]+\?(?:[bB]\?[ !->@-~]*+|[qQ]\?[^?\t\r\n]*+)\?=",
)
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
_COMMENT_SPECIAL = re.compile(rb"(?:\\.|[^()\\])++|[()\\]", re.DOTALL)
_BACKSLASHED = re.compile(rb"\\(.)", re.DOTALL)
_SEGMENT = re.compile(rb'(?:[^;"]++|"(?:[^"\\]|\\.)*+"?)*+', re.DOTALL)
_BLANK = re.compile(rb"[ \t\r\n]*+")
_EIGHT_BIT = re.compile(rb"[\x80-\xff]")
_ATTRIBUTE = re.compile(rb"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+")
_NOT_PLAIN = re.compile(rb"[^!#$&+.0-9A-Z^_`a-z{|}~-]")  # RFC 2231 attribute-char


class Parameter(NamedTuple):
    """One parameter of a Content-Type or Content-Disposition, as offsets into the value."""

    name: bytes  # in lower case, with the marks of RFC 2231
    value: bytes  # without quotes and folding
    start: int  # of the name
    end: int  # of the value; blanks follow


def convert_field(field: bytes, *, name: bytes, value_at: int, declared: str) -> bytes:
    """Return a whole field with its line end in ASCII; ContentInvalid if that cannot be.

    The value begins at `value_at`. Its bytes are taken for UTF-8 if they can be, else for the
    charset `declared` by the message ("": none), else for what Windows writes in the west.
    """
    raw = field[value_at:].removesuffix(b"\r\n")
    line_end = field[value_at + len(raw) :]
    writer = _Writer(field[:value_at])
    kind = name.decode("ascii").lower()
    try:
        if kind in _PARAMETER_FIELDS:
            _write_parameters(writer, _as_utf8(_repaired_parameters(raw), declared))
        elif kind in _ADDRESS_FIELDS:
            _write_addresses(writer, _as_utf8(raw, declared))
        elif kind in _STRUCTURED_FIELDS:
            _write_structured(writer, _as_utf8(raw, declared), is_trace=kind == "received")
        else:
            _write_text(writer, _as_utf8(_ENCODED_WORD.sub(_repaired_word, raw), declared))
    except ContentInvalid as error:
        shown = name.decode("ascii")[:60]
        raise ContentInvalid(f"its field {shown} {error}") from None
    return writer.whole() + line_end


def _as_utf8(value: bytes, declared: str) -> bytes:
    for charset in ("utf-8", declared, "cp1252"):
        try:
            name = codecs.lookup(charset).name
            if name in ("utf-8", "cp1252") or _ASCII_SUPERSETS.fullmatch(name):
                return value.decode(name).encode("utf-8")
        except (LookupError, ValueError):
            continue
    return value.decode("latin-1").encode("utf-8")


class _Writer:
    """A field as it grows, which knows how full its last line is."""

    def __init__(self, prefix: bytes) -> None:
        self._parts = [prefix]
        self._column = len(prefix)
        self._is_blank = True  # nothing but the name stands on the line

    def whole(self) -> bytes:
        return b"".join(self._parts)

    def add(self, text: bytes) -> None:
        """Write ASCII text as it is."""
        if not text:
            return
        self._parts.append(text)
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
        start, room = 0, _LINE_BYTES - self._column - _WORD_MARKS
        while start < len(text):
            most = max(min(room // 4 * 3, _WORD_BYTES), _SHORTEST_WORD_BYTES)
            end = _character_end(text, start, most)
            encoded = binascii.b2a_base64(text[start:end], newline=False)
            self.add((b"\r\n " if start else b"") + b"=?utf-8?b?%b?=" % encoded)
            start, room = end, _LINE_BYTES - 1 - _WORD_MARKS

    def add_on_line(self, text: bytes) -> None:
        """Write `text` on a new line if it does not fit on this one."""
        if self._column + 1 + len(text) > _LINE_BYTES and not self._is_blank:
            self.add(b"\r\n")
        self.add(b" " + text)


def _character_end(text: bytes, start: int, most: int) -> int:
    """Return where the characters end that fit into `most` bytes of UTF-8 from `start`."""
    end = start + most
    if end >= len(text):
        return len(text)
    while text[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _unfolded(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"")


# --- text


def _write_text(writer: _Writer, value: bytes) -> None:
    """Write unstructured text: encoded words that stand there stay, others are added."""
    body = value.lstrip(b" \t\r\n")
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
    """Return an encoded word in which no byte is left as it was; base64 cannot be repaired."""
    is_quoted = word[0].split(b"?", 3)[2] in b"qQ"
    return _EIGHT_BIT.sub(lambda byte: b"=%02X" % ord(byte[0]), word[0]) if is_quoted else word[0]


def _write_piece(writer: _Writer, piece: bytes, *, follows: bool, leads: bool) -> None:
    """Write text between encoded words; `follows` and `leads` say on which sides there is one."""
    end = 0
    for match in _RUN.finditer(piece):
        before, text = piece[end : match.start()], _unfolded(match[0])
        space = before[len(before.rstrip(b" \t\r\n")) :]
        if not end and follows and len(space) == len(before):  # between two encoded words
            text, space = _unfolded(before) + text, space or b" "
        else:
            writer.add(before[: len(before) - len(space)])
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
    for token in _tokens(value):
        if token.kind == "angle":
            _write_phrase(writer, pending, precedes=True)
            if not token.raw.isascii():
                raise ContentInvalid("holds an address that is not ASCII")
            writer.add(token.raw)
        elif token.kind == "special" and token.raw in b",:;":
            _write_mailbox(writer, pending, is_group=token.raw == b":")
            writer.add(token.raw)
        else:
            pending.append(token)
            continue
        pending = []
    _write_mailbox(writer, pending, is_group=False)


def _write_mailbox(writer: _Writer, tokens: list[_Token], *, is_group: bool) -> None:
    """Write what stands without angle brackets: an address, or text that is none."""
    words = [token for token in tokens if token.kind not in ("comment", "space")]
    is_address = any(b"@" in word.raw for word in words if word.kind == "atom") and not is_group
    if is_address and not all(word.raw.isascii() for word in words):
        raise ContentInvalid("holds an address that is not ASCII")
    _write_phrase(writer, tokens, precedes=False)


def _write_phrase(writer: _Writer, tokens: list[_Token], *, precedes: bool) -> None:
    """Write words and comments; `precedes`: an address follows at once."""
    place = 0
    follows = False  # an encoded word was the last word
    space = b""
    while place < len(tokens):
        token = tokens[place]
        place += 1
        if token.kind == "space":
            writer.add(space)
            space = token.raw
        elif token.raw.isascii():
            writer.add(space + token.raw)
            space, follows = b"", token.kind == "encoded"
        elif token.kind == "comment":
            writer.add(space)
            _write_comment(writer, token.raw)
            space, follows = b"", False
        else:
            place, text = _run_of(tokens, place - 1)
            leads = [token.kind for token in tokens[place : place + 2]]
            text = (b" " if follows and space else b"") + text
            text += b" " if leads == ["space", "encoded"] else b""
            writer.add_words(space or b" ", text)
            # nothing may touch an encoded word (RFC 2047 section 5)
            space = b" " if (precedes if not leads else leads[0] != "space") else b""
            follows = True
    writer.add(space)


def _run_of(tokens: list[_Token], start: int) -> tuple[int, bytes]:
    """Return where the words with 8-bit bytes from `start` end, and what they say."""
    said = [_said(tokens[start])]
    end = start + 1
    while end < len(tokens):
        place = end + (tokens[end].kind == "space")
        if place >= len(tokens) or tokens[place].kind == "comment":
            break
        if tokens[place].raw.isascii():
            break
        said.append(_said(tokens[place]))
        end = place + 1
    return end, b" ".join(said)


def _said(token: _Token) -> bytes:
    if token.kind != "quoted":
        return token.raw
    inner = token.raw[1:].removesuffix(b'"') if len(token.raw) > 1 else b""
    return _BACKSLASHED.sub(rb"\1", _unfolded(inner))


def _write_comment(writer: _Writer, comment: bytes) -> None:
    for match in _COMMENT_SPECIAL.finditer(comment):
        piece = match[0]
        if piece.isascii():
            writer.add(piece)
        else:
            _write_piece(writer, _BACKSLASHED.sub(rb"\1", piece), follows=False, leads=False)


def _write_structured(writer: _Writer, value: bytes, *, is_trace: bool) -> None:
    tokens = list(_tokens(value))
    if is_trace:
        tokens = _without_audience(tokens)
    for token in tokens:
        if token.raw.isascii():
            writer.add(token.raw)
        elif token.kind == "comment":
            _write_comment(writer, token.raw)
        else:
            raise ContentInvalid("holds 8-bit bytes and no text that could be encoded")


def _without_audience(tokens: list[_Token]) -> list[_Token]:
    """Return a Received field without the recipient that it names, if that is not ASCII.

    RFC 6857 section 3.2.1 does the same; the clause is no more than a trace.
    """
    words = [place for place, token in enumerate(tokens) if token.kind != "space"]
    for word, address in pairwise(words):
        if tokens[word].raw.lower() == b"for" and not tokens[address].raw.isascii():
            start = word - (word > 0 and tokens[word - 1].kind == "space")
            return tokens[:start] + tokens[address + 1 :]
    return tokens


# --- parameters


def read_parameters(value: bytes) -> Iterator[Parameter]:
    """Yield the parameters of a Content-Type or Content-Disposition (RFC 2045 section 5.1).

    As lenient as readers are: a value may have blanks without quotes, and quotes may not end.
    """
    position = 0
    is_first = True
    while position <= len(value):
        match = _SEGMENT.match(value, position)
        assert match is not None  # it may be empty
        position = match.end() + 1
        name, sign, given = match[0].partition(b"=")
        if is_first or not sign:
            is_first = False
            if not match[0].isascii():
                raise ContentInvalid("holds 8-bit bytes outside of its parameters")
            continue
        start = match.start() + len(name) - len(name.lstrip(b" \t\r\n"))
        end = match.end() - (len(given) - len(given.rstrip(b" \t\r\n")))
        name = name.strip(b" \t\r\n")
        if not name.isascii():
            raise ContentInvalid("has a parameter whose name is not ASCII")
        yield Parameter(name.lower(), _parameter_value(given), start, max(start, end))


def _parameter_value(given: bytes) -> bytes:
    text = _unfolded(given).strip(b" \t")
    if not text.startswith(b'"'):
        return text
    inner = text[1:-1] if text.endswith(b'"') and len(text) > 1 else text[1:]
    return inner.replace(rb"\\", b"\\").replace(rb"\"", b'"')


def _repaired_parameters(value: bytes) -> bytes:
    """Return a value in whose extended parameters (RFC 2231) no byte is left as it was."""
    parts = []
    end = 0
    for parameter in read_parameters(value):
        if parameter.name.endswith(b"*"):
            raw = value[parameter.start : parameter.end]
            parts += [
                value[end : parameter.start],
                _EIGHT_BIT.sub(lambda byte: b"%%%02X" % ord(byte[0]), raw),
            ]
            end = parameter.end
    return b"".join([*parts, value[end:]])


def _write_parameters(writer: _Writer, value: bytes) -> None:
    parameters = list(islice(read_parameters(value), MAX_PARAMETERS + 1))
    if len(parameters) > MAX_PARAMETERS:
        raise ContentInvalid(f"has more than {MAX_PARAMETERS} parameters")
    taken = {parameter.name for parameter in parameters}
    written = 0
    for parameter in parameters:
        raw = value[parameter.start : parameter.end]
        if raw.isascii():
            continue
        before = value[written : parameter.start]
        blank = before[len(before.rstrip(b" \t\r\n")) :]
        writer.add(before[: len(before) - len(blank)])
        written = parameter.end
        _write_parameter(writer, parameter, raw[: len(parameter.name)], taken)
    writer.add(value[written:])


def _write_parameter(writer: _Writer, parameter: Parameter, raw: bytes, taken: set[bytes]) -> None:
    name = parameter.name
    shown = raw[: len(name)]
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
    pieces = []
    start = 0
    while start < len(text):
        end = _character_end(text, start, _PARAMETER_BYTES)
        pieces.append(_NOT_PLAIN.sub(lambda found: b"%%%02X" % ord(found[0]), text[start:end]))
        start = end
    whole = b"%b*=utf-8''%b" % (name, b"".join(pieces))
    if len(whole) < _LINE_BYTES:
        writer.add_on_line(whole)
        return
    for number, piece in enumerate(pieces):
        charset = b"utf-8''" if number == 0 else b""
        end_of_line = b";" if number < len(pieces) - 1 else b""
        writer.add_on_line(b"%b*%d*=%b%b%b" % (name, number, charset, piece, end_of_line))
