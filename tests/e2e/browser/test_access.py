"""Login, roles and what other sites can do, in a real browser with its real headers.

The gateway is http://localhost:PORT. Another site is on 127.0.0.1, and a neighbour on another
port of localhost: of another origin, but of the same site, so the browser sends it our cookie.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import argon2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from relaygw.mail.search import EVERYTHING
from relaygw.web.gate.credentials import COOKIE
from tests.e2e.browser.browsing import JS_FLAGS, cheapest
from tests.e2e.gateway import Gateway

PASSWORDS = {"vera": "the viewer's", "anna": "the admin's"}
_HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
expect.set_options(timeout=30_000)
USERS = [
    {"name": "vera", "password_hash": _HASHER.hash(PASSWORDS["vera"]), "role": "viewer"},
    {"name": "anna", "password_hash": _HASHER.hash(PASSWORDS["anna"]), "role": "admin"},
]
SUBJECT = "Zebra 4711"
LETTER = b"From: a@shop.test\r\nTo: b@cust.test\r\nSubject: Zebra 4711\r\n\r\nsecret-word\r\n"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=cheapest(), args=[JS_FLAGS])
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context()
    context.set_default_timeout(30_000)
    yield context
    context.close()


@contextmanager
def new_guarded(directory: Path) -> Iterator[Gateway]:
    """A sandbox with a viewer and an admin, and one mail."""
    web = {"bind": "127.0.0.1:0", "users": USERS}
    with Gateway(directory, mode="sandbox", web=web) as gateway:
        gateway.send("a@shop.test", ["b@cust.test"], LETTER)
        yield gateway


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with new_guarded(tmp_path_factory.mktemp("guarded")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def anyones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A sandbox where nobody has to log in, and one mail."""
    with Gateway(tmp_path_factory.mktemp("anyones"), mode="sandbox") as gateway:
        gateway.send("a@shop.test", ["b@cust.test"], LETTER)
        yield gateway


@contextmanager
def site(page: str) -> Iterator[int]:
    """Serve `page` at every path; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def url(gateway: Gateway, path: str) -> str:
    return f"http://localhost:{gateway.web_port}{path}"


def log_in(page: Page, gateway: Gateway, name: str, password: str | None = None) -> None:
    page.goto(url(gateway, "/sandbox"))
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password or PASSWORDS[name])
    page.get_by_role("button", name="Log in").click()


def test_logging_in_and_out(context: BrowserContext, guarded: Gateway) -> None:
    page = context.new_page()
    log_in(page, guarded, "anna", "wrong")
    expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")
    assert page.get_by_label("Password").input_value() == ""
    page.get_by_label("Password").fill(PASSWORDS["anna"])
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(url(guarded, "/sandbox"))
    expect(page.get_by_text(SUBJECT).first).to_be_visible()
    assert page.evaluate("document.cookie") == ""
    [cookie] = [one for one in context.cookies() if one["name"] == COOKIE]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(url(guarded, "/login"))
    page.go_back()
    expect(page.get_by_label("Password")).to_be_visible()
    assert SUBJECT not in page.content()


def test_a_viewer_may_look_and_nothing_else(context: BrowserContext, guarded: Gateway) -> None:
    page = context.new_page()
    log_in(page, guarded, "vera")
    expect(page.get_by_text(SUBJECT).first).to_be_visible()
    statuses = page.evaluate(
        """async () => {
            const csrf = document.querySelector('form[action$="/logout"] [name=csrf]').value;
            const ask = (method, path) => fetch(path, {method, headers: {'X-CSRF-Token': csrf}});
            const answers = [await ask('DELETE', '/api/v1/messages'),
                             await ask('POST', '/sandbox/bulk'), await ask('POST', '/api/nothing')];
            return answers.map(answer => answer.status);
        }"""
    )
    assert statuses == [403, 403, 403]
    assert guarded.store.sandbox.count_captured(EVERYTHING)[0] == 1


ATTACK = """<!doctype html><title>a game</title><script>
const target = 'http://localhost:{port}';
const sent = [];
const blind = (path, options) =>
    sent.push(fetch(target + path, {{mode: 'no-cors', credentials: 'include', ...options}})
        .then(() => 'sent', () => 'failed'));
for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data'])
    for (const path of ['/sandbox/bulk', '/sandbox/release', '/api/v1/messages', '/logout'])
        blind(path, {{method: 'POST', headers: {{'Content-Type': type}}, body: '{{"IDs":[]}}'}});
for (const method of ['DELETE', 'PUT'])
    sent.push(fetch(target + '/api/v1/messages', {{method, credentials: 'include'}})
        .then(() => 'read', () => 'failed'));
const frame = document.createElement('iframe');
frame.name = 'frame';
const form = document.createElement('form');
form.method = 'post'; form.target = 'frame'; form.action = target + '/sandbox/bulk';
form.innerHTML = '<input name=action value=delete><input name=all value=1>';
addEventListener('DOMContentLoaded', async () => {{
    document.body.append(frame, form);
    form.submit();
    const read = await fetch(target + '/api/v1/messages', {{credentials: 'include'}})
        .then(answer => answer.text(), () => 'nothing');
    const image = await new Promise(done => {{
        const one = new Image();
        one.onload = () => done('shown'); one.onerror = () => done('nothing');
        one.src = target + '/api/v1/message/latest/raw';
    }});
    const socket = await new Promise(done => {{
        const one = new WebSocket(target.replace('http', 'ws') + '/api/events');
        one.onopen = () => done('open'); one.onerror = () => done('nothing');
    }});
    await Promise.all(sent);
    window.result = [read, image, socket];
}});
</script><body></body>"""


@pytest.mark.parametrize("neighbour", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("kind", ["guarded", "anyones"])
def test_other_sites_read_and_change_nothing(
    context: BrowserContext, request: pytest.FixtureRequest, kind: str, neighbour: str
) -> None:
    gateway: Gateway = request.getfixturevalue(kind)
    page = context.new_page()
    if kind == "guarded":
        log_in(page, gateway, "anna")
        expect(page).to_have_url(url(gateway, "/sandbox"))
    answers: list[tuple[str, int]] = []
    context.on("response", lambda answer: answers.append((answer.url, answer.status)))
    with site(ATTACK.format(port=gateway.web_port)) as port:
        page.goto(f"http://{neighbour}:{port}/")
        page.wait_for_function("window.result !== undefined")
        result = page.evaluate("window.result")
    assert result == ["nothing", "nothing", "nothing"]
    changing = [status for where, status in answers if "/sandbox/bulk" in where]
    assert changing
    assert set(changing) == {403}
    assert gateway.store.sandbox.count_captured(EVERYTHING)[0] == 1
    page.goto(url(gateway, "/sandbox"))  # and nobody was logged out
    expect(page.get_by_text(SUBJECT).first).to_be_visible()


def test_a_link_from_another_site_leads_to_the_mail(
    context: BrowserContext, guarded: Gateway
) -> None:
    """The browser keeps a Strict cookie back then; nobody has to log in again for it."""
    page = context.new_page()
    log_in(page, guarded, "anna")
    expect(page).to_have_url(url(guarded, "/sandbox"))
    [entry] = guarded.store.sandbox.find_captured(EVERYTHING, start=0, limit=1)
    wanted = url(guarded, f"/sandbox/{entry.entry.queue_id}?x=1&y=%20")
    with site(f'<a href="{wanted.replace("&", "&amp;")}">look at this</a>') as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_text("look at this").click()
        expect(page).to_have_url(wanted)
        expect(page.get_by_role("heading", name=SUBJECT)).to_be_visible()


def test_no_site_shows_the_pages_in_a_frame(context: BrowserContext, anyones: Gateway) -> None:
    page = context.new_page()
    with site(f'<iframe src="{url(anyones, "/sandbox")}"></iframe>') as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_load_state("networkidle")
        assert [frame for frame in page.frames if SUBJECT in frame.content()] == []


GUESS = """async (name) => {
    const body = new URLSearchParams({name, password: 'guess', next: '/'});
    return (await fetch('/login', {method: 'POST', body})).status;
}"""


def test_guesses_end_in_a_lock_that_sessions_do_not_feel(
    chromium: Browser, context: BrowserContext, tmp_path: Path
) -> None:
    with new_guarded(tmp_path) as guarded:
        inside = context.new_page()
        log_in(inside, guarded, "anna")
        expect(inside).to_have_url(url(guarded, "/sandbox"))
        outside = chromium.new_context()
        page = outside.new_page()
        log_in(page, guarded, "user9", "guess")
        expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")
        assert [page.evaluate(GUESS, f"user{number}") for number in range(9)] == [403] * 9
        log_in(page, guarded, "anna")
        expect(page.get_by_role("alert")).to_contain_text("Try again in 10 minutes")
        outside.close()
        inside.reload()
        expect(inside.get_by_text(SUBJECT).first).to_be_visible()
