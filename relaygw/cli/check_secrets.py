"""Secrets that `relaygw check` cannot read."""

from __future__ import annotations

from collections.abc import Iterator

from relaygw.errors import SettingsError
from relaygw.settings.model import Settings
from relaygw.settings.secrets import SecretRef


def unreadable_secrets(settings: Settings) -> Iterator[str]:
    """Yield secrets that cannot be read here; commands are not run for a check."""
    for key, secret in _secrets(settings):
        yield from unreadable(key, secret)
    yield from _webhooks_unread(settings)


def unreadable(key: str, secret: SecretRef | None) -> Iterator[str]:
    """Yield why a secret cannot be read here, if it cannot."""
    if secret is None or secret.kind == "command":
        return
    try:
        secret.read()
    except SettingsError as error:
        yield f"{key}: {error}"


def _webhooks_unread(settings: Settings) -> Iterator[str]:
    for number, webhook in enumerate(settings.webhooks):
        url = webhook.url.reference
        for key, secret, read in (
            ("url", url, webhook.read_url),
            ("secret", webhook.secret, webhook.read_keys),
        ):
            try:
                if secret.kind != "command":
                    read()
            except SettingsError as error:
                yield f"webhooks.{number}.{key}: {error}"


def _secrets(settings: Settings) -> Iterator[tuple[str, SecretRef | None]]:
    has_public_events = settings.events.bind is not None and not settings.events.bind.is_loopback
    for name, provider in settings.providers.items():
        yield f"providers.{name}.password", provider.password
        if provider.events is not None and not has_public_events:  # else they are problems
            yield f"providers.{name}.events.secret", provider.events.secret
        if provider.oauth is not None:
            yield f"providers.{name}.oauth.client_secret", provider.oauth.client_secret
            yield f"providers.{name}.oauth.refresh_token", provider.oauth.refresh_token
    for number, alert in enumerate(settings.alerts):
        yield f"alerts.{number}.apprise", alert.apprise
        yield f"alerts.{number}.webhook", alert.webhook.reference if alert.webhook else None
    for token in settings.web.tokens:
        yield f"web.tokens.{token.name}", token.token
