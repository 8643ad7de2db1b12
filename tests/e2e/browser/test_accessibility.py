"""Every page, light and dark, wide and narrow: axe finds nothing serious."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.browser.attachments import FILES, mail_with_files
from tests.e2e.browser.axe import troubles
from tests.e2e.browser.browsing import Chromium, Visit, press
from tests.e2e.browser.letters import all_letters
from tests.e2e.gateway import Gateway, provider_settings
from tests.integration.web.people import USERS

pytestmark = pytest.mark.campaign

FOUND: list[str] = []
VIEWS = ("html", "text", "headers", "links", "parts", "source", "checks")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return a staging gateway, so that there is a login and somebody to release to."""
    with Gateway(
        tmp_path_factory.mktemp("staging"),
        mode="staging",
        providers={"main": provider_settings(9)},
        recipients={"allow": ["dev@agency.example"]},
        web={"bind": "127.0.0.1:0", "users": USERS},
        sandbox={"spamd": "127.0.0.1:9"},  # where none is
    ) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def logged_in(browser: Chromium, base: str) -> Iterator[Visit]:
    with browser.visit(base, bypass_csp=True) as opened:
        check(opened, "/login")
        opened.page.get_by_label("Name").fill("anna")
        opened.page.get_by_label("Password").fill("pä ss:word")
        opened.page.get_by_role("button", name="Log in").click()
        opened.page.locator("#dashboard").wait_for()
        yield opened


@pytest.fixture
def visit(logged_in: Visit) -> Iterator[Visit]:
    yield logged_in
    found = "\n".join(FOUND)
    FOUND.clear()
    assert not found, found


def check(visit: Visit, path: str) -> None:
    visit.go(path)
    check_here(visit, path)


def check_here(visit: Visit, what: str) -> None:
    """Note what is wrong; FOUND is looked at in the end, to see all of it at once."""
    FOUND.extend(troubles(visit.page, what))


@pytest.fixture
def ids(sandbox: Gateway) -> dict[str, str]:
    """Return the ids of one mail of each kind."""
    return sent(sandbox, *all_letters())


def sent(sandbox: Gateway, *names: str) -> dict[str, str]:
    """Send these letters; return their ids."""
    letters = all_letters()
    to = ["anna.berg@customer.example", "second@customer.example"]
    return {
        name: sandbox.send("bounces@shop.example", to, letters[name].replace(b"\n", b"\r\n"))
        for name in names
    }


def test_lists_and_what_they_ask(visit: Visit, ids: dict[str, str]) -> None:
    page = visit.page
    check(visit, "/sandbox")
    page.locator(".mail .pick input").first.check()
    check_here(visit, "something ticked")
    page.get_by_role("button", name="Delete…").first.click()
    page.get_by_role("heading", name="Delete 1 message for good?").wait_for()
    check_here(visit, "the question before a deletion")
    check(visit, f"/sandbox/{ids['order']}/release")
    for path in (
        *("/sandbox?query=zzz", "/sandbox/NOTHING-THERE"),
        *("/sources", "/sources?by=host"),
        *("/suppression", "/suppression?q=zzz"),
        *("/find?q=customer", "/find?q=zzz", "/find?q=after:soon", "/queue?result=captured"),
    ):
        check(visit, path)


def test_a_message_in_its_views(visit: Visit, sandbox: Gateway) -> None:
    ids = sent(sandbox, "order", "newsletter", "rtl")  # each stands in the list beside each
    for view in VIEWS:
        check(visit, f"/sandbox/{ids['order']}?view={view}")
    for name in ("newsletter", "rtl"):
        check(visit, f"/sandbox/{ids[name]}?scheme=dark")
    # with a feature open, and what is found by the checks
    visit.go(f"/sandbox/{ids['newsletter']}?view=checks")
    visit.page.locator(".features summary").first.click()
    check_here(visit, "a feature that some programs lack")
    visit.page.get_by_role("button", name="Visit 2 links").click()
    visit.page.get_by_role("heading", name="did not answer properly").wait_for()
    check_here(visit, "links visited")
    check(visit, f"/sandbox/{ids['newsletter']}/spam")
    files = sandbox.send("a@x.test", ["b@x.test"], mail_with_files())
    for number, name in enumerate(FILES, 2):
        if name in ("photo.png", "invoice.pdf", "invite.ics", "notes.txt"):
            check(visit, f"/sandbox/{files}/part/{number}/look")
    visit.page.set_viewport_size({"width": 1500, "height": 860})
    visit.go(f"/sandbox/{ids['order']}")
    FOUND.extend(troubles(visit.page, "beside the list", [("light", 1500), ("dark", 1500)]))


def test_an_empty_list_and_what_helps(visit: Visit) -> None:
    check(visit, "/sandbox")
    press(visit.page, "?")
    check_here(visit, "the keys")
    press(visit.page, "Escape")
    visit.page.get_by_role("button", name="How to search").click()
    check_here(visit, "the help for searches")
    visit.go("/queue")
    visit.page.get_by_role("button", name="How to find mail").click()
    check_here(visit, "the help for finding mail")
