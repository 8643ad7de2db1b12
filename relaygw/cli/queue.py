"""`relaygw queue`: look at the queue and change what is in it."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import click

from relaygw.cli import frame
from relaygw.cli.frame import Command, Group, Invocation, login_name, pass_invocation
from relaygw.cli.mail_change import CHANGE_OPTIONS, TWICE, Answer, Task, carry_through, take_choice
from relaygw.cli.messages import check_one_form, print_list, print_messages, story_lines
from relaygw.cli.postfix_queue import all_waiting, as_waiting, print_mailq, print_postqueue
from relaygw.cli.queue_files import export, import_mail
from relaygw.cli.resend import resend
from relaygw.cli.selection import (
    NOTE,
    QUEUE_OPTIONS,
    WAITING_OPTIONS,
    Choice,
    Decorator,
    choose,
    found,
    ids_argument,
    in_order,
    options,
    some_ids_argument,
)
from relaygw.cli.stderr import warn
from relaygw.cli.text import as_json, cells, fitted, terminal_width
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.mail.words import counted
from relaygw.observe.maildrop import look_at_maildrop
from relaygw.operations import queue_actions
from relaygw.operations.obstacles import wait_words
from relaygw.operations.story import tell_story
from relaygw.policy.story import as_object
from relaygw.store.shape import ShapeKey

BOUNDS_MIN = (5, 10, 20, 40, 80, 160, 320, 640, 1280)
_MAX_KEY_CELLS = 40
_MIN_KEY_CELLS = 12
_EMPTY_WORDS = {
    ShapeKey.SENDER: "<>",
    ShapeKey.PROVIDER: "(not tried)",
    ShapeKey.REASON: "(none)",
    ShapeKey.RECIPIENT: "(no domain)",
    ShapeKey.SUBJECT: "(no subject)",
    ShapeKey.SCRIPT: "(no script)",
    ShapeKey.UID: "(no uid)",
}

Table = dict[str, list[int]]
"""Numbers by key: one for each age, the youngest first."""


@click.group(cls=Group)
def queue() -> None:
    """Show and change mail in the queue."""


@queue.command("list")
@options(QUEUE_OPTIONS)
@click.option("--oldest-first", is_flag=True, help="Oldest first, also for finished mail.")
@click.option("--newest-first", is_flag=True, help="Newest first, also for waiting mail.")
@frame.JSON_LINES
@click.option("--mailq", is_flag=True, help="In the format of Postfix's mailq.")
@click.option("--postfix-json", is_flag=True, help="In the format of postqueue -j.")
@pass_invocation
def list_queue(
    invocation: Invocation, /, wants_json: bool, mailq: bool, postfix_json: bool, **given: Any
) -> None:
    """List waiting messages, oldest first.

    With --result, or --state finished, deleted or all: finished messages as well, newest first.
    """
    check_one_form(json=wants_json, mailq=mailq, postfix_json=postfix_json)
    order = {name: given.pop(name) for name in ("oldest_first", "newest_first")}
    choice = in_order(choose(given), **order)
    loaded = invocation.load_running()
    with invocation.open_store(loaded) as store:
        if not (mailq or postfix_json):
            print_list(found, store, choice, wants_json=wants_json, place="queue")
        else:
            plain = not (choice.has_conditions or choice.limit or choice.newest_first)
            messages = all_waiting(store) if plain else map(as_waiting, found(store, choice))
            words = wait_words(store, loaded.settings)
            (print_mailq if mailq else print_postqueue)(it.explained(words) for it in messages)
    left = look_at_maildrop(loaded.settings.maildrop.path)
    if left is not None and left.waiting:  # where nothing that runs takes it
        warn(f"not in the queue yet: {counted(left.waiting, 'message')} of sendmail in {left.path}")


@queue.command("show")
@some_ids_argument
@frame.JSON_LINES
@click.option("--raw", is_flag=True, help="Write the raw content to stdout.")
@pass_invocation
def show_queue(
    invocation: Invocation, queue_ids: tuple[str, ...], wants_json: bool, raw: bool
) -> int:
    """Show messages in full: recipients, replies, next try, origin."""
    check_one_form(raw=raw, json=wants_json)
    choice = choose({"queue_ids": queue_ids})
    ids = choice.selection.queue_ids
    with invocation.open_store() as store:
        entries = list(found(store, choice))
        return print_messages(store, ids, entries, wants_json=wants_json, raw=raw)


@queue.command()
@some_ids_argument
@frame.JSON_LINES
@click.option("--answer", "wants_answer", is_flag=True, help="Only what a customer may be told.")
@pass_invocation
def explain(
    invocation: Invocation, queue_ids: tuple[str, ...], wants_json: bool, wants_answer: bool
) -> int:
    """Explain messages: what happened, what comes next, what to do."""
    check_one_form(json=wants_json, answer=wants_answer)
    loaded = invocation.load_running()
    exit_code, is_first = os.EX_OK, True
    with invocation.open_store(loaded) as store:
        for queue_id in choose({"queue_ids": queue_ids}).selection.queue_ids:
            story = tell_story(store, loaded.settings, queue_id, now_ms=clock_ms())
            if story is None:
                sys.stdout.flush()
                warn(f"{queue_id}: no such message")
                exit_code = os.EX_DATAERR
                continue
            if wants_json:
                click.echo(as_json(as_object(story)))
            else:
                lines = [story.answer] if wants_answer else story_lines(story)
                click.echo("\n".join([*([] if is_first else [""]), *lines]))
            is_first = False
    return exit_code


# --- changes -------------------------------------------------------------------------------


def _states(action: queue_actions.QueueAction) -> frozenset[DeliveryState]:
    return action.from_states | {DeliveryState.ACTIVE}


def _change(
    invocation: Invocation,
    action: queue_actions.QueueAction,
    choice: Choice,
    answer: Answer,
    *,
    note: str = "",
    is_forced: bool = False,
    to_provider: str = "",
) -> int:
    loaded = invocation.load_running()
    providers = loaded.settings.providers
    if action.takes_provider and to_provider not in providers:
        known = ", ".join(providers) or "none yet"
        raise click.UsageError(f"--to {to_provider!r} is not a provider; name one of: {known}")
    aim = f" to {to_provider}" if action.takes_provider else ""
    with invocation.open_store(loaded) as store:
        order = queue_actions.Order(
            actor=login_name(),
            detail=choice.words,
            note=note,
            is_forced=is_forced,
            provider=to_provider,
            senders=providers[to_provider].senders if to_provider else (),
            routes=queue_actions.routes_taken(store, loaded.settings),
            screen=queue_actions.screen_of(store, loaded.settings),
            pauses_of=loaded.settings,
        )
        task = Task(
            verb=action.name,
            done=f"{action.done}{aim}",
            aim=aim,
            warning=TWICE if is_forced else "",
            judge=lambda entry: queue_actions.objection(action, entry, order),
            carry_out=partial(queue_actions.change_queued, store, action, order=order),
            waits_for_workers=action.needs_whole,
        )
        return carry_through(invocation, found(store, choice), task, choice=choice, answer=answer)


def _command_of(action: queue_actions.QueueAction) -> click.Command:
    @ids_argument
    @options((*QUEUE_OPTIONS, *CHANGE_OPTIONS, *_own_options(action)))
    @pass_invocation
    def command(invocation: Invocation, /, **given: Any) -> int:
        own = {name: given.pop(name) for name in _OWN if name in given}
        choice, answer = take_choice(given, default_states=_states(action))
        return _change(invocation, action, choice, answer, **own)

    text = f"{action.help} ID - reads ids from stdin."
    return click.command(action.name, cls=Command, help=text)(command)


# no selector has one of these names: its condition would be lost
_OWN = ("note", "to_provider", "is_forced")


def _own_options(action: queue_actions.QueueAction) -> Iterator[Decorator]:
    if action.note_help:
        yield click.option("--note", default="", metavar="TEXT", type=NOTE, help=action.note_help)
    if action.takes_provider:
        where = "The provider to use."
        yield click.option("--to", "to_provider", metavar="PROVIDER", required=True, help=where)
    if action.force_help:
        yield click.option("--force", "is_forced", is_flag=True, help=action.force_help)


@queue.command()
@ids_argument
@options(QUEUE_OPTIONS)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show the messages.")
@frame.JSON_LINES
@pass_invocation
def flush(invocation: Invocation, /, is_dry_run: bool, wants_json: bool, **given: Any) -> int:
    """Try all or the selected deferred messages now, without confirmation, like postqueue -f."""
    choice = choose(given, default_states=_states(queue_actions.RETRY))
    answer = Answer(
        is_all=not choice.has_conditions, is_sure=True, is_dry_run=is_dry_run, wants_json=wants_json
    )
    return _change(invocation, queue_actions.RETRY, choice, answer)


for _command in (export, import_mail, resend, *map(_command_of, queue_actions.ACTIONS.values())):
    queue.add_command(_command)


# --- what waits by domain and age, as Postfix's qshape shows it ------------------------------


@queue.command()
@ids_argument
@click.option(
    "--by", type=click.Choice([key.value for key in ShapeKey]), default=ShapeKey.RECIPIENT.value,
    show_default=True, help="What to count by.",
)  # fmt: skip
@options(WAITING_OPTIONS)
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object per row.")
@pass_invocation
def shape(invocation: Invocation, /, by: str, wants_json: bool, **given: Any) -> None:
    """Count waiting mail by domain and age in minutes, like qshape.

    With --by recipient the numbers are recipients, else deliveries. --limit limits the rows.
    """
    limit = given.pop("limit")
    choice = choose(given)
    key = ShapeKey(by)
    bounds_ms = [minutes * 60_000 for minutes in BOUNDS_MIN]
    table: Table = defaultdict(lambda: [0] * (len(BOUNDS_MIN) + 1))
    loaded = invocation.load_running()
    with invocation.open_store(loaded) as store:
        words = wait_words(store, loaded.settings)
        for selection in choice.pages():
            for count in store.queue.shape(selection, by=key, bounds_ms=bounds_ms):
                name = (count.way and words(count.way)) or count.key or _EMPTY_WORDS.get(key, "")
                table[name][count.step] += count.number
    rows = sorted(table.items(), key=lambda row: (-sum(row[1]), row[0]))[:limit]
    ages = [*map(str, BOUNDS_MIN), f"{BOUNDS_MIN[-1]}+"]
    if not wants_json:
        _print_shape(ages, table, rows)
    for name, numbers in rows if wants_json else ():
        minutes = dict(zip(ages, numbers, strict=True))
        click.echo(as_json({by: name, "total": sum(numbers), "minutes": minutes}))


def _print_shape(ages: list[str], table: Table, rows: list[tuple[str, list[int]]]) -> None:
    heads = ["T", *ages]
    totals = [sum(column) for column in zip(*table.values(), strict=True)] or [0] * len(ages)
    widths = [
        max(len(head), len(str(number))) + 1
        for head, number in zip(heads, [sum(totals), *totals], strict=True)
    ]
    room = max(terminal_width() - sum(widths), _MIN_KEY_CELLS)
    longest = max((cells(name) for name, _ in rows), default=0)
    key_cells = min(room, max(longest, _MIN_KEY_CELLS), _MAX_KEY_CELLS)
    click.echo(" " * key_cells + _columns(heads, widths))
    for name, numbers in [("TOTAL", totals), *rows]:
        lead = f"{name:>{key_cells}}" if name == "TOTAL" else fitted(name, key_cells)
        click.echo(lead + _columns([sum(numbers), *numbers], widths))


def _columns(texts: Iterable[str | int], widths: list[int]) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))
