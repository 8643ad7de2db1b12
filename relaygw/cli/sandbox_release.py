"""`relaygw sandbox release`: captured mail is sent after all, to whom it may go.

Whoever may run this command on a gateway may change its configuration as well: it counts as an
admin. Addresses outside of the allow list take --anyone and a second answer, their number.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from relaygw.cli.frame import (
    Command,
    CommandFailed,
    Invocation,
    address_of,
    login_name,
    number_from_1,
    pass_invocation,
    warn,
)
from relaygw.cli.mail_change import (
    CHANGE_OPTIONS,
    SHOWN_ROWS,
    Answer,
    check_scope,
    may_go_on,
    raise_if_alone,
    take_answer,
    tell_missing,
)
from relaygw.cli.selection import (
    CAPTURED_OPTIONS,
    Choice,
    Decorator,
    choose,
    chosen_captured,
    ids_argument,
    not_empty,
    options,
    with_latest,
)
from relaygw.cli.text import as_json, fitted, printable, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import Released
from relaygw.mail.words import counted
from relaygw.operations.captured import plan_release, release_captured
from relaygw.operations.release_plan import ReleaseRequest, ReleaseResult
from relaygw.operations.selectors import ANY_STATE
from relaygw.policy.recipients import check_target
from relaygw.settings.model import Settings
from relaygw.store.store import Store

_ID_CELLS, _LIST_CELLS, _ROUTE_CELLS = 17, 7, 12
_FIXED_CELLS = _ID_CELLS + _LIST_CELLS + _ROUTE_CELLS + 4  # with the spaces
_MIN_REST_CELLS = 30


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
    wanted = ReleaseRequest(
        to=None if to is None else address_of(to.strip(), "--to", check_target),
        only_for=only_for,
        is_admin=True,
        anyone=anyone,
    )
    with invocation.open_store() as store:
        release = _Release(store, settings, wanted, answer, expected_outside)
        return release.carry_through(invocation, with_latest(store, choice))


class _Release:
    """One call: what it would do, the questions, the release, the report."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        wanted: ReleaseRequest,
        answer: Answer,
        expected_outside: int | None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._wanted = wanted
        self._answer = answer
        self._expected_outside = expected_outside

    def carry_through(self, invocation: Invocation, choice: Choice) -> int:
        """Release the chosen messages after asking; return the exit code."""
        entries = list(chosen_captured(self._store, choice))
        ids = [entry.queue_id for entry in entries]
        planned = plan_release(self._store, self._settings, ids, self._wanted)
        if not self._answer.wants_json:
            _show_plan(planned, {entry.queue_id: entry.subject for entry in entries})
        if self._may_go_on(planned):
            result = self._release_planned(planned, choice)
            invocation.wake_workers()
        elif self._answer.is_dry_run or not planned.copies:
            result = planned
        else:
            click.echo("nothing changed")
            return os.EX_OK
        report(result, self._answer)
        missing = choice.missing(set(ids))
        tell_missing(missing)
        return _exit_code(result, missing)

    def _may_go_on(self, planned: ReleaseResult) -> bool:
        if not planned.copies:
            return False
        mails, messages = len(planned.copies), len(planned.changed)
        question = f"release {counted(mails, 'mail')} of {counted(messages, 'message')}?"
        return may_go_on(question, self._answer) and self._is_outside_confirmed(planned)

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

    def _release_planned(self, planned: ReleaseResult, choice: Choice) -> ReleaseResult:
        changed = planned.changed
        result = release_captured(
            self._store,
            self._settings,
            changed,
            replace(self._wanted, confirmed=planned.outside),
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


def _exit_code(result: ReleaseResult, missing: Collection[str]) -> int:
    if missing or result.refused or not all(one.is_temporary for one in result.left):
        return os.EX_DATAERR
    return os.EX_TEMPFAIL if result.left else os.EX_OK


def _show_plan(planned: ReleaseResult, subjects: Mapping[str, str]) -> None:
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
