"""Changing the chosen messages: show them, ask, change, and say what came of it.

Nothing is changed before the answer, and never without a selector or --all. The exit code is 65 for
ids that do not fit, 75 when a worker holds a message right now, else 0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import click

from relaygw.cli.frame import JSON_LINES, Invocation, login_name
from relaygw.cli.messages import head_row, row
from relaygw.cli.selection import STDIN, Choice, Decorator, choose
from relaygw.cli.stderr import warn
from relaygw.cli.text import SHOWN_ROWS, Progress, as_json, first_of, print_lines, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.mail.words import counted, printable
from relaygw.operations.queue_actions import LeftAlone, Result, batches
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store

TWICE = "this includes mail that a provider may have taken already: it may be sent twice"

CHANGE_OPTIONS: tuple[Decorator, ...] = (
    click.option("--all", "is_all", is_flag=True, help="All messages that the command applies to."),
    click.option("--yes", "is_sure", is_flag=True, help="Do not ask for confirmation."),
    click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show the messages."),
    JSON_LINES,
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
    carry_out: Callable[..., Result]  # of queue ids, and `now_ms`
    waits_for_workers: bool = False  # True: a message that is being sent counts as failed
    aim: str = ""  # what follows the messages in the question
    warning: str = ""  # told before the question


def take_choice(
    given: dict[str, Any], *, default_states: frozenset[DeliveryState]
) -> tuple[Choice, Answer]:
    """Return the selection of all options, and how sure the caller is.

    Raises UsageError when there is nobody to ask, for no message, and for all and some.
    """
    answer = Answer(**{field.name: given.pop(field.name) for field in fields(Answer)})
    reads_stdin = STDIN in (*given["queue_ids"], *given["id_options"])
    if (reads_stdin or answer.wants_json) and not (answer.is_sure or answer.is_dry_run):
        what = "ids on stdin" if reads_stdin else "--json"
        raise click.UsageError(f"with {what} there is nobody to confirm; give --yes or --dry-run")
    choice = choose(given, default_states=default_states)
    if not (choice.selection.is_of_acceptance or choice.has_ids or given["state_names"]):
        meant = replace(choice.selection, states=default_states)
        choice = replace(choice, selection=meant)
    if not (choice.has_conditions or answer.is_all):
        raise click.UsageError("no message is named; give ids, selectors or --all")
    if answer.is_all and choice.has_conditions:
        raise click.UsageError("--all cannot be used with ids or selectors; remove one")
    return choice, answer


def carry_through(
    invocation: Invocation,
    entries: Iterable[QueueEntry],
    task: Task,
    *,
    choice: Choice,
    answer: Answer,
) -> int:
    """Do `task` to `entries` after asking; return the exit code."""
    ready: list[str] = []
    rows: list[str] = []
    left: list[LeftAlone] = []
    width, now_ms = terminal_width(), clock_ms()
    progress = Progress("messages found")
    for entry in entries:
        progress.tell(len(ready) + len(left))
        obstacle = task.judge(entry)
        if obstacle is not None:
            left.append(obstacle)
            continue
        ready.append(entry.queue_id)
        if len(rows) < SHOWN_ROWS:
            rows.append(row(entry, now_ms, width=width))
    progress.end()
    missing = choice.missing({*ready, *(left_alone.queue_id for left_alone in left)})
    if rows and not answer.wants_json:
        print_lines([head_row(width), *rows])
        if len(ready) > len(rows):
            click.echo(f"... and {len(ready) - len(rows)} more")
    question = f"{task.verb} {counted(len(ready), 'message')}{task.aim}?"
    if ready and task.warning:
        warn(task.warning)
    if ready and may_go_on(question, answer):
        result = _carry_out(ready, task)
        invocation.wake_workers()
        left += result.left
        _report(result.changed, left, task, answer)
    elif answer.is_dry_run or not ready:
        _report(ready, left, task, answer)
    else:
        click.echo("nothing changed")
        return os.EX_OK
    tell_missing(missing)
    return exit_code_of(left, is_partial=bool(missing), waits=task.waits_for_workers)


def _carry_out(ready: list[str], task: Task) -> Result:
    """Do `task` batch by batch, so that everyone else gets a turn; say how far it is."""
    progress = Progress(task.done, len(ready))
    changed: list[str] = []
    left: list[LeftAlone] = []
    try:
        for batch in batches(ready):
            result = task.carry_out(batch, now_ms=clock_ms())
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
        raise click.UsageError(f"no answer; {remedy}") from None


def _report(changed: Sequence[str], left: list[LeftAlone], task: Task, answer: Answer) -> None:
    done = f"would be {task.done}" if answer.is_dry_run else task.done
    if answer.wants_json:
        results: list[tuple[str, str, str | None]] = [
            (changed_id, done, None) for changed_id in changed
        ]
        results += [(obstacle.queue_id, "left alone", obstacle.why) for obstacle in left]
        for queue_id, result, reason in results:
            click.echo(as_json({"queue_id": queue_id, "result": result, "reason": reason}))
        return
    click.echo(f"{counted(len(changed), 'message')} {done}")
    lines = [f"{obstacle.queue_id}: left alone: {obstacle.why}" for obstacle in left]
    for line in first_of(lines, "more left alone"):
        warn(line)


def exit_code_of(left: Iterable[LeftAlone], *, is_partial: bool, waits: bool = True) -> int:
    """Return the exit code of a change; a worker that `left` waits for is one to try again."""
    reasons = [obstacle.is_temporary for obstacle in left]
    if is_partial or not all(reasons):
        return os.EX_DATAERR
    return os.EX_TEMPFAIL if reasons and waits else os.EX_OK


def note_action(store: Store, action: str, target: str, affected: int, detail: str = "") -> None:
    """Leave in the audit trail what the caller did."""
    entry = AuditEntry(
        at_ms=clock_ms(),
        actor=login_name(),
        action=action,
        target=printable(target),
        affected=affected,
        detail=detail,
    )
    store.audit.add(entry)
