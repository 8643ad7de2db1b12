"""`relaygw alerts`: what is or was wrong, and tests of the channels."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator, Sequence

import click

from relaygw.alerting.notice import Notice, NotSent, incident_object
from relaygw.alerting.open_channels import (
    open_channel,
    problem_of,
    providers_in_trouble,
    target_words,
)
from relaygw.cli.frame import JSON_LINES, Command, CommandFailed, Group, Invocation, pass_invocation
from relaygw.cli.stderr import warn
from relaygw.cli.text import aligned, as_json, labelled, print_lines, terminal_width
from relaygw.errors import RelaygwError
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import age, fields
from relaygw.settings.alerts import Alert, channel_name
from relaygw.settings.model import Settings
from relaygw.store.watch import Incident

_RECENT_DAYS = 7
_RULE_WIDTH = 20


@click.group(cls=Group)
def alerts() -> None:
    """Show current and past incidents, and test the alert channels."""


@alerts.command("list", cls=Command)
@JSON_LINES
@pass_invocation
def list_alerts(invocation: Invocation, wants_json: bool) -> None:
    """List incidents: those in progress, and those of the last seven days."""
    now_ms = clock_ms()
    channels = invocation.load_running().settings.alerts
    with invocation.open_store() as store:
        found = store.watch.incidents(now_ms - _RECENT_DAYS * 86_400_000)
    found.sort(key=lambda incident: (incident.recovered_at_ms is not None, -incident.since_ms))
    print_lines(map(_object, found) if wants_json else _rows(found, now_ms, channels))


def _object(incident: Incident) -> str:
    return as_json({**incident_object(incident), **fields(incident, "told", "recovery_told")})


def _rows(incidents: Sequence[Incident], now_ms: int, channels: Sequence[Alert]) -> Iterator[str]:
    if not incidents:
        yield f"no incident in progress, and none in the last {_RECENT_DAYS} days"
        return
    widths = (-5, -6, _RULE_WIDTH, max(terminal_width() - _RULE_WIDTH - 14, 20))
    yield aligned(widths, "SINCE", "FOR", "RULE", "WHAT")
    for incident in incidents:
        ended_ms = incident.recovered_at_ms
        lasted = age(ended_ms - incident.since_ms) if ended_ms else "lasts"
        yield aligned(
            widths, age(now_ms - incident.since_ms), lasted, incident.rule, incident.summary
        )
    for incident in incidents:
        if incident.recovered_at_ms is None:
            yield ""
            yield labelled("wrong", incident.summary)
            yield labelled("remedy", incident.remedy)
            yield labelled("notified", ", ".join(incident.told) or "nobody yet")
            if missing := [*_untold(incident, channels)]:
                yield labelled("not yet", f"{', '.join(missing)}; the log says why")


def _untold(incident: Incident, channels: Sequence[Alert]) -> Iterator[str]:
    """Yield the channels that are to be told of an incident, and have not taken its notice."""
    for number, alert in enumerate(channels):
        name = channel_name(alert, number)
        if name not in incident.told and (not alert.on or incident.rule in alert.on):
            yield name


@alerts.command("test", cls=Command)
@click.option(
    "--channel", metavar="NAME", help="Only this channel: its name, or its number in the list."
)
@pass_invocation
def test_alerts(invocation: Invocation, channel: str | None) -> int:
    """Send a test notice to each channel and show the result.

    Exit code 69: at least one channel failed.
    """
    loaded = invocation.load_running()
    settings = loaded.settings
    if not loaded.origins:  # of a gateway whose files have a mistake
        for text in loaded.doubts:
            warn(text)
        if loaded.doubts and not settings.alerts:
            return os.EX_CONFIG
    results = asyncio.run(_tell_all(invocation, settings, _chosen(settings, channel)))
    for is_told, words in results:
        click.echo(labelled("notified" if is_told else "failed", words))
    return os.EX_OK if all(is_told for is_told, _ in results) else os.EX_UNAVAILABLE


def _chosen(settings: Settings, channel: str | None) -> dict[str, Alert]:
    named = {channel_name(alert, number): alert for number, alert in enumerate(settings.alerts)}
    if not named:
        raise CommandFailed(
            "the configuration has no alerts; add e.g. alerts: [{webhook: env:ALERT_URL}]",
            exit_code=os.EX_CONFIG,
        )
    if channel is None:
        return named
    by_number = {str(number): name for number, name in enumerate(named, 1)}
    name = channel if channel in named else by_number.get(channel, "")
    if name not in named:
        raise CommandFailed(
            f"--channel {channel!r} is not one of the channels; write one of: {', '.join(named)}"
        )
    return {name: named[name]}


async def _tell_all(
    invocation: Invocation, settings: Settings, chosen: dict[str, Alert]
) -> list[tuple[bool, str]]:
    tasks = [_tell(invocation, settings, name, alert) for name, alert in chosen.items()]
    return await asyncio.gather(*tasks)


async def _tell(
    invocation: Invocation, settings: Settings, name: str, alert: Alert
) -> tuple[bool, str]:
    who = f"{name} ({target_words(alert)})"
    problem = problem_of(alert, settings)
    if problem is not None:
        return False, f"{who}: {problem}"
    incident = Incident(
        incident_id="",
        rule="test",
        key="",
        summary="this is a test: alerts reach you",
        remedy="nothing; somebody ran relaygw alerts test",
        since_ms=clock_ms(),
    )
    notice = Notice(incident, host=settings.hostname, link=settings.web.url)
    channel = open_channel(alert, settings, in_trouble=lambda: _in_trouble(invocation))
    try:
        return True, f"{who}: {await channel.send(notice)}"
    except NotSent as error:
        return False, f"{who}: {error}"


def _in_trouble(invocation: Invocation) -> Collection[str]:
    try:
        with invocation.open_store() as store:
            return providers_in_trouble(store)
    except RelaygwError:
        return frozenset()
