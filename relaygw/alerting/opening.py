"""Makes the channels that the settings name, and the watch over them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from relaygw.alerting.channels.channel import Channel
from relaygw.alerting.telling import Receiver, Teller
from relaygw.alerting.watch import Pace, Watch, keep_told, providers_in_trouble
from relaygw.settings.alerts import Alert, channel_name
from relaygw.settings.mode import Mode
from relaygw.settings.model import Settings
from relaygw.store.store import Store


def open_watch(
    settings: Settings,
    store: Store,
    *,
    incarnation: str,
    state_dir: Path,
    note: Callable[[str], None],
    unreached: Callable[[], Mapping[str, float]] = dict,
    clock_step: Callable[[], str | None] = lambda: None,
    pace: Pace | None = None,
) -> Watch:
    """Return the watch of a delivery worker."""
    receivers = []
    for number, alert in enumerate(settings.alerts):
        name = channel_name(alert, number)
        problem = problem_of(alert, settings)
        if problem is not None:
            note(f"warning: alerts are not told to {name}: {problem}")
            continue
        channel = open_channel(alert, settings, in_trouble=partial(providers_in_trouble, store))
        receivers.append(Receiver(name, channel, frozenset(rule.value for rule in alert.on)))
    return Watch(
        settings,
        store,
        incarnation=incarnation,
        state_dir=state_dir,
        teller=Teller(settings, receivers, partial(keep_told, store), note),
        note=note,
        unreached=unreached,
        clock_step=clock_step,
        pace=pace,
    )


def problem_of(alert: Alert, settings: Settings) -> str | None:
    """Return why a channel can tell nobody as things are, None if it may."""
    if alert.email is not None and settings.mode is Mode.SANDBOX:
        return "mode sandbox sends no mail"
    if alert.apprise is not None:
        from relaygw.alerting.channels.apprise import NOT_INSTALLED, is_installed

        return None if is_installed() else NOT_INSTALLED
    return None


def open_channel(
    alert: Alert, settings: Settings, *, in_trouble: Callable[[], Collection[str]]
) -> Channel:
    """Return the channel of one entry of `alerts`."""
    if alert.webhook is not None:
        from relaygw.alerting.channels.webhook import Webhook

        return Webhook(alert.webhook, shape=alert.shape)
    if alert.command is not None:
        from relaygw.alerting.channels.command import Command

        return Command(alert.command)
    if alert.apprise is not None:
        from relaygw.alerting.channels.apprise import Apprise

        return Apprise(alert.apprise)
    from relaygw.alerting.channels.email import Email

    assert alert.email is not None
    assert alert.sender is not None
    return Email(
        alert.email,
        sender=alert.sender,
        providers=alert.providers,
        settings=settings,
        in_trouble=in_trouble,
    )


def target_words(alert: Alert) -> str:
    """Return where a channel leads, without what is secret."""
    if alert.command is not None:
        more = " ***" if len(alert.command) > 1 else ""
        return f"command {alert.command[0]}{more}"
    return f"{alert.kind} {getattr(alert, alert.kind)}"
