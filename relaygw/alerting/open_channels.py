"""The channels of a configuration, opened."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from functools import partial

from relaygw.alerting.notice import NOT_INSTALLED, Channel
from relaygw.alerting.notifier import Notifier, Receiver
from relaygw.errors import StoreUnavailable
from relaygw.settings.alerts import Alert, channel_name, shown_command
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.store.store import Store


def open_notifier(settings: Settings, store: Store, note: Callable[[str], None]) -> Notifier:
    """Return the notifier of the configured channels; the log says who cannot be told, and why."""
    receivers = []
    for number, alert in enumerate(settings.alerts):
        name = channel_name(alert, number)
        problem = problem_of(alert, settings)
        if problem is not None:
            note(f"warning: alerts are not sent to {name}: {problem}")
            continue
        channel = open_channel(alert, settings, in_trouble=partial(providers_in_trouble, store))
        receivers.append(Receiver(name, channel, frozenset(rule.value for rule in alert.on)))
    return Notifier(settings, receivers, store, note)


def providers_in_trouble(store: Store) -> Collection[str]:
    """Return the providers that are down or held, none when nobody knows."""
    try:
        return {hold.provider for hold in store.holds.in_force()}
    except StoreUnavailable:
        return frozenset()


def problem_of(alert: Alert, settings: Settings) -> str | None:
    """Return why a channel can tell nobody as things are, None if it may."""
    if alert.email is not None and settings.mode is Mode.SANDBOX:
        return "mode sandbox sends no mail"
    if alert.apprise is not None:
        return None if importlib.util.find_spec("apprise") else NOT_INSTALLED
    return None


def open_channel(
    alert: Alert, settings: Settings, *, in_trouble: Callable[[], Collection[str]]
) -> Channel:
    """Return the channel of one entry of `alerts`."""
    if alert.email is not None and alert.sender is not None:
        from relaygw.alerting.channels import Email

        return Email(alert.email, alert.sender, alert.providers, settings, in_trouble)
    from relaygw.alerting.channels import Apprise, Command, Webhook

    if alert.webhook is not None:
        return Webhook(alert.webhook, alert.shape)
    if alert.command is not None:
        return Command(alert.command)
    assert alert.apprise is not None
    return Apprise(alert.apprise)


def target_words(alert: Alert) -> str:
    """Return where a channel leads, without what is secret."""
    if alert.command is not None:
        return f"command {' '.join(shown_command(alert.command))}"
    return f"{alert.kind} {getattr(alert, alert.kind)}"
