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

from relaygw.cli.frame import (
    NUMBER_FROM_1,
    Command,
    CommandFailed,
    Group,
    Invocation,
    Text,
    address_of,
    login_name,
    pass_invocation,
    warn,
)
from relaygw.cli.mail_change import (
    CHANGE_OPTIONS,
    Answer,
    Task,
    carry_through,
    exit_code_of,
    may_go_on,
    raise_if_alone,
    take_choice,
    tell_missing,
)
from relaygw.cli.messages import check_one_form, print_list, print_messages
from relaygw.cli.selection import (
    CAPTURED_OPTIONS,
    NOT_EMPTY,
    Choice,
    Decorator,
    captured,
    choose,
    chosen_captured,
    ids_argument,
    options,
    search_option,
    with_latest,
)
from relaygw.cli.text import SHOWN_ROWS, aligned, as_json, first_of, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import Released
from relaygw.mail.words import counted, printable
from relaygw.operations.captured import (
    ReleaseRequest,
    ReleaseResult,
    delete_captured,
    objection_to_delete,
    plan_release,
    release_captured,
)
from relaygw.operations.selectors import ANY_STATE
from relaygw.policy.recipients import check_target
from relaygw.settings.model import Settings
from relaygw.store.store import Store

_CELLS = (17, 7, 12)  # of queue id, list and route
_FIXED_CELLS = sum(_CELLS) + 4  # with the spaces
_MIN_REST_CELLS = 30


@click.group(cls=Group)
def sandbox() -> None:
    """Show, release and delete captured mail."""


@sandbox.command("list")
@options(CAPTURED_OPTIONS)
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object per line.")
@pass_invocation
def list_sandbox(invocation: Invocation, /, wants_json: bool, **given: Any) -> None:
    """List captured messages, newest first."""
    choice = choose(given)
    with invocation.open_store() as store:
        print_list(captured, store, choice, wants_json=wants_json, place="sandbox")


@sandbox.command("show")
@ids_argument
@search_option
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object per line.")
@click.option("--raw", is_flag=True, help="Write the raw content to stdout.")
@pass_invocation
def show_sandbox(invocation: Invocation, /, wants_json: bool, raw: bool, **given: Any) -> int:
    """Show captured messages in full; the ID latest is the newest one."""
    check_one_form(raw=raw, json=wants_json)
    if bool(given["queue_ids"]) == bool(given["search"]):
        raise click.UsageError("give one of: ids, latest or --search")
    with invocation.open_store() as store:
        choice = with_latest(store, choose(given))
        entries = [one for one in chosen_captured(store, choice) if one.captured_at_ms is not None]
        ids = choice.selection.queue_ids or tuple(one.queue_id for one in entries)
        return print_messages(store, ids, entries, wants_json=wants_json, raw=raw)


@sandbox.command("delete")
@ids_argument
@options((*CAPTURED_OPTIONS, *CHANGE_OPTIONS))
@pass_invocation
def delete_sandbox(invocation: Invocation, /, **given: Any) -> int:
    """Delete captured messages for good. ID - reads ids from stdin, latest is the newest."""
    choice, answer = take_choice(given, default_states=ANY_STATE)
    with invocation.open_store() as store:
        choice = with_latest(store, choice)
        delete = partial(delete_captured, store, actor=login_name(), detail=choice.words)
        task = Task(verb="delete", done="deleted", judge=objection_to_delete, carry_out=delete)
        entries = chosen_captured(store, choice)
        return carry_through(invocation, entries, task, choice=choice, answer=answer)


# --- release -------------------------------------------------------------------------------


def _take_address(text: str) -> str:
    bare = text.strip().removeprefix("<").removesuffix(">")
    if not bare:
        raise click.BadParameter("is empty; write an address or omit the option")
    return bare


_RELEASE_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--to", metavar="ADDRESS", type=NOT_EMPTY,
        help="Recipient; default: those it was captured for.",
    ),
    click.option(
        "--for", "only_for", metavar="ADDRESS", multiple=True, type=Text(_take_address),
        help="Only mail captured for exactly ADDRESS; repeatable.",
    ),
    click.option(
        "--anyone", is_flag=True,
        help="Also to addresses that are not on recipients.allow; asks for a second confirmation.",
    ),
    click.option(
        "--outside", "expected_outside", metavar="N", type=NUMBER_FROM_1,
        help="With --anyone: how many addresses are not on recipients.allow, as confirmation.",
    ),
)  # fmt: skip


@sandbox.command("release", cls=Command)
@ids_argument
@options((*CAPTURED_OPTIONS, *_RELEASE_OPTIONS, *CHANGE_OPTIONS))
@pass_invocation
def release_sandbox(
    invocation: Invocation,
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
    choice, answer = take_choice(given, default_states=ANY_STATE)
    if expected_outside is not None and not anyone:
        raise click.UsageError("--outside needs --anyone")
    settings = invocation.load_running().settings
    if not settings.providers:
        raise CommandFailed(
            "nothing can be released: no provider is configured; add providers and routes",
            exit_code=os.EX_CONFIG,
        )
    bare_to = None if to is None else address_of(to.strip(), "--to", check_target)
    wanted = ReleaseRequest(to=bare_to, only_for=only_for, is_admin=True, anyone=anyone)
    with invocation.open_store() as store:
        choice = with_latest(store, choice)
        entries = list(chosen_captured(store, choice))
        subjects = {entry.queue_id: entry.subject for entry in entries}
        planned = plan_release(store, settings, list(subjects), wanted)
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
    tell_missing(missing)
    return exit_code_of(result.left, is_partial=bool(missing or result.refused))


def _may_go_on(planned: ReleaseResult, answer: Answer, expected_outside: int | None) -> bool:
    mails, messages = len(planned.copies), len(planned.changed)
    question = f"release {counted(mails, 'mail')} of {counted(messages, 'message')}?"
    if not mails or not may_go_on(question, answer):
        return False
    number = len(planned.outside)
    if not number:
        return True
    if expected_outside is None:
        return _ask_number(planned.outside)
    if expected_outside == number:
        return True
    are = "is" if number == 1 else "are"
    raise CommandFailed(
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
        raise_if_alone(f"give --outside {len(outside)} if that is intended")
        raise
    return str(given).strip() == str(len(outside))


def _release(
    store: Store, settings: Settings, planned: ReleaseResult, wanted: ReleaseRequest, choice: Choice
) -> ReleaseResult:
    changed = planned.changed
    wanted = replace(wanted, confirmed=planned.outside)
    actor, now_ms = login_name(), clock_ms()
    result = release_captured(
        store, settings, changed, wanted, actor=actor, now_ms=now_ms, detail=choice.words
    )
    unasked = tuple(one for one in planned.refused if one.queue_id not in changed)
    return replace(result, refused=unasked + result.refused, left=planned.left + result.left)


def _show_plan(planned: ReleaseResult, subjects: Mapping[str, str]) -> None:
    """Print who would get what, those outside the allow list first."""
    if not planned.copies:
        return
    rest = max(terminal_width() - _FIXED_CELLS, _MIN_REST_CELLS)
    widths = (*_CELLS, rest // 2, rest - rest // 2)
    click.echo(aligned(widths, "QUEUE ID", "LIST", "ROUTE", "TO", "SUBJECT"))
    rows = sorted(planned.copies, key=lambda one: one.released is not Released.ANYONE)
    for one in rows[:SHOWN_ROWS]:
        mark = "OUTSIDE" if one.released is Released.ANYONE else "allowed"
        subject = subjects[one.queue_id]
        click.echo(aligned(widths, one.queue_id, mark, one.route, one.address, subject))
    if len(rows) > SHOWN_ROWS:
        click.echo(f"... and {len(rows) - SHOWN_ROWS} more")


def _report(result: ReleaseResult, answer: Answer) -> None:
    would = "would be " if answer.is_dry_run else ""
    if answer.wants_json:
        for row in _rows(result, f"{would}released"):
            click.echo(as_json(dict(zip(_FIELDS, row, strict=True))))
        return
    click.echo(f"{counted(len(result.copies), 'mail')} {would}released")
    refused = [f"{one.queue_id}: {one.address} {one.why}" for one in result.refused]
    left = [f"{one.queue_id}: left alone: {one.why}" for one in result.left]
    for line in first_of(refused + left, "more not released"):
        warn(line)


_FIELDS = ("queue_id", "captured_for", "address", "result", "released", "route", "reason")


def _rows(result: ReleaseResult, done: str) -> Iterator[tuple[str | None, ...]]:
    for one in result.copies:
        yield one.queue_id, one.captured, one.address, done, one.released, one.route, None
    for no in result.refused:
        yield no.queue_id, no.captured, no.address, "refused", None, None, no.why
    for left in result.left:
        yield left.queue_id, None, None, "left alone", None, None, left.why
