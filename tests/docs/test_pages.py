"""The pages say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from relaygw import __version__
from relaygw.mail.outcome import Scope
from relaygw.mail.state import DeliveryState
from relaygw.policy.untended import KINDS, STUCK
from relaygw.settings.alerts import Rule
from relaygw.settings.load import load_settings
from relaygw.store.holds import UNREACHABLE
from tests.docs.render_states import OPEN_ENDS, render
from tests.sources import BESIDE, GATEWAY
from tests.tables import each_of

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_states_are_printed_from_the_table() -> None:
    assert (ROOT / "docs/states.md").read_text() == render()


HOLDS = (Scope.PROVIDER, Scope.CREDENTIAL, Scope.SENDER_DOMAIN, UNREACHABLE)


@each_of("one", [*DeliveryState, *HOLDS, *(kind for kind in KINDS if kind != STUCK)], ids=str)
def test_all_that_waits_has_a_row_that_says_who_is_told(one: str) -> None:
    assert one in OPEN_ENDS, f"tests/docs/render_states.py: how does {one} end, who is told?"
    assert all(OPEN_ENDS[one])


def test_each_rule_about_what_stands_still_is_in_the_table() -> None:
    told = " ".join(words for _, _, words in OPEN_ENDS.values())
    for rule in (Rule.HELD, Rule.ROUTE_GONE, Rule.STUCK, Rule.INSTANCE_LOST, Rule.IN_DOUBT):
        assert f"`{rule}`" in told


def test_the_changelog_has_a_heading_for_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{__version__}]" in text or "## [Unreleased]" in text


@each_of("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@each_of("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_into_a_page_find_their_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", page.read_text()):
        there = page.parent / target if target else page
        if there.suffix == ".md":
            assert anchor in _anchors(there), f"{page.name} links to {target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Git forges make them; a repeated one gets -1."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    seen: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        anchors.add(f"{slug}-{count}" if count else slug)
    return anchors


def test_every_room_is_on_the_map() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    for room in (*GATEWAY.iterdir(), *BESIDE):
        if room.is_dir() and (room / "__init__.py").exists():
            assert f"`{room.name}/`" in text, f"docs/architecture.md does not name {room.name}/"


def test_the_snippets_of_the_readme_work(tmp_path: Path) -> None:
    relay, gateway, staging = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    for more in ("", gateway, staging):
        (tmp_path / "conf.d").mkdir(exist_ok=True)
        (tmp_path / "relaygw.yaml").write_text(relay)
        (tmp_path / "conf.d" / "more.yaml").write_text(more)
        loaded = load_settings(config=tmp_path / "relaygw.yaml", environ={"HOME": str(tmp_path)})
        assert len(loaded.settings.routes) == 2
        assert loaded.settings.mode == ("staging" if more == staging else "production")
