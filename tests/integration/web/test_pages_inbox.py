"""The list of captured mail as a browser without scripts gets it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from relaygw.mail.state import RecipientState
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.integration.web.conftest import sandbox
from tests.integration.web.people import PASSWORDS, RELAY, USERS, with_logins

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


def mail(subject: str, *, to: str = "ann@x.test", body: str = "hello") -> bytes:
    return f"From: Shop <shop@x.test>\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n{body}\r\n".encode()


def subjects(page: str) -> list[str]:
    return re.findall(r'class="mail-subject"[^>]*>([^<]*)<', page)


async def test_an_empty_sandbox_says_how_to_send(serve: Serve) -> None:
    page = (await (await serve()).get("/sandbox")).text
    assert "No captured mail yet" in page
    assert all(word in page for word in ("swaks --server", "curl smtp://", "php -d sendmail_path"))


@pytest.mark.parametrize("mode", ["staging", "production"])
async def test_an_empty_sandbox_offers_nothing_that_would_really_send(
    serve: Serve, mode: str
) -> None:
    client = await serve(with_logins(mode))
    await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
    page = (await client.get("/sandbox")).text
    assert "No captured mail yet" in page
    assert ("not on the allow list" in page) == (mode == "staging")
    assert ("swaks --server" in page) == (mode == "staging")
    assert ("Mail is sent in production mode" in page) == (mode == "production")
    assert "on the block list" not in page


@pytest.mark.parametrize(
    ("recipients", "words"),
    [
        ({"allow": ["@example.com"]}, "not on the allow list"),  # the line would really send
        ({"allow": ["a@x.test"], "refused": "redirect:a@x.test"}, "goes to <code>a@x.test</code>"),
        ({"refused": "drop"}, "is dropped"),
    ],
)
async def test_an_empty_sandbox_says_what_becomes_of_mail(
    serve: Serve, recipients: dict[str, object], words: str
) -> None:
    given = {"mode": "staging", "web": {"users": USERS}, "recipients": recipients, **RELAY}
    client = await serve(Settings.model_validate(given))
    await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
    page = (await client.get("/sandbox")).text
    assert words in page
    assert "swaks" not in page


async def test_an_empty_sandbox_in_production_says_what_would_be_kept(serve: Serve) -> None:
    given = {
        "mode": "production",
        "web": {"users": USERS},
        "listeners": [{"bind": "127.0.0.1:2525"}, {"bind": "127.0.0.1:2526", "mode": "sandbox"}],
        "recipients": {"block": ["@x.test"], "blocked": "capture"},
        **RELAY,
    }
    client = await serve(Settings.model_validate(given))
    await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
    page = (await client.get("/sandbox")).text
    assert "<li>mail of listener 127.0.0.1:2526, in sandbox mode</li>" in page
    assert "2525" not in page
    assert "<li>mail to addresses on the block list</li>" in page


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("sandbox", "Nothing is sent in sandbox mode"),
        ("staging", "Staging sends only to addresses on the allow list"),
        ("production", "All mail has been delivered"),
    ],
)
async def test_an_empty_queue_says_where_mail_is(serve: Serve, mode: str, words: str) -> None:
    client = await serve(with_logins(mode))
    await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
    assert words in (await client.get("/queue")).text


async def test_why_mail_was_captured_is_told_where_it_is_unusual(
    serve: Serve, capture: Capture
) -> None:
    client = await serve(with_logins("staging"))
    capture(mail("one"), state=RecipientState.CAPTURED)
    await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
    page = (await client.get("/sandbox")).text
    assert '<span class="mail-reason">Nothing may be sent there</span>' in page
    (queue_id,) = re.findall(r'id="m-(\w+)"', page)
    assert (
        "<dt>Accepted in</dt><dd>sandbox mode<" in (await client.get(f"/sandbox/{queue_id}")).text
    )


async def test_newest_first_with_what_a_line_says(serve: Serve, capture: Capture) -> None:
    client = await serve()
    capture(mail("first"))
    capture(
        mail("second", to="Ann <ann@x.test>, bob@x.test"),
        ["ann@x.test", "bob@x.test", "hid@x.test"],
    )
    page = (await client.get("/sandbox")).text
    assert subjects(page) == ["second", "first"]
    assert ">Ann +2<" in page
    assert 'title="Shop &lt;shop@x.test&gt;">Shop<' in page
    assert "Sandbox mode" not in page  # as all of it is
    assert 'title="Ann &lt;ann@x.test&gt;, bob@x.test, hid@x.test"' in page
    assert page.count("is-unread") == 2
    assert "hello" in page


async def test_searching(serve: Serve, capture: Capture) -> None:
    client = await serve()
    capture(mail("Order 1", to="ann@x.test"))
    capture(mail("Order 2", to="bob@x.test"), ["bob@x.test"])
    found = (await client.get("/sandbox", params={"query": "order to:bob"})).text
    assert subjects(found) == ["Order 2"]
    assert 'value="order to:bob"' in found
    nothing = (await client.get("/sandbox", params={"query": "zzz"})).text
    assert "Nothing found" in nothing
    assert "Show all 2" in nothing
    too_much = (await client.get("/sandbox", params={"query": "order " * 21})).text
    assert "the search has 21 terms; write at most 20" in too_much
    wrong = (await client.get("/sandbox", params={"query": "-after:2026-99-99"})).text
    assert subjects(wrong) == []
    assert "is not a time; write one like after:2026-01-31" in wrong


@pytest.mark.parametrize(
    "query",
    ["' OR 1=1--", "%", "_", "\\", "\x00", '"', "tag:", "after:x", "larger:99999999999999999999",
     "-" * 500, "(((", "a" * 100_000, "é\u202e", "NEAR(a b)", "* ^ :", "🙂"],
)  # fmt: skip
async def test_no_search_breaks_the_page(serve: Serve, capture: Capture, query: str) -> None:
    client = await serve()
    capture(mail("Order 1"))
    # what is longer than a request line may be is refused before it gets here
    answer = await client.get("/sandbox", params={"query": query[:5000]})
    assert answer.status_code == 200
    assert HOSTILE not in answer.text


async def test_nothing_of_a_mail_becomes_html(serve: Serve, capture: Capture, store: Store) -> None:
    client = await serve()
    queue_id = capture(
        f'From: "{HOSTILE}" <{HOSTILE}@x.test>\r\nTo: {HOSTILE} <a@x.test>\r\n'
        f"Subject: {HOSTILE}\r\n\r\n{HOSTILE}".encode(),
        [HOSTILE],
    )
    await client.get("/sandbox")
    store.sandbox.set_tags([queue_id], [HOSTILE])
    for path in (
        "/sandbox",
        f"/sandbox?query={HOSTILE}",
        f"/sandbox/{queue_id}",
        f"/sandbox/{queue_id}?view=headers",
        f"/sandbox/{queue_id}?view=source",
        f"/sandbox/{queue_id}?query={HOSTILE}",
        f"/sandbox/{queue_id}/release",
    ):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert "<img src=x" not in answer.text
        assert "<script>" not in answer.text


async def test_pages(serve: Serve, capture: Capture) -> None:
    client = await serve()
    for number in range(120):
        capture(mail(f"number {number}"))
    first = (await client.get("/sandbox")).text
    assert len(subjects(first)) == 50
    assert "Page 1 of 3" in first
    assert 'rel="prev"' not in first
    last = (await client.get("/sandbox?page=3")).text
    assert subjects(last) == [f"number {number}" for number in range(19, -1, -1)]
    assert 'rel="next"' not in last
    for wild in ("4", "0", "-1", "x", "9" * 400, "9" * 5000, "²"):
        answer = await client.get("/sandbox", params={"page": wild})
        assert answer.status_code == 200
        assert len(subjects(answer.text)) in (20, 50)


async def test_no_page_needs_what_its_policy_forbids(serve: Serve, capture: Capture) -> None:
    client = await serve()
    queue_id = capture(mail("one"))
    for path in (
        "/sandbox",
        f"/sandbox/{queue_id}",
        f"/sandbox/{queue_id}/release",
        "/sandbox/NOPE",
    ):
        answer = await client.get(path, headers={"Accept": "text/html"})
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r'(?i)\sstyle="|\son[a-z]+="|<style|javascript:', answer.text)
        assert not re.search(r"<script(?![^>]* src=)", answer.text)
        assert "http://" not in re.sub(r'xmlns="[^"]*"', "", answer.text).replace("smtp://", "")


async def test_files_are_named_by_their_content_and_kept_for_ever(serve: Serve) -> None:
    client = await serve()
    page = (await client.get("/sandbox")).text
    paths = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page))
    assert len(paths) >= 4
    for path in paths:
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        other = re.sub(r"/static/[0-9a-f]+/", "/static/0000000000000000/", path)
        assert (await client.get(other)).status_code == 404
    assert (await client.get("/static/x/..%2f..%2fapp.py")).status_code == 404


async def test_everything_works_below_a_path(serve: Serve, capture: Capture) -> None:
    client = await serve(sandbox(base_path="/mail"))
    queue_id = capture(mail("one"))
    for path in ("/mail/sandbox", f"/mail/sandbox/{queue_id}", f"/mail/sandbox/{queue_id}/release"):
        page = (await client.get(path)).text
        targets = re.findall(r'(?:href|src|action|hx-get|data-events)="(/[^"]*)"', page)
        assert targets
        assert not [one for one in targets if not one.startswith("/mail/")]
        for target in {one for one in targets if "/static/" in one}:
            assert (await client.get(target)).status_code == 200


async def test_a_viewer_is_offered_nothing_that_changes(serve: Serve, capture: Capture) -> None:
    client = await serve(with_logins())
    queue_id = capture(mail("one"))
    await client.post("/login", data={"name": "vera", "password": "v-word"})
    for path in ("/sandbox", f"/sandbox/{queue_id}"):
        page = (await client.get(path)).text
        assert 'value="delete"' not in page
        assert "Release" not in page
    assert (await client.get(f"/sandbox/{queue_id}/release")).status_code == 403
