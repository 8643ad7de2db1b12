"""Mails of every kind for the rewriting to 7 bits, made by chance from a seed, and how they read.

`one_mail` writes mails that can be rewritten. `reading` is what a reader gets of one, found by the
standard library's parser and the RFCs' rules alone: nothing of it is shared with what is tested.
Bytes above 127 and control characters stand there as CJK characters while strings are taken apart,
since Python counts some of them as white space or line ends.
"""

from __future__ import annotations

import base64
import binascii
import quopri
import random
import re
from email import message_from_bytes
from email.message import Message
from email.policy import compat32
from email.utils import getaddresses
from typing import Any

WORDS = {
    "utf-8": "Grüße Köln naïve Привет 世界 🚚 ½ a\x85b x\x0by z\x1cZ ﬁn é ß",
    "iso-8859-1": "Grüße Köln naïve ñandú É½ x\x0by a\x1db",
    "windows-1252": "Grüße „Zitat“ 5€ naïve x\x0cy",
    "koi8-r": "Привет мир заказ Ёлка",
    "shift_jis": "こんにちは 注文 ソース 表",
    "gb2312": "你好 订单 中文",
}
WITH_SPECIALS = ("shift_jis", "gb2312")
"""Characters of these hold ASCII signs, so that only text can be written in them as it is."""
ASCII = ("plain", "a.b", "50%", "x=y", "(!)", "=?", "?=", "--", "_", "x\x0bBcc:", "\x1cTo:", "'")
TEXT_FIELDS = ("Subject", "Comments", "Keywords", "X-Note", "thread-TOPIC", "Organization")
ADDRESS_FIELDS = (
    "From",
    "to",
    "Cc",
    "Reply-To",
    "Sender",
    "Resent-To",
    "Disposition-Notification-To",
)
PARAMETER_FIELDS = ("content-type", "content-disposition")
ADDED = ("MIME-Version", "Content-Type", "Content-Transfer-Encoding")
_ENCODED_WORD = re.compile(rb"=\?([^?\s]+)\?([bBqQ])\?([^?\r\n]*)\?=")


class Maker:
    """Writes mails; one seed, one mail."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.charset = self.chance.choice([*WORDS, "utf-8", "utf-8"])
        self.words = WORDS[self.charset].split(" ")
        self.depth = 0
        self.boundaries = 0

    def some(self, *choices: Any) -> Any:
        return self.chance.choice(choices)

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    def word(self, eight_bit: float = 0.5) -> bytes:
        if self.often(eight_bit):
            word: str = self.chance.choice(self.words)
            return (word * self.some(1, 1, 1, 1, 2, 40)).encode(self.charset)
        if self.often(0.1):
            return b"long" * self.chance.randint(1, 60)
        return self.chance.choice(ASCII).encode()

    def encoded_word(self) -> bytes:
        return self.some(b"=?utf-8?q?J=C3=B6rg_A?=", b"=?ISO-8859-1?B?5PY=?=", b"=?utf-8*de?Q?x?=")

    def blank(self) -> bytes:
        return self.some(b" ", b" ", b" ", b"  ", b"\t", b"\r\n ", b"\r\n\t", b" \r\n  ")

    def text(self) -> bytes:
        parts = []
        for _ in range(self.chance.randint(0, 8)):
            parts.append(self.encoded_word() if self.often(0.15) else self.word())
            parts.append(self.blank())
        return b"".join(parts[: len(parts) - self.some(0, 1, 1, 1)])

    def name_of_field(self, name: str) -> bytes:
        return (
            name.encode() + self.some(b":", b":", b":", b" :", b"\t:") + self.some(b" ", b" ", b"")
        )

    def phrase(self) -> bytes:
        words = []
        for _ in range(self.chance.randint(1, 4)):
            word = self.atom()
            if self.often(0.3):
                word = b'"%b, \\"%b\\""' % (word, self.atom())
            elif self.often(0.15):
                word = self.encoded_word()
            words.append(word)
        return self.some(b" ", b" ", b"\r\n ").join(words)

    def atom(self) -> bytes:
        if self.often(0.5):
            return self.chance.choice(self.words).encode(self.charset).strip(b"\x0b\x0c\x1c\x1d")
        return self.some(b"Shop", b"Dr", b"O'Neil", b"a-b")

    def mailbox(self) -> bytes:
        address = self.some(b"a@x.test", b"b.c@y.test", b'"q p"@z.test')
        comment = b" (%b)" % self.atom() if self.often(0.2) else b""
        if self.often(0.3):
            return address + comment
        return self.phrase() + comment + self.some(b" ", b"") + b"<%b>" % address

    def addresses(self) -> bytes:
        if self.charset in WITH_SPECIALS:
            return b"a@x.test"
        mailboxes = self.some(b", ", b",", b",\r\n\t").join(
            self.mailbox() for _ in range(self.chance.randint(1, 4))
        )
        return self.phrase() + b": " + mailboxes + b";" if self.often(0.1) else mailboxes

    def file_name(self) -> bytes:
        name = b" ".join(self.atom() for _ in range(self.chance.randint(1, 12))) + b".pdf"
        return self.some(b'"%b"', b'"%b"', b"%b") % name.replace(b'"', b"")

    def parameters(self, name: str) -> bytes:
        blank = self.some(b" ", b"\r\n\t", b"")
        if self.charset in WITH_SPECIALS:
            return b";" + blank + b'%b="x.pdf"' % name.encode()
        found = b";" + blank + name.encode() + self.some(b"=", b"=", b" = ") + self.file_name()
        if self.often(0.1):
            found += b"; %b*=utf-8''x%%C3%%BC.pdf" % name.encode()
        return found + self.some(b"", b"", b"; size=3", b" ; x-a=b")

    def header(self) -> list[bytes]:
        fields = [
            b"Received: from a (HELO b) by c for <d@e>;\r\n\tMon, 1 Jan 2026 00:00:00 +0000\r\n",
            b"Message-ID: <%d@x.test>\r\n" % self.chance.randrange(10**6),
            b"List-Unsubscribe: <https://x.test/?a=1>,\r\n <mailto:u@x.test>\r\n",
            b"DKIM-Signature: v=1; a=rsa-sha256;\r\n\tb=%b;\r\n" % (b"Ab+/" * 30),
            b"Date: Mon, 1 Jan 2026 00:00:00 +0000\r\n",
        ]
        fields += [
            self.name_of_field(name) + self.text() + b"\r\n"
            for name in self.chance.sample(TEXT_FIELDS, self.chance.randint(0, 4))
        ]
        fields += [
            self.name_of_field(name) + self.addresses() + b"\r\n"
            for name in self.chance.sample(ADDRESS_FIELDS, self.chance.randint(0, 3))
        ]
        if self.often(0.1) and self.charset not in WITH_SPECIALS:
            fields.append(b"Received: from x (%b) by y\r\n" % self.atom())
        self.chance.shuffle(fields)
        return fields

    def body(self) -> bytes:
        lines = []
        for _ in range(self.chance.randint(0, 8)):
            kind = self.chance.randrange(10)
            if kind < 6:
                line = b" ".join(self.word(0.3) for _ in range(self.chance.randint(0, 9)))
            else:
                line = self.some(
                    b"", b".", b"From x", b"tail ", b"--", b"--b", b"--b1x", b"=41", b"\t"
                )
            lines.append(line)
        return b"\r\n".join(lines)

    def leaf(self, *, is_root: bool) -> bytes:
        fields = self.header() if is_root else []
        kind = self.chance.randrange(8)
        body = self.body()
        charset = self.charset.encode()
        encoding = self.some(b"", b"7bit", b"8bit", b"BINARY", b"8bit (raw)", b"8-bit")
        if kind < 4:
            subtype = self.some(b"plain", b"html")
            types = b"Content-Type: text/%b;%bcharset=%b" % (
                subtype,
                self.some(b" ", b"\r\n "),
                charset,
            )
            fields.append(types + (self.parameters("name") if self.often(0.3) else b"") + b"\r\n")
        elif kind == 4:
            encoding = b"quoted-printable"
            body = binascii.b2a_qp(body.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
            fields.append(b"Content-Type: text/plain; charset=%b\r\n" % charset)
        elif kind == 5:
            encoding = b"base64"
            body = base64.encodebytes(self.chance.randbytes(90)).replace(b"\n", b"\r\n")
            fields.append(b"Content-Type: application/pdf" + self.parameters("name") + b"\r\n")
        elif kind == 6:
            body = self.chance.randbytes(200).replace(b"\r", b"").replace(b"\n", b"\r\n")
            fields.append(b"Content-Type: application/octet-stream\r\n")
        else:
            encoding = self.some(b"", b"8bit")
        if encoding:
            fields.append(b"Content-Transfer-Encoding: %b\r\n" % encoding)
        if self.often(0.3):
            disposition = b"Content-Disposition: attachment" + self.parameters("filename")
            fields.append(disposition + b"\r\n")
        if self.often(0.2):
            fields.append(self.name_of_field("Content-Description") + self.text() + b"\r\n")
        self.chance.shuffle(fields)
        if is_root and self.often(0.5):
            fields.append(b"mime-version: 1.0\r\n")
        return b"".join(fields) + b"\r\n" + body

    def multipart(self, *, is_root: bool) -> bytes:
        self.boundaries += 1
        boundary = self.some(b"b%d", b"=_%d' (x)", b"b1%d", b"%d--") % self.boundaries
        subtype = self.some(b"mixed", b"alternative", b"related", b"digest", b"x-odd")
        fields = self.header() if is_root else []
        fields.append(
            b'Content-Type: multipart/%b;%bboundary="%b"\r\n' % (subtype, self.blank(), boundary)
        )
        if self.often(0.3):
            fields.append(b"Content-Transfer-Encoding: %b\r\n" % self.some(b"8bit", b"7bit"))
        self.chance.shuffle(fields)
        pieces = [b"".join(fields), b"\r\n"]
        if self.often(0.3):
            pieces.append(b"preamble " + self.word() + b"\r\n")
        for _ in range(self.chance.randint(1, 3)):
            pieces.append(b"--" + boundary + self.some(b"", b"", b" \t") + b"\r\n")
            inner = self.message_part if subtype == b"digest" else self.part
            pieces.append(inner() + b"\r\n")
        if self.often(0.9):
            pieces.append(
                b"--" + boundary + b"--" + self.some(b"", b"\r\n", b" \r\nepilogue " + self.word())
            )
        return b"".join(pieces)

    def message_part(self) -> bytes:
        fields = b"Content-Type: message/rfc822\r\n" + self.some(
            b"", b"Content-Transfer-Encoding: 8bit\r\n"
        )
        return fields + b"\r\n" + self.message()

    def part(self) -> bytes:
        kind = self.chance.randrange(10) if self.depth < 3 else 9
        self.depth += 1
        if kind == 0:
            made = self.message_part()
        elif kind < 3:
            made = self.multipart(is_root=False)
        else:
            made = self.leaf(is_root=False)
        self.depth -= 1
        return made

    def message(self) -> bytes:
        self.depth += 1
        is_leaf = self.depth > 3 or self.often(0.5)
        made = self.leaf(is_root=True) if is_leaf else self.multipart(is_root=True)
        self.depth -= 1
        return made


def one_mail(seed: int) -> tuple[bytes, str]:
    """Return a mail with CRLF line ends, and the charset that its 8-bit bytes are in."""
    maker = Maker(seed)
    return maker.message() + b"\r\n", maker.charset


# --- reading

_SHOWN = {
    byte: 0x4E00 + byte for byte in (*range(9), *range(11, 13), *range(14, 32), *range(127, 256))
}
_HIDDEN = {shown: byte for byte, shown in _SHOWN.items()}


def _safe(raw: bytes) -> str:
    return raw.decode("latin-1").translate(_SHOWN)


def _bytes(text: str) -> bytes:
    return text.translate(_HIDDEN).encode("latin-1")


def read_words(raw: bytes, charset: str) -> str:
    """Return text as RFC 2047 says; bytes outside of encoded words are in `charset`."""
    found: list[tuple[bytes, str]] = []
    end = 0
    text = raw.replace(b"\r\n", b"")
    for match in _ENCODED_WORD.finditer(text):
        between = text[end : match.start()]
        if between.strip(b" \t") or not end:
            found.append((between, charset))
        label = match[1].decode().partition("*")[0]
        if match[2] in b"bB":
            found.append((binascii.a2b_base64(match[3], strict_mode=True), label))
        else:
            found.append((quopri.decodestring(match[3], header=True), label))
        end = match.end()
    found.append((text[end:], charset))
    return "".join(part.decode(label) for part, label in found).strip(" \t")


def charset_of(raw: bytes, declared: str) -> str:
    """Return what the 8-bit bytes of a field are taken for: UTF-8 if they can be."""
    for charset in ("utf-8", declared or "windows-1252", "windows-1252"):
        try:
            raw.decode(charset)
        except UnicodeDecodeError:
            continue
        return charset
    return "latin-1"


def read_addresses(raw: bytes, charset: str) -> list[tuple[str, str]]:
    pairs = getaddresses([_safe(raw.replace(b"\r\n", b""))])
    return [(read_words(_bytes(name), charset), address) for name, address in pairs]


def read_parameters(raw: bytes, charset: str) -> list[tuple[str, str]]:
    holder = Message()
    holder["Content-Type"] = _safe(raw.replace(b"\r\n", b""))
    found = []
    for name, value in holder.get_params(failobj=[]):
        if isinstance(value, tuple):
            found.append((name, value[2].encode("latin-1").decode(value[0] or "ascii")))
        else:
            found.append((name, read_words(_bytes(value), charset)))
    return sorted(found)


def read_field(name: str, raw: bytes, charset: str) -> object:
    """Return what a field says: addresses, parameters or text."""
    if name.lower() in PARAMETER_FIELDS:
        return read_parameters(raw, charset)
    if name.title() in {known.title() for known in ADDRESS_FIELDS}:
        return read_addresses(raw, charset)
    return read_words(raw, charset)


def parsed(content: bytes) -> Message:
    """Return a mail as the standard library reads it, once no space stands before a colon."""
    return message_from_bytes(
        re.sub(rb"(?m)^([A-Za-z-]+)[ \t]+:", rb"\1:", content), policy=compat32
    )


def fields_of(part: Message) -> list[tuple[str, bytes]]:
    return [(name, value.encode("ascii", "surrogateescape")) for name, value in part.raw_items()]


def leaf_bytes(part: Message) -> bytes:
    body = part.get_payload(decode=True)
    assert isinstance(body, bytes)
    return body
