"""axe-core, the checker of accessibility, brought by npm once and kept beside the environment."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from playwright.sync_api import Page

from tests.campaign import IS_CAMPAIGN
from tests.npm import npm_package

LOOKS = [("light", 1280), ("dark", 390)]
"""Each scheme and each width that pages are looked at in; a campaign takes all pairs."""
if IS_CAMPAIGN:
    LOOKS += [("light", 390), ("dark", 1280)]
BAD = ("moderate", "serious", "critical")

_METHODS = ("get", "post", "put", "patch", "delete")
ALIKE_IN_API_DOCS = ", ".join(
    [
        *(f".operation:has(.method-{one}) ~ .operation:has(.method-{one})" for one in _METHODS),
        ".operation-line ~ .operation-line",
        ".schema ~ .schema ~ .schema ~ .schema",
        ".api-fields > div:nth-child(n + 4)",
    ]
)
"""All but the first operation of each method in each part, three objects, and three fields."""

_REMOVE = "(alike) => document.querySelectorAll(alike).forEach((one) => one.remove())"
_RUN = """
async () => {
  // no rule that is on looks into styles or media by itself
  const how = {iframes: false, preload: false, resultTypes: ['violations']};
  const found = await axe.run(document, how);
  return found.violations.map((one) => ({
    id: one.id, impact: one.impact, help: one.help,
    nodes: one.nodes.slice(0, 5).map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`),
  }));
}
"""


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@cache
def _script() -> str:
    """Return where the script is: a browser compiles it once for all pages of a context."""
    handler = partial(_Handler, directory=npm_package("axe-core", "4.14.1"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/axe.min.js"


def troubles(
    page: Page, what: str, looks: Sequence[tuple[str, int]] = LOOKS, *, alike: str = ""
) -> list[str]:
    """Return what axe finds on a page in each look, and where it is wider than its window.

    axe looks at a page in one of them, in a campaign in all. The page's policy must be bypassed.
    The look that the page was loaded in comes first, and whatever is loaded next is loaded in the
    last one. What the selector `alike` finds is as something else of the page: outside of a
    campaign axe does not look at it, and it is gone then.
    """
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(url=_script())
    found = []
    # the same one in each run: the names of pages have ids in them, which are of one length
    checked = looks if IS_CAMPAIGN else [looks[len(what) % len(looks)]]
    is_cut = bool(alike) and not IS_CAMPAIGN
    # how wide a page is is seen before anything of it is removed
    order = checked.__contains__ if is_cut else lambda look: look[1] != _width(page)
    for scheme, width in sorted(looks, key=order):
        page.emulate_media(color_scheme=cast(Any, scheme))
        page.set_viewport_size({"width": width, "height": 860})
        look = f"{what}, {scheme}, {width} wide"
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            found.append(f"{look}: {wide} are needed")
        if (scheme, width) in checked:
            if is_cut:
                page.evaluate(_REMOVE, alike)
            wrong = [one for one in page.evaluate(_RUN) if one["impact"] in BAD]
            found += [f"{look}: {one}" for one in wrong]
    return found


def _width(page: Page) -> int:
    assert page.viewport_size is not None
    return page.viewport_size["width"]
