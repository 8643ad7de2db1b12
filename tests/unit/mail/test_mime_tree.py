from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail import mime_tree
from relaygw.mail.mime_tree import MAX_LEVELS, Limit, MimeTree
from relaygw.web.mail.parts import MAX_PARTS, read_tree


def multipart(*parts: bytes, kind: bytes = b"mixed", boundary: bytes = b"b") -> bytes:
    head = b'Content-Type: multipart/%s; boundary="%s"\r\n\r\n' % (kind, boundary)
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    return head + body + b"--%s--\r\n" % boundary


def found(tree: MimeTree) -> list[tuple[str, str, bytes]]:
    return [(part.part_id, part.content_type, tree.body(part)) for part in tree.leaves]


def test_parts_are_numbered_by_their_place() -> None:
    inner = multipart(b"\r\none", b"Content-Type: text/html\r\n\r\ntwo", boundary=b"in")
    tree = read_tree(b"Subject: s\r\n" + multipart(inner, b"Content-Type: a/b\r\n\r\n3"))
    assert found(tree) == [
        ("1.1", "text/plain", b"one"),
        ("1.2", "text/html", b"two"),
        ("2", "a/b", b"3"),
    ]
    assert tree.first("subject") == "s"


def test_a_message_without_parts_is_its_own_part() -> None:
    assert found(read_tree(b"Subject: s\r\n\r\nhello\r\n")) == [("0", "text/plain", b"hello\r\n")]
    assert found(read_tree(b"")) == [("0", "text/plain", b"")]
    assert found(read_tree(b"Subject: no blank line")) == [("0", "text/plain", b"")]


def test_preamble_and_epilogue_are_no_parts() -> None:
    content = multipart(b"\r\nx").replace(b"\r\n\r\n--b", b"\r\n\r\npreamble\r\n--b", 1)
    assert found(read_tree(content + b"epilogue\r\n")) == [("1", "text/plain", b"x")]


@pytest.mark.parametrize(
    ("encoding", "raw", "expected"),
    [
        (b"base64", b"aGVs\r\nbG8=\r\n", b"hello"),
        (b"BASE64", b"aGVsbG8", b"hello"),
        (b"base64", b"aGV*sb G8=aGVs", b"hello"),
        (b"base64", b"aGVsb", b"hel"),
        (b"base64", b"====", b""),
        (b"quoted-printable", b"h=65l=\r\nlo=ZZ", b"hello=ZZ"),
        (b"x-unknown", b"as it is", b"as it is"),
    ],
)
def test_broken_encodings_give_what_can_be_read(
    encoding: bytes, raw: bytes, expected: bytes
) -> None:
    tree = read_tree(b"Content-Transfer-Encoding: %s\r\n\r\n%s" % (encoding, raw))
    assert tree.body(tree.root) == expected


@pytest.mark.parametrize("boundary", [b"(.*)+[x]{9}\\", b"a" * 1000, b"x--", b"--"])
def test_any_boundary_is_a_plain_text(boundary: bytes) -> None:
    quoted = boundary.replace(b"\\", b"\\\\")
    content = multipart(b"\r\nx", b"\r\ny", boundary=boundary).replace(
        b'"%s"' % boundary, b'"%s"' % quoted
    )
    assert [body for _, _, body in found(read_tree(content))] == [b"x", b"y"]


@pytest.mark.parametrize("boundary", [b"", b"a" * 5000])
def test_without_a_usable_boundary_the_body_is_text(boundary: bytes) -> None:
    tree = read_tree(multipart(b"\r\nx", boundary=boundary))
    assert [part.content_type for part in tree.leaves] == ["text/plain"]
    assert b"x" in tree.body(tree.root)


def test_a_multipart_without_any_part_is_text() -> None:
    tree = read_tree(b"Content-Type: multipart/mixed; boundary=b\r\n\r\njust text\r\n")
    assert found(tree) == [("0", "text/plain", b"just text\r\n")]


def test_a_multipart_that_is_never_closed_ends_with_the_message() -> None:
    content = multipart(b"\r\nx", b"\r\ny").removesuffix(b"--b--\r\n")
    assert [body for _, _, body in found(read_tree(content))] == [b"x", b"y\r\n"]


def test_an_outer_delimiter_ends_inner_multiparts() -> None:
    inner = multipart(b"\r\none", boundary=b"in").removesuffix(b"\r\n--in--\r\n")
    tree = read_tree(multipart(inner, b"\r\ntwo"))
    assert [(p, body) for p, _, body in found(tree)] == [("1.1", b"one"), ("2", b"two")]


def test_a_part_without_a_blank_line_does_not_eat_the_next() -> None:
    tree = read_tree(
        multipart(b"Content-Type: a/b", b"\r\ntwo", b"X: 3", b"Content-Type: c/d\r\n\r\nfour")
    )
    assert found(tree) == [
        ("1", "a/b", b""),
        ("2", "text/plain", b"two"),
        ("3", "text/plain", b""),
        ("4", "c/d", b"four"),
    ]


def test_an_inner_boundary_that_is_open_already_opens_nothing() -> None:
    tree = read_tree(multipart(multipart(b"\r\nx"), b"\r\ny"))
    assert [part_id for part_id, _, _ in found(tree)] == ["1", "2"]


def test_ten_thousand_multiparts_in_one_another() -> None:
    opening = b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n"
    tree = read_tree(b"".join(opening % (n, n) for n in range(10_000)) + b"\r\nhi\r\n")
    assert tree.left_out == [f"parts more than {MAX_LEVELS} levels deep"]
    assert [part.part_id.count(".") for part in tree.leaves] == [MAX_LEVELS - 1]


def test_a_million_parts() -> None:
    tree = read_tree(multipart(*[b"\r\nx"] * 1_000_000))
    assert tree.left_out == [f"everything after {MAX_PARTS} parts"]
    assert len(tree.leaves) == MAX_PARTS
    assert tree.body(tree.leaves[-1]) == b"x"


def test_a_million_lines_that_are_no_delimiters() -> None:
    hyphens = read_tree(multipart(b"\r\n" + b"--c\r\n" * 1_000_000, b"\r\ny"))
    assert [part.part_id for part in hyphens.leaves] == ["1", "2"]
    alike = read_tree(multipart(b"\r\n" + b"--bc\r\n" * 1_000_000, b"\r\ny"))
    assert alike.left_out == ["what follows many lines of hyphens"]
    assert len(alike.leaves) == 1


def test_bare_line_ends_are_line_ends() -> None:
    tree = read_tree(multipart(b"\r\nx", b"\r\ny").replace(b"\r\n", b"\n"))
    assert [body for _, _, body in found(tree)] == [b"x", b"y"]


def test_a_boundary_that_begins_as_the_outer_one_is_another() -> None:
    inner = multipart(b"\r\none", b"\r\ntwo", boundary=b"bc")
    assert [part_id for part_id, _, _ in found(read_tree(multipart(inner, b"\r\n3")))] == [
        *("1.1", "1.2", "2")
    ]


def test_a_line_of_two_boundaries_is_the_outer_ones() -> None:
    inner = multipart(b"\r\none", boundary=b"b--")
    assert found(read_tree(multipart(inner))) == [("1", "text/plain", b"")]


def test_a_multipart_within_that_has_no_part_is_text_if_there_is_no_other() -> None:
    head = b"Content-Type: multipart/mixed; boundary=other\r\n\r\n"
    assert found(read_tree(multipart(head + b"text"))) == [("1", "text/plain", b"text")]
    assert found(read_tree(multipart(head + b"text", b"\r\nx"))) == [
        ("1", "multipart/mixed", b"text"),
        ("2", "text/plain", b"x"),
    ]


def test_text_that_comes_first_is_no_header() -> None:
    tree = read_tree(multipart(b"hello\r\nX: y\r\n\r\nyou", b"From a b\r\nX: y\r\n\r\nz"))
    assert [body for _, _, body in found(tree)] == [b"hello\r\nX: y\r\n\r\nyou", b"z"]


def test_an_empty_line_may_be_the_beginning_of_a_delimiter() -> None:
    tree = read_tree(multipart(b"X: y\r\n", b"\r\nz"))
    first, _ = tree.parts
    assert first.body_start == first.end
    assert tree.content[first.start :].startswith(b"X: y\r\n\r\n--b\r\n")
    assert tree.content[first.end :].startswith(b"\r\n--b\r\n")


def test_a_comment_does_not_hide_the_type() -> None:
    tree = read_tree(b"Content-Type: Text/HTML (a page); charset=x\r\n\r\n<p>")
    assert (tree.root.content_type, tree.root.charset) == ("text/html", "x")
    assert read_tree(b"Content-Type: text/html page\r\n\r\n").root.content_type == "text/plain"


def test_the_boundary_is_taken_as_it_stands_there() -> None:
    word = b"=?utf-8?q?b?="
    content = multipart(b"\r\nx", boundary=word)
    assert [body for _, _, body in found(read_tree(content))] == [b"x"]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ('Content-Disposition: attachment; filename="=?utf-8?q?=C3=A4?="', "ä"),
        ("Content-Type: a/b; name=n\r\nContent-Disposition: x; filename*=utf-8''%c3%a4", "ä"),
        ("Content-Type: a/b; name=n\r\nContent-Disposition: x", "n"),
        ("Subject: x", ""),
    ],
)
def test_file_names(field: str, name: str) -> None:
    assert read_tree(field.encode() + b"\r\n\r\n").root.file_name == name


@pytest.mark.parametrize(
    ("fields", "encoding", "claim"),
    [
        (b"Content-Transfer-Encoding: Base64 (x)\r\n", "base64", "base64"),
        (b"Content-Transfer-Encoding: 8-bit\r\n", "8-bit", ""),
        (
            b"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: uue\r\n",
            "8bit",
            "several",
        ),
        (b"", "", ""),
    ],
)
def test_how_a_body_claims_to_be_encoded(fields: bytes, encoding: str, claim: str) -> None:
    root = read_tree(fields + b"\r\nx").root
    assert (root.encoding, root.claimed_encoding) == (encoding, claim)


# --- with attached messages


def read_all(content: bytes, max_parts: int = 100) -> MimeTree:
    return mime_tree.read_tree(content, max_parts=max_parts, with_messages=True)


def test_an_attached_message_has_parts() -> None:
    mail = b"Content-Type: message/rfc822\r\n\r\nSubject: s\r\n" + multipart(b"\r\nx")
    tree = read_all(multipart(mail, b"\r\ny", boundary=b"out"))
    assert [(part.part_id, part.is_message) for part in tree.parts] == [
        *(("1", False), ("1.1", True), ("1.1.1", False), ("2", False))
    ]
    assert [tree.body(part) for part in tree.leaves] == [b"x", b"y"]
    whole = read_tree(tree.content)
    assert [part.part_id for part in whole.leaves] == ["1", "2"]


def test_an_encoded_message_is_read_as_a_whole() -> None:
    field = b"Content-Transfer-Encoding: base64\r\n"
    tree = read_all(b"Content-Type: message/rfc822\r\n" + field + b"\r\nSubject: x\r\n")
    assert tree.leaves == [tree.root]


def test_parts_of_a_digest_are_messages() -> None:
    digest = multipart(b"\r\nSubject: s\r\n\r\nx", b"Content-Type: a/b\r\n\r\ny", kind=b"digest")
    assert [part.content_type for part in read_all(digest).leaves] == ["text/plain", "a/b"]
    assert [part.content_type for part in read_tree(digest).leaves] == ["text/plain", "a/b"]
    assert [part.part_id for part in read_all(digest).leaves] == ["1.1", "2"]


def test_ten_thousand_messages_in_one_another() -> None:
    tree = read_all(b"Content-Type: message/rfc822\r\n\r\n" * 10_000, max_parts=1000)
    assert tree.exceeded == {Limit.LEVELS}
    assert len(tree.parts) == MAX_LEVELS


PIECES = [
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"--b\r\n",
        b"--b--\r\n",
        b"--c\r\n",
        b"--c--",
        b"--bc\r\n",
        b"text\r\n",
    ),
    *(b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: message/rfc822\r\n"),
    *(b"Content-Type: multipart/digest; boundary=c\r\n", b"Subject: x\r\n", b"From x y\r\n"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.booleans())
def test_parts_lie_in_each_other_in_order(pieces: list[bytes], with_messages: bool) -> None:
    content = b"".join(pieces)
    tree = mime_tree.read_tree(content, max_parts=20, with_messages=with_messages)
    assert len(tree.parts) <= 20
    for part in (tree.root, *tree.parts):
        assert 0 <= part.start <= part.head_end <= part.body_start <= part.end <= len(content)
        position = part.body_start
        for inner in part.parts:
            assert position <= inner.start and inner.end <= part.end
            position = inner.end
