"""Header fields with 8-bit bytes said in ASCII: what people read stays the same.

Text, and the display names and comments of addresses, become encoded words (RFC 2047), parameters
the extended form of RFC 2231. Of a structured field only comments can be encoded: ContentInvalid.
Each byte is read a bounded number of times, and only space, tab and a folded line part words, so
that no other control character becomes a line end.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from urllib.parse import quote_from_bytes

from relaygw.errors import ContentInvalid
from relaygw.mail.address_list import BROKEN, read_tokens
from relaygw.mail.content import HeaderField
from relaygw.mail.mime_header import BLANKS, MAX_PARAMETERS, PARAMETER, read_parameter

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

# an encoded word as readers take it: white space may be missing around it and stand in it
_ENCODED_WORD = re.compile(rb"(=\?[!->@-~]++\?(?:[bB]|[qQ])\?[ !->@-~]*+\?=)")
# text that becomes encoded words: from the first word with 8-bit bytes to the last, or all
_EIGHT_BIT_WORDS = re.compile(
    rb"(?<![^ \t\r\n])[^ \t\r\n\x80-\xff]*+[\x80-\xff](?:.*[\x80-\xff])?[^ \t\r\n]*+", re.DOTALL
)
_ALL_WORDS = re.compile(rb"[^ \t\r\n](?:.*[^ \t\r\n])?", re.DOTALL)
# pieces of UTF-8 in whole characters: all if that is one encoded word, else what fits on a line
# behind "Subject: ", and a piece of a parameter that has a line of its own
_WORD = re.compile(rb"\A.{1,45}\Z|.{1,39}(?![\x80-\xbf])", re.DOTALL)
_PARAMETER_PIECE = re.compile(rb".{1,18}(?![\x80-\xbf])", re.DOTALL)
# what stays together on a line, up to a place next to an encoded word
_UNFOLDED = re.compile(
    rb".+?(?:\Z|(?<=\?=)(?=[ \t]++[^ \t])|(?<![ \t])(?=[ \t]++\(?=\?utf-8\?b\?))", re.DOTALL
)
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"?', re.DOTALL)
_BACKSLASHED = re.compile(rb"\\(.)", re.DOTALL)
# with the marks of RFC 2231; the name stands in front of each piece
_ATTRIBUTE = re.compile(rb"[!#$%&'+.0-9A-Z^_`a-z{|}~-]{1,40}((?:\*\d{1,3})?\*)?")
_ASCII = bytes(range(128))
_AUDIENCE = re.compile(
    rb'(?<![ \t\r\n])[ \t\r\n]++for[ \t\r\n]++(?:<[^<>"()\\]*+>|[^<>"()\\,; \t\r\n]++)'
    rb"(?=[ \t\r\n;(]|\Z)",
    re.IGNORECASE,
)


def convert_field(content: bytes, field: HeaderField, declared: str) -> bytes:
    """Return a whole field with its line end in ASCII; ContentInvalid if that cannot be.

    It is taken for UTF-8 if it can be, else for the charset `declared`, else for Windows-1252.
    """
    raw = content[field.value_start : field.value_end]
    value = _as_utf8(raw, declared)
    start = content[field.start : field.value_start]
    kind = field.name.decode("ascii").lower()
    try:
        if kind in ("content-type", "content-disposition"):
            converted = start + _parameters(value, is_utf8=value == raw)
        else:
            converted = _folded(start + _value(kind, value))
    except ContentInvalid as error:
        shown = field.name.decode("ascii")[:60]
        raise ContentInvalid(f"its field {shown} {error}") from None
    return converted + content[field.value_end : field.end]


def _value(kind: str, value: bytes) -> bytes:
    if _ADDRESS_FIELD.fullmatch(kind):
        return _addresses(value)
    if kind == "received":
        # a recipient that is not ASCII is left out (RFC 6857 section 3.2.1)
        kept = _AUDIENCE.sub(lambda match: match[0] if match[0].isascii() else b"", value)
        return _structured(kept)
    if _STRUCTURED_FIELD.fullmatch(kind):
        return _structured(value)
    return _in_words(_ENCODED_WORD.split(value), _EIGHT_BIT_WORDS)


def _as_utf8(value: bytes, declared: str) -> bytes:
    for charset in ("utf-8", declared, "cp1252"):
        with suppress(LookupError, ValueError):
            name = codecs.lookup(charset).name
            if _ASCII_SUPERSETS.fullmatch(name):
                return value.decode(name).encode("utf-8")
    return value.decode("latin-1").encode("utf-8")


def _folded(field: bytes) -> bytes:
    """Break lines that are too long, in front of and behind encoded words alone."""
    folded = bytearray()  # a list of lines would take many times its size
    for line in field.split(b"\r\n"):
        column = 0
        for piece in _UNFOLDED.finditer(line):
            if column and column + len(piece[0]) > _LINE_BYTES:
                folded += b"\r\n"
                column = 0
            folded += piece[0]
            column += len(piece[0])
        folded += b"\r\n"
    return bytes(folded[:-2])


# --- encoded words


def _encoded(text: bytes) -> bytes:
    pieces = _WORD.findall(text.replace(b"\r\n", b""))
    return b" ".join(b"=?utf-8?b?%b?=" % base64.b64encode(piece) for piece in pieces)


def _in_words(pieces: list[bytes], words: re.Pattern[bytes]) -> bytes:
    """Join encoded words and what is between them; of that `words` finds what is encoded, too."""
    ascii_text = bytearray()
    for number, piece in enumerate(pieces):
        match = None if piece.isascii() else words.search(piece)
        if match is None:
            ascii_text += piece
            continue
        text, before, after = match[0], piece[: match.start()], piece[match.end() :]
        # white space between two encoded words is lost to readers, so it goes into this one
        if _is_encoded(pieces[number - 1 : number]) and not before.strip(BLANKS):
            text = before + text
        if _is_encoded(pieces[number + 1 : number + 2]) and not after.strip(BLANKS):
            text += after
        # nothing may touch an encoded word (RFC 2047 section 5)
        is_last = number == len(pieces) - 1
        ascii_text += (before or b" ") + _encoded(text) + (after or (b"" if is_last else b" "))
    return bytes(ascii_text)


def _is_encoded(neighbour: list[bytes]) -> bool:
    return any(map(_ENCODED_WORD.fullmatch, neighbour))


# --- addresses and other structured fields


def _addresses(value: bytes) -> bytes:
    ascii_text = bytearray()
    start = end = 0
    is_in_angle = False
    for kind, text in read_tokens(value):
        end += len(text)
        if kind in ("<", ">", ",", ":", ";"):
            is_name = not is_in_angle and kind in ("<", ":")
            ascii_text += _phrase(value[start : end - 1], is_name=is_name, is_in_angle=is_in_angle)
            if kind == "<" and ascii_text.endswith(b"?="):
                ascii_text += b" "
            ascii_text += text
            is_in_angle = kind == "<" or (is_in_angle and kind != ">")
            start = end
    ascii_text += _phrase(value[start:], is_name=False, is_in_angle=is_in_angle)
    return bytes(ascii_text)


def _phrase(phrase: bytes, *, is_name: bool, is_in_angle: bool) -> bytes:
    """Write what is between two signs of a list: a name, or an address without brackets."""
    if phrase.isascii():
        return phrase
    pieces = list(_pieces(phrase))
    is_address = not is_name and any(kind == "@" for kind, _ in read_tokens(phrase))
    if (is_in_angle or is_address) and not all(map(bytes.isascii, pieces)):
        raise ContentInvalid("holds an address that is not ASCII")
    names = [piece if piece.isascii() else _unquoted(piece) for piece in pieces]
    return _in_words(names, _ALL_WORDS)


def _structured(value: bytes) -> bytes:
    ascii_text = b"".join(_pieces(value))
    if not ascii_text.isascii():
        raise ContentInvalid("holds 8-bit bytes and no text that could be encoded")
    return ascii_text


def _pieces(value: bytes) -> Iterator[bytes]:
    """Yield encoded words, comments, these in ASCII, and all that is between them."""
    for (is_broken, is_comment, _), group in groupby(read_tokens(value), _role):
        text = b"".join(text for _, text in group)
        if is_broken and not text.isascii():
            raise ContentInvalid("has a quoted string, a comment or a literal without an end")
        yield text if text.isascii() or not is_comment else _comment(text)


def _role(token: tuple[str, bytes]) -> tuple[bool, bool, bool]:
    kind, text = token
    return kind == BROKEN, text.startswith(b"("), _ENCODED_WORD.fullmatch(text) is not None


def _comment(comment: bytes) -> bytes:
    if b"=?" in comment:
        raise ContentInvalid("has a comment with 8-bit bytes and encoded words")
    return b"(%b)" % _encoded(_unescaped(comment[1:-1]))


def _unquoted(text: bytes) -> bytes:
    return _QUOTED.sub(lambda quoted: _unescaped(quoted[1]), text)


def _unescaped(text: bytes) -> bytes:
    return _BACKSLASHED.sub(rb"\1", text)


# --- parameters


def _parameters(value: bytes, *, is_utf8: bool) -> bytes:
    """Write a type or disposition; `is_utf8`: its bytes are as they were sent."""
    if value.count(b";") > MAX_PARAMETERS:
        raise ContentInvalid(f"has more than {MAX_PARAMETERS} parameters")
    kind, *parameters = PARAMETER.findall(value)
    if not kind.isascii():
        raise ContentInvalid("holds 8-bit bytes outside of its parameters")
    taken = {read_parameter(parameter)[0].lower() for parameter in parameters}
    converted = [
        parameter if parameter.isascii() else _parameter(parameter, taken, is_utf8=is_utf8)
        for parameter in parameters
    ]
    return b"".join((kind, *converted))


def _parameter(parameter: bytes, taken: set[bytes], *, is_utf8: bool) -> bytes:
    """Write a parameter, with its semicolon, next to those with the names `taken`."""
    name, text = read_parameter(parameter)
    key = name.lower()
    match = _ATTRIBUTE.fullmatch(name)
    if match is None or key in (b"boundary", b"charset") or (match[1] and not is_utf8):
        raise ContentInvalid("has a parameter that cannot be said in ASCII")
    if match[1]:
        return quote_from_bytes(parameter, safe=_ASCII).encode("ascii")
    if not taken.isdisjoint((key + b"*", key + b"*0", key + b"*0*")):
        # the old form beside the extended one: as old readers expect it
        return b';\r\n %b="%b"' % (name, _encoded(text).replace(b" ", b"\r\n "))
    taken.add(key + b"*")
    quoted = [
        quote_from_bytes(piece, safe=b"").encode() for piece in _PARAMETER_PIECE.findall(text)
    ]
    quoted[0] = b"utf-8''" + quoted[0]
    whole = b"%b*=%b" % (name, b"".join(quoted))
    if len(whole) < _LINE_BYTES:
        return b";\r\n " + whole
    return b"".join(b";\r\n %b*%d*=%b" % (name, *piece) for piece in enumerate(quoted))
