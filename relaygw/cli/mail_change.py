"""Changing the chosen messages: show them, ask, change, and say what came of it.

Nothing is changed before the answer, and never without a selector or --all. What could not
be changed is named on stderr; the exit code is 65 for ids that do not fit, 75 when a worker
holds a message right now, else 0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import click

from relaygw.cli.frame import Invocation, warn
from relaygw.cli.messages import head_row, row
from relaygw.cli.progress import Progress
from relaygw.cli.selection import STDIN, Choice, Decorator
from relaygw.cli.text import as_json, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import counted
from relaygw.operations.queue_actions import LeftAlone, Result, batches
from relaygw.store.queue_entry import QueueEntry

SHOWN_ROWS = 20
TWICE = "what a provider may have taken already is not spared: it may be sent twice"

CHANGE_OPTIONS: tuple[Decorator, ...] = (
    click.option("--all", "is_all", is_flag=True, help="All messages that the command is for."),
    click.option("--yes", "is_sure", is_flag=True, help="Do not ask."),
    click.option("--dry-run", "is_dry_run", is_flag=True, help="Show the messages only."),
    click.option("--json", "wants_json", is_flag=True, help="One object a line."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How sure the caller is."""

    is_all: bool
    is_sure: bool
    is_dry_run: bool
    wants_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One kind of change."""

    verb: str
    done: str  # the verb's past participle
    judge: Callable[[QueueEntry], LeftAlone | None]
    carry_out: Callable[[list[str], int], Result]  # of queue ids and the time in ms
    waits_for_workers: bool = False  # True: a message that is being sent counts as failed
    aim: str = ""  # what follows the messages in the question
    warning: str = ""  # told before the question


@dataclass(slots=True)
class _Gathered:
    ready: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    left: list[LeftAlone] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def take_answer(given: dict[str, Any]) -> Answer:
    """Take the values of CHANGE_OPTIONS out of `given`.

    Raises UsageError when there is nobody to ask.
    """
    answer = Answer(
        is_all=given.pop("is_all"),
        is_sure=given.pop("is_sure"),
        is_dry_run=given.pop("is_dry_run"),
        wants_json=given.pop("wants_json"),
    )
    reads_stdin = STDIN in (*given["queue_ids"], *given["id_options"])
    if (reads_stdin or answer.wants_json) and not (answer.is_sure or answer.is_dry_run):
        what = "ids on stdin" if reads_stdin else "--json"
        raise click.UsageError(f"with {what} nobody can be asked; give --yes or --dry-run")
    return answer


def check_scope(choice: Choice, answer: Answer) -> None:
    """Raise UsageError for a call that names no message, or all and some."""
    if not (choice.has_conditions or answer.is_all):
        raise click.UsageError("no message is named; give ids or selectors, or --all")
    if answer.is_all and choice.has_conditions:
        raise click.UsageError("--all goes with no ids and no other selector; leave one out")


def carry_through(
    invocation: Invocation,
    entries: Iterable[QueueEntry],
    task: Task,
    *,
    choice: Choice,
    answer: Answer,
) -> int:
    """Do `task` to `entries` after asking; return the exit code."""
    gathered = _gather(entries, task, choice)
    if not answer.wants_json:
        _show(gathered)
    left = gathered.left
    question = f"{task.verb} {counted(len(gathered.ready), 'message')}{task.aim}?"
    if gathered.ready and task.warning:
        warn(task.warning)
    if gathered.ready and may_go_on(question, answer):
        result = _carry_out(gathered.ready, task)
        invocation.wake_workers()
        left = [*left, *result.left]
        _report(result.changed, left, task, answer)
    elif answer.is_dry_run or not gathered.ready:
        _report(gathered.ready, left, task, answer)
    else:
        click.echo("nothing changed")
        return 0
    tell_missing(gathered.missing)
    return _exit_code(left, gathered.missing, task)


def _carry_out(ready: list[str], task: Task) -> Result:
    """Do `task` batch by batch, so that everyone else gets a turn; say how far it is."""
    progress = Progress(task.done, len(ready))
    changed: list[str] = []
    left: list[LeftAlone] = []
    try:
        for batch in batches(ready):
            result = task.carry_out(list(batch), clock_ms())
            changed += result.changed
            left += result.left
            progress.tell(len(changed))
    except BaseException:
        progress.end()
        if changed:
            warn(f"stopped: {len(changed):,} of {len(ready):,} messages {task.done} until then")
        raise
    progress.end()
    return Result(changed=tuple(changed), left=tuple(left))


def _gather(entries: Iterable[QueueEntry], task: Task, choice: Choice) -> _Gathered:
    gathered = _Gathered()
    present: set[str] = set()
    width, now_ms = terminal_width(), clock_ms()
    progress = Progress("messages found")
    for entry in entries:
        progress.tell(len(present))
        present.add(entry.queue_id)
        obstacle = task.judge(entry)
        if obstacle is not None:
            gathered.left.append(obstacle)
            continue
        gathered.ready.append(entry.queue_id)
        if len(gathered.rows) < SHOWN_ROWS:
            gathered.rows.append(row(entry, now_ms, width=width))
    progress.end()
    gathered.missing = choice.missing(present)
    return gathered


def _show(gathered: _Gathered) -> None:
    if not gathered.rows:
        return
    click.echo(head_row(terminal_width()))
    for line in gathered.rows:
        click.echo(line)
    more = len(gathered.ready) - len(gathered.rows)
    if more:
        click.echo(f"... and {more} more")


def tell_missing(ids: Iterable[str]) -> None:
    """Name on stderr ids that no message was found for."""
    for queue_id in ids:
        warn(f"{queue_id}: no such message, or it does not match")


def may_go_on(question: str, answer: Answer) -> bool:
    """Ask, unless the caller is sure. Raises UsageError when nobody answers."""
    if answer.is_dry_run:
        return False
    if answer.is_sure:
        return True
    try:
        return click.confirm(question, err=True)
    except (click.Abort, OSError):  # stdin ended, or is closed
        raise_if_alone("give --yes or --dry-run")
        raise


def raise_if_alone(remedy: str) -> None:
    """Raise UsageError when nobody answered because nobody is there."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"nobody answered; {remedy}") from None


def _report(changed: Iterable[str], left: list[LeftAlone], task: Task, answer: Answer) -> None:
    changed = list(changed)
    if answer.wants_json:
        outcome = f"would be {task.done}" if answer.is_dry_run else task.done
        for queue_id in changed:
            click.echo(as_json({"queue_id": queue_id, "result": outcome, "reason": None}))
        for one in left:
            click.echo(
                as_json({"queue_id": one.queue_id, "result": "left alone", "reason": one.why})
            )
        return
    would = "would be " if answer.is_dry_run else ""
    click.echo(f"{counted(len(changed), 'message')} {would}{task.done}")
    for one in left[:SHOWN_ROWS]:
        warn(f"{one.queue_id}: left alone: {one.why}")
    if len(left) > SHOWN_ROWS:
        warn(f"... and {len(left) - SHOWN_ROWS} more left alone")


def _exit_code(left: list[LeftAlone], missing: list[str], task: Task) -> int:
    if missing or not all(one.is_temporary for one in left):
        return os.EX_DATAERR
    return os.EX_TEMPFAIL if left and task.waits_for_workers else os.EX_OK
