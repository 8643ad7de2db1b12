"""`relaygw sources`: who sends what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from relaygw.cli import frame
from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.selection import TIME
from relaygw.cli.text import aligned, as_json, print_lines, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.mail_class import sender_words
from relaygw.mail.words import age, counted
from relaygw.operations.selectors import TIMES, read_moment
from relaygw.operations.sources import BY, SourceRow, source_object, source_rows

_NUMBERS = (-8, -8, -7, -7, -5, -5)
_LEAST_SOURCE_WORDS = 20
_ID = 16
_NONE_WORDS = {"script": "(no script)", "uid": "(no uid)", "user": "(no login)", "sender": "<>"}
"""What stands for a part that classes do not have."""


@click.command(cls=Command)
@click.option("--by", type=click.Choice([*BY]), help="Count by this; else each class for itself.")
@click.option(
    "--since", metavar="T", type=TIME, default="24h", show_default=True,
    help=f"Mail accepted since the hour of T: {TIMES}.",
)  # fmt: skip
@frame.limit_option(50, "rows")
@frame.JSON_LINES
@pass_invocation
def sources(
    invocation: Invocation, by: str | None, since: str, limit: int, wants_json: bool
) -> None:
    """List who sends what, the most mail first.

    A source is a client or host with its listener, login, uid and PHP script; a class is its mail
    of one sender domain, stream and template of the subject.
    """
    now_ms = clock_ms()
    since_ms = read_moment(since, now_ms=now_ms) or 0
    with invocation.open_store() as store:
        rows, number = source_rows(store, by=by, since_ms=since_ms, limit=limit)
    if wants_json:
        print_lines(as_json(source_object(row, by=by)) for row in rows)
    else:
        print_lines(_source_lines(rows, by, number, now_ms))


def _source_lines(
    rows: Sequence[SourceRow], by: str | None, number: int, now_ms: int
) -> Iterator[str]:
    left = max(terminal_width() - sum(1 - width for width in _NUMBERS), _LEAST_SOURCE_WORDS)
    texts, heads = [left], [(by or "").upper()]
    if by is None:
        words = max(left - _ID - 1, 2 * _LEAST_SOURCE_WORDS)
        texts = [_ID, words // 2, words - words // 2 - 1]
        heads = ["CLASS", "FROM", "TEMPLATE"]
    widths = (*_NUMBERS, *texts)
    yield aligned(widths, "MESSAGES", "RCPTS", "REFUSED", "TOP/H", "FIRST", "LAST", *heads)
    for row in rows:
        total = row.counted
        ages = (age(now_ms - at_ms) for at_ms in (total.first_seen_ms, total.last_seen_ms))
        numbers = (total.messages, total.recipients, total.refused, total.busiest_hour, *ages)
        yield aligned(widths, *numbers, *_words(row, by))
    more = f", {number - len(rows):,} more" if number > len(rows) else ""
    noun = ("row", "rows") if by else ("class", "classes")
    yield f"-- {counted(len(rows), *noun)}{more}"


def _words(row: SourceRow, by: str | None) -> Iterator[str]:
    mail_class = row.mail_class
    if mail_class is None:
        key = row.counted.key
        yield _NONE_WORDS.get(by or "", "(none)") if key in (None, "") else str(key)
    else:
        yield from (
            mail_class.class_id,
            f"{sender_words(mail_class)} {mail_class.sender_domain}",
            mail_class.template,
        )
