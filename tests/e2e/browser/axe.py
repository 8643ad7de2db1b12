"""axe-core, the checker of accessibility, brought by npm once and kept beside the environment."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

_CACHE = Path(sys.prefix) / "cache" / "axe-core"
_RUN = """
async () => {
  const found = await axe.run(document, {iframes: false});
  return found.violations.map((one) => ({
    id: one.id, impact: one.impact, help: one.help,
    nodes: one.nodes.slice(0, 5).map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`),
  }));
}
"""


def axe_source() -> str:
    """Return the script; asks npm for it if it is not there yet."""
    script = _CACHE / "axe.min.js"
    if not script.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "pack", "axe-core@4", "--silent", "--pack-destination", str(_CACHE)],
            check=True, timeout=100, cwd=_CACHE,
        )  # fmt: skip
        (archive,) = _CACHE.glob("axe-core-*.tgz")
        with tarfile.open(archive) as files:
            member = files.extractfile("package/axe.min.js")
            assert member is not None
            script.write_bytes(member.read())
    return script.read_text(encoding="utf-8")


def violations(page: Page, *, impacts: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what axe finds on a page of these impacts; the page's policy must be bypassed."""
    page.add_script_tag(content=axe_source())
    found: list[dict[str, Any]] = page.evaluate(_RUN)
    return [one for one in found if one["impact"] in impacts]
