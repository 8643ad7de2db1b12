"""What the settings ask of the store; all instances of a queue ask the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from relaygw.mail.suppression import OFF, SuppressionRules


@dataclass(frozen=True, slots=True)
class WebhookRule:
    """A receiver of webhooks, by its id, and what it is told of: see mail.verdict."""

    endpoint: str
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRules:
    """What is kept, and what is written beside outcomes and verdicts in the same transaction."""

    keep_content: bool = False  # that of finished mail stays for a while
    webhooks: tuple[WebhookRule, ...] = ()  # who is told of outcomes and verdicts
    suppression: SuppressionRules = OFF
    # how long mail waits, in seconds, that such a provider may have from a worker that died: it is
    # in doubt then, as something settles that; at others it is sent again at once
    doubt_waits: Mapping[str, float] = field(default_factory=dict)
    # providers of one service by each of them: its account may report of all at one of them
    siblings: Mapping[str, frozenset[str]] = field(default_factory=dict)
    production_hosts: tuple[str, ...] = ()  # captured mail with links to them is tagged

    def siblings_of(self, provider: str) -> frozenset[str]:
        """Return the providers whose mail the events of one may be about."""
        return self.siblings.get(provider, frozenset()) | {provider}

    # of whom a sender is told by mail, beside those who asked for it by NOTIFY
    tells_failures: bool = False  # of mail whose sender did not say
    tells_always: bool = False  # of any mail: it is not the sender who is told


NO_RULES = StoreRules()
