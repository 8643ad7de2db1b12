"""`relaygw queue`: look at the queue and change what is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import click

from relaygw import operations
from relaygw.cli.changing import (
    CHANGE_OPTIONS,
    Task,
    carry_through,
    check_scope,
    login_name,
    take_answer,
)
from relaygw.cli.frame import Group, Invocation, pass_invocation
from relaygw.cli.listing import print_list, print_messages
from relaygw.cli.selecting import (
    QUEUE_OPTIONS,
    choose,
    found,
    ids_argument,
    options,
    some_ids_argument,
)
from relaygw.mail.state import DeliveryState
from relaygw.operations import Action, LeftAlone, Result
from relaygw.store.protocol import QueueEntry

_DONE = {
    Action.RETRY: "due now",
    Action.HOLD: "held",
    Action.RELEASE: "released",
    Action.DELETE: "deleted",
}


@click.group(cls=Group, later=("undelete", "move", "expire", "explain"))
def queue() -> None:
    """Look at the queue and change what is in it."""


@queue.command("list")
@options(QUEUE_OPTIONS)
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def list_queue(invocation: Invocation, /, wants_json: bool, **given: Any) -> None:
    """List messages, the oldest first; without --state or --id the unfinished ones."""
    choice = choose(given)
    limit = choice.limit
    peek = replace(choice, limit=None if limit is None else limit + 1)
    empty = "-- 0 messages" if choice.has_conditions else "the queue is empty"
    with invocation.open_store() as store:
        print_list(found(store, peek), wants_json=wants_json, limit=limit, empty=empty)


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


def _judge(action: Action, entry: QueueEntry) -> LeftAlone | None:
    left = operations.plan(action, (entry,)).left
    return left[0] if left else None


def _change(
    invocation: Invocation,
    action: Action,
    change: Callable[..., Result],
    given: dict[str, Any],
) -> int:
    """Run one of the changing commands; returns its exit code."""
    answer = take_answer(given)
    default_states = operations.MOVES[action] | {DeliveryState.ACTIVE}
    choice = choose(given, default_states=default_states)
    check_scope(choice, answer)
    with invocation.open_store() as store:
        task = Task(
            verb=action.value,
            done=_DONE[action],
            judge=partial(_judge, action),
            carry_out=lambda ids, now_ms: change(
                store, ids, actor=login_name(), now_ms=now_ms, detail=choice.words
            ),
            waits_for_workers=action in (Action.HOLD, Action.DELETE),
        )
        return carry_through(found(store, choice), task, choice=choice, answer=answer)


@queue.command()
@ids_argument
@options((*QUEUE_OPTIONS, *CHANGE_OPTIONS))
@pass_invocation
def retry(invocation: Invocation, /, **given: Any) -> int:
    """Try deferred messages now. ID - reads ids from stdin."""
    return _change(invocation, Action.RETRY, operations.retry, given)


@queue.command()
@ids_argument
@options((*QUEUE_OPTIONS, *CHANGE_OPTIONS))
@click.option("--note", default="", metavar="TEXT", help="Why; shown with the message.")
@pass_invocation
def hold(invocation: Invocation, /, note: str, **given: Any) -> int:
    """Keep messages until they are released. ID - reads ids from stdin."""
    return _change(invocation, Action.HOLD, partial(operations.hold, note=note), given)


@queue.command()
@ids_argument
@options((*QUEUE_OPTIONS, *CHANGE_OPTIONS))
@pass_invocation
def release(invocation: Invocation, /, **given: Any) -> int:
    """Let held messages go. ID - reads ids from stdin."""
    return _change(invocation, Action.RELEASE, operations.release, given)


@queue.command()
@ids_argument
@options((*QUEUE_OPTIONS, *CHANGE_OPTIONS))
@pass_invocation
def delete(invocation: Invocation, /, **given: Any) -> int:
    """Put messages into the trash for seven days. ID - reads ids from stdin."""
    return _change(invocation, Action.DELETE, operations.delete, given)
