"""8-bit mail for providers without 8BITMIME: same meaning, ASCII only, or a clear refusal."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.errors import ContentInvalid
from relaygw.mail.content import header_fields
from relaygw.upstream import seven_bit
from relaygw.upstream.seven_bit import to_seven_bit
from tests.campaign import times
from tests.memory import peak_bytes
from tests.tables import each_of


def parsed(content: bytes) -> EmailMessage:
    message = message_from_bytes(to_seven_bit(content), policy=default)
    assert isinstance(message, EmailMessage)
    return message


def converted_field(field: str | bytes) -> bytes:
    """Return what becomes of one field of a mail."""
    raw = field if isinstance(field, bytes) else field.encode()
    content = to_seven_bit(raw + b"\r\n\r\nx\r\n")
    assert content.isascii()
    return content.removesuffix(b"\r\n\r\nx\r\n")


# --- fields


def test_header_fields_in_utf8_become_encoded_words() -> None:
    message = parsed(
        'From: Jörg Müller <joerg@x.test>, "Ä, B" <b@x.test>\r\n'
        "Subject: Bestellung über 5 €\r\n\r\nhi\r\n".encode()
    )
    assert message["subject"] == "Bestellung über 5 €"
    assert [(a.display_name, a.addr_spec) for a in message["from"].addresses] == [
        ("Jörg Müller", "joerg@x.test"),
        ("Ä, B", "b@x.test"),
    ]


@each_of("control", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028"])
@each_of("name", ["Subject", "From", "X-Note", "Comments"])
def test_no_control_character_begins_a_new_field(name: str, control: str) -> None:
    field = f"{name}: a{control}Bcc: victim@x.test".encode()
    content = field + b"\r\nX-Other: \xc3\xbc\r\nX-Last: b\r\n\r\nhi\r\n"
    converted = to_seven_bit(content)
    assert [found.name for found in header_fields(converted[: converted.index(b"\r\n\r\n")])] == [
        name.encode(),
        b"X-Other",
        b"X-Last",
    ]
    assert len(converted.split(b"\r\n")) == len(content.split(b"\r\n"))
    # the rest as a reader has it that counts more line ends: nothing begins with a field
    assert not any(line.startswith("Bcc") for line in converted.decode().split("\n"))
    if field.isascii():
        assert converted.startswith(field + b"\r\n")


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (
            'Content-Type: application/pdf; charset=x; name="Rechnung ü.pdf"',
            "Content-Type: application/pdf; charset=x; name*=utf-8''Rechnung%20%C3%BC.pdf",
        ),
        (
            "Content-Disposition: attachment;\r\n\tfilename=Rechnung für Sie.pdf; size=3",
            "Content-Disposition: attachment;"
            " filename*=utf-8''Rechnung%20f%C3%BCr%20Sie.pdf; size=3",
        ),
        (
            "content-disposition : attachment; filename=\"ü\"; filename*=utf-8''%C3%BC",
            'content-disposition : attachment; filename="=?utf-8?b?w7w=?=";'
            " filename*=utf-8''%C3%BC",
        ),
        (
            "Content-Disposition: attachment; filename*=utf-8''ü.pdf",
            "Content-Disposition: attachment; filename*=utf-8''%C3%BC.pdf",
        ),
        (
            'Content-Disposition: attachment; filename="ü',
            "Content-Disposition: attachment; filename*=utf-8''%C3%BC",
        ),
    ],
)
def test_a_file_name_keeps_the_type_and_its_other_parameters(field: str, expected: str) -> None:
    assert converted_field(field).replace(b"\r\n", b"").decode() == expected


def test_a_long_file_name_is_continued() -> None:
    name = "Übersicht " * 20 + ".pdf"
    message = parsed(f'Content-Disposition: attachment; filename="{name}"\r\n\r\nx\r\n'.encode())
    assert message.get_filename() == name
    assert all(len(line) <= 76 for line in str(message).splitlines())


@each_of(
    "field",
    [
        "Message-ID: <ü@x.test>",
        "In-Reply-To: <ü@x.test>",
        "List-Unsubscribe: <https://x.test/ü>",
        "DKIM-Signature: v=1; d=ü.test",
        "Return-Path: <ü@x.test>",
        "Received: from ü by b",
        "From: jö@x.test",
        "To: Jörg <jö@x.test>",
        "Cc: b@x.test, jö@x.test (Jörg)",
        'Reply-To: "jö"@x.test',
        "Content-Type: tüxt/plain; charset=utf-8",
        "Content-Type: text/plain; nüme=x",
        "Content-Type: text/plain; ü",
        "Content-Type: text/plain; charset=ü",
        "Content-Type: text/plain; name*0=ü; name*1=x",
        'Content-Type: multipart/mixed; boundary="ü"',
        "Sübject: no field",
        # where an address begins nobody can say
        'From: "Jörg <a@b.test>',
        "From: Jörg (ü <a@b.test>",
        "To: a@b (=?utf-8?q?x?= ü)",
        "Content-Type: text/plain; " + 50 * "n" + "=ü",
    ],
)
def test_a_field_that_ascii_cannot_say_is_refused_by_name(field: str) -> None:
    with pytest.raises(ContentInvalid, match=r"^its field [A-Z]|no field|boundary"):
        converted_field("X-First: x\r\n" + field)


@pytest.mark.parametrize("sign", [" ", "\t", "  "])
def test_a_field_with_a_space_before_its_colon_does_not_end_the_header(sign: str) -> None:
    content = f"X-A{sign}: 1\r\nSubject{sign}: ü\r\nX-B: 2\r\n\r\nX-C: ä\r\n".encode()
    converted = to_seven_bit(content)
    head, _, body = converted.partition(b"\r\n\r\n")
    assert head.startswith(f"X-A{sign}: 1\r\nSubject{sign}: =?utf-8?b?w7w=?=\r\nX-B: 2".encode())
    assert body == b"X-C: =C3=A4\r\n"


@each_of(
    ("field", "expected"),
    [
        ("Subject:ü", "Subject: =?utf-8?b?w7w=?="),
        ("Subject: a  ü  b\t", "Subject: a  =?utf-8?b?w7w=?=  b\t"),
        ("Subject: ü\r\n ö", "Subject: =?utf-8?b?w7wgw7Y=?="),
        (
            "Subject: =?utf-8?q?x?= ü =?utf-8?q?y?=",
            "Subject: =?utf-8?q?x?= =?utf-8?b?IMO8IA==?= =?utf-8?q?y?=",
        ),
        # no encoded word (RFC 2047 section 2), so it is text
        ("Subject: =?utf-8?q?Jörg?=", "Subject: =?utf-8?b?PT91dGYtOD9xP0rDtnJnPz0=?="),
        ("Subject: =?x ü", "Subject: =?x =?utf-8?b?w7w=?="),
        ("To: Gruppe ü: a@b, c@d;", "To: =?utf-8?b?R3J1cHBlIMO8?=: a@b, c@d;"),
        ("To: ü", "To: =?utf-8?b?w7w=?="),
        ('To: "ü"<a@b>', "To: =?utf-8?b?w7w=?= <a@b>"),
        ("To: a@b (Büro (ü))", "To: a@b (=?utf-8?b?QsO8cm8gKMO8KQ==?=)"),
        ('To: "ü \\"x\\"" <a@b>', "To: =?utf-8?b?w7wgIngi?= <a@b>"),
        ("List-Id: Größe <l.x.test>", "List-Id: =?utf-8?b?R3LDtsOfZQ==?= <l.x.test>"),
        ("Received: from a (HELO ü) by b", "Received: from a (=?utf-8?b?SEVMTyDDvA==?=) by b"),
        ("Received: from a by b for <ü@x>; Mon", "Received: from a by b; Mon"),
    ],
)
def test_only_words_with_8_bit_bytes_are_touched(field: str, expected: str) -> None:
    assert converted_field(field).decode() == expected


@each_of(
    ("field", "lines"),
    [
        ("Subject: " + 12 * "plain " + "ü " + 14 * "after ", 3),
        ("X-A-Name-Of-Many-Characters-For-A-Note: " + 40 * "ü", 4),
        ("To: Somebody-Or-Other-Of-Some-Department <a.long.address@shop.test> (Jörg M)", 2),
        ('To: "ü" <a.long.address.of.a.shop@shop.of.a.long.name.test>, "ü", "ü", b@x.test', 2),
        ("Subject: " + 300 * "世", 24),
    ],
)
def test_no_line_with_an_encoded_word_is_long(field: str, lines: int) -> None:
    folded = converted_field(field).split(b"\r\n")
    assert len(folded) == lines
    assert all(len(line) <= 76 for line in folded if b"=?" in line)
    assert all(line.startswith(b" ") and line.strip() for line in folded[1:])


@each_of(
    ("charset", "raw", "text"),
    [
        ("koi8-r", "Привет".encode("koi8-r"), "Привет"),
        ("windows-1251", "Привет".encode("cp1251"), "Привет"),
        ("shift_jis", "表".encode("shift_jis"), "表"),
        ("utf-8", b"5\x80", "5€"),
        ("utf-16", b"5\x80", "5€"),
        ("punycode", b"\x81", "\x81"),
        ("no-such", b"\xe4", "ä"),
        ("koi8-r", b"\xc3\xbc", "ü"),  # what is UTF-8 is not by chance
    ],
)
def test_the_charset_of_a_field_is_utf8_or_what_the_mail_declares(
    charset: str, raw: bytes, text: str
) -> None:
    types = b"\r\nContent-Type: text/plain; charset=" + charset.encode()
    message = parsed(b"Subject: " + raw + types + b"\r\n\r\nx\r\n")
    assert message["subject"] == text


# --- parts


def test_a_line_feed_inside_quoted_printable_stays_one() -> None:
    head = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n"
    message = parsed(head + b"\r\na=0Ab \xc3\xbc\r\n")
    assert message.get_payload(decode=True) == b"a\nb \xc3\xbc\r\n"


@pytest.mark.parametrize(
    "encoding", ["8bit", "binary", "7bit", "8-bit", "utf-8", "8bit (raw)", " 8BIT "]
)
def test_text_keeps_its_bytes(encoding: str) -> None:
    head = f"Content-Type: text/plain; charset=koi8-r\r\nContent-Transfer-Encoding: {encoding}\r\n"
    message = parsed(head.encode() + b"\r\n\xf0\xd2\r\n.\xc9 =\r\n")
    assert message.get_payload(decode=True) == b"\xf0\xd2\r\n.\xc9 =\r\n"
    assert message.get_content_charset() == "koi8-r"


def test_mail_without_mime_gets_the_fields_it_needs() -> None:
    message = parsed("Subject: x\r\n\r\nGrüße\r\n".encode())
    assert message["mime-version"] == "1.0"
    assert message.get_content() == "Grüße\r\n"


def test_the_shorter_encoding_is_taken() -> None:
    assert b"quoted-printable" in to_seven_bit("S: x\r\n\r\nein paar Wörter mehr\r\n".encode())
    assert b"base64" in to_seven_bit(("S: x\r\n\r\n" + "Привет " * 20 + "\r\n").encode())


MULTIPART = (
    b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n\xc3\xa4\r\n"
    b"--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\xff\x80\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: \xc3\xb6\r\n\r\n\xc3\xb6\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nplain = as it was\r\n"
    b"--b--\r\n"
)


def test_parts_are_converted_each_by_its_kind() -> None:
    message = parsed(MULTIPART)
    bodies = [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]
    assert bodies == [b"\xc3\xa4", b"\xff\x80", b"\xc3\xb6", b"plain = as it was"]
    assert message["content-transfer-encoding"] == "7bit"
    assert message.get_payload()[2].get_payload()[0]["subject"] == "ö"


def multipart(*lines: bytes, kind: bytes = b"mixed") -> bytes:
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/%b; boundary=b\r\n\r\n" % kind
    return head + b"".join(line + b"\r\n" for line in lines)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # text around the parts is nobody's, and padding behind a boundary stays
        (
            multipart(b"pre\xff", b"--b \t", b"", b"x", b"--b--", b"\xc3\xbc"),
            multipart(b"pre?", b"--b \t", b"", b"x", b"--b--", b"??"),
        ),
        # a part without a header, without an empty line, and one whose text comes first
        (
            multipart(b"--b", b"A: \xc3\xbc", b"--b", b"--b", b"b c: \xc3\xbc", b"--b--"),
            multipart(
                b"--b",
                b"A: =?utf-8?b?w7w=?=",
                b"--b",
                b"--b",
                b"Content-Type: text/plain; charset=utf-8",
                b"Content-Transfer-Encoding: quoted-printable",
                b"",
                b"b c: =C3=BC",
                b"--b--",
            ),
        ),
        # a digest holds messages
        (
            multipart(b"--b", b"", b"Subject: \xc3\xbc", b"", b"x", b"--b--", kind=b"digest"),
            multipart(
                b"--b", b"", b"Subject: =?utf-8?b?w7w=?=", b"", b"x", b"--b--", kind=b"digest"
            ),
        ),
        # a signed part in ASCII stays as it is, whatever the header has
        (
            b"Subject: \xc3\xbc\r\n" + multipart(b"--b", b"", b"a", b"--b--", kind=b"signed"),
            b"Subject: =?utf-8?b?w7w=?=\r\n"
            + multipart(b"--b", b"", b"a", b"--b--", kind=b"signed"),
        ),
        # bytes that quoted-printable should not have had
        (
            b"Content-Transfer-Encoding: Quoted-Printable\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: text/plain\r\n\r\n=C3=BC \xc3\xbc=\r\n!\r\n",
            b"Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: text/plain\r\n\r\n=C3=BC =C3=BC!\r\n",
        ),
    ],
)
def test_odd_parts(before: bytes, after: bytes) -> None:
    assert to_seven_bit(before) == after


def test_no_line_of_a_body_becomes_a_delimiter() -> None:
    for length in range(60, 90):
        line = "ü" + "x" * length + "--b"
        before = multipart(b"--b", b"", line.encode(), b"--b--")
        (part,) = message_from_bytes(to_seven_bit(before)).get_payload()
        assert part.get_payload(decode=True) == line.encode()


@each_of(
    ("content", "why"),
    [
        (b"Content-Type: multipart/mixed\r\n\r\n\xff\r\n", "boundary"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\xff\r\n", "boundary"),
        (b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n\xff" % (1001 * b"b"), "boundary"),
        (b"Content-Type: multipart/mixed boundary=b\r\n\r\n--b\r\n\r\n\xff\r\n", "Content-Type"),
        (b"Content-Type: text/plain\r\n" + multipart(b"--b", b"", b"\xff"), "several types"),
        (b"Content-Transfer-Encoding: base64\r\n\r\n\xff\r\n", "claims base64"),
        (b"Content-Transfer-Encoding: x-uuencode\r\n\r\n\xff\r\n", "claims x-uuencode"),
        (
            b"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: base64\r\n\r\n\xff\r\n",
            "claims several",
        ),
        (
            b"Content-Transfer-Encoding: base64\r\n" + multipart(b"--b", b"", b"\xff"),
            "claims to be encoded",
        ),
        (multipart(b"--b", b"", b"\xff", kind=b"signed"), "signed"),
        (multipart(b"--b", b"X: \xc3\xbc", b"", b"a", kind=b"signed"), "signed"),
        (b"Content-Type: message/delivery-status\r\n\r\nA: \xff\r\n", "message/delivery-status"),
        (b"Content-Type: message/partial\r\n\r\n\xff\r\n", "message/partial"),
        # the boundary of the outer multipart ends the inner one, which then has no parts
        (
            multipart(b"--b", b"Content-Type: multipart/mixed; boundary=b", b"", b"\xff", b"--b"),
            "boundary",
        ),
    ],
)
def test_what_cannot_be_rewritten_says_why(content: bytes, why: str) -> None:
    with pytest.raises(ContentInvalid, match=why):
        to_seven_bit(content)


def nested(levels: int) -> bytes:
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
        for n in range(levels)
    )


EXPENSIVE: dict[str, tuple[Callable[[], bytes], str]] = {
    "levels": (lambda: nested(3000) + b"\r\n\xff\r\n", "100 levels"),
    "messages": (
        lambda: b"Content-Type: message/rfc822\r\n\r\n" * 3000 + b"\xff\r\n",
        "100 levels",
    ),
    "parts": (lambda: multipart(*[b"--b\r\n"] * 10_001, b"\xff"), "10000 parts"),
    "fields": (lambda: b"a:\r\n" * 100_001 + b"b: \xc3\xbc\r\n\r\n", "100000 fields"),
    "field bytes": (
        lambda: b"Subject: " + b"\xc3\xbc " * 1_400_000 + b"\r\n\r\n",
        "bytes to rewrite",
    ),
    "parameters": (
        lambda: b"Content-Type: a/b" + b"; a=\xc3\xbc" * 1001 + b"\r\n\r\n",
        "1000 parameters",
    ),
}


@pytest.mark.parametrize("kind", EXPENSIVE)
def test_what_is_built_to_be_expensive_is_refused(kind: str) -> None:
    content, limit = EXPENSIVE[kind]
    with pytest.raises(ContentInvalid, match=limit):
        to_seven_bit(content())


MEGABYTE = 2**20
HEADERS: dict[str, Callable[[int], bytes]] = {
    "fields": lambda size: "X-Note: Grüße aus Köln am Rhein\r\n".encode() * (size // 35),
    "ascii fields": lambda size: b"X-Note: plain text of a note\r\n" * (size // 30),
    "one text": lambda size: b"Subject: " + "ü a\r\n ".encode() * (size // 7) + b"\r\n",
    "one word": lambda size: b"Subject: " + b"\xc3\xbc" * (size // 2) + b"\r\n",
    "words": lambda size: b"Subject: " + "=?utf-8?q?x?= ü ".encode() * (size // 17) + b"\r\n",
    "half words": lambda size: b"Subject: \xc3\xbc" + b"=?a?q?x" * (size // 7) + b"\r\n",
    "addresses": lambda size: b"To: " + 'Jörg "ü" <a@b>,\r\n '.encode() * (size // 22) + b"\r\n",
    "open quotes": lambda size: b'To: \xc3\xbc "' + b'\\"' * (size // 2) + b"\r\n",
    "quotes in a false word": lambda size: b"To: =?x?q?\xc3\xbc" + b'"\\' * (size // 2) + b"?=\r\n",
    "comments": lambda size: b"To: \xc3\xbc" + b"(" * size + b"\r\n",
    "quotes": lambda size: b"Content-Type: a/b;a=\xc3\xbc" + b'"\\"' * (size // 3) + b"\r\n",
    "no colons": lambda size: b"X: \xc3\xbc\r\n" + (b"x" * 900 + b"\r\n") * (size // 902),
    "hyphens": lambda size: multipart(b"--\r\n" * (size // 4), b"--b", b"", b"\xff"),
    "parts": lambda size: multipart(
        *["--b\r\nX: ü\r\n\r\nü".encode()] * min(size // 18, 9000), b"--x\r\n" * (size // 30)
    ),
}


@pytest.mark.campaign
@each_of("kind", HEADERS)
def test_time_grows_with_the_size_alone(kind: str) -> None:
    def seconds(size: int) -> float:
        content = HEADERS[kind](size) + b"X-Last: \xc3\xbc\r\n\r\nx\r\n"
        gc.collect()
        gc.disable()  # what it would look at are the tests
        begun_s = time.process_time()
        to_seven_bit(content)
        took_s = time.process_time() - begun_s
        gc.enable()
        return took_s

    large = MEGABYTE // times(8, campaign=1)
    small_s, large_s = (min(seconds(size) for _ in range(2)) for size in (large // 8, large))
    print(f"{kind}: {large / MEGABYTE:.2f} MB in {large_s:.3f} s")
    # eight times the work; the square would be 64 times
    assert large_s < 30 * max(small_s, 0.001)


def test_a_large_body_is_encoded_in_slices_of_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seven_bit, "_SLICE_BYTES", 57)
    for body in ("ein langer Text, ü. " * 40, "zwei\r\nZeilen ü\r\n" * 20, "привет\r\n" * 30):
        for encoding in ("8bit", "binary"):
            for kind in ("text/plain", "application/x"):
                head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
                message = message_from_bytes(to_seven_bit((head + body + "\r\n").encode()))
                assert message.get_payload(decode=True) == f"{body}\r\n".encode()


@given(st.binary(max_size=400))
def test_any_bytes_become_ascii_or_are_refused(body: bytes) -> None:
    try:
        converted = to_seven_bit(body + b"\r\n\r\n" + body)
    except ContentInvalid:
        return
    assert converted.isascii()
    assert b"\r" not in converted.replace(b"\r\n", b"")
    assert b"\n" not in converted.replace(b"\r\n", b"")


PIECES = [
    *(b"\r\n", b"\r\n ", b" ", b"\t", b":", b";", b"=", b'"', b"\\", b"(", b")", b"<", b">", b"@"),
    *(b"\xc3\xbc", b"\xff", b"\x0b", b"\x85", b"a", b"--b", b"--", b"=?utf-8?q?x?=", b"=?", b"?="),
    *(b"Subject: ", b"To: ", b"Content-Type: ", b"multipart/mixed; boundary=b", b"text/plain"),
    *(b"Content-Transfer-Encoding: ", b"8bit", b"base64", b"quoted-printable", b"Received: "),
    *(b"message/rfc822", b"filename=", b"name*0=", b"name*=", b", ", b"[", b"]", b"\r\n\r\n"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_odd_mail_becomes_ascii_with_the_same_fields_or_is_refused(pieces: list[bytes]) -> None:
    content = b"X-First: \xc3\xbc\r\n" + b"".join(pieces)
    try:
        converted = to_seven_bit(content)
    except ContentInvalid:
        return
    assert converted.isascii()
    before, after = (
        [found.name for found in header_fields(text[: (text + b"\r\n\r\n").index(b"\r\n\r\n")])]
        for text in (content, converted)
    )
    assert after[: len(before)] == before
    assert set(after[len(before) :]) <= {
        *(b"MIME-Version", b"Content-Type", b"Content-Transfer-Encoding")
    }


@pytest.mark.parametrize(
    "field",
    [
        b"From: " + "ä <a@b.de>, ".encode() * 10_000,
        b"Subject: " + "ä ".encode() * 50_000,
        b"X-A: " + b"\xc3\xa4" * 75_000,
        b"Content-Type: text/plain" + "; a=ä".encode() * 25_000,
        b"a: \xc3\xa4\r\n" * 500_000 + b"b: c",
    ],
    ids=["addresses", "words", "one word", "parameters", "fields"],
)
def test_a_header_takes_little_memory(field: bytes) -> None:
    content = field + b"\r\n\r\nhi\r\n"
    with peak_bytes() as peak, contextlib.suppress(ContentInvalid):
        to_seven_bit(content)
    assert peak() < 13 * len(content)
