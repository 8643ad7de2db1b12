"""`relaygw queue move`: mail goes by another provider than its route says."""

from __future__ import annotations

from typing import Any

import click

from relaygw import operations
from relaygw.cli.changing import (
    CHANGE_OPTIONS,
    TWICE,
    Task,
    carry_through,
    check_scope,
    login_name,
    take_answer,
)
from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.selecting import QUEUE_OPTIONS, choose, found, ids_argument, options
from relaygw.mail.state import DeliveryState
from relaygw.operations.moving import MOVABLE
from relaygw.settings.provider import Provider


@click.command("move", cls=Command)
@ids_argument
@options((*QUEUE_OPTIONS, *CHANGE_OPTIONS))
@click.option("--to", "provider", metavar="PROVIDER", required=True, help="Who sends it instead.")
@click.option(
    "--force",
    "is_forced",
    is_flag=True,
    help="Also mail that another provider may have sent, or that this one refuses.",
)
@pass_invocation
def move(invocation: Invocation, /, provider: str, is_forced: bool, **given: Any) -> int:
    """Let messages go by one provider alone. ID - reads ids from stdin."""
    answer = take_answer(given)
    choice = choose(given, default_states=MOVABLE | {DeliveryState.ACTIVE})
    check_scope(choice, answer)
    loaded = invocation.load_running()
    moving = operations.Moving(
        provider=provider,
        settings=_settings_of(provider, loaded.settings.providers),
        is_forced=is_forced,
    )
    with invocation.open_store(loaded) as store:
        task = Task(
            verb="move",
            done=f"moved to {provider}",
            aim=f" to {provider}",
            warning=TWICE if is_forced else "",
            judge=lambda entry: operations.plan_move(moving, entry),
            carry_out=lambda ids, now_ms: operations.move(
                store, ids, moving, actor=login_name(), now_ms=now_ms, detail=choice.words
            ),
            waits_for_workers=True,
        )
        return carry_through(found(store, choice), task, choice=choice, answer=answer)


def _settings_of(name: str, providers: dict[str, Provider]) -> Provider:
    if name not in providers:
        known = ", ".join(providers) or "none yet"
        raise click.UsageError(f"--to {name!r} is no provider; name one of: {known}")
    return providers[name]
