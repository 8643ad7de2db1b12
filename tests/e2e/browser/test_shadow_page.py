"""The page of a shadow run, from a file: it fits a phone, loads nothing, and runs nothing."""

from __future__ import annotations

from pathlib import Path

from relaygw_postfix.sameness import Result
from relaygw_postfix.shadow import ShadowRow, Tally
from relaygw_postfix.shadow_page import shadow_page
from tests.e2e.browser.axe import troubles
from tests.e2e.browser.browsing import Chromium

HOSTILE = "<img src=//evil.test/x onerror=alert(1)><script>alert(2)</script>\"'&"
ROW = ShadowRow(
    sender=HOSTILE,
    recipient=f"{'x' * 200}@cust.test",
    result=Result.OTHER,
    relay=f"{HOSTILE}:587",
    policy=f"deliver: {HOSTILE}",
    route=HOSTILE,
    providers=(f"{HOSTILE} {'y' * 200}.test:587",),
    why="z" * 300,
)


def test_the_page_fits_and_is_only_text(browser: Chromium, tmp_path: Path) -> None:
    tally = Tally()
    tally.add(ROW, HOSTILE)
    tally.add(ROW, "sent", 9)
    file = tmp_path / "report.html"
    file.write_text(shadow_page(tally, source=HOSTILE, made_at="2026-11-27 15:00"))
    small = {"width": 360, "height": 800}
    with browser.visit("file://", viewport=small, bypass_csp=True) as visit:
        visit.page.goto(file.as_uri())
        wide, room = visit.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= room
        assert visit.page.inner_text("tbody").count(HOSTILE) >= 4
        assert visit.page.locator("script, img").count() == 0
        assert (visit.dialogs, visit.trouble) == ([], [])
        assert [one for one in visit.requests if not one.startswith("file:")] == []
        assert troubles(visit.page, "the report") == []
