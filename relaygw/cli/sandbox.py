"""`relaygw sandbox`: captured mail, which was never sent; released, it is sent to whom it may go.

Whoever may run this command on a gateway may change its configuration as well: it counts as an
admin. Addresses outside the allow list take --anyone and a second answer, their number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import click

from relaygw.cli import frame, mail_change, selection
from relaygw.cli.messages import check_one_form, print_list, print_messages
from relaygw.cli.stderr import warn
from relaygw.cli.text import SHOWN_ROWS, aligned, as_json, first_of, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import Released
from relaygw.mail.words import counted, printable
from relaygw.operations import captured
from relaygw.operations.selectors import ANY_STATE
from relaygw.policy.recipients import check_typed
from relaygw.settings.model import Settings
from relaygw.store.store import Store

_CELLS = (17, 7, 12)  # of queue id, list and route
_FIXED_CELLS = sum(_CELLS) + 4  # with the spaces
_MIN_REST_CELLS = 30


@click.group(cls=frame.Group)
def sandbox() -> None:
    """Show, release and delete captured mail."""


@sandbox.command("list")
@selection.options(selection.CAPTURED_OPTIONS)
@frame.JSON_LINES
@frame.pass_invocation
def list_sandbox(invocation: frame.Invocation, /, wants_json: bool, **given: Any) -> None:
    """List captured messages, newest first."""
    choice = selection.choose(given)
    with invocation.open_store() as store:
        print_list(selection.captured, store, choice, wants_json=wants_json, place="sandbox")


@sandbox.command("show")
@selection.ids_argument
@selection.search_option
@frame.JSON_LINES
@click.option("--raw", is_flag=True, help="Write the raw content to stdout.")
@frame.pass_invocation
def show_sandbox(invocation: frame.Invocation, /, wants_json: bool, raw: bool, **given: Any) -> int:
    """Show captured messages in full; the ID latest is the newest one."""
    check_one_form(raw=raw, json=wants_json)
    if bool(given["queue_ids"]) == bool(given["search"]):
        raise click.UsageError("give one of: ids, latest or --search")
    with invocation.open_store() as store:
        choice = selection.with_latest(store, selection.choose(given))
        entries = [
            queue_entry
            for queue_entry in selection.chosen_captured(store, choice)
            if queue_entry.captured_at_ms is not None
        ]
        ids = choice.selection.queue_ids or tuple(entry.queue_id for entry in entries)
        return print_messages(store, ids, entries, wants_json=wants_json, raw=raw)


@sandbox.command("delete")
@selection.ids_argument
@selection.options((*selection.CAPTURED_OPTIONS, *mail_change.CHANGE_OPTIONS))
@frame.pass_invocation
def delete_sandbox(invocation: frame.Invocation, /, **given: Any) -> int:
    """Delete captured messages for good. ID - reads ids from stdin, latest is the newest."""
    choice, answer = mail_change.take_choice(given, default_states=ANY_STATE)
    with invocation.open_store() as store:
        choice = selection.with_latest(store, choice)
        delete = partial(
            captured.delete_captured, store, actor=frame.login_name(), detail=choice.words
        )
        task = mail_change.Task(
            verb="delete", done="deleted", judge=captured.objection_to_delete, carry_out=delete
        )
        entries = selection.chosen_captured(store, choice)
        return mail_change.carry_through(invocation, entries, task, choice=choice, answer=answer)


# --- release -------------------------------------------------------------------------------


def _take_address(text: str) -> str:
    bare = text.strip().removeprefix("<").removesuffix(">")
    if not bare:
        raise click.BadParameter("is empty; write an address or omit the option")
    return bare


_RELEASE_OPTIONS: tuple[selection.Decorator, ...] = (
    click.option(
        "--to", metavar="ADDRESS", type=selection.NOT_EMPTY,
        help="Recipient; default: those it was captured for.",
    ),
    click.option(
        "--for", "only_for", metavar="ADDRESS", multiple=True, type=frame.Text(_take_address),
        help="Only mail captured for exactly ADDRESS; repeatable.",
    ),
    click.option(
        "--anyone", is_flag=True,
        help="Also to addresses that are not on recipients.allow; asks for a second confirmation.",
    ),
    click.option(
        "--outside", "expected_outside", metavar="N", type=frame.NUMBER_FROM_1,
        help="With --anyone: how many addresses are not on recipients.allow, as confirmation.",
    ),
)  # fmt: skip


@sandbox.command("release", cls=frame.Command)
@selection.ids_argument
@selection.options((*selection.CAPTURED_OPTIONS, *_RELEASE_OPTIONS, *mail_change.CHANGE_OPTIONS))
@frame.pass_invocation
def release_sandbox(
    invocation: frame.Invocation,
    /,
    to: str | None,
    only_for: tuple[str, ...],
    anyone: bool,
    expected_outside: int | None,
    **given: Any,
) -> int:
    """Release captured messages. ID - reads ids from stdin, latest is the newest.

    Mail captured in staging or sandbox mode goes only to addresses on recipients.allow; other
    messages are listed and left alone. Released mail stays in the sandbox.
    """
    choice, answer = mail_change.take_choice(given, default_states=ANY_STATE)
    if expected_outside is not None and not anyone:
        raise click.UsageError("--outside needs --anyone")
    settings = invocation.load_running().settings
    if not settings.providers:
        raise frame.CommandFailed(
            "nothing can be released: no provider is configured; add providers and routes",
            exit_code=os.EX_CONFIG,
        )
    bare_to = None if to is None else frame.address_of(to.strip(), "--to", check_typed)
    wanted = captured.ReleaseRequest(to=bare_to, only_for=only_for, is_admin=True, anyone=anyone)
    with invocation.open_store() as store:
        choice = selection.with_latest(store, choice)
        entries = list(selection.chosen_captured(store, choice))
        subjects = {entry.queue_id: entry.subject for entry in entries}
        planned = captured.plan_release(store, settings, list(subjects), wanted)
        if not answer.wants_json:
            _show_plan(planned, subjects)
        if _may_go_on(planned, answer, expected_outside):
            result = _release(store, settings, planned, wanted, choice)
            invocation.wake_workers()
        elif answer.is_dry_run or not planned.copies:
            result = planned
        else:
            click.echo("nothing changed")
            return os.EX_OK
    _report(result, answer)
    missing = choice.missing(subjects)
    mail_change.tell_missing(missing)
    return mail_change.exit_code_of(result.left, is_partial=bool(missing or result.refused))


def _may_go_on(
    planned: captured.ReleaseResult, answer: mail_change.Answer, expected_outside: int | None
) -> bool:
    mails, messages = len(planned.copies), len(planned.changed)
    question = f"release {counted(mails, 'mail')} of {counted(messages, 'message')}?"
    if not mails or not mail_change.may_go_on(question, answer):
        return False
    number = len(planned.outside)
    if not number:
        return True
    if expected_outside is None:
        return _ask_number(planned.outside)
    if expected_outside == number:
        return True
    are = "is" if number == 1 else "are"
    raise frame.CommandFailed(
        f"nothing released: {number} of the addresses {are} not on recipients.allow, "
        f"--outside says {expected_outside}"
    )


def _ask_number(outside: Sequence[str]) -> bool:
    click.echo("not on recipients.allow, but selected as recipients:", err=True)
    for line in first_of(outside):
        click.echo(f"  {printable(line)}", err=True)
    question = f"type their number, {len(outside)}, to confirm"
    try:
        given = click.prompt(question, err=True, default="", show_default=False)
    except click.Abort:
        mail_change.raise_if_alone(f"give --outside {len(outside)} if that is intended")
        raise
    return str(given).strip() == str(len(outside))


def _release(
    store: Store,
    settings: Settings,
    planned: captured.ReleaseResult,
    wanted: captured.ReleaseRequest,
    choice: selection.Choice,
) -> captured.ReleaseResult:
    changed = planned.changed
    wanted = replace(wanted, confirmed=planned.outside)
    actor, now_ms = frame.login_name(), clock_ms()
    result = captured.release_captured(
        store, settings, changed, wanted, actor=actor, now_ms=now_ms, detail=choice.words
    )
    unasked = tuple(copy for copy in planned.refused if copy.queue_id not in changed)
    return replace(result, refused=unasked + result.refused, left=planned.left + result.left)


def _show_plan(planned: captured.ReleaseResult, subjects: Mapping[str, str]) -> None:
    """Print who would get what, those outside the allow list first."""
    if not planned.copies:
        return
    rest = max(terminal_width() - _FIXED_CELLS, _MIN_REST_CELLS)
    widths = (*_CELLS, rest // 2, rest - rest // 2)
    click.echo(aligned(widths, "QUEUE ID", "LIST", "ROUTE", "TO", "SUBJECT"))
    rows = sorted(planned.copies, key=lambda copy: copy.released is not Released.ANYONE)
    for row in rows[:SHOWN_ROWS]:
        mark = "OUTSIDE" if row.released is Released.ANYONE else "allowed"
        subject = subjects[row.queue_id]
        click.echo(aligned(widths, row.queue_id, mark, row.route, row.address, subject))
    if len(rows) > SHOWN_ROWS:
        click.echo(f"... and {len(rows) - SHOWN_ROWS} more")


def _report(result: captured.ReleaseResult, answer: mail_change.Answer) -> None:
    would = "would be " if answer.is_dry_run else ""
    if answer.wants_json:
        for row in _rows(result, f"{would}released"):
            click.echo(as_json(dict(zip(_FIELDS, row, strict=True))))
        return
    click.echo(f"{counted(len(result.copies), 'mail')} {would}released")
    refused = [f"{copy.queue_id}: {copy.address} {copy.why}" for copy in result.refused]
    left = [f"{obstacle.queue_id}: left alone: {obstacle.why}" for obstacle in result.left]
    for line in first_of(refused + left, "more not released"):
        warn(line)


_FIELDS = ("queue_id", "captured_for", "address", "result", "released", "route", "reason")


def _rows(result: captured.ReleaseResult, done: str) -> Iterator[tuple[str | None, ...]]:
    for copy in result.copies:
        yield copy.queue_id, copy.captured, copy.address, done, copy.released, copy.route, None
    for no in result.refused:
        yield no.queue_id, no.captured, no.address, "refused", None, None, no.why
    for left in result.left:
        yield left.queue_id, None, None, "left alone", None, None, left.why
