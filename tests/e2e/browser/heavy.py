"""Messages that are built to be expensive, written without keeping them in memory twice."""

from __future__ import annotations

import base64

HEAD = b"From: shop@x.test\r\nTo: a@x.test\r\nSubject: %s\r\nMIME-Version: 1.0\r\n"


def large_message(size_bytes: int) -> bytes:
    """Return a message with HTML, text and one attachment of about `size_bytes`."""
    line = base64.b64encode(b"0123456789abcdef" * 3 + b"012345678") + b"\r\n"
    rows = b"".join(b"<tr><td>row %d</td><td>value</td></tr>\r\n" % n for n in range(2000))
    return (
        HEAD % b"large" + b'Content-Type: multipart/mixed; boundary="outer"\r\n\r\n--outer\r\n'
        b"Content-Type: text/html; charset=utf-8\r\n\r\n<h1>Large</h1><table>"
        + rows
        + b"</table>\r\n--outer\r\nContent-Type: application/zip\r\n"
        b'Content-Disposition: attachment; filename="all.zip"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\n"
        + line * (size_bytes // len(line))
        + b"--outer--\r\n"
    )


def large_html_in_base64(size_bytes: int) -> bytes:
    """Return such a page in base64; one sign of it makes all others take four bytes in memory."""
    page = "\U0001f600" + "<p>A line &amp; more</p>" * (size_bytes * 3 // 4 // 23)
    return (
        HEAD % b"base64"
        + b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(page.encode()).replace(b"\n", b"\r\n")
    )


def large_html(size_bytes: int) -> bytes:
    """Return a message that is one HTML page of about `size_bytes`."""
    row = b'<p style="color:#333;background:url(https://a.example/b.png)">A line &amp; more</p>\r\n'
    return (
        HEAD % b"large html" + b"Content-Type: text/html\r\n\r\n" + row * (size_bytes // len(row))
    )


def nested_message(levels: int) -> bytes:
    """Return multiparts in one another."""
    parts = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n)
        for n in range(levels)
    )
    return HEAD % b"nested" + parts + b"Content-Type: text/plain\r\n\r\nthe core\r\n"


def many_parts(number: int, *, name: bytes = b"a") -> bytes:
    """Return a message of so many small parts; files of this name, or texts without one."""
    head = b"Content-Disposition: attachment; filename=" + name + b"\r\n" if name else b""
    return (
        HEAD % b"parts"
        + b'Content-Type: multipart/mixed; boundary="p"\r\n\r\n'
        + (b"--p\r\n" + head + b"\r\nx\r\n") * number
        + b"--p--\r\n"
    )
