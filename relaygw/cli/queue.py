"""`relaygw queue`: look at the queue and change what is in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from relaygw.cli.frame import Command, Group, Invocation, login_name, pass_invocation
from relaygw.cli.mail_change import (
    CHANGE_OPTIONS,
    TWICE,
    Answer,
    Task,
    carry_through,
    check_scope,
    take_answer,
)
from relaygw.cli.messages import print_list, print_messages
from relaygw.cli.postfix_forms import all_waiting, as_waiting, print_mailq, print_postqueue
from relaygw.cli.queue_explain import explain_queue
from relaygw.cli.queue_export import export
from relaygw.cli.queue_import import import_mail
from relaygw.cli.queue_shape import shape
from relaygw.cli.selection import (
    QUEUE_OPTIONS,
    Choice,
    Decorator,
    choose,
    found,
    ids_argument,
    options,
    some_ids_argument,
)
from relaygw.mail.state import DeliveryState
from relaygw.operations.queue_actions import (
    ACTIONS,
    RETRY,
    Order,
    QueueAction,
    change_queued,
    objection,
    routes_taken,
)
from relaygw.settings.provider import Provider


@click.group(cls=Group)
def queue() -> None:
    """Look at the queue and change what is in it."""


@queue.command("list")
@options(QUEUE_OPTIONS)
@click.option("--json", "form", flag_value="json", help="One object a line.")
@click.option("--mailq", "form", flag_value="mailq", help="As Postfix's mailq.")
@click.option("--postfix-json", "form", flag_value="postfix", help="As postqueue -j.")
@pass_invocation
def list_queue(invocation: Invocation, /, form: str | None, **given: Any) -> None:
    """List messages, the oldest first; without --state or --id the unfinished ones."""
    choice = choose(given)
    if form in ("mailq", "postfix"):
        with invocation.open_store() as store:
            plain = not (choice.has_conditions or choice.limit)
            messages = all_waiting(store) if plain else map(as_waiting, found(store, choice))
            (print_mailq if form == "mailq" else print_postqueue)(messages)
        return
    with invocation.open_store() as store:
        print_list(found, store, choice, wants_json=form == "json", place="queue")


@queue.command("show")
@some_ids_argument
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@click.option("--raw", is_flag=True, help="Write the content itself to stdout.")
@pass_invocation
def show_queue(
    invocation: Invocation, queue_ids: tuple[str, ...], wants_json: bool, raw: bool
) -> int:
    """Show all about messages: recipients, replies, next try, where they came from."""
    if raw and wants_json:
        raise click.UsageError("--raw and --json exclude each other; leave one out")
    choice = choose({"queue_ids": queue_ids})
    ids = choice.selection.queue_ids
    with invocation.open_store() as store:
        entries = list(found(store, choice))
        return print_messages(store, ids, entries, wants_json=wants_json, raw=raw)


def _choose(action: QueueAction, given: dict[str, Any]) -> Choice:
    return choose(given, default_states=action.from_states | {DeliveryState.ACTIVE})


def _change(
    invocation: Invocation,
    action: QueueAction,
    choice: Choice,
    answer: Answer,
    *,
    note: str = "",
    is_forced: bool = False,
    provider: str = "",
) -> int:
    """Carry out an action on the chosen messages; return the exit code."""
    check_scope(choice, answer)
    loaded = invocation.load_running()
    senders = _senders_of(provider, loaded.settings.providers) if action.takes_provider else ()
    aim = f" to {provider}" if action.takes_provider else ""
    with invocation.open_store(loaded) as store:
        order = Order(
            actor=login_name(),
            detail=choice.words,
            note=note,
            is_forced=is_forced,
            provider=provider,
            senders=senders,
            routes=routes_taken(store, loaded.settings),
        )
        task = Task(
            verb=action.name,
            done=f"{action.done}{aim}",
            aim=aim,
            warning=TWICE if is_forced else "",
            judge=lambda entry: objection(action, entry, order),
            carry_out=lambda ids, now_ms: change_queued(store, action, ids, order, now_ms=now_ms),
            waits_for_workers=action.needs_whole,
        )
        entries = found(store, choice)
        return carry_through(invocation, entries, task, choice=choice, answer=answer)


def _senders_of(name: str, providers: dict[str, Provider]) -> Sequence[str]:
    if name not in providers:
        known = ", ".join(providers) or "none yet"
        raise click.UsageError(f"--to {name!r} is no provider; name one of: {known}")
    return providers[name].senders


def _command_of(action: QueueAction) -> click.Command:
    """Return the command of a row of the table."""

    @ids_argument
    @options((*QUEUE_OPTIONS, *CHANGE_OPTIONS, *_own_options(action)))
    @pass_invocation
    def command(invocation: Invocation, /, **given: Any) -> int:
        own = {name: given.pop(name) for name in _OWN_VALUES if name in given}
        answer = take_answer(given)
        return _change(invocation, action, _choose(action, given), answer, **own)

    text = f"{action.help} ID - reads ids from stdin."
    return click.command(action.name, cls=Command, help=text)(command)


_OWN_VALUES = ("note", "provider", "is_forced")


def _own_options(action: QueueAction) -> Iterator[Decorator]:
    if action.takes_note:
        yield click.option("--note", default="", metavar="TEXT", help=action.note_help)
    if action.takes_provider:
        where = "Who sends it instead."
        yield click.option("--to", "provider", metavar="PROVIDER", required=True, help=where)
    if action.takes_force:
        yield click.option("--force", "is_forced", is_flag=True, help=action.force_help)


@queue.command()
@ids_argument
@options(QUEUE_OPTIONS)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Show the messages only.")
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def flush(invocation: Invocation, /, is_dry_run: bool, wants_json: bool, **given: Any) -> int:
    """Try all deferred messages now, or those chosen; asks nothing, as postqueue -f."""
    choice = _choose(RETRY, given)
    answer = Answer(
        is_all=not choice.has_conditions,
        is_sure=True,
        is_dry_run=is_dry_run,
        wants_json=wants_json,
    )
    return _change(invocation, RETRY, choice, answer)


for _command in (explain_queue, shape, export, import_mail, *map(_command_of, ACTIONS.values())):
    queue.add_command(_command)
