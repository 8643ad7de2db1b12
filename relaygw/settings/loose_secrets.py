"""Secrets whose file is open to others, told at the key that the user wrote."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from relaygw.settings.explain import line_for
from relaygw.settings.permissions import loose_permissions
from relaygw.settings.secrets import SecretRef
from relaygw.settings.tree import Keys, Tree

if TYPE_CHECKING:
    from relaygw.settings.model import Settings


def loose_secrets(settings: Settings, tree: Tree, *, owners: Collection[int]) -> list[str]:
    """Return one line for each secret that everyone may read or that another one owns."""
    problems = []
    for keys, secret in _secrets(settings):
        place = tree.place_of(keys)
        if secret.kind == "file":
            problem = loose_permissions(Path(secret.target), owners=owners)
        elif secret.kind == "plain" and place and place.file:
            problem = loose_permissions(place.file)
        else:
            continue
        if problem:
            problems.append(line_for(keys, f"{secret}: {problem}", tree))
    return problems


def _secrets(settings: Settings) -> Iterator[tuple[Keys, SecretRef]]:
    """Yield every secret where the user wrote it."""
    if settings.queue.password is not None:
        yield ("queue", "password"), settings.queue.password
    for number, relay in enumerate(settings.relay_to):
        if relay.password is not None:
            yield ("relay_to", number, "password"), relay.password
    made = {relay.name for relay in settings.relay_to}
    for name, provider in settings.providers.items():
        if provider.password is not None and name not in made:
            yield ("providers", name, "password"), provider.password
        for key in ("client_secret", "refresh_token"):
            secret = getattr(provider.oauth, key, None)
            if secret is not None:
                yield ("providers", name, "oauth", key), secret
    yield from _secrets_of_alerts(settings)
    for number, token in enumerate(settings.web.tokens):
        yield ("web", "tokens", number, "token"), token.token


def _secrets_of_alerts(settings: Settings) -> Iterator[tuple[Keys, SecretRef]]:
    for number, alert in enumerate(settings.alerts):
        if alert.apprise is not None:
            yield ("alerts", number, "apprise"), alert.apprise
        if alert.webhook is not None and alert.webhook.host is None:  # else written as it is
            yield ("alerts", number, "webhook"), alert.webhook.reference
