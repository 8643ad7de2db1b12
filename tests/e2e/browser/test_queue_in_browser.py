"""The queue and the dashboard as an administrator uses them: a deferred mail, a held provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo

import httpx2
import pytest
from playwright.sync_api import Page, Request, expect

from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.mail.suppression import Cause, Suppression
from relaygw.mail.verdict import Kind
from relaygw.store.audit import AuditEntry
from relaygw.web.gate.credentials import COOKIE
from tests.campaign import IS_CAMPAIGN
from tests.e2e.browser.axe import ALIKE_IN_API_DOCS, troubles
from tests.e2e.browser.browsing import Chromium, Visit, press
from tests.e2e.browser.letters import order_confirmation
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.integration.web.people import PASSWORDS, USERS
from tests.reported import report

BUSY = b"451 4.7.1 Greylisted, <b>come</b> again later\r\n"
EARLIER = """(id) => {
  const line = document.getElementById(`m-${id}`).cloneNode(true);
  line.querySelector("time").dateTime = new Date(new Date().setHours(0, 0, -1)).toISOString();
  document.querySelector(".mails").append(line);
}"""
HOSTILE = '"><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as running:
        yield running


@pytest.fixture(scope="module")
def sandbox(
    tmp_path_factory: pytest.TempPathFactory, provider: ThreadedProvider
) -> Iterator[Gateway]:
    """Return a production gateway whose deferred mail waits for hours."""
    gateway = Gateway(
        tmp_path_factory.mktemp("production"),
        providers={"main": provider_settings(provider.port)},
        retry={"first": "3h", "max": "3h", "jitter": "0%"},
        web={"bind": "127.0.0.1:0", "users": USERS},
    )
    gateway.settings["queue"]["keep_content"] = "7d"
    with gateway:
        yield gateway


@cache
def session(base: str, name: str) -> str:
    """Log in; return the cookie of the session."""
    fields = {"name": name, "password": PASSWORDS[name], "next": "/"}
    answer = httpx2.post(f"{base}/login", data=fields, headers={"Origin": base})
    assert answer.status_code == 303
    return answer.cookies[COOKIE]


def log_in(visit: Visit, name: str) -> Page:
    """Let somebody be logged in; the login page is looked at in test_access."""
    cookie = {"name": COOKIE, "value": session(visit.base, name), "url": visit.base}
    visit.context.add_cookies([cookie])  # type: ignore[list-item]
    return visit.page


def deferred(gateway: Gateway, provider: ThreadedProvider, subject: str) -> str:
    """Send a mail that the provider puts off; return its id."""
    provider.script("RCPT", BUSY)
    content = order_confirmation().replace(b"\n", b"\r\n")
    content = re.sub(rb"(?m)^Subject: .*\r$", b"Subject: " + subject.encode() + b"\r", content)
    queue_id = gateway.send("orders@shop.example", ["anna.berg@customer.example"], content)
    gateway.wait_until(lambda: state(gateway, queue_id) == "deferred", "a deferred message")
    return queue_id


def refused(gateway: Gateway, provider: ThreadedProvider, address: str) -> str:
    """Send a mail that the provider refuses for good; return its id."""
    provider.script("RCPT", b"550 5.1.1 No such user here\r\n")
    content = order_confirmation().replace(b"\n", b"\r\n")
    queue_id = gateway.send("orders@shop.example", [address], content)
    gateway.wait_until(lambda: state(gateway, queue_id) == "finished", "a bounced message")
    return queue_id


def returned_to(gateway: Gateway, address: str) -> str:
    """Send a mail that the provider takes, and reports of as bounced; return its id."""
    content = order_confirmation().replace(b"\n", b"\r\n")
    queue_id = gateway.send("orders@shop.example", [address], content)
    gateway.wait_until(lambda: state(gateway, queue_id) == "finished", "a delivered message")
    words = {"detail": "d" * 400, "raw": '{"x": "y"}' * 400}
    report(gateway.store, queue_id, Kind.HARD, at_ms=clock_ms(), **words)
    return queue_id


def state(gateway: Gateway, queue_id: str) -> str:
    return gateway.entry(queue_id).deliveries[0].state.value


def confirm(page: Page, verb: str, place: str = ".message-tools") -> None:
    """Press a button of a message, then the one of the question."""
    page.locator(place).get_by_role("button", name=f"{verb}…").click()
    expect(page.get_by_role("heading", name=f"{verb} 1 message?")).to_be_visible()
    page.get_by_role("button", name=f"{verb} 1 message").click()


def test_an_operator_reads_the_story_and_acts(
    sandbox: Gateway, provider: ThreadedProvider, visit: Visit
) -> None:
    queue_id = deferred(sandbox, provider, f"Order 7 {HOSTILE}")
    page = log_in(visit, "otto")
    visit.go("/")
    page.get_by_role("link", name="Queue", exact=True).first.click()
    page.get_by_role("searchbox").fill("order 7")
    press(page, "Enter")
    line = page.locator(f"#m-{queue_id}")
    expect(line).to_contain_text("deferred")
    expect(line).to_contain_text("Greylisted, <b>come</b> again")
    line.get_by_role("link").first.click()
    story = page.get_by_role("region", name="Story")
    expect(story).to_contain_text("451 4.7.1 Greylisted")
    expect(story).to_contain_text("What to do")
    page.get_by_role("link", name="HTML").click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_text("Thank you, Anna")).to_be_visible()
    page.get_by_role("link", name="Story").click()

    confirm(page, "Hold")
    expect(page.get_by_role("status")).to_have_text("1 message held.")
    assert state(sandbox, queue_id) == "held"
    expect(page.locator("#answer")).to_contain_text("has not been sent yet because of a problem")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    confirm(page, "Release", ".advice")
    provider.wait_for_messages(1)
    sandbox.wait_until(lambda: state(sandbox, queue_id) == "finished", "a delivered message")
    visit.go(f"/queue/{queue_id}")
    expect(page.locator(".letterhead .state")).to_have_text("delivered")
    expect(page.get_by_text("released 1 message in the pages")).to_be_visible()
    visit.go("/")
    delivered = page.locator(".figures li").filter(has_text="Delivered").locator("b")
    expect(delivered).not_to_have_text("0", timeout=30_000)  # it comes by itself
    assert visit.trouble == []
    assert visit.dialogs == []


def test_what_bounced_is_sent_again_after_a_question(
    sandbox: Gateway, provider: ThreadedProvider, visit: Visit
) -> None:
    bounced = refused(sandbox, provider, "dora@customer.example")
    seen = len(provider.messages)
    page = log_in(visit, "otto")
    visit.go(f"/queue/{bounced}")
    page.locator(".advice").get_by_role("link", name="Send again…").click()
    question = page.get_by_role("main")
    expect(question).to_contain_text("dora@customer.example bounced before, now by route")
    page.get_by_label("Send to").fill("nobody")
    page.get_by_role("button", name="Update").click()
    expect(page.get_by_role("alert")).to_contain_text("nobody is not an address")
    page.get_by_label("Send to").fill("dora.new@customer.example")
    page.get_by_role("button", name="Update").click()
    expect(question).to_contain_text("dora.new@customer.example by route")
    page.get_by_role("button", name="Send again").click()
    expect(page.get_by_role("status")).to_have_text("1 message sent again; this is the new one.")
    provider.wait_for_messages(seen + 1)
    assert provider.messages[seen].recipients == ("dora.new@customer.example",)
    page.get_by_role("link", name=bounced).click()
    expect(page.get_by_role("region", name="Story")).to_contain_text("sent it again, as")
    assert visit.trouble == []


def test_support_finds_a_customers_mail_with_one_search(
    sandbox: Gateway, provider: ThreadedProvider, visit: Visit
) -> None:
    """Finding of those who asked: "Nothing found" for an address whose mail had bounced."""
    bounced = refused(sandbox, provider, "carla.lost@customer.example")
    page = log_in(visit, "vera")
    visit.go("/queue")
    page.get_by_role("searchbox").press_sequentially("carla.lost@cust")
    line = page.locator(f"#m-{bounced}")  # as it is typed: nothing was pressed
    expect(line.locator(".state")).to_have_text("bounced")
    expect(line).to_contain_text("550 5.1.1 No such user here")
    expect(page).to_have_url(re.compile(r"/find\?q=carla\.lost%40cust$"))
    expect(page.get_by_role("searchbox")).to_be_focused()
    expect(page.locator(".places [aria-current]")).to_have_count(0)
    expect(page.locator(".pick input")).to_have_count(0)
    page.get_by_role("searchbox").fill("carla.lost after:soon")
    expect(page.get_by_role("heading", name="'after:soon' is not a time")).to_be_visible()
    page.get_by_role("searchbox").fill("carla.lost")
    line.get_by_role("link").click()
    expect(page.get_by_role("region", name="Story")).to_contain_text("550 5.1.1")
    page.get_by_role("link", name="Queue", exact=True).first.click()
    page.get_by_role("link", name="Bounced").click()
    expect(page.locator(f"#m-{bounced}")).to_be_visible()
    assert visit.trouble == []
    assert visit.outside() == []


def test_times_are_of_the_browsers_zone_and_utc_on_hover(
    sandbox: Gateway, provider: ThreadedProvider, browser: Chromium, base: str
) -> None:
    queue_id = deferred(sandbox, provider, "Clocks")
    at = datetime.fromtimestamp(sandbox.entry(queue_id).accepted_at_ms / 1000, UTC)
    with browser.visit(base, timezone_id="Asia/Kathmandu") as visit:  # 5:45 ahead
        page = log_in(visit, "vera")
        visit.go("/queue?subject=clocks")
        clock = page.locator(f"#m-{queue_id} .mail-age")
        expect(clock).to_have_text(f"{at.astimezone(ZoneInfo('Asia/Kathmandu')):%H:%M}")
        expect(clock).to_have_attribute("title", re.compile(rf"{at:%H:%M:%S} UTC$"))
        expect(page.locator(".day").first).to_have_text("Today")
        # a line that comes later, of the same day in UTC or not, stands below its own day here
        page.evaluate(EARLIER, queue_id)
        expect(page.locator(".day")).to_have_text(["Today", "Yesterday"])
        expect(page.locator(".mails > :last-child .mail-age")).to_have_text("23:59")
        visit.go(f"/queue/{queue_id}")
        seconds = f"{at.astimezone(ZoneInfo('Asia/Kathmandu')):%H:%M:%S}"
        expect(page.locator(".event time").first).to_have_text(seconds)
        expect(page.locator(".letterhead .contacts time")).to_have_text(
            re.compile(rf"\d{{4}}, {seconds}$")
        )
        for path in ("/", "/queue", "/audit", f"/queue/{queue_id}"):
            visit.go(path)
            # the answer goes to somebody whose zone nobody knows
            page.evaluate("document.querySelector('#answer')?.remove()")
            expect(page.get_by_role("main")).not_to_contain_text(re.compile(r"\d\d:\d\d UTC"))
        assert visit.trouble == []
    with browser.visit(base, java_script_enabled=False) as visit:
        page = log_in(visit, "vera")
        visit.go("/queue?subject=clocks")
        expect(page.locator(f"#m-{queue_id} .mail-age")).to_have_text(f"{at:%H:%M} UTC")
        expect(page.locator(".day").first).to_contain_text(f"{at:%B %Y}, UTC")


def test_retry_and_delete_of_what_is_ticked_by_keyboard(
    sandbox: Gateway, provider: ThreadedProvider, visit: Visit
) -> None:
    first = deferred(sandbox, provider, "Ticked one")
    second = deferred(sandbox, provider, "Ticked two")
    page = log_in(visit, "otto")
    visit.go("/queue?subject=ticked")
    expect(page.locator(".mail")).to_have_count(2)
    press(page, "j", "x", "t")
    expect(page.get_by_role("heading", name="Retry 1 message?")).to_be_visible()
    expect(page.get_by_role("button", name="Retry 1 message")).to_be_focused()
    press(page, "Enter")
    expect(page.get_by_role("status")).to_have_text("1 message due now.")
    sandbox.wait_until(lambda: state(sandbox, first) == "finished", "a delivered message")
    page.get_by_text("All that match").click()
    page.locator('[name="all"][value="delete"]').click()
    expect(page.get_by_role("heading", name="Delete 1 message?")).to_be_visible()
    page.get_by_role("link", name="Cancel").click()
    assert state(sandbox, second) == "deferred"
    page.locator(f"#m-{second} .pick").click()
    press(page, "#")
    page.get_by_role("button", name="Delete 1 message").click()
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    assert state(sandbox, second) == DeliveryState.DELETED.value


def test_a_viewer_sees_and_has_nothing_to_press(
    sandbox: Gateway, provider: ThreadedProvider, visit: Visit
) -> None:
    queue_id = deferred(sandbox, provider, "Looked at")
    page = log_in(visit, "vera")
    visit.go("/")
    expect(page.locator("#dashboard")).to_be_visible()
    expect(page.get_by_role("button", name="Hold main")).to_have_count(0)
    visit.go("/queue")
    expect(page.locator(f"#m-{queue_id}")).to_be_visible()
    expect(page.locator(f"#m-{queue_id} .pick")).not_to_be_visible()
    expect(page.get_by_text("All waiting", exact=True)).to_have_count(0)
    visit.go(f"/queue/{queue_id}")
    expect(page.get_by_role("button", name="Hold…")).to_have_count(0)
    press(page, "h", "t", "#", "r")
    expect(page.get_by_role("region", name="Story")).to_be_visible()
    assert state(sandbox, queue_id) == "deferred"


def test_the_dashboard_shows_a_held_provider_by_itself(
    sandbox: Gateway, provider: ThreadedProvider, browser: Chromium, base: str
) -> None:
    with browser.visit(base) as watching, browser.visit(base) as acting:
        page = log_in(watching, "vera")
        watching.go("/")
        card = page.locator('[data-provider="main"]')
        expect(card.locator(".state")).to_have_text("ok")
        other = log_in(acting, "otto")
        acting.go("/")
        other.get_by_role("button", name="Hold main").click()
        other.get_by_label("Why").fill("moving the account")
        other.get_by_role("button", name="Hold main").click()
        expect(other.get_by_role("status")).to_have_text("The provider is held.")
        expect(card.locator(".state")).to_have_text("held", timeout=20_000)
        expect(card).to_contain_text("operator: moving the account")
        other.get_by_role("button", name="Release main").click()
        other.get_by_role("button", name="Release main").click()
        expect(card.locator(".state")).to_have_text("ok", timeout=20_000)
        assert watching.trouble == acting.trouble == []
        assert watching.outside() == []


def test_a_dashboard_that_nobody_looks_at_asks_for_nothing(
    sandbox: Gateway, browser: Chromium, base: str
) -> None:
    def is_asked(request: Request) -> bool:
        return request.resource_type in ("xhr", "fetch")

    with browser.visit(base) as visit:
        visit.page.clock.install()
        page = log_in(visit, "vera")
        visit.go("/")
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {get: () => isAway, configurable: true});"
            "window.isAway = true"
        )
        before = len(visit.requests)
        page.clock.run_for(60_000)
        assert visit.requests[before:] == []
        with page.expect_request(is_asked):
            page.evaluate("isAway = false; document.dispatchEvent(new Event('visibilitychange'))")
        with page.expect_request(is_asked):
            page.clock.run_for(11_000)


STICKING_OUT = """() => [...document.querySelectorAll("a, button, main td, main tbody th")]
  .filter((one) => one.checkVisibility({visibilityProperty: true}))
  .filter((one) => one.getBoundingClientRect().right > innerWidth)
  .map((one) => one.innerText)"""
"""What a phone shows only in part, or after a push sideways."""


def test_what_an_operator_presses_has_room_on_a_phone(
    sandbox: Gateway, provider: ThreadedProvider, visit: Visit
) -> None:
    provider.script("RCPT", b"550 5.1.1 No such user here\r\n", BUSY)
    to = ["nobody@customer.example", "anna.berg@customer.example"]
    queue_id = sandbox.send("orders@shop.example", to, order_confirmation().replace(b"\n", b"\r\n"))
    sandbox.wait_until(lambda: state(sandbox, queue_id) == "deferred", "a deferred message")
    now_ms, entry = (
        clock_ms(),
        AuditEntry(
            at_ms=1, actor="test", action="suppression.add", target="", affected=0, detail=""
        ),
    )
    suppressed = Suppression(
        address="anna.berg.the.second@customer.example", cause=Cause.MANUAL, source="anna",
        detail="asked by letter not to be written to any more", queue_id=queue_id,
        created_at_ms=now_ms,
    )  # fmt: skip
    sandbox.store.suppressions.suppress([suppressed], entry=entry)
    visit.page.set_viewport_size({"width": 360, "height": 740})
    for name in ("otto", "anna"):
        page = log_in(visit, name)
        for path in (f"/queue/{queue_id}", "/suppression"):
            visit.go(path)
            assert page.evaluate(STICKING_OUT) == [], path
            assert page.evaluate("document.documentElement.scrollWidth") == 360, path


MORE_LISTS = ("/queue?state=finished", "/queue?subject=none")
"""Lists as others are that are looked at in every run: of what is over, and an empty one."""


@pytest.mark.campaign
def test_axe_finds_nothing_and_nothing_is_too_wide(
    sandbox: Gateway, provider: ThreadedProvider, browser: Chromium, base: str
) -> None:
    queue_id = deferred(sandbox, provider, "x" * 300)
    bounced = refused(sandbox, provider, "b" * 60 + "@customer.example")
    returned = returned_to(sandbox, "r" * 60 + "@customer.example")
    found: list[str] = []
    with browser.visit(base, bypass_csp=True) as visit:
        page = log_in(visit, "anna")

        def check(what: str) -> None:
            found.extend(troubles(page, what))

        for path in ("/", "/queue", "/audit",
                     "/access", "/audit?who=nobody&action=queue&since=today",
                     "/queue?result=bounced", "/find?q=is:returned", "/find?q=customer",
                     "/find?q=zebra", *(MORE_LISTS if IS_CAMPAIGN else ()),
                     "/find?q=is:lost", f"/queue/{bounced}", f"/queue/{bounced}/resend",
                     f"/queue/{queue_id}", f"/queue/{queue_id}?view=headers",
                     "/queue?" + "&".join(f"subject={'y' * 200}" for _ in range(2))):  # fmt: skip
            visit.go(path)
            check(path)
        visit.go(f"/queue/{returned}")
        page.locator(".raw summary").click()
        check("a report as it came")
        visit.go("/providers/main?hours=24")
        page.locator(".chart-table summary").click()
        check("a provider with its table")
        visit.go("/queue")
        page.locator(".mail .pick").first.click()
        check("something ticked")
        page.get_by_role("button", name="Filter the queue").click()
        check("the selectors")
        press(page, "Escape")
        page.get_by_role("button", name="Hold…").first.click()
        expect(page.get_by_label("Why")).to_be_visible()
        check("a question")
        visit.go("/")
        page.get_by_role("button", name="Hold main").click()
        expect(page.get_by_label("Why")).to_be_visible()
        check("a question about a provider")
        visit.go("/api/docs")
        page.locator("summary").first.click()
        found += troubles(page, "an operation", alike=ALIKE_IN_API_DOCS)
    assert not found, "\n".join(found)
