"""docs/security.md has the fields that name recipients, as the table has them."""

from __future__ import annotations

import re
from pathlib import Path

from relaygw.settings.presets import presets
from relaygw.settings.recipient_fields import GENERAL, recipient_fields

PAGE = Path(__file__).parents[2] / "docs/security.md"
CARRIES = {
    "recipients": "recipients of its own (a)",
    "envelope": "the envelope once more (b)",
    "notices": "where notices go (c)",
    "copy": "a URL that gets a copy",
}


def render() -> str:
    """Return the table of fields."""
    lines = ["| read by | field | carries |", "|---|---|---|"]
    for name, service in recipient_fields().items():
        who = "mail servers of any kind" if name == GENERAL else presets()[name].service
        by_kind: dict[str, list[str]] = {}
        for field in service.fields:
            written = f"`{field.name}`" + (" as JSON" if field.json_only else "")
            by_kind.setdefault(CARRIES[field.carries], []).append(written)
        lines += [f"| {who} | {', '.join(names)} | {kind} |" for kind, names in by_kind.items()]
    silent = [presets()[name].service for name, one in recipient_fields().items() if not one.fields]
    lines.append(f"| {', '.join(silent)} | none | |")
    return "\n".join(lines)


def test_the_page_has_the_table_of_fields() -> None:
    (found,) = re.findall(r"<!-- fields: .*? -->\n\n((?:\|.*\n)+)", PAGE.read_text())
    assert found == render() + "\n"
