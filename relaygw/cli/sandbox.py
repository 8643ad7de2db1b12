"""`relaygw sandbox`: captured mail, which was never sent."""

from __future__ import annotations

from typing import Any

import click

from relaygw.cli.frame import Group, Invocation, login_name, pass_invocation
from relaygw.cli.mail_change import (
    CHANGE_OPTIONS,
    Task,
    carry_through,
    check_scope,
    take_answer,
)
from relaygw.cli.messages import print_list, print_messages
from relaygw.cli.sandbox_release import release_sandbox
from relaygw.cli.selection import (
    CAPTURED_OPTIONS,
    captured,
    choose,
    chosen_captured,
    ids_argument,
    options,
    search_option,
    with_latest,
)
from relaygw.operations.captured import delete_captured, objection_to_delete
from relaygw.operations.selectors import ANY_STATE


@click.group(cls=Group)
def sandbox() -> None:
    """Look at captured mail, release and delete it."""


sandbox.add_command(release_sandbox)


@sandbox.command("list")
@options(CAPTURED_OPTIONS)
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@pass_invocation
def list_sandbox(invocation: Invocation, /, wants_json: bool, **given: Any) -> None:
    """List captured messages, the newest first."""
    choice = choose(given)
    with invocation.open_store() as store:
        print_list(captured, store, choice, wants_json=wants_json, place="sandbox")


@sandbox.command("show")
@ids_argument
@search_option
@click.option("--json", "wants_json", is_flag=True, help="One object a line.")
@click.option("--raw", is_flag=True, help="Write the content itself to stdout.")
@pass_invocation
def show_sandbox(invocation: Invocation, /, wants_json: bool, raw: bool, **given: Any) -> int:
    """Show all about captured messages; the ID latest is the newest one."""
    if raw and wants_json:
        raise click.UsageError("--raw and --json exclude each other; leave one out")
    if bool(given["queue_ids"]) == bool(given["search"]):
        raise click.UsageError("give ids, latest or --search, and only one of these")
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
    answer = take_answer(given)
    choice = choose(given, default_states=ANY_STATE)
    check_scope(choice, answer)
    with invocation.open_store() as store:
        choice = with_latest(store, choice)
        task = Task(
            verb="delete",
            done="deleted",
            judge=objection_to_delete,
            carry_out=lambda ids, now_ms: delete_captured(
                store, ids, actor=login_name(), now_ms=now_ms, detail=choice.words
            ),
        )
        entries = chosen_captured(store, choice)
        return carry_through(invocation, entries, task, choice=choice, answer=answer)
