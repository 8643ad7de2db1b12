"""Hostile mail in a real browser: no script runs, no request leaves, whatever is looked at."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect

from relaygw.web.mail.views import FRAME_HEADERS, MEASURED_HEADERS
from tests.campaign import IS_CAMPAIGN
from tests.e2e.browser.attachments import FILES, mail_with_files
from tests.e2e.browser.browsing import CHROMIUM, Chromium, Visit, launched
from tests.e2e.browser.hostile import EVIL, W1, W2, W5, hostile_set
from tests.e2e.gateway import Gateway

HOSTILE = hostile_set()
VIEWS = ("text", "headers", "links", "parts", "source", "checks")
"""Those beside the HTML, of which a letter is seen in every third, in a campaign in each."""


@pytest.fixture(scope="module")
def ids(sandbox: Gateway) -> dict[str, str]:
    """Return the ids of the messages, which all tests look at."""
    return {name: sandbox.send("a@x.test", ["b@x.test"], HOSTILE[name]) for name in HOSTILE}


@pytest.fixture(autouse=True)
def _is_empty() -> None:
    """Nothing is deleted between tests here."""


def assert_harmless(visit: Visit, browser: Chromium) -> None:
    assert visit.dialogs == []
    assert visit.outside() == []
    assert browser.canary.visitors == 0


def show(visit: Visit, page: str, *, has_policy: bool = True) -> None:
    """Have this page shown as the mail, as it is, with the policy that is sent with mail."""

    def answer(route: Route) -> None:
        policy = MEASURED_HEADERS if "framed=" in route.request.url else FRAME_HEADERS
        route.fulfill(
            body=page, headers={**(policy if has_policy else {}), "Content-Type": "text/html"}
        )

    visit.context.route(re.compile(r"/html(\?|$)"), answer)


def settle(visit: Visit) -> None:
    """Wait until the page has loaded all that it ever will."""
    visit.page.wait_for_load_state("networkidle")


def would_be_seen(browser: Chromium, base: str) -> None:
    """Whether what the tests look for would be seen; whoever is counted then stays counted."""
    with browser.visit(base, bypass_csp=True) as visit:
        visit.go("/healthz")
        with visit.page.expect_event("dialog"):
            visit.page.set_content(f"<img src='{EVIL}/a.png' onerror='alert(1)'>")
        assert visit.dialogs == ["1"]
        assert visit.outside() == [f"{EVIL}/a.png"]
        assert browser.canary.visitors > 0


def test_a_browser_with_windows_connects_nowhere_ahead_of_time(
    ids: dict[str, str], browser: Chromium, base: str
) -> None:
    """The shell never does; a whole one connects for a frame that its policy then forbids."""
    with launched(browser.browser.browser_type, CHROMIUM) as whole:
        with whole.visit(base) as visit:
            for name in ("W1", "W2", "W5"):
                visit.go(f"/sandbox/{ids[name]}")
                settle(visit)
            for path in ("?view=links", "/html"):
                visit.go(f"/sandbox/{ids['W5']}{path}")
                settle(visit)
            assert_harmless(visit, whole)
            show(visit, f"<iframe src='{EVIL}/frame'></iframe>")
            visit.go("/sandbox/any/html")
            whole.canary.wait_for_visitor()
        would_be_seen(whole, base)


def test_all_in_the_list(ids: dict[str, str], browser: Chromium, visit: Visit) -> None:
    visit.go("/sandbox")
    for queue_id in ids.values():
        expect(visit.page.locator(f"#m-{queue_id}")).to_be_visible()
    settle(visit)
    assert_harmless(visit, browser)
    assert visit.trouble == []


@pytest.mark.campaign
@pytest.mark.parametrize(("number", "name"), list(enumerate(HOSTILE)), ids=HOSTILE)
def test_looked_at_in_every_view(
    ids: dict[str, str], browser: Chromium, visit: Visit, number: int, name: str
) -> None:
    for view in ("html", *(VIEWS if IS_CAMPAIGN else VIEWS[number % 6 :: 6])):
        visit.go(f"/sandbox/{ids[name]}?view={view}")
        settle(visit)
    visit.go(f"/sandbox/{ids[name]}/release")
    settle(visit)
    assert_harmless(visit, browser)
    assert visit.trouble == []  # nothing had to be stopped, for nothing was there


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("W3", "W10", "W12")])
def test_opened_alone(ids: dict[str, str], browser: Chromium, visit: Visit, name: str) -> None:
    queue_id = ids[name]
    for path in (f"/sandbox/{queue_id}/html?framed=1", f"/sandbox/{queue_id}/html"):
        visit.go(path)
        settle(visit)
        # neither the page nor anything in it has an origin, so that no cookie is of use to it
        assert visit.page.evaluate("window.origin") == "null"
    for link in visit.page.locator("a").all():
        link.click(force=True)
    settle(visit)
    assert visit.page.url.partition("#")[0] == f"{visit.base}/sandbox/{queue_id}/html"
    assert_harmless(visit, browser)


@pytest.mark.parametrize("name", ["W1", "W2"])
def test_clicked_in_the_frame(
    ids: dict[str, str], browser: Chromium, visit: Visit, name: str
) -> None:
    queue_id = ids[name]
    visit.go(f"/sandbox/{queue_id}")
    frame = visit.page.frame_locator("iframe")
    frame.locator("a").first.click()
    frame.locator("body").click()
    settle(visit)
    (inner,) = visit.page.main_frame.child_frames
    assert inner.url.partition("?")[0] == f"{visit.base}/sandbox/{queue_id}/html"
    assert len(visit.context.pages) == 1
    assert_harmless(visit, browser)


@pytest.mark.parametrize("page", [W1, W2, W5], ids=["W1", "W2", "W5"])
def test_the_policy_of_the_frame_holds_without_the_sanitiser(
    ids: dict[str, str], browser: Chromium, base: str, page: str
) -> None:
    """Whatever the sanitiser may let through one day: the browser does nothing with it."""
    # no policy keeps Chromium from connecting ahead of time, as it does for these and for frames
    # that it then does not load: that is for the sanitiser alone
    page = re.sub("rel=(preconnect|dns-prefetch|prefetch)|<iframe src", "<p x", page)
    path = f"/sandbox/{ids['W1']}"
    with browser.visit(base) as visit:
        show(visit, page)
        # a refresh is no part of any policy; the sandbox and the page around it stop it
        for one in (path, *([] if "http-equiv" in page else [f"{path}/html"])):
            visit.go(one)
            settle(visit)
        assert visit.dialogs == []
    assert browser.canary.visitors == 0


@pytest.mark.parametrize("page", [W1, W2], ids=["W1", "W2"])
def test_the_frame_runs_nothing_by_any_layer_alone(
    ids: dict[str, str], browser: Chromium, base: str, page: str
) -> None:
    """The frame has an origin, for its height to be seen: with either of the other layers gone."""
    # a frame may show no dialog; with an origin of ours a script could tell the page around it
    page = page.replace("alert(document.domain)", "parent.ran=1").replace(EVIL, "data:")
    page = re.sub("<(link|iframe|meta|base)", "<p x", page)
    with browser.visit(base) as visit:
        show(visit, page)
        visit.go(f"/sandbox/{ids['W1']}/html?framed=1")  # no frame around it, and an origin
        settle(visit)
        assert visit.page.evaluate("[window.origin, window.ran]") == [visit.base, None]
        visit.context.unroute_all()
        show(visit, page, has_policy=False)
        visit.go(f"/sandbox/{ids['W1']}")
        settle(visit)
        assert visit.page.evaluate("frames[0].document.body.innerText.length") > 0
        assert visit.page.evaluate("window.ran") is None
    assert browser.canary.visitors == 0


def test_the_sanitiser_holds_without_the_policy(
    ids: dict[str, str], browser: Chromium, base: str
) -> None:
    """A document that was saved, or shown by what knows no policies, is as harmless."""
    with browser.visit(base, bypass_csp=True) as visit:
        for name in ("W1", "W2", "W5"):
            visit.go(f"/sandbox/{ids[name]}/html")
            document = visit.page.content()
            visit.go("/healthz")
            visit.page.set_content(document)
            settle(visit)
            assert_harmless(visit, browser)


def test_pictures_of_the_mail_are_shown(ids: dict[str, str], visit: Visit) -> None:
    visit.go(f"/sandbox/{ids['W6']}")
    frame = visit.page.frame_locator("iframe")
    for picture in ("#cid", "#data"):
        assert frame.locator(picture).evaluate("one => one.naturalWidth") == 1


def test_an_attachment_is_shown_as_text_and_saved(
    ids: dict[str, str], browser: Chromium, visit: Visit
) -> None:
    visit.go(f"/sandbox/{ids['W3']}")
    visit.page.locator(".files a").first.click()
    expect(visit.page.frame_locator("iframe").locator("pre")).to_contain_text("<script>")
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name="Save").click()
    assert download.value.suggested_filename.endswith(".html")
    assert "<" not in download.value.suggested_filename
    assert_harmless(visit, browser)


def test_attachments_run_nothing_and_load_nothing(
    sandbox: Gateway, browser: Chromium, visit: Visit
) -> None:
    queue_id = sandbox.send("a@x.test", ["b@x.test"], mail_with_files())
    for number, name in enumerate(FILES, 2):
        path = f"/sandbox/{queue_id}/part/{number}"
        visit.go(f"{path}/look")
        body = visit.page.frame_locator("iframe").locator("body")
        shown = body.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
        assert shown == {"photo.png": [40], "invoice.pdf": [900]}.get(name, []), name
        visit.go(f"{path}/preview")  # alone, it has no origin and still does nothing
        assert visit.page.evaluate("window.origin") == "null"
    visit.go(f"/sandbox/{queue_id}?view=checks")
    settle(visit)
    assert_harmless(visit, browser)
    assert visit.trouble == []


def test_what_the_tests_look_for_would_be_seen(browser: Chromium, base: str) -> None:
    """The last one."""
    would_be_seen(browser, base)
