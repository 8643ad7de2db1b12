"""The built-in reply catalogue: the rows of replies.yaml, by preset.

The file is data: sections named by one or more presets, and `generic` for everybody. It is read
once a process, by the same reader and model as the user's own rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from relaygw.settings.reply_row import ReplyRow
from relaygw.settings.tree import Place
from relaygw.settings.yaml_text import read_tree
from relaygw.upstream.rule import PlacedRow

GENERIC = "generic"
"""The section for all providers, asked after the provider's own."""
_FILE = "replies.yaml"


@cache
def catalogue() -> Mapping[str, tuple[ReplyRow, ...]]:
    """Return the rows of each section in the order in which they are asked."""
    return {name: tuple(placed.row for placed in rows) for name, rows in _sections().items()}


def preset_rows(preset: str | None) -> tuple[PlacedRow, ...]:
    """Return the rows of one preset; none for a provider without one."""
    return _sections().get(preset, ()) if preset is not None else ()


@cache
def _sections() -> Mapping[str, tuple[PlacedRow, ...]]:
    tree = read_tree((files(__package__) / _FILE).read_bytes(), Place(_FILE))
    if tree.problems:
        raise ValueError("; ".join(tree.problems))
    sections: dict[str, tuple[PlacedRow, ...]] = defaultdict(tuple)
    for names, rows in tree.values.items():
        read = tuple(
            PlacedRow(f"{names}, row {number + 1} ({tree.place_of((names, number))})", row)
            for number, row in enumerate(map(ReplyRow.model_validate, rows))
        )
        for name in names.split():
            sections[name] += read
    return dict(sections)
