"""Previews of attachments, and the checks of a captured mail: HTML, links, spam score."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import httpx2
import pytest

from relaygw.mail.mime_tree import MimeTree
from relaygw.mail.state import RecipientState
from relaygw.settings.model import Settings
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store
from relaygw.web.mail import preview
from relaygw.web.mail.attachments import DrawnPages
from relaygw.web.sandbox import link_check, spamd
from tests.e2e.browser.attachments import FILES, mail_with_files
from tests.e2e.browser.letters import order_confirmation
from tests.integration.web.people import PASSWORDS, with_logins

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
FRAME_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
REPORT = b"""Spam detection software, running on the system "vm",
has NOT identified this incoming email as spam.

Content analysis details:   (6.1 points, 5.0 required)

 pts rule name              description
---- ---------------------- --------------------------------------------------
-0.0 NO_RELAYS              Informational: message was not relayed via SMTP
 2.8 HTML_IMAGE_ONLY_24     BODY: HTML: images with 2000-2400 bytes of
                            words <b>&
 1.0 TO_NO_BRKTS_HTML_ONLY  To: lacks brackets and HTML only
"""
SPAM = b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: True ; 6.1 / 5.0\r\n\r\n" % len(REPORT)


@asynccontextmanager
async def server(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Serve on a loopback port; yields it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with running:
        yield running.sockets[0].getsockname()[1]


async def test_every_attachment_in_the_harmless_frame(serve: Serve, capture: Capture) -> None:
    client = await serve()
    queue_id = capture(mail_with_files())
    for number, (name, (_, _, said)) in enumerate(FILES.items(), 2):
        path = f"/sandbox/{queue_id}/part/{number}"
        page = await client.get(f"{path}/look")
        assert f'src="{path}/preview?framed=1"' in page.text, name
        shown = await client.get(f"{path}/preview")
        assert said in shown.text, name
        assert shown.headers["content-security-policy"].startswith(FRAME_POLICY)
        assert shown.headers["content-type"] == "text/html; charset=utf-8"
        assert shown.headers["x-content-type-options"] == "nosniff"
        assert "<script" not in shown.text
        assert "image/svg" not in shown.text
    for path in (f"/sandbox/{queue_id}/part/99", "/sandbox/01JD0000000000000/part/1"):
        for view in ("look", "preview"):
            assert (await client.get(f"{path}/{view}")).status_code == 404
    page = (await client.get(f"/sandbox/{queue_id}")).text
    assert f'href="/sandbox/{queue_id}/part/9/look"' in page
    assert f'href="/sandbox/{queue_id}/part/8" download' in page  # the archive


async def test_an_attachment_of_mail_that_waits_or_is_kept(serve: Serve, capture: Capture) -> None:
    queue_id = capture(mail_with_files(), state=RecipientState.PENDING)
    client = await serve(with_logins("sandbox"))
    path = f"/queue/{queue_id}/part/12"
    assert (await client.get(f"{path}/preview")).status_code == 303  # to the login
    await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
    assert f'href="{path}/look"' in (await client.get(f"/queue/{queue_id}?view=parts")).text
    assert f'src="{path}/preview?framed=1"' in (await client.get(f"{path}/look")).text
    assert "&lt;b&gt;not bold" in (await client.get(f"{path}/preview")).text
    assert "Checks" not in (await client.get(f"/queue/{queue_id}")).text


async def test_who_waits_for_a_pdf_holds_nothing_and_keeps_nobody_waiting(
    serve: Serve, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, draws, may_end = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
    real_load = preview.load_tree

    def load(store: Store, entry: QueueEntry) -> MimeTree:
        loads.release()
        return real_load(store, entry)

    def draw(_: bytes) -> DrawnPages:
        draws.release()
        assert may_end.wait(60)
        return DrawnPages()

    async def taken(number: int, what: threading.Semaphore) -> None:
        for _ in range(number):
            assert await asyncio.to_thread(what.acquire, timeout=60)

    monkeypatch.setattr(preview, "load_tree", load)
    monkeypatch.setattr(preview, "draw_pages", draw)
    client = await serve()
    path, parts = f"/sandbox/{capture(mail_with_files())}/part", [*FILES]
    pdf, text = (f"{path}/{parts.index(one) + 2}/preview" for one in ("invoice.pdf", "notes.txt"))
    viewers = [asyncio.create_task(client.get(pdf)) for _ in range(3)]
    await taken(2, draws)
    await taken(5, loads)  # three to see what it is, two to draw it
    _, leaving = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    leaving.write(f"GET {pdf} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    await taken(1, loads)
    leaving.close()
    await leaving.wait_closed()
    assert (await client.get(text)).status_code == 200
    await taken(1, loads)
    assert not loads.acquire(blocking=False)
    may_end.set()
    assert {one.status_code for one in await asyncio.gather(*viewers)} == {200}
    assert (await client.get(pdf)).status_code == 200
    await taken(2, draws)  # not for the one who has gone
    assert not draws.acquire(blocking=False)


async def test_what_is_too_much_is_not_shown(serve: Serve, capture: Capture) -> None:
    head = b"Subject: x\r\nContent-Type: %s\r\nContent-Disposition: attachment\r\n\r\n"
    client = await serve()
    texts = {
        b"image/png": (13, "larger than 8.0 MB"),
        b"application/pdf": (31, "larger than 20 MB"),
        b"text/plain": (2, "It goes on: 262,144 characters are shown."),
        b"text/calendar": (2, "No event was found in this calendar"),
    }
    for media_type, (size_mib, said) in texts.items():
        queue_id = capture(head % media_type + b"x" * size_mib * 2**20)
        shown = await client.get(f"/sandbox/{queue_id}/part/0/preview")
        assert said in shown.text
        assert len(shown.text) < 400_000


HTML_MAIL = (
    b"Subject: Sale\r\nList-Unsubscribe: <http://127.0.0.1:%(port)d/unsubscribe>\r\n"
    b"Content-Type: text/html\r\n\r\n<video></video><p style='display:flex'>"
    b"<a href='http://127.0.0.1:%(port)d/ok'>a</a><a href='http://127.0.0.1:%(port)d/gone'>b</a>"
    b"<a href='http://127.0.0.1:%(port)d/get'>c</a><a href='http://127.0.0.1:%(port)d/inside'>d</a>"
    b"<a href='http://localhost:%(port)d/ok'>e</a><a href='http://u:p@127.0.0.1:%(port)d/ok'>f</a>"
    b"<a href='mailto:a@x.test'>g</a><a href='javascript:alert(1)'>h</a>"
)
ANSWERS = {
    "HEAD /ok": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\n\r\n",
    "HEAD /gone": b"HTTP/1.1 404 Gone\r\n\r\n",
    "HEAD /get": b"HTTP/1.1 405 No\r\n\r\n",
    "GET /get": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 999999999\r\n\r\nx",
    "HEAD /inside": b"HTTP/1.1 302 F\r\nLocation: http://169.254.169.254/latest\r\n\r\n",
}


@asynccontextmanager
async def site(asked: list[str]) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head)
        writer.write(ANSWERS[" ".join(head.split()[:2])])
        await writer.drain()

    async with server(answer) as port:
        yield port


async def test_links_are_visited_for_an_operator_only(
    serve: Serve, capture: Capture, store: Store
) -> None:
    asked: list[str] = []
    settings = with_logins("sandbox")
    allowed = settings.sandbox.model_copy(update={"link_hosts": ("127.0.0.1",)})
    client = await serve(settings.model_copy(update={"sandbox": allowed}))
    async with site(asked) as port:
        queue_id = capture(HTML_MAIL % {b"port": port})
        page, api = f"/sandbox/{queue_id}", f"/api/v1/message/{queue_id}/link-check"
        viewer, operator = (("vera", PASSWORDS["vera"]), ("otto", PASSWORDS["otto"]))
        await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
        seen = (await client.get(f"{page}?view=checks")).text
        assert "An operator may let relaygw visit the 6 links" in seen
        refused = await client.post(f"{page}/links")
        assert (refused.status_code, "vera has the role viewer" in refused.text) == (403, True)
        client.cookies.clear()
        assert (await client.post(api, auth=viewer)).status_code == 403
        listed = (await client.get(api, auth=operator)).json()
        assert {one["StatusCode"] for one in listed["Links"]} == {0}
        assert (listed["Errors"], len(listed["Links"]), asked) == (0, 7, [])

        visited = (await client.post(f"{api}?follow=true", auth=operator)).json()
        own = f"http://127.0.0.1:{port}"
        found = {one["URL"]: (one["StatusCode"], one["Status"]) for one in visited["Links"]}
        inside = "not visited: its host is inside this network; see sandbox.link_hosts"
        assert found == {
            f"{own}/ok": (200, "OK"),
            f"{own}/gone": (404, "Not Found"),
            f"{own}/get": (200, "OK"),
            f"{own}/inside": (0, inside),
            f"http://localhost:{port}/ok": (0, inside),
            f"http://u:p@127.0.0.1:{port}/ok": (
                0, "not visited: it contains a user name or password"
            ),
        }  # fmt: skip
        assert visited["Errors"] == 4
        assert sorted(one.split()[1] for one in asked) == [
            "/get",
            "/get",
            "/gone",
            "/inside",
            "/ok",
        ]
        for head in asked:
            assert f"\r\nHost: 127.0.0.1:{port}\r\n" in head
            assert "cookie" not in head.lower()
            assert "authorization" not in head.lower()
        unfollowed = (await client.post(api, auth=operator)).json()
        codes = {one["URL"]: one["StatusCode"] for one in unfollowed["Links"]}
        assert codes[f"{own}/inside"] == 302
    done = store.audit.entries(limit=9)
    assert [(one.actor, one.action, one.target, one.detail) for one in done] == [
        ("otto", "sandbox.check_links", queue_id, "api, 6 links")
    ] * 2


async def test_what_a_site_sets_is_sent_to_no_link(
    serve: Serve, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    settings = {"mode": "sandbox", "sandbox": {"link_hosts": ["127.0.0.1"]}}
    client = await serve(Settings.model_validate(settings))
    ways = [f"/{number}" for number in range(50)]
    for way in ways:
        monkeypatch.setitem(ANSWERS, f"HEAD {way}", ANSWERS["HEAD /ok"])
    async with site(asked) as port:
        links = "".join(f"<a href='http://127.0.0.1:{port}{way}'>a</a>" for way in ways)
        queue_id = capture(b"Content-Type: text/html\r\n\r\n" + links.encode())
        await client.post(f"/api/v1/message/{queue_id}/link-check?follow=true")
    assert len(asked) == len(ways)
    assert not [head for head in asked if "cookie" in head.lower()]


async def test_links_on_the_page(serve: Serve, capture: Capture) -> None:
    asked: list[str] = []
    client = await serve(Settings.model_validate(
        {"mode": "sandbox", "sandbox": {"link_hosts": ["127.0.0.1"]}}
    ))  # fmt: skip
    async with site(asked) as port:
        queue_id = capture(HTML_MAIL % {b"port": port})
        page = (await client.get(f"/sandbox/{queue_id}?view=checks")).text
        assert "Visit 6 links" in page
        assert "&lt;video&gt; element" in page
        assert "caniemail.com of 20" in page
        assert "sandbox.spamd: 127.0.0.1:783" in page
        assert asked == []
        shown = (await client.post(f"/sandbox/{queue_id}/links")).text
        assert "4 of 6 links did not answer properly" in shown
        assert "leads to <code>http://169.254.169.254/latest</code>" in shown
        assert 'class="state state-sent">200<' in shown


async def test_the_link_check_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def round_and_round(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 F\r\nLocation: /again\r\n\r\n")

    monkeypatch.setattr(link_check, "LINK_S", 3.0)
    monkeypatch.setattr(link_check, "MAX_LINKS", 2)
    async with server(silent) as quiet, server(round_and_round) as busy:
        urls = [f"http://127.0.0.1:{port}/" for port in (quiet, busy)]
        found = await link_check.check_links([*urls, "http://x.test/"], allowed=["127.0.0.1"])
    assert [one.text for one in found] == [
        "no answer in time", "more than 5 redirects", "not visited: the first 2 are",
    ]  # fmt: skip
    assert all(one.is_broken for one in found)


async def test_the_html_check_of_the_api(serve: Serve, capture: Capture) -> None:
    client = await serve()
    queue_id = capture(HTML_MAIL % {b"port": 1})
    told = (await client.get(f"/api/v1/message/{queue_id}/html-check")).json()
    assert told.keys() == {"Warnings", "Platforms", "Total"}
    assert told["Total"].keys() == {"Tests", "Nodes", "Supported", "Partial", "Unsupported"}
    assert "gmail" in told["Platforms"]["desktop-webmail"]
    video = next(one for one in told["Warnings"] if one["Slug"] == "html-video")
    assert video.keys() == {"Slug", "Title", "Description", "URL", "Category", "Tags", "Keywords",
                            "Results", "NotesByNumber", "Score"}  # fmt: skip
    assert video["Score"]["Found"] == 1
    assert {one["Support"] for one in video["Results"]} == {"yes", "partial", "no"}
    plain = capture(b"Subject: x\r\n\r\nhello")
    assert (await client.get(f"/api/v1/message/{plain}/html-check")).status_code == 404
    assert "There is no HTML" in (await client.get(f"/sandbox/{plain}?view=checks")).text


@pytest.mark.parametrize("below", ["/html-check", "/sa-check", "/link-check"])
async def test_only_captured_mail_is_checked(serve: Serve, capture: Capture, below: str) -> None:
    queued = capture(HTML_MAIL % {b"port": 1}, state=RecipientState.PENDING)
    client = await serve()
    assert (await client.get(f"/api/v1/message/{queued}{below}")).status_code == 404
    assert (await client.post(f"/api/v1/message/{queued}/link-check")).status_code == 404
    for path in ("links", "spam"):
        call = client.post if path == "links" else client.get
        assert (await call(f"/sandbox/{queued}/{path}")).status_code == 404


def with_spamd(port: int) -> Settings:
    return Settings.model_validate({"mode": "sandbox", "sandbox": {"spamd": f"127.0.0.1:{port}"}})


async def test_the_score_of_spamassassin(serve: Serve, capture: Capture) -> None:
    asked: list[bytes] = []
    content = b"Subject: Sale\r\n\r\nbuy\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read())
        writer.write(SPAM + REPORT)
        await writer.drain()

    async with server(answer) as port:
        client = await serve(with_spamd(port))
        queue_id = capture(content)
        told = (await client.get(f"/api/v1/message/{queue_id}/sa-check")).json()
        page = (await client.get(f"/sandbox/{queue_id}/spam")).text
        assert "Ask SpamAssassin" in (await client.get(f"/sandbox/{queue_id}?view=checks")).text
    assert asked == [b"REPORT SPAMC/1.2\r\nContent-length: %d\r\n\r\n" % len(content) + content] * 2
    words = "BODY: HTML: images with 2000-2400 bytes of words <b>&"
    assert told == {
        "IsSpam": True,
        "Error": "",
        "Score": 6.1,
        "Rules": [
            {"Score": 2.8, "Name": "HTML_IMAGE_ONLY_24", "Description": words},
            {"Score": 1.0, "Name": "TO_NO_BRKTS_HTML_ONLY",
             "Description": "To: lacks brackets and HTML only"},
            {"Score": -0.0, "Name": "NO_RELAYS",
             "Description": "Informational: message was not relayed via SMTP"},
        ],
    }  # fmt: skip
    assert "Spam: 6.1 of 5.0" in page
    assert "bytes of words &lt;b&gt;&amp;" in page


async def test_without_spamd_there_is_no_such_thing(serve: Serve, capture: Capture) -> None:
    client = await serve()
    queue_id = capture(b"Subject: x\r\n\r\nhello")
    answer = await client.get(f"/api/v1/message/{queue_id}/sa-check")
    assert (answer.status_code, answer.text) == (404, "404 page not found")


async def _hangs_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _says_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()
    await asyncio.sleep(60)


async def _reads_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    cast("asyncio.Transport", writer.transport).pause_reading()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.sleep(60)


async def _talks_without_end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def _is_something_else(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 <b>Bad</b>\r\n\r\n")
    await writer.drain()
    await reader.read()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (_reads_nothing, "does not answer within 0.5 s"),
        (_hangs_up, "does not answer: it hung up"),
        (_says_nothing, "does not answer within 0.5 s"),
        (_talks_without_end, "gives an unknown answer: 'xxxxxx"),
        (_is_something_else, "gives an unknown answer: 'HTTP/1.1 400 <b>Bad</b>'"),
    ],
)
async def test_a_spamd_in_trouble_is_said(
    serve: Serve, capture: Capture, monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(spamd, "LIMIT_S", 0.5)
    async with server(answer) as port:
        client = await serve(with_spamd(port))
        # more than a connection holds that nobody reads
        size_bytes = spamd.MAX_ASKED_BYTES - 16 if answer is _reads_nothing else 9
        queue_id = capture(b"Subject: x\r\n\r\n" + bytes(size_bytes))
        told = (await client.get(f"/api/v1/message/{queue_id}/sa-check")).json()
    assert said in told["Error"]
    assert f"sandbox.spamd: 127.0.0.1:{port}" in told["Error"]
    assert told["Rules"] == []


async def test_a_spamd_that_is_away_is_said_and_what_to_do(serve: Serve, capture: Capture) -> None:
    async with server(_hangs_up) as port:
        pass
    client = await serve(with_spamd(port))
    queue_id = capture(b"Subject: x\r\n\r\nhello\r\n")
    page = (await client.get(f"/sandbox/{queue_id}/spam")).text
    assert "connection refused; check that spamd runs, and that its -A allows this host" in page


@pytest.mark.campaign
async def test_a_real_spamd_scores_mail(serve: Serve, capture: Capture) -> None:
    gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    other_user = ("--username=nobody",) if os.geteuid() == 0 else ()  # only root may change it
    running = await asyncio.create_subprocess_exec(
        *("/usr/sbin/spamd", "--local", "--nouser-config", "--syslog=stderr", "--max-children=1"),
        *("--listen=127.0.0.1", f"--port={port}", *other_user),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert running.stderr is not None
        while b"server started" not in (line := await running.stderr.readline()):
            assert line, "spamd ended"
        client = await serve(with_spamd(port))
        spam = capture(f"Subject: x\r\n\r\n{gtube}\r\n".encode())
        told = (await client.get(f"/api/v1/message/{spam}/sa-check")).json()
        assert (told["IsSpam"], told["Error"], told["Rules"][0]["Name"]) == (True, "", "GTUBE")
        plain = capture(order_confirmation().replace(b"\n", b"\r\n"))
        told = (await client.get(f"/api/v1/message/{plain}/sa-check")).json()
        assert (told["IsSpam"], told["Error"]) == (False, "")
        assert told["Rules"]
        assert "No spam" in (await client.get(f"/sandbox/{plain}/spam")).text
    finally:
        running.terminate()
        await running.communicate()
