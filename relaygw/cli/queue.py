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
    TWICE,
    Answer,
    Task,
    carry_through,
    check_scope,
    login_name,
    take_answer,
)
from relaygw.cli.exporting import export
from relaygw.cli.frame import Group, Invocation, pass_invocation
from relaygw.cli.importing import import_mail
from relaygw.cli.listing import print_list, print_messages
from relaygw.cli.moving import move
from relaygw.cli.postfix_forms import all_waiting, as_waiting, print_mailq, print_postqueue
from relaygw.cli.selecting import (
    QUEUE_OPTIONS,
    choose,
    found,
    ids_argument,
    options,
    some_ids_argument,
)
from relaygw.cli.shape import shape
from relaygw.cli.story import explain_queue
from relaygw.mail.state import DeliveryState
from relaygw.operations import Action, LeftAlone, Result
from relaygw.store.protocol import QueueEntry

_DONE = {
    Action.RETRY: "due now",
    Action.HOLD: "held",
    Action.RELEASE: "released",
    Action.DELETE: "deleted",
    Action.UNDELETE: "back in the queue",
    Action.EXPIRE: "expired",
}


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
    limit = choice.limit
    peek = replace(choice, limit=None if limit is None else limit + 1)
    empty = "-- 0 messages" if choice.has_conditions else "the queue is empty"
    with invocation.open_store() as store:
        print_list(found(store, peek), wants_json=form == "json", limit=limit, empty=empty)


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


def _judge(
    action: Action, is_forced: bool, routes: frozenset[str] | None, entry: QueueEntry
) -> LeftAlone | None:
    left = operations.plan(action, (entry,), is_forced=is_forced, routes=routes).left
    return left[0] if left else None


def _change(
    invocation: Invocation,
    action: Action,
    change: Callable[..., Result],
    given: dict[str, Any],
    *,
    answer: Answer | None = None,
    is_forced: bool = False,
) -> int:
    """Run one of the changing commands; returns its exit code."""
    answer = answer or take_answer(given)
    default_states = operations.MOVES[action] | {DeliveryState.ACTIVE}
    choice = choose(given, default_states=default_states)
    check_scope(choice, answer)
    loaded = invocation.load()
    with invocation.open_store(loaded) as store:
        routes = None
        if action is Action.RETRY:
            routes = operations.routes_taken(store, loaded.settings)
            change = partial(change, routes=routes)
        task = Task(
            verb=action.value,
            done=_DONE[action],
            warning=TWICE if is_forced else "",
            judge=partial(_judge, action, is_forced, routes),
            carry_out=lambda ids, now_ms: change(
                store, ids, actor=login_name(), now_ms=now_ms, detail=choice.words
            ),
            waits_for_workers=action in (Action.HOLD, Action.DELETE, Action.EXPIRE),
        )
        return carry_through(found(store, choice), task, choice=choice, answer=answer)


@queue.command()
@ids_argument
@options((*QUEUE_OPTIONS, *CHANGE_OPTIONS))
@click.option(
    "--force", "is_forced", is_flag=True, help="Also mail that its provider may have sent already."
)
@pass_invocation
def retry(invocation: Invocation, /, is_forced: bool, **given: Any) -> int:
    """Try deferred messages now. ID - reads ids from stdin."""
    change = partial(operations.retry, is_forced=is_forced)
    return _change(invocation, Action.RETRY, change, given, is_forced=is_forced)


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


@queue.command()
@ids_argument
@options((*QUEUE_OPTIONS, *CHANGE_OPTIONS))
@pass_invocation
def undelete(invocation: Invocation, /, **given: Any) -> int:
    """Take messages out of the trash. ID - reads ids from stdin."""
    return _change(invocation, Action.UNDELETE, operations.undelete, given)


@queue.command()
@ids_argument
@options((*QUEUE_OPTIONS, *CHANGE_OPTIONS))
@click.option("--note", default="", metavar="TEXT", help="Why; kept with the message.")
@pass_invocation
def expire(invocation: Invocation, /, note: str, **given: Any) -> int:
    """End messages as if their lifetime were over. ID - reads ids from stdin."""
    return _change(invocation, Action.EXPIRE, partial(operations.expire, note=note), given)


@queue.command()
@ids_argument
@options(QUEUE_OPTIONS)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Show the messages only.")
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def flush(invocation: Invocation, /, is_dry_run: bool, wants_json: bool, **given: Any) -> int:
    """Try all deferred messages now, or those chosen; asks nothing, as postqueue -f."""
    answer = Answer(
        is_all=not choose(given).has_conditions,
        is_sure=True,
        is_dry_run=is_dry_run,
        wants_json=wants_json,
    )
    return _change(invocation, Action.RETRY, operations.retry, given, answer=answer)


for _command in (explain_queue, move, shape, export, import_mail):
    queue.add_command(_command)
