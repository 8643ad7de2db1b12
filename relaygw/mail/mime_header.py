"""Header fields made readable: whatever was sent, something comes out.

Reads each character a bounded number of times, without the standard parser's recursion, raises
nothing, and returns text that UTF-8 can carry: fields of RFC 5322, parameters of RFC 2045 and 2231,
encoded words of RFC 2047.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator
from itertools import count, islice, takewhile
from urllib.parse import unquote_to_bytes

from relaygw.mail.content import header_fields
from relaygw.mail.content_facts import Contact

MAX_FIELDS = 1000
MAX_PARAMETERS = 1000
MAX_ADDRESSES = 2000
MAX_VALUE_CHARACTERS = 64 * 1024

_NAMED = frozenset(
    (
        *("from", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id"),
        *("content-type", "content-transfer-encoding", "content-disposition"),
        *("list-unsubscribe", "list-unsubscribe-post"),
    )
)
_FOLD = re.compile(rb"\r\n[ \t]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# each part ends at the next question mark, so that no two starts read the same text twice
_ENCODED_WORD = re.compile(r"=\?([^?*\s]{1,40})(?:\*[^?\s]*)?\?([bBqQ])\?([^?]*)\?=")
BLANKS = b" \t\r\n"
PARAMETER = re.compile(rb';?(?:[^;"]++|"(?:[^"\\]|\\.)*+"?)++|;', re.DOTALL)
"""What a value is cut into, with the semicolon in front; the first is the type itself."""
_PIECE = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?")  # of a parameter (RFC 2231 section 3 and 4)
_BACKSLASHED = re.compile(r"\\(.)", re.DOTALL)
_CHARSET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,39}")
# text codecs of Python that are no charsets of mail; the first two take time by the square
_NO_CHARSETS = frozenset({"punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined"})
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(set(range(256)).difference(_BASE64))
_ADDRESS_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*+"?|<[^<>]*>?|\[[^\[\]]*\]?|[(),;:]|\\.?|[^"<\[(),;:\\]+', re.DOTALL
)


def read_fields(block: bytes) -> list[tuple[str, str]]:
    """Return name and unfolded value of each field; lines that are no field are skipped.

    Behind MAX_FIELDS only those that say what the message is and who it is from.
    """
    fields = list(islice(header_fields(block), MAX_FIELDS))
    if len(fields) == MAX_FIELDS:
        rest = header_fields(block, fields[-1].end, names=_NAMED)
        fields += islice(rest, MAX_FIELDS)
    return [
        (
            field.name.decode("ascii"),
            decode_text(unfolded(block[field.value_start : field.value_end]), ""),
        )
        for field in fields
    ]


def unfolded(value: bytes) -> bytes:
    """Return a value as one line."""
    if b"\r\n" in value:
        # not by one substitution, which takes a hundred times its size
        text, at = bytearray(), 0
        for fold in _FOLD.finditer(value):
            text += value[at : fold.start()] + b" "
            at = fold.end()
        value = bytes(text + value[at:])
    return value.strip(b" \t")


def decode_text(body: bytes, charset: str) -> str:
    """Return `body` as text: by `charset` if that is one, else as UTF-8 or Windows-1252."""
    name = _known_charset(charset) if charset else None
    if name is not None:
        text = body.decode(name, "replace")
        # UTF-7 and UTF-16 can bring lone surrogates, which no UTF-8 answer can carry
        return text if name == "utf-8" else text.encode("utf-8", "replace").decode()
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("cp1252", "replace")


def _known_charset(charset: str) -> str | None:
    """Return Python's name of a charset; None if unknown, or not to be taken at its word."""
    if not _CHARSET_NAME.fullmatch(charset):
        return None
    try:
        name = codecs.lookup(charset).name
        if name.replace("_", "-") in _NO_CHARSETS:
            return None
        b"a".decode(name, "replace")  # refuses what turns bytes into bytes, as "hex" does
    except (LookupError, ValueError):
        return None
    # ASCII is declared over everything; Latin-1 is Windows-1252 wherever the two differ
    return {"ascii": None, "iso8859-1": "cp1252"}.get(name, name)


def decode_base64(body: bytes) -> bytes:
    """Decode up to the first padding, whatever else is in between or missing at the end."""
    letters = body.partition(b"=")[0].translate(None, delete=_NOT_BASE64)
    if len(letters) % 4 == 1:
        letters = letters[:-1]  # six bits make no byte
    return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))


def decode_words(text: str) -> str:
    """Return a value for people; words of a charset go together, some cut in mid-character."""
    text = text[:MAX_VALUE_CHARACTERS]
    decoded: list[str] = []
    pending, charset, end = b"", "", 0
    for match in _ENCODED_WORD.finditer(text):
        between = text[end : match.start()]
        follows = bool(charset) and not between.strip()
        if not follows or match[1].lower() != charset:
            decoded.append(decode_text(pending, charset))
            pending = b""
        if not follows:
            decoded.append(between)
        charset = match[1].lower()
        raw = match[3].encode("utf-8", "replace")
        is_base64 = match[2] in "bB"
        pending += decode_base64(raw) if is_base64 else binascii.a2b_qp(raw, header=True)
        end = match.end()
    decoded += [decode_text(pending, charset), text[end:]]
    return _CONTROL.sub(" ", "".join(decoded)).strip()


def read_parameter(parameter: bytes) -> tuple[bytes, bytes]:
    """Return name and value as lenient readers take them: without quotes, folding and blanks."""
    name, _, given = parameter.removeprefix(b";").partition(b"=")
    text = given.replace(b"\r\n", b"").strip(b" \t")
    if text.startswith(b'"'):
        text = text[1:].removesuffix(b'"').replace(rb"\\", b"\\").replace(rb"\"", b'"')
    return name.strip(BLANKS), text


def read_parameters(value: bytes) -> tuple[str, dict[str, str]]:
    """Return a type or disposition in lower case, and its parameters by name in lower case.

    The first of a name counts, one of RFC 2231 before others. Encoded words stay.
    """
    plain: dict[str, str] = {}
    extended: dict[str, dict[int, tuple[bytes, bool]]] = {}
    for parameter in islice(PARAMETER.finditer(value), 1, MAX_PARAMETERS):
        key, text = read_parameter(parameter[0])
        name = key.decode("latin-1").lower()
        match = _PIECE.fullmatch(name) if "*" in name else None
        if match is not None:
            number, is_encoded = int(match[2] or 0), match[3] is not None
            extended.setdefault(match[1], {}).setdefault(number, (text, is_encoded))
        elif name:
            plain.setdefault(name, _CONTROL.sub(" ", decode_text(text, "")).strip())
    parameters = plain | {name: _joined(pieces) for name, pieces in extended.items()}
    return decode_text(value.partition(b";")[0], "").strip().lower(), parameters


def _unquoted(text: str) -> str:
    if len(text) > 1 and text.startswith('"') and text.endswith('"'):
        return _BACKSLASHED.sub(r"\1", text[1:-1])
    return text.strip('"')


def _joined(pieces: dict[int, tuple[bytes, bool]]) -> str:
    """Put the pieces of a parameter together; the first names the charset (RFC 2231)."""
    charset, raw = b"", b""
    for number in takewhile(pieces.__contains__, count()):
        text, is_encoded = pieces[number]
        if is_encoded and number == 0 and text.count(b"'") >= 2:
            charset, _, text = text.split(b"'", 2)
        raw += unquote_to_bytes(text) if is_encoded else text
    return _CONTROL.sub(" ", decode_text(raw, charset.decode("latin-1"))).strip()


def read_addresses(value: str) -> list[Contact]:
    """Return the addresses of a field such as To; groups are opened, empty ones skipped."""
    return list(islice(_contacts(value[:MAX_VALUE_CHARACTERS]), MAX_ADDRESSES))


def _contacts(value: str) -> Iterator[Contact]:
    # a parenthesis without its partner is text: as a comment it would swallow addresses
    has_comments = value.count("(") == value.count(")")
    words: list[str] = []
    comment: list[str] = []
    angle: str | None = None
    depth = 0
    for token in _ADDRESS_TOKEN.findall(value):
        if has_comments and token in "()":
            depth = max(0, depth + (1 if token == "(" else -1))
        elif depth:
            comment.append(token)
        elif token in ",;":
            yield from _contact(words, comment, angle)
            words, comment, angle = [], [], None
        elif token == ":":
            words = []  # the name of a group
        elif token.startswith("<"):
            angle = token.strip("<> \t")
        else:
            words.append(token)
    yield from _contact(words, comment, angle)


def _contact(words: list[str], comment: list[str], angle: str | None) -> Iterator[Contact]:
    text = "".join(words).strip()
    remark = decode_words("".join(comment))
    if angle is not None:
        phrase = " ".join(_unquoted(word.strip()) for word in words if word.strip())
        yield Contact(Name=decode_words(phrase) or remark, Address=_CONTROL.sub("", angle))
    elif len(text.split()) == 1 or (text.startswith('"') and '"@' in text):
        yield Contact(Name=remark, Address=_CONTROL.sub("", text))
    elif text:
        yield Contact(Name=decode_words(text), Address="")
