"""`relaygw queue shape`: what waits by domain and age, as Postfix's qshape shows it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import click

from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.selection import QUEUE_OPTIONS, choose, ids_argument, options
from relaygw.cli.text import as_json, cells, fitted, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.store.selection import ShapeCount, ShapeKey

BOUNDS_MIN = (5, 10, 20, 40, 80, 160, 320, 640, 1280)
_MAX_KEY_CELLS = 40
_MIN_KEY_CELLS = 12
_GAP = 1
_EMPTY_WORDS = {
    ShapeKey.SENDER: "<>",
    ShapeKey.PROVIDER: "(not tried)",
    ShapeKey.REASON: "(none)",
    ShapeKey.RECIPIENT: "(no domain)",
}

Table = dict[str, list[int]]
"""Numbers by key: one for each age, the youngest first."""


@click.command("shape", cls=Command)
@ids_argument
@click.option(
    "--by",
    type=click.Choice([key.value for key in ShapeKey]),
    default=ShapeKey.RECIPIENT.value,
    show_default=True,
    help="What the rows are.",
)
@options(QUEUE_OPTIONS)
@click.option("--json", "wants_json", is_flag=True, help="One object a row.")
@pass_invocation
def shape(invocation: Invocation, /, by: str, wants_json: bool, **given: Any) -> None:
    """Count what waits by domain and age in minutes, as qshape does.

    With --by recipient the numbers are recipients by domain, else deliveries. --limit is that of
    the rows.
    """
    limit = given.pop("limit")
    choice = choose(given)
    if choice.is_null_sender:
        raise click.UsageError("--sender <> is not for shape; use --by sender")
    key = ShapeKey(by)
    bounds_ms = [minutes * 60_000 for minutes in BOUNDS_MIN]
    ids = choice.selection.queue_ids
    counts: list[ShapeCount] = []
    with invocation.open_store() as store:
        pages = [ids[at : at + 500] for at in range(0, len(ids), 500)] if choice.has_ids else [()]
        for page in pages:
            selection = replace(choice.selection, queue_ids=page)
            counts += store.queue.shape(selection, by=key, bounds_ms=bounds_ms, now_ms=clock_ms())
    table = _table(counts, key)
    rows = sorted(table.items(), key=lambda row: (-sum(row[1]), row[0]))[:limit]
    if wants_json:
        for name, numbers in rows:
            click.echo(as_json(_row_object(by, name, numbers)))
    else:
        _print(table, rows)


def _table(counts: list[ShapeCount], key: ShapeKey) -> Table:
    table: Table = defaultdict(lambda: [0] * (len(BOUNDS_MIN) + 1))
    for one in counts:
        name = one.key or _EMPTY_WORDS.get(key, "")
        table[name][one.step] += one.number
    return table


def _row_object(by: str, name: str, numbers: list[int]) -> dict[str, Any]:
    ages = [f"{minutes}" for minutes in BOUNDS_MIN] + [f"{BOUNDS_MIN[-1]}+"]
    return {
        by: name,
        "total": sum(numbers),
        "minutes": dict(zip(ages, numbers, strict=True)),
    }


def _print(table: Table, rows: list[tuple[str, list[int]]]) -> None:
    totals = [sum(column) for column in zip(*table.values(), strict=True)] or [0] * (
        len(BOUNDS_MIN) + 1
    )
    heads = ["T", *map(str, BOUNDS_MIN), f"{BOUNDS_MIN[-1]}+"]
    widths = [
        max(len(head), len(str(number))) + _GAP
        for head, number in zip(heads, [sum(totals), *totals], strict=True)
    ]
    room = max(terminal_width() - sum(widths), _MIN_KEY_CELLS)
    longest = max((cells(name) for name, _ in rows), default=0)
    key_cells = min(room, max(longest, _MIN_KEY_CELLS), _MAX_KEY_CELLS)
    click.echo(" " * key_cells + _columns(heads, widths))
    for name, numbers in [("TOTAL", totals), *rows]:
        shown = fitted(name, key_cells)
        texts = [str(number) for number in (sum(numbers), *numbers)]
        lead = " " * (key_cells - len("TOTAL")) + "TOTAL" if name == "TOTAL" else shown
        click.echo(lead + _columns(texts, widths))


def _columns(texts: list[str], widths: list[int]) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))
