from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.content_facts import ContentFacts
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.mail.parts import file_name_of, read_tree
from relaygw.web.mail.text import MAX_SNIPPET_CHARACTERS, read_facts, text_of_html
from relaygw.web.sandbox.api.messages import (
    MAX_SHOWN_CHARACTERS,
    headers_json,
    message_json,
    summary_json,
)
from tests.tables import each_of

MakeEntry = Callable[..., QueueEntry]

ORDER_MAIL = b"""From: =?utf-8?q?Sh=C3=B6p?= <shop@shop.test>
To: Ann <ann@x.test>, root
Cc: c@x.test
Bcc: Dee <d@x.test>, nobody@x.test
Reply-To: help@shop.test
Date: Tue, 25 Nov 2025 11:00:00 +0100
Message-ID: <m1@shop.test>
List-Unsubscribe: <mailto:off@shop.test>, <https://shop.test/off>
Content-Type: multipart/mixed; boundary=o

--o
Content-Type: multipart/alternative; boundary=i

--i
Content-Type: text/plain; charset=utf-8

Thank  you
for your order
--i
Content-Type: text/html; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

<p>Danke sch=F6n</p>
--i--
--o
Content-Type: image/png; name=logo.png
Content-Disposition: inline
Content-ID: <logo@shop>
Content-Transfer-Encoding: base64

aGVsbG8=
--o
Content-Type: application/pdf
Content-Disposition: attachment; filename="../../etc/Invoice 7.pdf"
Content-Transfer-Encoding: base64

aGVsbG8=
--o--
""".replace(b"\n", b"\r\n")


def captured(entry: QueueEntry, facts: ContentFacts) -> CapturedEntry:
    return CapturedEntry(entry=entry, facts=facts, tags=())


def view(make_entry: MakeEntry, content: bytes, *recipients: str) -> dict[str, Any]:
    return message_json(make_entry(*recipients), read_tree(content))


def test_a_whole_message_has_every_key_of_the_form(make_entry: MakeEntry) -> None:
    entry = make_entry("ann@x.test", ("root", "ops@x.test"), "C@X.test", "d@x.test", "e@x.test")
    shown = json.loads(json.dumps(message_json(entry, read_tree(ORDER_MAIL))))
    sums = {
        "MD5": hashlib.md5(b"hello").hexdigest(),
        "SHA1": hashlib.sha1(b"hello").hexdigest(),
        "SHA256": hashlib.sha256(b"hello").hexdigest(),
    }
    assert shown == {
        "ID": "01JDABCDEFGHJKMNP",
        "MessageID": "m1@shop.test",
        "Read": False,
        "From": {"Name": "Shöp", "Address": "shop@shop.test"},
        "To": [{"Name": "Ann", "Address": "ann@x.test"}, {"Name": "", "Address": "root"}],
        "Cc": [{"Name": "", "Address": "c@x.test"}],
        "Bcc": [{"Name": "Dee", "Address": "d@x.test"}, {"Name": "", "Address": "e@x.test"}],
        "ReplyTo": [{"Name": "", "Address": "help@shop.test"}],
        "ReturnPath": "bounces@shop.test",
        "Subject": "Order 7",
        "ListUnsubscribe": {
            "Header": "<mailto:off@shop.test>, <https://shop.test/off>",
            "Links": ["mailto:off@shop.test", "https://shop.test/off"],
            "Errors": "",
            "HeaderPost": "",
        },
        "Date": "2025-11-25T11:00:00+01:00",
        "Tags": [],
        "Username": "shop1",
        "Text": "Thank  you\r\nfor your order",
        "HTML": "<p>Danke schön</p>",
        "Size": 100,
        "Inline": [
            {
                "PartID": "2",
                "FileName": "logo.png",
                "ContentType": "image/png",
                "ContentID": "logo@shop",
                "Size": 5,
                "Checksums": sums,
            }
        ],
        "Attachments": [
            {
                "PartID": "3",
                "FileName": "Invoice 7.pdf",
                "ContentType": "application/pdf",
                "ContentID": "",
                "Size": 5,
                "Checksums": sums,
            }
        ],
    }


def test_a_summary_has_every_key_of_the_form(make_entry: MakeEntry) -> None:
    entry = make_entry("ann@x.test", "c@x.test", "root", read_at_ms=5)
    shown = summary_json(captured(entry, read_facts(read_tree(ORDER_MAIL))))
    assert list(shown) == [
        "ID", "MessageID", "Read", "From", "To", "Cc", "Bcc", "ReplyTo", "Subject", "Username",
        "Tags", "Size", "Created", "Attachments", "Snippet",
    ]  # fmt: skip
    assert shown["Read"] is True
    assert shown["Created"] == "2025-11-25T10:00:00.123Z"
    assert shown["Attachments"] == 1
    assert shown["Snippet"] == "Thank you for your order"
    assert shown["Bcc"] == []


def test_mail_with_nothing_in_it_is_complete(make_entry: MakeEntry) -> None:
    shown = view(make_entry, b"")
    assert shown["From"] == {"Name": "", "Address": ""}
    assert [shown[key] for key in ("Text", "HTML")] == ["", ""]
    lists = ("To", "Cc", "Bcc", "ReplyTo", "Tags", "Inline", "Attachments")
    assert all(list(shown[key]) == [] for key in lists)
    assert shown["Date"] == "2025-11-25T10:00:00.123Z"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Tue, 25 Nov 2025 10:00:00 GMT", "2025-11-25T10:00:00Z"),
        (b"Tue, 25 Nov 2025 10:00:00 -0000", "2025-11-25T10:00:00Z"),
        (b"yesterday", "2025-11-25T10:00:00.123Z"),
        (b"Tue, 25 Nov 2025 10:00:00 +999999999999", "2025-11-25T10:00:00.123Z"),
        (b"Tue, 99 Nov 2025 10:00:00 GMT", "2025-11-25T10:00:00.123Z"),
        (b"1 Jan 99999999999999999999 1:1:1 GMT", "2025-11-25T10:00:00.123Z"),
    ],
)
def test_dates(make_entry: MakeEntry, value: bytes, expected: str) -> None:
    assert view(make_entry, b"Date: " + value + b"\r\n\r\n")["Date"] == expected


def test_html_alone_is_told_as_text_too(make_entry: MakeEntry) -> None:
    shown = view(make_entry, b"Content-Type: text/html\r\n\r\n<h1>Hi</h1><p>A &amp; B</p>")
    assert shown["Text"] == "Hi\nA & B"
    assert shown["Attachments"] == []


def test_several_texts_are_shown_with_a_line_between(make_entry: MakeEntry) -> None:
    shown = view(
        make_entry,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n"
        b"--b\r\nContent-Disposition: attachment\r\n\r\nfiled\r\n--b--",
    )
    assert shown["Text"] == "one\n--\ntwo"
    assert [part["PartID"] for part in shown["Attachments"]] == ["3"]


def test_a_message_that_is_only_a_file(make_entry: MakeEntry) -> None:
    shown = view(make_entry, b"Content-Type: application/pdf; name=a.pdf\r\n\r\n%PDF")
    assert [(part["PartID"], part["FileName"]) for part in shown["Attachments"]] == [("0", "a.pdf")]
    assert shown["Text"] == ""


def test_text_that_is_cut_says_so(make_entry: MakeEntry) -> None:
    text = view(make_entry, b"\r\n" + b"x" * (MAX_SHOWN_CHARACTERS + 1))["Text"]
    assert text.endswith(
        f"x\n[relaygw left out everything beyond {MAX_SHOWN_CHARACTERS} characters]"
    )
    assert text.count("x") == MAX_SHOWN_CHARACTERS
    assert "left out" not in view(make_entry, b"\r\n" + b"y" * MAX_SHOWN_CHARACTERS)["Text"]


def test_parts_that_are_left_out_are_told(make_entry: MakeEntry) -> None:
    parts = b"--b\r\n\r\nx\r\n" * 1500
    head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    assert view(make_entry, head + parts)["Text"].endswith(
        "x\n[relaygw left out everything after 1000 parts]"
    )


@pytest.mark.parametrize("size", [MAX_SNIPPET_CHARACTERS, MAX_SNIPPET_CHARACTERS + 1])
def test_snippets_are_short(size: int) -> None:
    snippet = read_facts(read_tree(b"\r\n" + b"x" * size)).snippet
    assert len(snippet) == MAX_SNIPPET_CHARACTERS
    assert snippet.endswith("...") is (size > MAX_SNIPPET_CHARACTERS)


@pytest.mark.parametrize(
    ("header", "links", "errors"),
    [
        ("<ftp://x/>", [], '"ftp://x/" is not a mail or web link'),
        ("https://x.test/", [], "no link in angle brackets"),
        (
            "<https://a/1>, <https://b/2>, <https://c/3>",
            ["https://a/1", "https://b/2", "https://c/3"],
            "more than one mail link and one web link",
        ),
    ],
)
def test_unsubscribe_errors(
    make_entry: MakeEntry, header: str, links: list[str], errors: str
) -> None:
    content = f"List-Unsubscribe: {header}\r\n\r\n".encode()
    shown = view(make_entry, content)["ListUnsubscribe"]
    assert (shown["Links"], shown["Errors"]) == (links, errors)


def test_headers_are_spelled_as_go_clients_expect() -> None:
    content = (
        b"received: a\r\nMessage-ID: m\r\nMIME-Version: 1.0\r\nReceived: =?utf-8?q?b?=\r\n\r\n"
    )
    assert headers_json(read_tree(content)) == {
        "Message-Id": ["m"],
        "Mime-Version": ["1.0"],
        "Received": ["a", "=?utf-8?q?b?="],
    }


@each_of(
    ("name", "expected"),
    [
        ("invoice.pdf", "invoice.pdf"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\x.txt", "x.txt"),
        ("/abs", "abs"),
        ("..", "part-2.1"),
        ("", "part-2.1"),
        ("CON", "_CON"),
        ("com1.txt", "_com1.txt"),
        ("a\x00b\r\nc", "a_b_c"),
        ('a"b', "a_b"),
        ("cod\u202egpj.exe", "cod_gpj.exe"),
        ("x" * 300 + ".pdf", "x" * 100 + ".pdf"),
    ],
)
def test_file_names_are_safe_to_save_under(name: str, expected: str) -> None:
    part = read_tree(b"").root
    part.part_id, part.file_name = "2.1", name
    assert file_name_of(part) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<style>a{}</style>x<script>if (a<b) c</script>y", "xy"),
        ("<head><title>t</title></head><p>a<br>b</p><TD>c", "a\nb\nc"),
        ("a  b\n c&nbsp;&lt;d&gt;", "a b c <d>"),
        ("1 < 2 <b>bold</b", "1 < 2 bold</b"),
        ("<style>never closed", ""),
    ],
)
def test_words_of_a_page(page: str, expected: str) -> None:
    assert text_of_html(page) == expected


def test_a_number_that_no_character_has_does_no_harm() -> None:
    assert text_of_html(f"a &#{'1' * 5000}; b") == "a \ufffd b"


@pytest.mark.parametrize("bomb", ["<" * 10**6, "<a" + "a" * 10**6, "<p " * 10**5, "&#" * 10**5])
def test_pages_built_to_be_expensive_are_read(bomb: str) -> None:
    text_of_html(bomb)


FRAGMENTS = st.sampled_from(
    [b"\r\n", b"\r\n\r\n", b"--b", b"--b--", b"--", b"Content-Type: multipart/mixed; boundary=b",
     b"Content-Type: text/html; charset=utf-7", b"Content-Transfer-Encoding: base64", b"+2AA-",
     b"From: ", b"To: ", b"<a@b>", b"=?utf-7?q?+2AA-?=", b"Content-Disposition: attachment; ",
     b"filename*0*=utf-16''%d8%00", b"Date: ", b"<", b"\x00", b"\xff", b"x"]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=40))
def test_any_content_gives_an_answer_that_can_be_sent(
    make_entry: MakeEntry, fragments: list[bytes]
) -> None:
    tree = read_tree(b"".join(fragments))
    entry = make_entry("a@b")
    shown = [
        message_json(entry, tree),
        summary_json(captured(entry, read_facts(tree))),
        headers_json(tree),
    ]
    json.dumps(shown, ensure_ascii=False).encode("utf-8")
