"""`relaygw sandbox release`: captured mail is sent after all, to whom it may go.

Whoever may run this command on a gateway may change its configuration as well: it counts as an
admin. Addresses outside of the allow list take --anyone and a second answer, their number.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import click

from relaygw import operations
from relaygw.cli.captured import chosen, with_latest
from relaygw.cli.changing import (
    CHANGE_OPTIONS,
    SHOWN_ROWS,
    Answer,
    check_scope,
    login_name,
    may_go_on,
    raise_if_alone,
    take_answer,
    wake_workers,
)
from relaygw.cli.frame import Command, CommandFailed, Invocation, pass_invocation, warn
from relaygw.cli.release_report import report, show_plan
from relaygw.cli.selecting import (
    ANY_STATE,
    CAPTURED_OPTIONS,
    Choice,
    Decorator,
    choose,
    ids_argument,
    not_empty,
    options,
)
from relaygw.cli.text import clock_ms, counted, printable
from relaygw.cli.values import number_from_1
from relaygw.errors import InvalidAddress
from relaygw.operations import ReleaseResult
from relaygw.settings.model import Settings
from relaygw.store.protocol import Store


def _bare_addresses(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    found = tuple(map(_bare, values))
    if not all(found):
        raise click.BadParameter("is empty; write an address or leave the option out")
    return found


def _bare(text: str) -> str:
    return text.strip().removeprefix("<").removesuffix(">")


RELEASE_OPTIONS: tuple[Decorator, ...] = (
    click.option(
        "--to", metavar="ADDRESS", callback=not_empty,
        help="Who gets it; without: whoever it was captured for.",
    ),
    click.option(
        "--for", "only_for", metavar="ADDRESS", multiple=True, callback=_bare_addresses,
        help="Only what was captured for exactly ADDRESS; may be repeated.",
    ),
    click.option(
        "--anyone", is_flag=True,
        help="Also to addresses that are not on recipients.allow; asks once more.",
    ),
    click.option(
        "--outside", "expected_outside", metavar="N", type=number_from_1(),
        help="With --anyone: so many addresses are not on recipients.allow; answers that question.",
    ),
)  # fmt: skip


@click.command("release", cls=Command)
@ids_argument
@options((*CAPTURED_OPTIONS, *RELEASE_OPTIONS, *CHANGE_OPTIONS))
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
    """Send captured messages after all. ID - reads ids from stdin, latest is the newest.

    What was captured in staging or sandbox mode goes to addresses on recipients.allow, else it
    is named and left alone. It stays in the sandbox.
    """
    answer = take_answer(given)
    choice = choose(given, default_states=ANY_STATE)
    check_scope(choice, answer)
    if expected_outside is not None and not anyone:
        raise click.UsageError("--outside goes with --anyone; give it, too")
    settings = invocation.load_running().settings
    if not settings.providers:
        raise CommandFailed(
            "nothing can be released: no provider is configured; add providers and routes",
            exit_code=os.EX_CONFIG,
        )
    task = _Release(
        settings,
        to=None if to is None else _address(to, "--to"),
        only_for=only_for,
        anyone=anyone,
        expected_outside=expected_outside,
    )
    with invocation.open_store() as store:
        return task.carry_through(store, with_latest(store, choice), answer)


def _address(text: str, option: str) -> str:
    from relaygw.policy.releasing import check_target

    bare = _bare(text)
    try:
        check_target(bare)
    except InvalidAddress as error:
        raise CommandFailed(
            f"{option} {text!r} is not an address: {error}; write LOCALPART@DOMAIN",
            exit_code=os.EX_DATAERR,
        ) from error
    return bare


class _Release:
    """One call: what it would do, the questions, the deed, the report."""

    def __init__(
        self,
        settings: Settings,
        *,
        to: str | None,
        only_for: tuple[str, ...],
        anyone: bool,
        expected_outside: int | None,
    ) -> None:
        self._settings = settings
        self._to = to
        self._only_for = only_for
        self._anyone = anyone
        self._expected_outside = expected_outside

    def carry_through(self, store: Store, choice: Choice, answer: Answer) -> int:
        """Release the chosen messages after asking; return the exit code."""
        entries = list(chosen(store, choice))
        ids = [entry.queue_id for entry in entries]
        planned = operations.plan_release(
            store,
            self._settings,
            ids,
            to=self._to,
            is_admin=True,
            anyone=self._anyone,
            only_for=self._only_for,
        )
        subjects = {entry.queue_id: entry.subject for entry in entries}
        if not answer.wants_json:
            show_plan(planned, subjects)
        if self._may_go_on(planned, answer):
            result = self._release(store, planned, choice)
            wake_workers()
        elif answer.is_dry_run or not planned.copies:
            result = planned
        else:
            click.echo("nothing changed")
            return os.EX_OK
        report(result, answer)
        missing = _missing(choice, set(ids))
        for queue_id in missing:
            warn(f"{queue_id}: no such message, or it does not match")
        return _exit_code(result, missing)

    def _may_go_on(self, planned: ReleaseResult, answer: Answer) -> bool:
        if not planned.copies:
            return False
        mails, messages = len(planned.copies), len(planned.changed)
        question = f"release {counted(mails, 'mail')} of {counted(messages, 'message')}?"
        return may_go_on(question, answer) and self._is_outside_confirmed(planned)

    def _is_outside_confirmed(self, planned: ReleaseResult) -> bool:
        """Ask for the number of addresses that are not on the list; True if it is right."""
        number = len(planned.outside)
        if not number:
            return True
        if self._expected_outside is None:
            return _ask_number(planned.outside)
        if self._expected_outside == number:
            return True
        raise CommandFailed(
            f"nothing released: {number} of the addresses are not on recipients.allow, "
            f"--outside says {self._expected_outside}",
            exit_code=os.EX_DATAERR,
        )

    def _release(self, store: Store, planned: ReleaseResult, choice: Choice) -> ReleaseResult:
        changed = planned.changed
        result = operations.release_captured(
            store,
            self._settings,
            changed,
            to=self._to,
            is_admin=True,
            anyone=self._anyone,
            only_for=self._only_for,
            confirmed=planned.outside,
            actor=login_name(),
            now_ms=clock_ms(),
            detail=choice.words,
        )
        unasked = tuple(one for one in planned.refused if one.queue_id not in changed)
        return replace(result, refused=unasked + result.refused, left=planned.left + result.left)


def _ask_number(outside: Sequence[str]) -> bool:
    """Name who is not on the list and ask for their number; True if it is right."""
    click.echo("not on recipients.allow, and to get this mail all the same:", err=True)
    for address in outside[:SHOWN_ROWS]:
        click.echo(f"  {printable(address)}", err=True)
    if len(outside) > SHOWN_ROWS:
        click.echo(f"  ... and {len(outside) - SHOWN_ROWS} more", err=True)
    question = f"type {len(outside)}, their number, to confirm that"
    try:
        given = click.prompt(question, err=True, default="", show_default=False)
    except click.Abort:
        raise_if_alone(f"give --outside {len(outside)} if that is meant")
        raise
    return str(given).strip() == str(len(outside))


def _missing(choice: Choice, present: Collection[str]) -> list[str]:
    if choice.limit is not None:
        return []
    return [queue_id for queue_id in choice.selection.queue_ids if queue_id not in present]


def _exit_code(result: ReleaseResult, missing: Collection[str]) -> int:
    if missing or result.refused or not all(one.is_temporary for one in result.left):
        return os.EX_DATAERR
    return os.EX_TEMPFAIL if result.left else os.EX_OK
