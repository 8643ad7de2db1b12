"""From an order mail captured in staging to the provider, by hand of an admin in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.browsing import Chromium, press
from tests.e2e.browser.letters import order_confirmation
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.integration.web.people import PASSWORDS, USERS


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as running:
        yield running


@pytest.fixture(scope="module")
def sandbox(
    tmp_path_factory: pytest.TempPathFactory, provider: ThreadedProvider
) -> Iterator[Gateway]:
    with Gateway(
        tmp_path_factory.mktemp("staging"),
        mode="staging",
        providers={"main": provider_settings(provider.port)},
        recipients={"allow": ["dev@agency.example"]},
        web={"bind": "127.0.0.1:0", "users": USERS},
    ) as gateway:
        yield gateway


def test_an_admin_releases_an_order_mail(
    sandbox: Gateway, provider: ThreadedProvider, browser: Chromium, base: str
) -> None:
    to = ["anna.berg@customer.example", "other@customer.example"]
    content = order_confirmation().replace(b"\n", b"\r\n")
    queue_id = sandbox.send("orders@shop.example", to, content)
    with browser.visit(base) as visit:
        page = visit.page
        visit.go(f"/sandbox/{queue_id}")
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill(PASSWORDS["anna"])
        page.get_by_role("button", name="Log in").click()
        # the login leads to what was asked for
        expect(page.get_by_role("heading", name="Your order #100000421")).to_be_visible()
        press(page, "r")
        page.get_by_role("textbox", name="Send to").fill("dev@agency.example")
        page.get_by_role("button", name="Update").click()
        expect(page.get_by_text("Will be sent: 1 mail")).to_be_visible()
        page.get_by_role("button", name="Release 1 mail").click()
        expect(page.get_by_role("heading", name="1 mail of 1 message released")).to_be_visible()
        provider.wait_for_messages(1)

        visit.go(f"/sandbox/{queue_id}/release")
        expect(page.get_by_text("Not on the allow list: 2 mails")).to_be_visible()
        page.get_by_label("outside the allow list").check()
        page.get_by_role("button", name="Release").click()
        expect(page.get_by_role("heading", name="2 mails of 1 message released")).to_be_visible()
        provider.wait_for_messages(2)
        sandbox.wait_until_empty()
        visit.go(f"/sandbox/{queue_id}")
        expect(page.get_by_text("Released: delivered")).to_have_count(3)
        expect(page.get_by_text("Captured", exact=True)).to_have_count(3)  # and when it was
        assert visit.trouble == []
    reached = {address for message in provider.messages for address in message.recipients}
    assert reached == {"dev@agency.example", *to}
