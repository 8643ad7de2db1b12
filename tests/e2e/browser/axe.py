"""axe-core, the checker of accessibility, brought by npm once and kept beside the environment."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

from tests.campaign import IS_CAMPAIGN
from tests.npm import npm_package

LOOKS = [("light", 1280), ("dark", 390)]
"""Each scheme and each width that pages are looked at in; a campaign takes all pairs."""
if IS_CAMPAIGN:
    LOOKS += [("light", 390), ("dark", 1280)]

_RUN = """
async () => {
  const found = await axe.run(document, {iframes: false, resultTypes: ['violations']});
  return found.violations.map((one) => ({
    id: one.id, impact: one.impact, help: one.help,
    nodes: one.nodes.slice(0, 5).map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`),
  }));
}
"""


def axe_source() -> str:
    """Return the script; asks npm for it if it is not there yet."""
    return (npm_package("axe-core", "4.14.1") / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page, *, impacts: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what axe finds on a page of these impacts; the page's policy must be bypassed."""
    page.add_script_tag(content=axe_source())
    found: list[dict[str, Any]] = page.evaluate(_RUN)
    return [one for one in found if one["impact"] in impacts]
