"""A captured message: its views, its parts, its frame."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import httpx2
import pytest

from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.e2e.browser.letters import newsletter, order_confirmation
from tests.integration.web.people import RELAY, USERS

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

PLAIN = b"From: shop@x.test\r\nTo: ann@x.test\r\nSubject: %s\r\n\r\nhello\r\n"
FRAME_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"

MEASURED_POLICY = FRAME_POLICY.replace("sandbox;", "sandbox allow-same-origin;")


def crlf(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def html_mail(page: bytes, *, charset: bytes = b"utf-8") -> bytes:
    return b"Subject: x\r\nContent-Type: text/html; charset=" + charset + b"\r\n\r\n" + page


async def test_an_order_mail_in_all_its_views(serve: Serve, capture: Capture) -> None:
    client = await serve()
    queue_id = capture(crlf(order_confirmation()), ["anna.berg@customer.example", "archive@x.test"])
    path = f"/sandbox/{queue_id}"
    page = (await client.get(path)).text
    assert f'<iframe sandbox="allow-same-origin" src="{path}/html?framed=1' in page
    assert "1 remote image not loaded" in page
    assert "Invoice 100000421.pdf" in page
    assert "archive@x.test" in page
    assert all(one in page for one in ("width-phone", "width-tablet", "width-desktop"))
    views = {view: (await client.get(f"{path}?view={view}")).text
             for view in ("text", "headers", "links", "parts", "source")}  # fmt: skip
    assert "Total, VAT included     130.90 EUR" in views["text"]
    assert re.search(
        r'<th scope="row">Reply-To</th><td dir="auto">help@shop\.example<', views["headers"]
    )
    assert "https://shop.example/account/orders/100000421?ref=mail" in views["links"]
    assert views["parts"].count("image/png, inline") == 3
    # every part with its type, in its place, and what can be done with it
    assert parts_of(views["parts"]) == [
        (0, "multipart/mixed", "", "2 parts"),
        (1, "multipart/alternative", "", "2 parts"),
        (2, "text/plain", "text", "View Save"),
        (2, "multipart/related", "", "4 parts"),
        (3, "text/html", "html", "View Save"),
        *[(3, f"{name}@shop.example", "", "View Save") for name in ("logo", "lamp", "mug")],
        (1, "Invoice 100000421.pdf", "", "View Save"),
    ]
    assert '<span class="address" dir="auto" title="anna.berg@customer.example">Anna Berg<' in page
    assert "Accepted in" not in page  # as all of it is
    assert "Content-Type: multipart/mixed" in views["source"]
    assert (await client.get(f"{path}?view=nonsense")).text.count("<iframe") == 1


def parts_of(page: str) -> list[tuple[int, str, str, str]]:
    """Return of each part its depth, its name, the view that it links to, and words."""
    found, depth = [], -1
    for opened, closed, part in re.findall(
        r'(<ul)|(</ul>)|<div class="part">(.*?)</div>',
        page.partition('class="parts"')[2],
        re.DOTALL,
    ):
        depth += bool(opened) - bool(closed)
        if part:
            name = re.findall(r'part-name" dir="auto">([^<]*)', part)[0]
            view = re.findall(r'href="[^"]*view=(\w+)', part)
            size = re.findall(r">(\d+ parts?)<", part)
            acts = re.findall(r"<span>(View|Save)</span>", part)
            found.append((depth + 1, name, "".join(view), " ".join(size + acts)))
    return found


async def test_opening_marks_as_read(serve: Serve, capture: Capture) -> None:
    client = await serve()
    queue_id = capture(PLAIN % b"one")
    assert "is-unread" in (await client.get("/sandbox")).text
    await client.get(f"/sandbox/{queue_id}/source")
    assert "is-unread" in (await client.get("/sandbox")).text
    await client.get(f"/sandbox/{queue_id}")
    assert "is-unread" not in (await client.get("/sandbox")).text
    assert "First opened" in (await client.get(f"/sandbox/{queue_id}")).text


async def test_newer_and_older_within_the_search(serve: Serve, capture: Capture) -> None:
    client = await serve()
    first, _, third, fourth = (capture(PLAIN % word) for word in (b"a1", b"b1", b"a2", b"a3"))
    await client.get("/sandbox")
    page = (await client.get(f"/sandbox/{third}?query=subject%3Aa")).text
    assert f'href="/sandbox/{fourth}?query=subject%3Aa" data-newer' in page
    assert f'href="/sandbox/{first}?query=subject%3Aa" data-older' in page
    newest = (await client.get(f"/sandbox/{fourth}")).text
    assert "data-newer" not in newest
    assert f'href="/sandbox/{third}" data-older' in newest


async def test_the_list_that_it_was_opened_from_stands_beside_it(
    serve: Serve, capture: Capture
) -> None:
    client = await serve()
    ids = [capture(PLAIN % b"%d" % number) for number in range(60)]
    await client.get("/sandbox")
    page = (await client.get("/sandbox?page=2")).text
    assert f'href="/sandbox/{ids[4]}?page=2"' in page
    page = (await client.get(f"/sandbox/{ids[4]}?page=2")).text
    listed = re.findall(r'data-id="(\w+)"', page)
    assert listed == ids[9::-1]
    assert re.findall(r'<li class="mail is-open" id="m-(\w+)"', page) == [ids[4]]
    assert page.count('aria-current="true" href="/sandbox/') == 1
    for target in (f"/sandbox/{ids[3]}?page=2", f"/sandbox/{ids[4]}?page=2&amp;view=text"):
        assert f'href="{target}"' in page
    assert 'href="/sandbox?page=2" data-up' in page


async def test_who_would_have_got_it_and_how(serve: Serve, capture: Capture) -> None:
    settings = Settings.model_validate(
        {
            "mode": "staging",
            "web": {"users": USERS},
            **RELAY,
            "recipients": {"allow": ["dev@x.test"], "block": ["never@x.test"]},
        }
    )
    client = await serve(settings)
    queue_id = capture(PLAIN % b"one", ["dev@x.test", "ann@x.test", "never@x.test"])
    await client.post("/login", data={"name": "vera", "password": "v-word"})
    page = (await client.get(f"/sandbox/{queue_id}")).text
    readers = re.findall(r'<p class="reader">.*?</li>', page, re.DOTALL)
    assert [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", one)).strip() for one in readers] == [
        "dev@x.test Captured Nothing may be sent there Would take route default → p "
        "May be released.",
        "ann@x.test Captured Nothing may be sent there Would take route default → p "
        "Only an admin may release it.",
        "never@x.test Captured Nothing may be sent there Never sent to: on the block list.",
    ]


async def test_the_source_is_what_was_stored(serve: Serve, capture: Capture, store: Store) -> None:
    client = await serve()
    content = b"Subject: x\r\n\r\n" + b"y" * 3_000_000
    answer = await client.get(f"/sandbox/{capture(content)}/source")
    assert answer.content == content
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "message/rfc822"


@pytest.mark.parametrize(
    ("given", "saved"),
    [
        (b'filename="../../etc/passwd"', "passwd"),
        (b'filename="..\\\\x.txt"', "x.txt"),
        (b'filename="/abs"', "abs"),
        (b'filename="CON"', "_CON"),
        (b'filename="a\x00b.txt"', "a b.txt"),
        (b'filename="' + b"n" * 300 + b'.pdf"', "n" * 100 + ".pdf"),
        (b"filename*0=one; filename*1=two.txt", "onetwo.txt"),
        (b"filename*=utf-8''%3Cimg%20src=x%3E.html", "_img src=x_.html"),
        (b'filename="x\r\n\tSet-Cookie: a=b"', "x Set-Cookie_ a=b"),
        (b"filename=..", "part-1"),
    ],
)
async def test_files_have_safe_names_and_are_only_saved(
    serve: Serve, capture: Capture, given: bytes, saved: str
) -> None:
    client = await serve()
    queue_id = capture(
        b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        b"Content-Type: text/html\r\nContent-Disposition: attachment; " + given
        + b"\r\n\r\n<script>alert(1)</script>\r\n--b--\r\n"
    )  # fmt: skip
    answer = await client.get(f"/sandbox/{queue_id}/part/1")
    assert answer.content == b"<script>alert(1)</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="')
    assert unquote(disposition.partition("filename*=UTF-8''")[2]) == saved
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    # it is no HTML of the message, so that there is nothing to show in a frame
    assert (await client.get(f"/sandbox/{queue_id}/html")).status_code == 404
    assert (await client.get(f"/sandbox/{queue_id}/part/9")).status_code == 404


async def test_the_frame_has_no_rights(serve: Serve, capture: Capture) -> None:
    client = await serve()
    queue_id = capture(crlf(newsletter()))
    answer = await client.get(f"/sandbox/{queue_id}/html")
    assert answer.headers["content-security-policy"].startswith(FRAME_POLICY)
    # an origin only for a page of ours around it, which looks how high it is
    for given, dest, policy in (
        ("framed=1", "iframe", MEASURED_POLICY),
        ("framed=1", None, MEASURED_POLICY),  # a browser does not say so without TLS
        ("framed=1", "document", FRAME_POLICY),
        ("", "iframe", FRAME_POLICY),
    ):
        sent = {"Sec-Fetch-Dest": dest} if dest else {}
        other = await client.get(f"/sandbox/{queue_id}/html?{given}", headers=sent)
        assert other.headers["content-security-policy"].startswith(policy)
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-dns-prefetch-control"] == "off"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "cdn.shop.example" not in answer.text
    page = (await client.get(f"/sandbox/{queue_id}")).text
    assert "8 remote images and 2 style sheets not loaded" in page


@pytest.mark.parametrize(
    ("charset", "encoding"),
    [(b"utf-7", "utf-7"), (b"utf-16", "utf-16"), (b"utf-16le", "utf-16-le"),
     (b"iso-2022-jp", "iso-2022-jp"), (b"utf-8", "utf-8"), (b"nonsense", "utf-8")],
)  # fmt: skip
async def test_a_charset_smuggles_nothing(
    serve: Serve, capture: Capture, charset: bytes, encoding: str
) -> None:
    client = await serve()
    page = "<p>ok</p><script>alert(1)</script><img src=x onerror=alert(1)>".encode(encoding)
    answer = await client.get(f"/sandbox/{capture(html_mail(page, charset=charset))}/html")
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert "onerror" not in answer.text


async def test_a_part_that_the_html_shows_is_in_the_frame(serve: Serve, capture: Capture) -> None:
    client = await serve()
    queue_id = capture(crlf(order_confirmation()))
    shown = (await client.get(f"/sandbox/{queue_id}/html")).text
    assert shown.count("data:image/png;base64,") == 3


@pytest.mark.parametrize("path", ["", "/html", "/source", "/part/1", "/release"])
async def test_what_is_not_captured_is_not_there(
    serve: Serve, capture: Capture, store: Store, path: str
) -> None:
    client = await serve()
    for queue_id in ("0" * 17, "x", "%00" * 12, "LATEST", "0" * 5000):
        answer = await client.get(f"/sandbox/{queue_id}{path}", headers={"Accept": "text/html"})
        assert answer.status_code == 404
        assert "<h1>" in answer.text


async def test_a_deleted_message_is_not_shown_from_memory(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve()
    queue_id = capture(html_mail(b"<p>secret</p>"))
    assert (await client.get(f"/sandbox/{queue_id}/html")).status_code == 200
    page = (await client.get("/sandbox")).text
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf is not None
    fields = {"csrf": csrf[1], "action": "delete", "id": queue_id, "confirmed": "1"}
    await client.post("/sandbox/bulk", data=fields)
    assert (await client.get(f"/sandbox/{queue_id}/html")).status_code == 404


async def test_what_is_left_out_is_said(serve: Serve, capture: Capture) -> None:
    client = await serve()
    text = capture(b"Subject: x\r\n\r\n" + b"word " * 200_000)
    assert "The text continues" in (await client.get(f"/sandbox/{text}?view=text")).text
    assert "The source continues" in (await client.get(f"/sandbox/{text}?view=source")).text
    html = capture(html_mail(b"<p>x" * 20_000))
    assert "too large to show completely" in (await client.get(f"/sandbox/{html}")).text
    parts = capture(
        b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        + b"--b\r\nContent-Disposition: attachment\r\n\r\nx\r\n" * 1500
    )
    page = (await client.get(f"/sandbox/{parts}?view=parts")).text
    assert "everything after 1000 parts" in page
    assert "And 800 more" in page


async def test_mail_without_anything_can_be_opened(serve: Serve, capture: Capture) -> None:
    client = await serve()
    for content in (b"", b"\r\n", b"\r\n\r\n", b"no header at all", b"Subject:\r\n\r\n"):
        page = (await client.get(f"/sandbox/{capture(content)}")).text
        assert "(no subject)" in page


async def test_a_number_of_thousands_of_digits_breaks_no_view(
    serve: Serve, capture: Capture
) -> None:
    client = await serve()
    queue_id = capture(html_mail(b"<p>one &#" + b"1" * 5000 + b"; two</p>"))
    for path in ("", "/html", *(f"?view={view}" for view in ("text", "headers", "links"))):
        assert (await client.get(f"/sandbox/{queue_id}{path}")).status_code == 200
    assert "one \ufffd two" in (await client.get(f"/sandbox/{queue_id}?view=text")).text


async def test_light_and_dark_go_with_whoever_looks(serve: Serve, capture: Capture) -> None:
    client = await serve()
    style = b"<style>@media (prefers-color-scheme: dark){p{color:red}}</style>"
    older, queue_id = (capture(html_mail(style + b"<p>x</p>")) for _ in "12")
    await client.get("/sandbox")
    page = (await client.get(f"/sandbox/{queue_id}?scheme=dark&query=x")).text
    assert f'src="/sandbox/{queue_id}/html?framed=1&amp;scheme=dark"' in page
    assert f'href="/sandbox/{older}?query=x&amp;scheme=dark" data-older' in page
    assert f'href="/sandbox/{queue_id}?query=x&amp;view=html"' in page  # light again
    assert "no dark styles" not in page
    plain = capture(html_mail(b"<p>x</p>"))
    assert "no dark styles" in (await client.get(f"/sandbox/{plain}?scheme=dark")).text
    assert "no dark styles" not in (await client.get(f"/sandbox/{plain}?scheme=x")).text
