"""A click is of what it began at, also where a page renews itself between down and up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Locator, Page, Route, expect

from tests.e2e.browser.browsing import Chromium, Visit
from tests.e2e.browser.test_inbox_in_browser import send, wait_until_live
from tests.e2e.gateway import Gateway

LISTEN = (
    "window.answered = new Promise((go) => addEventListener('htmx:afterRequest', go, {once: true}))"
)
TYPE = """() => {
  const field = document.querySelector("#search-sandbox");
  field.value = "order";
  field.dispatchEvent(new Event("input", {bubbles: true}));
}"""


@contextmanager
def pressed(page: Page, target: Locator) -> Iterator[None]:
    """Hold the mouse down on something."""
    target.hover()
    page.mouse.down()
    yield
    page.mouse.up()


@contextmanager
def answer(page: Page) -> Iterator[None]:
    """Wait in the end until the page has an answer, and did with it what it does at once."""
    page.evaluate(f"() => {{ {LISTEN} }}")
    yield
    page.evaluate("() => window.answered.then(() => null)")


def mail(number: int) -> bytes:
    return b"From: shop@x.test\r\nSubject: order %d\r\n\r\nhello\r\n" % number


def test_on_a_list_that_a_search_replaces(sandbox: Gateway, visit: Visit) -> None:
    queue_id, page = send(sandbox, mail(1)), visit.page
    visit.go("/sandbox")
    with pressed(page, page.locator(f"#m-{queue_id} .mail-subject")), answer(page):
        page.evaluate(TYPE)
    expect(page).to_have_url(f"{visit.base}/sandbox/{queue_id}")


def test_a_search_that_waited_for_a_click_comes_after_it(sandbox: Gateway, visit: Visit) -> None:
    send(sandbox, mail(1))
    page = visit.page
    visit.go("/sandbox")
    with pressed(page, page.locator("[data-live]")), answer(page):
        page.evaluate(TYPE)
    expect(page).to_have_url(f"{visit.base}/sandbox?query=order")


def test_on_a_board_that_looks_again(sandbox: Gateway, visit: Visit) -> None:
    page = visit.page
    visit.go("/")
    board = page.locator("#dashboard")
    link = board.get_by_role("link").first
    path = link.get_attribute("href")
    held: list[Route] = []
    page.route(f"{visit.base}/", lambda route: held.append(route))
    with answer(page):
        with page.expect_request(f"{visit.base}/"):
            board.evaluate("(board) => (board.dataset.refresh = 0)")
        link.hover()
        page.mouse.down()
        held[0].continue_()
    page.mouse.up()
    page.unroute_all()
    expect(page).to_have_url(f"{visit.base}{path}")


def test_on_a_list_that_mail_comes_to(sandbox: Gateway, browser: Chromium, base: str) -> None:
    queue_id = send(sandbox, mail(1))
    with browser.visit(base) as visit:
        page = visit.page
        come = page.context.new_cdp_session(page)
        come.send("Network.enable")
        events: list[object] = []
        come.on("Network.eventSourceMessageReceived", lambda event: events.append(event))
        visit.go("/sandbox")
        wait_until_live(page)
        events.clear()
        with pressed(page, page.locator(f"#m-{queue_id} .mail-subject")):
            send(sandbox, mail(2))
            while not events:
                page.evaluate("() => new Promise(requestAnimationFrame)")
            expect(page.locator(".mail")).to_have_count(1)
        expect(page).to_have_url(f"{base}/sandbox/{queue_id}")
        page.go_back()
        expect(page.locator(".mail")).to_have_count(2)
