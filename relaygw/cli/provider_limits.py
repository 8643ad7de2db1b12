"""How near providers are to their limits: the quota used, and what they taught by refusing.

The pace and the connections of now are computed as the delivery worker does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relaygw.cli.text import counted, labelled, moment, rfc3339
from relaygw.store.protocol import Account, Store

if TYPE_CHECKING:
    from relaygw.settings.provider import Provider

_FREE_AT = 2.0
"""A provider without a `rate` is slowed until its pace is so many times what it refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one provider may get now, and why it is less than its settings say."""

    settings: Provider
    account: Account  # what it taught
    quota_used: int  # in the last 24 hours, by all providers of its account
    rate_per_s: float | None  # its pace now; None: as fast as it answers
    connections: int  # at most so many now

    @property
    def is_slower(self) -> bool:
        """True while its pace is held down by what it taught."""
        ceiling_per_s = self.account.ceiling_per_s
        if ceiling_per_s is None or self.rate_per_s is None:
            return False
        rate = self.settings.rate
        return self.rate_per_s < (rate.per_s if rate else ceiling_per_s * _FREE_AT)

    @property
    def is_narrower(self) -> bool:
        """True while it gets fewer connections than its settings say."""
        return self.connections < self.settings.max_connections

    @property
    def is_slowed(self) -> bool:
        """True while it gets less than its settings say, because of what it taught."""
        return self.is_slower or self.is_narrower


def read_usages(store: Store, providers: Mapping[str, Provider]) -> dict[str, Usage]:
    """Ask the store for what was used and taught; by the provider's name."""
    from relaygw.delivery.gate import Gate

    accounts = store.accounts()
    usages = {}
    for name, settings in providers.items():
        gate = Gate(provider=name, settings=settings)
        gate.account = accounts.get(gate.limit_group, gate.account)
        has_quota = settings.daily_quota is not None
        usages[name] = Usage(
            settings=settings,
            account=gate.account,
            quota_used=store.quota_used(gate.limit_group) if has_quota else 0,
            rate_per_s=gate.rate_per_s(),
            connections=gate.max_connections(),
        )
    return usages


def quota_line(name: str, usage: Usage) -> str:
    """Return how much of the quota is used; for providers that have one."""
    settings = usage.settings
    account = f" by account {settings.account}" if settings.account else ""
    used = f"{usage.quota_used} of {settings.daily_quota} {settings.quota_counts}"
    return labelled("quota", f"{name}: {used} used{account} in the last 24 hours")


def slowed_lines(name: str, usage: Usage, now_ms: int) -> Iterator[str]:
    """Yield why a provider gets less than its settings say, if it does."""
    taught = usage.account
    if usage.is_slower:
        what = " recipients" if usage.settings.rate_counts == "recipients" else ""
        when = moment(taught.ceiling_at_ms, now_ms)
        why = f"it asked for less at about {taught.ceiling_per_s:.3g}/s, {when}"
        yield labelled("slowed", f"{name} to {usage.rate_per_s:.3g}/s{what}: {why}")
    if usage.is_narrower:
        when = moment(taught.connections_at_ms, now_ms)
        why = f"it refused more than {taught.ceiling_connections}, {when}"
        yield labelled("slowed", f"{name} to {counted(usage.connections, 'connection')}: {why}")


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return the form of `--json`."""
    taught = usage.account
    has_quota = usage.settings.daily_quota is not None
    return {
        "quota_used": usage.quota_used if has_quota else None,
        "is_slowed": usage.is_slowed,
        "rate_now_per_s": _rounded(usage.rate_per_s) if usage.is_slower else None,
        "connections_now": usage.connections,
        "learned": {
            "rate_per_s": _rounded(taught.ceiling_per_s),
            "rate_at": rfc3339(taught.ceiling_at_ms) if taught.ceiling_at_ms else None,
            "connections": taught.ceiling_connections,
            "connections_at": (
                rfc3339(taught.connections_at_ms) if taught.connections_at_ms else None
            ),
        },
    }


def _rounded(per_s: float | None) -> float | None:
    return None if per_s is None else round(per_s, 3)
