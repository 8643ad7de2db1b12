"""`relaygw queue resend`: delivered, bounced and expired mail once more, as new messages."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from relaygw.cli import frame, mail_change
from relaygw.cli.running_gateway import mode_warning, running_mode
from relaygw.cli.selection import NOT_EMPTY, options, some_ids_argument
from relaygw.cli.stderr import warn
from relaygw.cli.text import as_json, first_of, print_lines
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import Resender
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import counted, printable, some_of
from relaygw.operations.resend import (
    NOT_SENT,
    SENT_AGAIN,
    ResendRequest,
    ResendResult,
    Resent,
    plan_resend,
    resent_object,
    send_again,
)
from relaygw.operations.selectors import ANY_STATE
from relaygw.policy.recipients import check_typed

_OWN_OPTIONS = (
    click.option("--to", metavar="ADDRESS", type=NOT_EMPTY, help="Send to this address instead."),
    click.option(
        "--delivered", "with_delivered", is_flag=True,
        help="Also to recipients it was delivered to, where others bounced or expired.",
    ),
    click.option(
        "--force", "is_forced", is_flag=True,
        help="Also mail that its provider may have sent already.",
    ),
    click.option(
        "--count", "expected", metavar="N", type=frame.NUMBER_FROM_1,
        help="The number of messages; required with --yes for more than one.",
    ),
)  # fmt: skip


@click.command(cls=frame.Command)
@some_ids_argument
@options((*_OWN_OPTIONS, *mail_change.CHANGE_OPTIONS[1:]))
@frame.pass_invocation
def resend(
    invocation: frame.Invocation,
    /,
    to: str | None,
    with_delivered: bool,
    is_forced: bool,
    expected: int | None,
    **given: Any,
) -> int:
    """Send messages again that were delivered, bounced or expired. ID - reads ids from stdin.

    Each is sent as a new message to the recipients for whom it bounced or expired; if there are
    none, to those it was delivered to. The content must still be kept: queue.keep_content.
    """
    given |= {"is_all": False, "id_options": ()}
    choice, answer = mail_change.take_choice(given, default_states=ANY_STATE)
    bare_to = None if to is None else frame.address_of(to.strip(), "--to", check_typed)
    wanted = ResendRequest(to=bare_to, with_delivered=with_delivered, is_forced=is_forced)
    loaded, ids = invocation.load_running(), choice.selection.queue_ids
    with invocation.open_store(loaded) as store:
        composer = Resender(Intake(loaded.settings, state_dir=loaded.state_dir))
        planned = plan_resend(store, composer, ids, wanted)
        result = planned
        if not answer.wants_json:
            print_lines(
                first_of([line for message in planned.messages for line in _shown(message)])
            )
        if planned.messages:
            for text in mode_warning(loaded.settings, running_mode(loaded.settings)):
                warn(f"warning: {text}; the running mode applies at each attempt as well")
        if is_forced and planned.messages:
            warn(mail_change.TWICE)
        if _may_go_on(planned, answer, expected):
            result = send_again(
                store, composer, planned, actor=frame.login_name(), now_ms=clock_ms(), detail=""
            )
            invocation.wake_workers()
        elif planned.messages and not answer.is_dry_run:
            click.echo("nothing changed")
            return os.EX_OK
    _report(result, answer)
    left = {obstacle.queue_id for obstacle in planned.left}
    missing = choice.missing(left | {message.queue_id for message in planned.messages})
    mail_change.tell_missing(missing)
    return mail_change.exit_code_of(result.left, is_partial=bool(missing))


def _shown(copy: Resent) -> Iterator[str]:
    """Yield what a message is and who gets it."""
    yield printable(f"{copy.queue_id}: {copy.entry.subject or '(no subject)'}")
    for to in copy.recipients:
        was = f" ({to.was})" if to.was else ""
        yield printable(f"  to {to.address}{was}: {to.words}")
    if copy.number > 1:
        yield f"  it was sent again before: {counted(copy.number - 1, 'time')}"
    if copy.delivered_left:
        left = counted(copy.delivered_left, "recipient")
        yield f"  not to {left} it was delivered to; --delivered includes them"


def _may_go_on(planned: ResendResult, answer: mail_change.Answer, expected: int | None) -> bool:
    """Ask, unless the caller is sure; raises CommandFailed for another number than was said."""
    number = len(planned.messages)
    if not number or answer.is_dry_run:
        return False
    is_missing = expected is None and number > 1 and answer.is_sure
    if is_missing or expected not in (None, number):
        said = "--count is missing" if is_missing else f"--count says {expected}"
        raise frame.CommandFailed(
            f"nothing sent again: {counted(number, 'message')} would be, {said}; give --count "
            f"{number} if that is intended",
            exit_code=os.EX_USAGE if is_missing else os.EX_DATAERR,
        )
    addresses = {to.address: None for message in planned.messages for to in message.recipients}
    who = printable(some_of(list(addresses)))
    return mail_change.may_go_on(f"send {counted(number, 'message')} again, to {who}?", answer)


def _report(result: ResendResult, answer: mail_change.Answer) -> None:
    would = "would be " if answer.is_dry_run else ""
    if answer.wants_json:
        for message in result.messages:
            done = {"result": f"{would}{message.result}", "reason": None}
            click.echo(as_json({**resent_object(message), **done}))
        for left in result.left:
            told: dict[str, Any] = {"resent_as": None, "recipients": [], "result": "left alone"}
            click.echo(as_json({"queue_id": left.queue_id, **told, "reason": left.why}))
        return
    numbers = Counter(message.result for message in result.messages) or {SENT_AGAIN: 0}
    for word, number in numbers.items():
        click.echo(f"{counted(number, 'message')} {would}{word}{NOT_SENT[word]}")
    if not would:
        print_lines(
            f"{message.queue_id}: {message.result} as {message.new_id}"
            for message in result.messages
        )
    for line in first_of([f"{no.queue_id}: left alone: {no.why}" for no in result.left]):
        warn(line)
