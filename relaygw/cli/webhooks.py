"""`relaygw webhooks`: how receivers of events do, a test for each, and events sent again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from relaygw.cli import frame
from relaygw.cli.frame import CommandFailed, Group, Invocation, login_name, pass_invocation
from relaygw.cli.mail_change import Answer, may_go_on
from relaygw.cli.selection import TIME
from relaygw.cli.stderr import warn
from relaygw.cli.text import aligned, as_json, labelled, moment, print_lines, terminal_width
from relaygw.errors import RelaygwError
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import age, counted
from relaygw.operations import webhooks as operations
from relaygw.operations.selectors import TIMES, read_moment
from relaygw.policy.receivers import Endpoint, trouble_of
from relaygw.settings.model import Settings
from relaygw.settings.webhooks import Webhook, named_webhooks

_NAME_WIDTH = 20
_LEFT = 36  # cells of all columns but WHERE


@click.group(cls=Group)
def webhooks() -> None:
    """Show receivers of events, test them, and send events again."""


@webhooks.command("list")
@frame.JSON_LINES
@pass_invocation
def list_receivers(invocation: Invocation, wants_json: bool) -> None:
    """List the receivers: what waits for each, and which are failing and why."""
    loaded = invocation.load_running()
    named = named_webhooks(loaded.settings)
    with invocation.open_store(loaded) as store:
        found = operations.receivers(store, loaded.settings)
    if wants_json:
        objects = (operations.receiver_object(name, named[name], found[name]) for name in named)
        print_lines(map(as_json, objects))
    else:
        print_lines(_rows(named, found, clock_ms()))


def _rows(
    named: Mapping[str, Webhook], found: Mapping[str, Endpoint], now_ms: int
) -> Iterator[str]:
    if not named:
        yield "no webhooks; see docs/webhooks.md"
        return
    name_width = min(max(map(len, (*named, "NAME"))), _NAME_WIDTH)
    widths = (name_width, 8, -7, -6, -6, max(terminal_width() - _LEFT - name_width, 20))
    yield aligned(widths, "NAME", "STATE", "WAITING", "OLDEST", "TAKEN", " WHERE")
    for name, endpoint in found.items():
        oldest, taken = (
            "-" if at_ms is None else age(now_ms - at_ms)
            for at_ms in (endpoint.oldest_at_ms, endpoint.taken_at_ms)
        )
        waiting = f"{endpoint.waiting}{'+' * endpoint.is_more_waiting}"
        yield aligned(widths, name, endpoint.state, waiting, oldest, taken, f" {named[name].url}")
    for name, endpoint in found.items():
        trouble = trouble_of(name, endpoint, now_ms=now_ms)
        if trouble is not None:
            yield ""
            yield labelled("wrong", trouble.summary)
            yield labelled("remedy", trouble.remedy)
            if endpoint.state in ("failing", "paused"):
                yield labelled("next try", moment(max(endpoint.next_at_ms, now_ms), now_ms))
        if endpoint.dropped and endpoint.dropped_at_ms is not None:
            when = moment(endpoint.dropped_at_ms, now_ms)
            events = counted(endpoint.dropped, "event", form=",")
            yield labelled("dropped", f"{events} of {name} that waited too long, last at {when}")


@webhooks.command("test")
@click.argument("name", required=False)
@pass_invocation
def test_receivers(invocation: Invocation, name: str | None) -> int:
    """Post a signed event of kind test to each receiver, or one, and show the answer.

    Exit code 69: at least one receiver did not take it.
    """
    loaded = invocation.load_running()
    chosen = _chosen(loaded.settings, name)
    results = asyncio.run(_test_all(loaded.settings, chosen))
    for is_taken, words in results:
        click.echo(labelled("taken" if is_taken else "failed", words))
    try:
        with invocation.open_store(loaded) as store:
            actor, now_ms = login_name(), clock_ms()
            operations.note_test(store, " ".join(chosen), actor=actor, now_ms=now_ms)
    except RelaygwError as error:
        warn(f"warning: not in the audit trail: {error}")
    return os.EX_OK if all(is_taken for is_taken, _ in results) else os.EX_UNAVAILABLE


async def _test_all(settings: Settings, chosen: Mapping[str, Webhook]) -> list[tuple[bool, str]]:
    return await asyncio.gather(*(_test(settings, *item) for item in chosen.items()))


async def _test(settings: Settings, name: str, webhook: Webhook) -> tuple[bool, str]:
    from relaygw.webhooks.post import read_target, send_events, trial_event

    try:
        target = await asyncio.to_thread(read_target, webhook)
        event, post_id = trial_event(clock_ms()), f"msg_test_{os.urandom(8).hex()}"
        status = await send_events(target, [event], post_id, settings)
    except RelaygwError as error:
        return False, f"{name}: {error}"
    return True, f"{name}: {webhook.url} answered {status}"


@webhooks.command("replay")
@click.argument("name", required=False)
@click.option("--since", metavar="T", type=TIME, help=f"Queued since T: {TIMES}.")
@click.option("--id", "queue_ids", metavar="ID", multiple=True, help="Of this message; repeatable.")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only show how many.")
@pass_invocation
def replay_events(
    invocation: Invocation,
    name: str | None,
    since: str | None,
    queue_ids: tuple[str, ...],
    is_sure: bool,
    is_dry_run: bool,
) -> None:
    """Send events again that receivers took, to all or one; in order, before what waits."""
    if since is None and not queue_ids:
        raise click.UsageError("nothing to send again; give --since or --id")
    loaded, now_ms = invocation.load_running(), clock_ms()
    chosen = _chosen(loaded.settings, name)
    since_ms = read_moment(since, now_ms=now_ms) if since else None
    which = operations.sent_events(
        chosen.values(), since_ms=since_ms, queue_ids=queue_ids, now_ms=now_ms
    )
    answer = Answer(is_all=False, is_sure=is_sure, is_dry_run=is_dry_run, wants_json=False)
    names = " ".join(chosen)
    with invocation.open_store(loaded) as store:
        number = store.outbox.count_sent(which)
        if not number or is_dry_run:
            click.echo(f"{counted(number, 'event')} {'would go' if number else 'go'} again")
            return
        if not may_go_on(f"send {counted(number, 'event')} again, to {names}?", answer):
            click.echo("nothing changed")
            return
        detail = ", ".join(
            [f"since={since!r}"] * bool(since) + [f"id={queue_ids!r}"] * bool(queue_ids)
        )
        more: dict[str, Any] = {"detail": detail, "actor": login_name(), "now_ms": now_ms}
        number = operations.replay(store, which, names=names, count=number, **more)
    click.echo(f"{counted(number, 'event')} will be sent again")


@webhooks.command("resume")
@click.argument("name")
@pass_invocation
def resume_one(invocation: Invocation, name: str) -> None:
    """Try a receiver now that failed, is paused, or answered 410."""
    loaded = invocation.load_running()
    webhook = _chosen(loaded.settings, name)[name]
    with invocation.open_store(loaded) as store:
        is_known = operations.resume_receiver(
            store, name, webhook, actor=login_name(), now_ms=clock_ms()
        )
    click.echo(
        f"{name}: is tried within a few seconds"
        if is_known
        else f"{name}: nobody has sent anything to it yet; start the web role: relaygw serve"
    )


def _chosen(settings: Settings, name: str | None) -> dict[str, Webhook]:
    named = named_webhooks(settings)
    if not named:
        raise CommandFailed(
            "the configuration has no webhooks; add e.g. webhooks: [{url: "
            "https://shop.example.com/mail-events.php, secret: env:WEBHOOK_SECRET}]",
            exit_code=os.EX_CONFIG,
        )
    if name is None:
        return named
    if name not in named:
        known: Sequence[str] = list(named)
        raise CommandFailed(f"{name!r} is not a webhook; write one of: {', '.join(known)}")
    return {name: named[name]}
