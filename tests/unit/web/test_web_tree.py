from __future__ import annotations

import pytest

from relaygw.web.mail.mime_tree import MAX_LEVELS, MAX_PARTS, MimeTree, read_tree


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
    tree = read_tree(multipart(b"\r\n" + b"--c\r\n" * 1_000_000, b"\r\ny"))
    assert tree.left_out == ["what follows many lines of hyphens"]
    assert len(tree.leaves) == 1


def test_bare_line_ends_are_line_ends() -> None:
    tree = read_tree(multipart(b"\r\nx", b"\r\ny").replace(b"\r\n", b"\n"))
    assert [body for _, _, body in found(tree)] == [b"x", b"y"]
