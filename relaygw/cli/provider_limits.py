"""Lines about how near providers are to their limits: quotas used, and why one is slowed."""

from __future__ import annotations

from collections.abc import Iterator

from relaygw.cli.text import counted, labelled, moment
from relaygw.operations.provider_usage import Usage


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
