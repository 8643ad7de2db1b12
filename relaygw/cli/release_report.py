"""What `relaygw sandbox release` would do and did, as rows and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from relaygw.cli.changing import SHOWN_ROWS, Answer
from relaygw.cli.entries import as_json
from relaygw.cli.frame import warn
from relaygw.cli.text import counted, fitted, terminal_width
from relaygw.mail.envelope import Released
from relaygw.operations import ReleaseResult

_ID_CELLS, _LIST_CELLS, _ROUTE_CELLS = 17, 7, 12
_FIXED_CELLS = _ID_CELLS + _LIST_CELLS + _ROUTE_CELLS + 4  # with the spaces
_MIN_REST_CELLS = 30


def show_plan(planned: ReleaseResult, subjects: Mapping[str, str]) -> None:
    """Print who would get what, those outside of the allow list first."""
    if not planned.copies:
        return
    rest = max(terminal_width() - _FIXED_CELLS, _MIN_REST_CELLS)
    to, subject = rest // 2, rest - rest // 2
    click.echo(
        f"{'QUEUE ID':<{_ID_CELLS}} {'LIST':<{_LIST_CELLS}} {'ROUTE':<{_ROUTE_CELLS}} "
        f"{'TO':<{to}} SUBJECT"
    )
    rows = sorted(planned.copies, key=lambda one: one.released is not Released.ANYONE)
    for one in rows[:SHOWN_ROWS]:
        mark = "OUTSIDE" if one.released is Released.ANYONE else "allowed"
        click.echo(
            f"{fitted(one.queue_id, _ID_CELLS)} {mark:<{_LIST_CELLS}} "
            f"{fitted(one.route, _ROUTE_CELLS)} {fitted(one.address, to)} "
            f"{fitted(subjects[one.queue_id], subject)}".rstrip()
        )
    if len(rows) > SHOWN_ROWS:
        click.echo(f"... and {len(rows) - SHOWN_ROWS} more")


def report(result: ReleaseResult, answer: Answer) -> None:
    """Print what was released, and on stderr what was not and why."""
    would = "would be " if answer.is_dry_run else ""
    if answer.wants_json:
        for line in _objects(result, f"{would}released"):
            click.echo(as_json(line))
        return
    click.echo(f"{counted(len(result.copies), 'mail')} {would}released")
    refused = [f"{one.queue_id}: {one.address} {one.why}" for one in result.refused]
    left = [f"{one.queue_id}: left alone: {one.why}" for one in result.left]
    for text in (refused + left)[:SHOWN_ROWS]:
        warn(text)
    more = len(refused) + len(left) - SHOWN_ROWS
    if more > 0:
        warn(f"... and {more} more not released")


def _objects(result: ReleaseResult, done: str) -> Iterator[dict[str, str | None]]:
    for copy in result.copies:
        yield {
            "queue_id": copy.queue_id,
            "captured_for": copy.captured,
            "address": copy.address,
            "result": done,
            "released": copy.released.value,
            "route": copy.route,
            "reason": None,
        }
    for one in result.refused:
        yield _not_released(one.queue_id, "refused", one.why, one.captured, one.address)
    for left in result.left:
        yield _not_released(left.queue_id, "left alone", left.why)


def _not_released(
    queue_id: str, result: str, reason: str, captured: str | None = None, address: str | None = None
) -> dict[str, str | None]:
    return {
        "queue_id": queue_id,
        "captured_for": captured,
        "address": address,
        "result": result,
        "released": None,
        "route": None,
        "reason": reason,
    }
