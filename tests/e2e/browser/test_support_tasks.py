"""What support and operators come for, done by somebody new: with the pages alone, in few clicks.

Typing a search, or an address and Enter, counts as a click; logging in does not.
"""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Page, expect

from relaygw.mail.clock import clock_ms
from relaygw.store.audit import AuditEntry
from tests.e2e.browser.browsing import Visit
from tests.e2e.browser.letters import order_confirmation
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.integration.web.people import PASSWORDS, USERS

DAY_MS = 86_400_000
MOST = 3
GONE = "anna.bergg@customer.example"
SUBJECT = "Your order #100000421 is on its way"
expect.set_options(timeout=30_000)


@dataclass
class Newcomer:
    """Somebody at a page, and what it took so far."""

    page: Page
    clicks: int = 0

    def click(self, place: Locator) -> None:
        """Click on something."""
        self.clicks += 1
        place.click()

    def link(self, name: str) -> None:
        """Click on a link of this name."""
        self.click(self.page.get_by_role("link", name=name, exact=True).first)

    def fill(self, label: str, text: str) -> None:
        """Type into a field, and press Enter."""
        self.clicks += 1
        self.page.get_by_label(label, exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def find(self, text: str) -> None:
        """Type into the box of the header; the first mail that is found is in sight then."""
        self.fill("Find mail", text)
        expect(self.page).to_have_url(re.compile(r"/find[?]q="))
        expect(self.page.locator(".mail-subject").first).to_be_visible()

    def open_first(self) -> None:
        """Open the first mail of a list."""
        self.click(self.page.locator(".mail-subject").first)
        expect(self.page.locator(".letterhead")).to_be_visible()


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as running:
        running.recipients[GONE] = b"550 5.1.1 No such user here\r\n"
        yield running


@pytest.fixture(scope="module")
def closed() -> Iterator[ThreadedProvider]:
    """A provider that does not know the gateway's key."""
    with ThreadedProvider(users={"promo": "another key"}, auth=("PLAIN",)) as running:
        yield running


@pytest.fixture(scope="module")
def sandbox(
    tmp_path_factory: pytest.TempPathFactory, provider: ThreadedProvider, closed: ThreadedProvider
) -> Iterator[Gateway]:
    """Return a gateway in front of a shop's staging, where customer.example may receive mail."""
    login = {"username": "promo", "password": "plain:the key"}
    gateway = Gateway(
        tmp_path_factory.mktemp("support"),
        mode="staging",
        providers={
            "main": provider_settings(provider.port),
            "promo": provider_settings(closed.port, **login),
        },
        routes=[
            {"name": "promo", "recipient": ["cid@customer.example"], "providers": ["promo"]},
            {"name": "default", "providers": ["main"]},
        ],
        recipients={"allow": ["@customer.example"]},
        web={"bind": "127.0.0.1:0", "users": USERS, "link_header": "X-Order-Id"},
    )
    gateway.settings["queue"]["keep_content"] = "7d"
    with gateway:
        yield gateway


@pytest.fixture(scope="module")
def bounced(sandbox: Gateway) -> str:
    """Return the id of an order's mail that was refused for good."""
    queue_id = send(sandbox, GONE)
    sandbox.wait_until(
        lambda: sandbox.entry(queue_id).recipients[0].state.value == "bounced", "a bounce"
    )
    return queue_id


@pytest.fixture
def otto(visit: Visit, bounced: str) -> Newcomer:
    """An operator at the dashboard, and a mail that bounced."""
    visit.go("/login")
    log_in(visit.page)
    expect(visit.page.locator("#dashboard")).to_be_visible()
    return Newcomer(visit.page)


def log_in(page: Page) -> None:
    page.get_by_label("Name").fill("otto")
    page.get_by_label("Password").fill(PASSWORDS["otto"])
    page.get_by_role("button", name="Log in").click()


def send(gateway: Gateway, to: str, *, order: str = "", client: str = "127.0.0.1") -> str:
    """Send an order's mail as an app server does; return its queue id."""
    field = f"X-Order-Id: {order}\n".encode() if order else b""
    content = (field + order_confirmation()).replace(b"\n", b"\r\n")
    port = gateway.smtp_port
    with smtplib.SMTP("127.0.0.1", port, "web1.test", 90, source_address=(client, 0)) as smtp:
        smtp.ehlo()
        smtp.mail("orders@shop.example")
        smtp.rcpt(to)
        code, reply = smtp.data(content)
    assert code == 250, reply
    return reply.split()[-1].decode()


def test_why_a_customer_got_nothing(otto: Newcomer) -> None:
    otto.find("anna.bergg@cust")
    otto.open_first()
    standing = otto.page.locator(".standing")
    expect(standing).to_contain_text("This address does not exist or cannot be used")
    assert otto.clicks <= MOST


def test_what_to_answer_the_customer(otto: Newcomer) -> None:
    otto.find(GONE)
    otto.open_first()
    expect(otto.page.locator("#answer")).to_contain_text("Please check how it is written")
    otto.click(otto.page.get_by_role("button", name="Copy"))
    expect(otto.page.get_by_text("Copied.")).to_be_visible()
    assert otto.clicks <= MOST


def test_what_bounced_today(otto: Newcomer, bounced: str) -> None:
    otto.link("Queue")
    otto.click(
        otto.page.get_by_role("list", name="Today's outcomes").get_by_role("link", name="Bounced")
    )
    expect(otto.page.locator(f"#m-{bounced}")).to_contain_text("550 5.1.1 No such user here")
    assert otto.clicks <= MOST


def test_which_mails_a_number_of_the_dashboard_means(otto: Newcomer, bounced: str) -> None:
    number = otto.page.locator(".figures li").filter(has_text="Bounced").get_by_role("link")
    expect(number).to_contain_text("1", timeout=60_000)  # counts are written each 10 s
    otto.click(number)
    expect(otto.page.locator(".mail.queued")).to_have_count(1)
    expect(otto.page.locator(f"#m-{bounced}")).to_be_visible()
    assert otto.clicks <= MOST


def test_sending_it_again_to_another_address(
    otto: Newcomer, visit: Visit, bounced: str, provider: ThreadedProvider
) -> None:
    visit.go(f"/queue/{bounced}")
    otto.click(otto.page.get_by_role("link", name="Send again…").first)
    otto.page.get_by_label("Send to").fill("anna.berg@customer.example")
    otto.click(otto.page.get_by_role("button", name="Send again"))  # and not to whom it was for
    expect(otto.page.locator(".address")).to_have_text("anna.berg@customer.example")
    otto.click(otto.page.get_by_role("button", name="Send again"))
    expect(otto.page.get_by_role("status")).to_contain_text("1 message sent again")
    provider.wait_until(
        lambda: any("anna.berg@customer.example" in one.recipients for one in provider.messages)
    )
    assert otto.clicks <= MOST


def test_the_mail_of_one_app_server(otto: Newcomer, sandbox: Gateway, visit: Visit) -> None:
    mine = send(sandbox, "ben@customer.example", client="127.0.0.9")
    otto.find("client:127.0.0.9")
    expect(otto.page.locator(".mail.queued")).to_have_count(1)
    otto.open_first()
    otto.link("127.0.0.9")  # the way from a message to its neighbours
    expect(otto.page.locator(f"#m-{mine}")).to_be_visible()
    expect(otto.page.locator(".mail.queued")).to_have_count(1)
    assert otto.clicks <= MOST


def test_a_provider_is_released_and_its_mail_goes(
    otto: Newcomer, visit: Visit, sandbox: Gateway, closed: ThreadedProvider
) -> None:
    send(sandbox, "cid@customer.example")
    sandbox.wait_until(lambda: sandbox.store.holds.in_force() != [], "a hold for the key")
    closed.users["promo"] = "the key"  # the account is mended
    visit.go("/?did=")
    otto.click(otto.page.get_by_role("button", name="Release promo"))
    otto.click(otto.page.get_by_role("button", name="Release promo", exact=True))
    expect(otto.page.get_by_role("status")).to_have_text("The provider is released.")
    closed.wait_for_messages(1)
    assert otto.clicks <= MOST


def test_from_an_order_to_its_mail(visit: Visit, sandbox: Gateway) -> None:
    mine = send(sandbox, "eve@customer.example", order="100000900")
    visit.go("/mail?order=100000900")
    log_in(visit.page)
    expect(visit.page.locator("main")).to_have_attribute("data-message", mine)


def test_who_changed_what_yesterday(otto: Newcomer, sandbox: Gateway) -> None:
    at_ms = clock_ms() - DAY_MS
    entry = AuditEntry(
        at_ms=at_ms, actor="ben", action="sandbox.delete", target="", affected=7, detail=""
    )
    sandbox.store.sandbox.delete_captured([], entry=entry)
    otto.link("Audit")
    otto.fill("Since", "yesterday")
    changed = otto.page.get_by_label("What was changed")
    expect(changed).to_contain_text("ben deleted")
    assert otto.clicks <= MOST


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("Dark", "iframe[src*='scheme=dark']"),
        ("Checks", "text=Mail programs"),
        ("Invoice 100000421.pdf", "text=application/pdf"),
    ],
)
def test_captured_mail_and_how_it_looks(
    otto: Newcomer, sandbox: Gateway, name: str, seen: str
) -> None:
    send(sandbox, "dora@elsewhere.example")
    otto.find("dora@elsewhere")
    otto.open_first()
    expect(otto.page.get_by_role("heading", name=SUBJECT)).to_be_visible()
    otto.click(otto.page.get_by_role("link", name=name).first)
    expect(otto.page.locator(seen).first).to_be_visible()
    assert otto.clicks <= MOST
