"""8-bit content rewritten as 7 bit MIME, for providers without 8BITMIME (or SMTPUTF8).

Pure but slow: call it in a thread. Bodies with 8-bit bytes become quoted-printable (text) or
base64 (the rest), whatever character set they claim, so that the bytes stay the same; header
fields with raw UTF-8 become encoded words. Raises ContentInvalid when no such rewriting keeps
the meaning: a non-ASCII address in a header field, a broken multipart, 8-bit outside any part.
RFC 2045, RFC 2047, RFC 6152 section 3.
"""

from __future__ import annotations

import base64
import binascii
import io
from email.errors import MessageError
from email.generator import BytesGenerator
from email.header import Header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from email.utils import formataddr, getaddresses

from relaygw.errors import ContentInvalid

_POLICY = compat32.clone(cte_type="7bit", linesep="\r\n", max_line_length=0)
_ADDRESS_FIELDS = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "resent-")
    for name in ("from", "sender", "reply-to", "to", "cc", "bcc")
)


def to_seven_bit(content: bytes) -> bytes:
    """Return `content` as ASCII with CRLF line ends; raises ContentInvalid."""
    try:
        message = BytesParser(policy=_POLICY).parsebytes(content)
        for part in message.walk():
            _convert_fields(part)
            _convert_body(part)
        if "mime-version" not in message:
            message["MIME-Version"] = "1.0"
        out = io.BytesIO()
        BytesGenerator(out, mangle_from_=False, policy=_POLICY).flatten(message)
    except (MessageError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ContentInvalid(f"it cannot be rewritten as 7 bit MIME ({error})") from error
    except RecursionError as error:
        raise ContentInvalid("its parts are nested too deeply") from error
    converted = out.getvalue()
    if not converted.isascii():
        raise ContentInvalid("it has 8-bit bytes outside of any MIME part")
    return converted


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _convert_fields(part: Message) -> None:
    for name, value in list(part.raw_items()):
        raw = _raw(str(value))
        if not raw.isascii():
            _replace_field(part, name=name, raw=raw)


def _replace_field(part: Message, *, name: str, raw: bytes) -> None:
    """Encode every field `name` whose value is `raw`, in its place."""
    charset = "utf-8"
    try:
        text = raw.decode(charset)
    except UnicodeDecodeError:
        charset, text = "iso-8859-1", raw.decode("iso-8859-1")
    text = "".join(text.splitlines())
    if name.lower() in _ADDRESS_FIELDS:
        encoded = ", ".join(_encode_mailbox(pair, charset) for pair in getaddresses([text]))
    else:
        encoded = Header(text, charset, header_name=name).encode(linesep="\r\n")
    fields = list(part.raw_items())
    for field in dict.fromkeys(field_name for field_name, _ in fields):
        del part[field]
    for field_name, value in fields:
        is_it = field_name == name and _raw(str(value)) == raw
        part.set_raw(field_name, encoded if is_it else value)


def _encode_mailbox(pair: tuple[str, str], charset: str) -> str:
    name, address = pair
    if not address.isascii() or not address:
        raise ContentInvalid("a header field holds an address that is not ASCII")
    return formataddr((name, address), charset)


def _convert_body(part: Message) -> None:
    if part.is_multipart():
        if part.get("content-transfer-encoding", "7bit").lower() in ("8bit", "binary"):
            del part["content-transfer-encoding"]
        return
    raw = part.get_payload(decode=True)
    written = part.get_payload()
    if not isinstance(raw, bytes) or not isinstance(written, str) or written.isascii():
        return
    if part.get_content_maintype() in ("multipart", "message"):
        raise ContentInvalid("a multipart has no proper boundary")
    encoding = part.get("content-transfer-encoding", "8bit").lower()
    if encoding not in ("7bit", "8bit", "binary"):
        raise ContentInvalid(f"a part claims {encoding[:20]} and holds 8-bit bytes")
    if part.get_content_maintype() == "text":
        encoding, encoded = "quoted-printable", binascii.b2a_qp(raw, istext=True)
    else:
        encoding, encoded = "base64", base64.encodebytes(raw)
    del part["content-transfer-encoding"]
    part["Content-Transfer-Encoding"] = encoding
    if "content-type" not in part:
        part["Content-Type"] = f"text/plain; charset={_charset_of(raw)}"
    part.set_payload(encoded.decode("ascii"))


def _charset_of(raw: bytes) -> str:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return "unknown-8bit"
    return "utf-8"
