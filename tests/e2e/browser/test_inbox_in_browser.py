"""The inbox as people use it: mail appears by itself, is found, looked at, and deleted."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.browsing import Chromium, Visit, press
from tests.e2e.browser.letters import order_confirmation
from tests.e2e.gateway import PATIENCE_S, Gateway
from tests.e2e.sendmail_rig import Installation

PLAIN = b"From: shop@x.test\r\nTo: ann@x.test\r\nSubject: %s\r\n\r\nhello\r\n"
# notes in the page itself when a line came in, for looking from outside takes time of its own;
# a line comes alone, or with the whole list where that is loaded anew
WATCH = """
window.cameAt = {};
new MutationObserver(() => {
  for (const line of document.querySelectorAll("[data-id]"))
    window.cameAt[line.dataset.id] ??= Date.now();
}).observe(document, {subtree: true, childList: true});
"""


def send(gateway: Gateway, content: bytes, *to: str) -> str:
    return gateway.send("orders@shop.example", list(to) or ["ann@x.test"], content)


def wait_until_live(page: Page) -> None:
    expect(page.locator("[data-live].is-live")).to_be_attached()


def subjects(page: Page) -> list[str]:
    return page.locator(".mail-subject").all_inner_texts()


def frame_bottom(page: Page) -> int:
    """Return how high the frame of a mail is, once it has its height."""
    expect(page.locator("iframe[height]")).to_be_visible()
    return int(page.evaluate("document.querySelector('iframe').clientHeight"))


def content_bottom(page: Page) -> int:
    return int(
        page.locator("iframe").evaluate("one => one.contentDocument.documentElement.scrollHeight")
    )


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.closest('.mail')?.dataset.id ?? ''"))


def test_an_order_mail_appears_is_found_viewed_at_three_widths_and_deleted(
    sandbox: Gateway, visit: Visit
) -> None:
    page = visit.page
    visit.go("/sandbox")
    expect(page.get_by_text("No captured mail yet")).to_be_visible()
    wait_until_live(page)
    content = order_confirmation().replace(b"\n", b"\r\n")
    queue_id = send(sandbox, content, "anna.berg@customer.example")
    line = page.locator(f"#m-{queue_id}")
    expect(line).to_be_visible()
    expect(line).to_contain_text("Your order #100000421 is on its way")
    expect(page.get_by_text("No captured mail yet")).to_have_count(0)
    other = send(sandbox, PLAIN % b"something else")
    expect(page.locator(f"#m-{other}")).to_be_visible()

    press(page, "/")
    page.keyboard.type("100000421")
    expect(page.locator(".mail")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"\?query=100000421$"))
    page.locator(".mail-subject").click()

    expect(page.get_by_role("heading", name="Your order #100000421")).to_be_visible()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_text("Thank you, Anna.")).to_be_visible()
    assert frame.locator("img[alt=Lamp]").evaluate("img => img.naturalWidth") == 72
    widths = {}
    for width in ("Phone", "Tablet", "Desktop"):
        page.get_by_text(width, exact=True).click()
        box = page.locator("iframe").bounding_box()
        assert box is not None
        widths[width] = round(box["width"])
    assert (widths["Phone"], widths["Tablet"]) == (392, 770)  # and a border of 1 px
    assert widths["Desktop"] > 770
    assert frame_bottom(page) == content_bottom(page)
    # the head goes, and leaves a line of itself
    expect(page.locator(".short-head")).to_be_hidden()
    page.set_viewport_size({"width": 1280, "height": 500})
    page.mouse.wheel(0, 2000)
    expect(page.locator(".short-head")).to_have_text(
        "Your order #100000421 is on its way Fern & Fig"
    )
    expect(page.locator(".short-head")).to_be_visible()

    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete 1 message").click()
    expect(page.locator(".notice")).to_have_text("1 message deleted.")
    assert not visit.outside()
    assert visit.trouble == []


def test_mail_is_seen_within_half_a_second_of_its_250(
    sandbox: Gateway, browser: Chromium, base: str
) -> None:
    with browser.visit(base) as visit:
        visit.page.add_init_script(WATCH)
        visit.go("/sandbox")
        wait_until_live(visit.page)
        took_ms = []
        for number in range(5):
            queue_id = send(sandbox, PLAIN % b"%d" % number)
            answered_ms = time.time() * 1000
            expect(visit.page.locator(f"#m-{queue_id}")).to_be_visible()
            took_ms.append(visit.page.evaluate(f"window.cameAt['{queue_id}']") - answered_ms)
    print(f"250 to visible: {[round(one) for one in took_ms]} ms")
    assert min(took_ms) <= 500


@pytest.fixture
def with_maildrop(installed: Installation, tmp_path: Path) -> Iterator[Gateway]:
    installed.clear()
    maildrop = {"path": str(installed.maildrop)}
    with Gateway(tmp_path, mode="sandbox", maildrop=maildrop) as gateway:
        gateway.wait_until((installed.maildrop / "wake").exists, "a front at the maildrop")
        yield gateway


def test_mail_of_php_appears_and_says_where_it_came_from(
    with_maildrop: Gateway, installed: Installation, browser: Chromium
) -> None:
    with browser.visit(f"http://127.0.0.1:{with_maildrop.web_port}") as visit:
        visit.go("/sandbox")
        wait_until_live(visit.page)
        script = 'mail("anna@customer.example", "Order 5 received", "Thank you, Anna.");'
        subprocess.run(
            ["php", "-d", f"sendmail_path={installed.sendmail} -t -i", "-d", "mail.add_x_header=1",
             "-r", script],
            env=installed.environment(), check=True, timeout=PATIENCE_S,
        )  # fmt: skip
        visit.page.get_by_role("link", name="Order 5 received").click()
        expect(visit.page.locator(".plain")).to_contain_text("Thank you, Anna.")
        beside = visit.page.locator(".beside")
        expect(beside).to_contain_text("Local user")
        expect(beside).to_contain_text("anna@customer.example")


def test_keys(sandbox: Gateway, visit: Visit) -> None:
    page = visit.page
    oldest, middle, newest = (send(sandbox, PLAIN % word) for word in (b"one", b"two", b"three"))
    visit.go("/sandbox")
    wait_until_live(page)
    assert subjects(page) == ["three", "two", "one"]
    for key, there in (("j", newest), ("j", middle), ("j", oldest), ("j", oldest), ("k", middle)):
        press(page, key)
        assert focused(page) == there
    press(page, "o")
    expect(page.get_by_role("heading", name="two")).to_be_visible()
    press(page, "j")
    expect(page.get_by_role("heading", name="one")).to_be_visible()
    press(page, "k")
    expect(page.get_by_role("heading", name="two")).to_be_visible()
    press(page, "k")
    expect(page.get_by_role("heading", name="three")).to_be_visible()
    press(page, "r")
    expect(page.get_by_role("heading", name="Release 1 message")).to_be_visible()
    press(page, "u")
    expect(page.get_by_role("heading", name="three")).to_be_visible()
    press(page, "u")
    wait_until_live(page)

    press(page, "?")
    expect(page.locator("#keys")).to_be_visible()
    press(page, "j")  # belongs to nobody while the keys are shown
    press(page, "Escape")
    expect(page.locator("#keys")).to_be_hidden()

    press(page, "j", "x", "j", "x", "#")
    expect(page.get_by_role("heading", name="Delete 2 messages for good?")).to_be_visible()
    expect(page.locator("[autofocus]:enabled").first).to_be_focused()
    press(page, "Enter")
    expect(page.locator(".mail")).to_have_count(1)
    wait_until_live(page)
    press(page, "/")
    page.keyboard.type("j#")  # in a field they are letters
    expect(page.locator("#search-sandbox")).to_have_value("j#")
    expect(page.get_by_text("Nothing found")).to_be_visible()
    press(page, "Escape", "u")
    expect(page.locator(".mail")).to_have_count(1)
    assert visit.trouble == []


def test_a_frame_is_as_high_as_its_content_and_starts_narrow_on_a_phone(
    sandbox: Gateway, browser: Chromium, base: str
) -> None:
    head = b"Subject: x\r\nContent-Type: text/html\r\n\r\n<!doctype html><style>body{margin:20px}"
    tall = send(sandbox, head + b"</style>" + b"<p>line</p>" * 300)
    window = send(sandbox, head + b"div{height:100vh}</style><div></div>")
    wide = send(sandbox, head + b"</style><div style='width:3000px;height:400px'>x</div>")
    with browser.visit(base, viewport={"width": 390, "height": 700}) as visit:
        page = visit.page
        visit.go(f"/sandbox/{tall}")
        expect(page.locator("#width-phone")).to_be_checked()
        assert frame_bottom(page) == content_bottom(page) > 9000
        page.get_by_text("Desktop", exact=True).click()
        assert page.locator("iframe").evaluate("one => one.clientWidth") == 1024
        visit.go(f"/sandbox/{window}")
        expect(page.locator("#width-desktop")).to_be_checked()  # as it was chosen
        # what is as high as its window and more does not grow for ever
        assert frame_bottom(page) < 300
        visit.go(f"/sandbox/{wide}")
        assert frame_bottom(page) >= 440
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert visit.trouble == []


WIDE = {"width": 1500, "height": 800}
# what would be shown on the desktop, of a window that nobody looks at
NOTICES = """
window.told = [];
window.Notification = class extends EventTarget {
  static permission = 'default';
  static async requestPermission() { return (Notification.permission = 'granted'); }
  constructor(title, more) { super(); window.told.push(`${title}: ${more.body}`); }
};
document.hasFocus = () => false;
"""


def test_list_and_message_side_by_side_and_notices(
    sandbox: Gateway, browser: Chromium, base: str
) -> None:
    ids = [send(sandbox, PLAIN % b"number %d" % number) for number in range(3)]
    with browser.visit(base, viewport=WIDE) as visit:
        page = visit.page
        page.add_init_script(NOTICES)
        visit.go("/sandbox")
        wait_until_live(page)
        page.get_by_role("link", name="number 1").click()
        expect(page.get_by_role("heading", name="number 1")).to_be_visible()
        expect(page).to_have_url(f"{base}/sandbox/{ids[1]}")
        assert subjects(page) == ["number 2", "number 1", "number 0"]
        for key, number in (("j", 0), ("k", 1), ("k", 2)):
            press(page, key)
            expect(page.get_by_role("heading", name=f"number {number}")).to_be_visible()
            expect(page.locator(".mail.is-open")).to_have_attribute("data-id", ids[number])
        # what is ticked comes before what is open
        page.locator(f"#m-{ids[0]} .pick input").check()
        press(page, "#")
        expect(page.get_by_role("heading", name="Delete 1 message for good?")).to_be_visible()
        expect(page.locator(f"input[name=id][value='{ids[0]}']")).to_have_count(1)
        page.go_back()  # the page is loaded anew, both sides of it
        expect(page.get_by_role("heading", name="number 2")).to_be_visible()
        wait_until_live(page)

        # mail comes in beside the message, and is told of once somebody wants that
        assert page.evaluate("told") == []
        new = send(sandbox, PLAIN % b"untold")
        expect(page.locator(f"#m-{new}")).to_be_visible()
        page.get_by_role("button", name="Notify me").click()
        expect(page.get_by_role("button", name="Notices are on")).to_be_visible()
        new = send(sandbox, PLAIN % b"told")
        expect(page.locator(f"#m-{new}")).to_be_visible()
        assert page.evaluate("told") == ["told: shop@x.test → ann@x.test"]
        expect(page.get_by_role("heading", name="number 2")).to_be_visible()
        page.set_viewport_size({"width": 1200, "height": 800})
        expect(page.locator("#inbox")).to_be_hidden()
        assert visit.trouble == []
    with browser.visit(base, viewport=WIDE, java_script_enabled=False) as visit:
        visit.go("/sandbox?query=number")
        visit.page.get_by_role("link", name="number 0").click()
        expect(visit.page.get_by_role("heading", name="number 0")).to_be_visible()
        assert subjects(visit.page) == ["number 2", "number 1", "number 0"]
        visit.page.get_by_role("link", name="number 2").click()
        expect(visit.page.get_by_role("heading", name="number 2")).to_be_visible()


def test_a_focused_line_can_be_seen(sandbox: Gateway, visit: Visit) -> None:
    send(sandbox, PLAIN % b"one")
    visit.go("/sandbox")
    press(visit.page, "j")
    outline = visit.page.locator(".mail").evaluate("one => getComputedStyle(one).outlineStyle")
    assert outline == "solid"


def test_what_others_do_is_seen(sandbox: Gateway, browser: Chromium, base: str) -> None:
    one, two = send(sandbox, PLAIN % b"one"), send(sandbox, PLAIN % b"two")
    with browser.visit(base, timezone_id="Asia/Kathmandu") as mine, browser.visit(base) as others:
        mine.go("/sandbox")
        wait_until_live(mine.page)
        expect(mine.page.locator(".mail.is-unread")).to_have_count(2)
        others.go(f"/sandbox/{one}")
        expect(mine.page.locator(f"#m-{one}")).not_to_have_class(re.compile("is-unread"))
        expect(mine.page).to_have_title(re.compile(r"^\(1\) "))
        others.page.get_by_role("button", name="Delete…").click()
        others.page.get_by_role("button", name="Delete 1 message").click()
        expect(mine.page.locator(f"#m-{one}")).to_have_count(0)
        expect(mine.page.locator(f"#m-{two}")).to_be_visible()
        new = send(sandbox, PLAIN % b"three")  # its time is of the browser's zone, too
        at = datetime.fromtimestamp(sandbox.entry(new).accepted_at_ms / 1000, UTC)
        clock = mine.page.locator(f".day + #m-{new} .mail-age")
        expect(clock).to_have_text(f"{at.astimezone(ZoneInfo('Asia/Kathmandu')):%H:%M}")
        expect(clock).to_have_attribute("title", re.compile(rf"{at:%H:%M:%S} UTC$"))


def test_what_is_ticked_stays_so_when_mail_comes(sandbox: Gateway, visit: Visit) -> None:
    send(sandbox, PLAIN % b"one")
    visit.go("/sandbox")
    wait_until_live(visit.page)
    visit.page.locator(".mail .pick input").check()
    new = send(sandbox, PLAIN % b"two")
    expect(visit.page.locator(f"#m-{new}")).to_be_visible()
    expect(visit.page.locator(".mail .pick input:checked")).to_have_count(1)
    expect(visit.page.get_by_role("button", name="Delete…")).to_be_visible()


def test_without_scripts_all_but_live_mail_works(
    sandbox: Gateway, browser: Chromium, base: str
) -> None:
    send(sandbox, order_confirmation().replace(b"\n", b"\r\n"), "anna.berg@customer.example")
    send(sandbox, PLAIN % b"two")
    with browser.visit(base, java_script_enabled=False) as visit:
        page = visit.page
        visit.go("/sandbox")
        page.locator("#search-sandbox").fill("100000421")
        page.locator("#search-sandbox").press("Enter")
        expect(page.locator(".mail")).to_have_count(1)
        page.locator(".mail-subject").click()
        page.get_by_text("Phone", exact=True).click()
        box = page.locator("iframe").bounding_box()
        assert box is not None
        assert round(box["width"]) == 392
        page.get_by_role("link", name="Text", exact=True).click()
        expect(page.locator("pre.plain")).to_contain_text("130.90 EUR")
        page.get_by_role("link", name="Found mail").click()
        expect(page.locator(".mail")).to_have_count(1)
        page.get_by_role("link", name="All mail").click()
        expect(page.locator(".mail")).to_have_count(2)  # ticked before, it is gone with the page
        page.locator(".mail .pick input").first.check()
        page.get_by_role("button", name="Delete…").first.click()
        page.get_by_role("button", name="Delete 1 message").click()
        expect(page.locator(".mail")).to_have_count(1)


def test_a_theme_is_remembered(sandbox: Gateway, browser: Chromium, base: str) -> None:
    def paper(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    with browser.visit(base, color_scheme="light") as visit:
        visit.go("/sandbox")
        light = paper(visit.page)
        visit.page.locator("#theme").click()
        assert paper(visit.page) != light
        visit.go("/sandbox?query=x")
        assert paper(visit.page) != light
        visit.page.locator("#theme").click()
        assert paper(visit.page) == light
    with browser.visit(base, color_scheme="dark") as visit:
        visit.go("/sandbox")
        assert paper(visit.page) != light


def test_nothing_moves_while_a_page_loads(sandbox: Gateway, browser: Chromium, base: str) -> None:
    queue_id = send(sandbox, order_confirmation().replace(b"\n", b"\r\n"))
    with browser.visit(base) as visit:
        visit.page.add_init_script(
            "window.moved = 0; new PerformanceObserver((list) => {"
            "for (const entry of list.getEntries()) window.moved += entry.value;"
            "}).observe({type: 'layout-shift', buffered: true});"
        )
        for path in ("/sandbox", f"/sandbox/{queue_id}"):
            visit.go(path)
            visit.page.locator("#main").wait_for()
            if path == "/sandbox":
                wait_until_live(visit.page)
                visit.page.locator(".mail .pick input").check()
            assert visit.page.evaluate("window.moved") < 0.01


def test_no_page_is_wider_than_its_window(sandbox: Gateway, browser: Chromium, base: str) -> None:
    long_word = b"x" * 300
    queue_id = send(
        sandbox,
        b"From: %s <%s@x.test>\r\nTo: a@x.test\r\nSubject: %s\r\nX-%s: %s\r\n\r\n%s\r\n"
        % (long_word, long_word[:60], long_word, long_word[:80], long_word, long_word),
    )
    paths = ("/sandbox", f"/sandbox/{queue_id}", f"/sandbox/{queue_id}?view=headers",
             f"/sandbox/{queue_id}/release", "/sandbox?query=" + "y" * 300)  # fmt: skip
    with browser.visit(base, viewport={"width": 320, "height": 800}) as visit:
        for path in paths:  # loaded in the width that the one before ended with
            visit.go(path)
            for width in (320, 390, 768, 1024, 1920):
                visit.page.set_viewport_size({"width": width, "height": 800})
                wide = visit.page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, (path, wide)
