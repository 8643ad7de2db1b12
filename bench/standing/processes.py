"""How far several fronts and workers of one gateway take it, on the processors of this machine."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench.rig.postgres import postgres_queue
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting
from bench.standing.side_by_side import Kind, shares, side_by_side, spread

_NUMBERS = ((1, 1), (2, 1), (1, 2), (2, 2))


def processes(setting: Setting) -> Result:
    """Throughput with one and two fronts and workers, on each database, against one of both."""
    figures: list[Figure] = []
    notes: list[str] = []
    with ExitStack() as stack:
        for database in ("SQLite", "PostgreSQL"):
            kinds = {}
            for fronts, workers in _NUMBERS:
                sections: dict[str, Any] = {"processes": {"front": fronts, "delivery": workers}}
                if database == "PostgreSQL":
                    sections["queue"] = {"url": stack.enter_context(postgres_queue())}
                kinds[f"{fronts} + {workers}"] = Kind(sections=sections)
            turns = side_by_side(setting, kinds)
            one, *more = kinds
            figures += [
                figure.named(f"{database}: {figure.name}")
                for name in more
                for figure in shares(turns, name, one)
            ]
            notes += [database, *spread(turns)]
    return Result(figures, notes)
