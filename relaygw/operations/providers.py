"""Providers: which holds stop them, and how near they are to their limits.

The pace and the connections of now are computed as the delivery worker does.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from relaygw.mail.clock import rfc3339, rfc3339_or_none
from relaygw.mail.outcome import Scope
from relaygw.mail.state import DeliveryState
from relaygw.mail.words import fields, printable, span
from relaygw.observe.history import SLICE_S, Series
from relaygw.policy.pacing import allowed_per_s, connections
from relaygw.policy.router import providers_of
from relaygw.policy.untended import longest_in_hand_s
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.settings.section import Rate
from relaygw.store.holds import PAUSED, STOPS, UNREACHABLE, Hold
from relaygw.store.limits import Account
from relaygw.store.queue import LaneCount
from relaygw.store.store import Store

_WORDS = {UNREACHABLE: "down", PAUSED: "paused", Scope.SENDER_DOMAIN.value: "partly held"}
_LONG_S = 10.0  # what takes longer is shown
_PUT_OFF_MESSAGES = 3  # with no mail taken meanwhile: fewer say more of the mail than of a provider
_MOST_TRIES = 100  # the latest, that are looked at
_FREE_AT = 2.0
"""A provider without a `rate` is slowed until its pace is so many times what it refused."""


def holds_of(holds: Iterable[Hold], provider: str) -> list[Hold]:
    """Return the holds that concern a provider."""
    return [
        hold
        for hold in holds
        if (hold.scope in STOPS and hold.key == provider)
        or (hold.scope == Scope.SENDER_DOMAIN and hold.provider == provider)
    ]


def next_probe_ms(mine: Iterable[Hold]) -> int | None:
    """Return when a provider of which nothing is sent is tried next; None: it is not stopped.

    None, too, while only an operator ends that. A time that has passed: the next mail is a probe.
    """
    probes_ms = [hold.probe_at_ms for hold in mine if hold.scope in STOPS]
    known_ms = [at_ms for at_ms in probes_ms if at_ms is not None]
    return max(known_ms) if known_ms and len(known_ms) == len(probes_ms) else None


def obeyed(holds: Iterable[Hold], providers: Container[str]) -> list[Hold]:
    """Return the holds of providers that are configured: others stop nothing, nobody probes them.

    They are obeyed again when their provider is back in the configuration.
    """
    return [hold for hold in holds if hold.provider in providers]


# --- how near they are to their limits ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutOff:
    """Mail that a provider has put off lately, while it took none."""

    messages: int  # at least
    reply: str  # the one that most of them got


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one provider may get now, and why it is less than its settings say."""

    settings: Provider
    account: Account  # what it taught
    quota_used: int  # in the last 24 hours, by all providers of its account
    rate_per_s: float | None  # its pace now; None: as fast as it answers
    connections: int  # the current limit
    waiting: int = 0  # what waits for it, in the measure of its rate
    doubts: int = 0  # open deliveries that it may have taken already
    in_hand_since_ms: int | None = None  # workers have something for it, the first since then
    put_off: PutOff | None = None
    at_ms: int = 0  # of all this

    @property
    def behind_s(self) -> float:
        """How long what waits for it takes by its rate, at most; 0 without a rate."""
        return 0.0 if self.rate_per_s is None else self.waiting / self.rate_per_s

    @property
    def is_behind(self) -> bool:
        """True when mail waits for its rate, and not just for a moment."""
        return self.behind_s > _LONG_S

    @property
    def in_hand_s(self) -> float:
        """For how long the first of what workers have in hand waits for a connection or answer.

        0 where nothing does, or where it waits for its turn at a rate.
        """
        if self.in_hand_since_ms is None or self.is_behind:
            return 0.0
        return max(0.0, (self.at_ms - self.in_hand_since_ms) / 1000)

    @property
    def is_busy(self) -> bool:
        """True when mail in hand waits for a connection or an answer, and not for a moment."""
        return self.in_hand_s > _LONG_S

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


def read_usages(
    store: Store, settings: Settings, holds: Iterable[Hold], lanes: Iterable[LaneCount]
) -> dict[str, Usage]:
    """Ask the store for what was used and taught; by the provider's name.

    With the holds in force and what is queued it knows what waits for which provider.
    """
    accounts, now_s, usages = store.limits.accounts(), time.time(), {}
    waiting: Counter[str] = Counter()
    in_hand_ms: dict[str, int] = {}
    for name, lane in _taken_by(settings, holds, lanes):
        is_by_recipient = settings.providers[name].rate_is_of == "recipients"
        waiting[name] += lane.recipients if is_by_recipient else lane.deliveries
        if lane.state is DeliveryState.ACTIVE:
            since_ms = lane.oldest_changed_at_ms
            in_hand_ms[name] = min(in_hand_ms.get(name, since_ms), since_ms)
    doubts, put_off = store.watch.doubtful(), _read_put_off(store, int(now_s * 1000))
    for name, provider in settings.providers.items():
        limit_group, most = provider.account or name, provider.max_connections
        account = accounts.get(limit_group, Account())
        if account.ceiling_connections is not None:
            since_s = now_s - account.connections_at_ms / 1000
            most = connections(account.ceiling_connections, since_s, most)
        rate, since_s = provider.rate, now_s - account.ceiling_at_ms / 1000
        usages[name] = Usage(
            settings=provider,
            account=account,
            quota_used=0 if provider.daily_quota is None else store.limits.quota_used(limit_group),
            rate_per_s=allowed_per_s(rate.per_s if rate else None, account.ceiling_per_s, since_s),
            connections=most,
            waiting=waiting[name],
            doubts=doubts.get(name, 0),
            in_hand_since_ms=in_hand_ms.get(name),
            put_off=put_off.get(name),
            at_ms=int(now_s * 1000),
        )
    return usages


def _read_put_off(store: Store, now_ms: int) -> dict[str, PutOff]:
    """Ask the store for the mail that providers put off lately, by those that took none at all."""
    since_ms = now_ms - SLICE_S * 1000
    since_ms -= since_ms % (SLICE_S * 1000)
    counted = store.watch.sums(since_ms, step_ms=2**50, series=[Series.DELIVERED, Series.DEFERRED])
    taking = {name for _, series, name, _ in counted if series == Series.DELIVERED}
    if not {name for _, _, name, _ in counted} - taking:
        return {}
    failures = store.queue.failures(since_ms, step_ms=2**50, limit=_MOST_TRIES).put_off
    tries = defaultdict(list)
    for failure in failures:
        if failure.provider not in taking:
            tries[failure.provider].append(failure)
    return {
        name: PutOff(number, Counter(failure.reply for failure in mine).most_common(1)[0][0])
        for name, mine in tries.items()
        if (number := len({failure.queue_id for failure in mine})) >= _PUT_OFF_MESSAGES
    }


def _taken_by(
    settings: Settings, holds: Iterable[Hold], lanes: Iterable[LaneCount]
) -> Iterator[tuple[str, LaneCount]]:
    """Yield what waits for its first try with the provider that takes it as things are."""
    stopped = {hold.key for hold in holds if hold.scope in STOPS}
    for lane in lanes:
        free = [name for name in providers_of(settings, lane.route) if name not in stopped]
        if free and lane.state in (DeliveryState.INCOMING, DeliveryState.ACTIVE):
            yield free[0], lane


def rate_words(per_s: float | None) -> str:
    """Return a rate in the unit that reads well; None is no limit."""
    return "as fast as it answers" if per_s is None else str(Rate.readable(per_s))


def turn_words(name: str, usage: Usage) -> str:
    """Return why mail waits that nothing else stops, and until when at the latest."""
    last = span(int(usage.behind_s * 1000))
    pace = rate_words(usage.rate_per_s)
    return f"{usage.waiting} wait for {name} at {pace}, the last for {last}"


def busy_words(name: str, usage: Usage) -> str:
    """Return for how long mail in hand waits for an answer, and until when at the latest."""
    took_ms = int(usage.in_hand_s * 1000)
    left_ms = max(0, int(longest_in_hand_s(usage.settings, 1) * 1000) - took_ms)
    return (
        f"workers wait for a connection or an answer of {name}, the first of them for "
        f"{span(took_ms)}; its time limits end that within {span(left_ms)}"
    )


def put_off_words(name: str, put_off: PutOff) -> str:
    """Say how a provider answers all mail, and what to do about it."""
    return (
        f"{name} has taken none of its last {put_off.messages} messages: "
        f"{printable(put_off.reply)}; if that is not the recipients' doing, relaygw provider hold "
        f"{name} and relaygw queue flush send by the next provider of the route"
    )


def state_of(mine: Iterable[Hold], usage: Usage) -> str:
    """Return the state in a word.

    `held`, `down`, `paused`, `partly held` (only mail of some senders waits), `deferring` (it puts
    all mail off), `busy`, `slowed` or `ok`.
    """
    scopes = {hold.scope for hold in mine}
    if scopes & {Scope.PROVIDER.value, Scope.CREDENTIAL.value}:
        return "held"
    for scope, word in _WORDS.items():
        if scope in scopes:
            return word
    if usage.put_off is not None:
        return "deferring"
    if usage.is_busy:
        return "busy"
    return "slowed" if usage.is_slowed else "ok"


# --- the forms of JSON --------------------------------------------------------------------

_SHOWN = {
    *("preset", "host", "port", "tls", "account", "max_connections", "rate"),
    *("rate_counts", "daily_quota", "quota_counts", "senders"),
}


def provider_object(name: str, usage: Usage, mine: Iterable[Hold]) -> dict[str, Any]:
    """Return a provider with its settings, its state, its limits and its holds."""
    held = list(mine)
    return {
        "name": name,
        "state": state_of(held, usage),
        "holds": [hold_object(hold) for hold in held],
        **usage.settings.model_dump(mode="json", include=_SHOWN),
        **usage_object(usage),
    }


def hold_object(hold: Hold) -> dict[str, Any]:
    """Return a hold."""
    return {
        **fields(hold, "scope", "key", "reason", "remedy"),
        "since": rfc3339(hold.since_ms),
        "probe_at": rfc3339_or_none(hold.probe_at_ms),
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return the share of its limits that a provider may get now."""
    taught = usage.account
    return {
        "quota_used": None if usage.settings.daily_quota is None else usage.quota_used,
        "is_slowed": usage.is_slowed,
        "rate_now_per_s": _rounded(usage.rate_per_s) if usage.is_slower else None,
        "connections_now": usage.connections,
        "waiting": usage.waiting,
        "behind_s": round(usage.behind_s, 1),
        "in_hand_s": round(usage.in_hand_s, 1),
        "in_doubt": usage.doubts,
        "learned": {
            "rate_per_s": _rounded(taught.ceiling_per_s),
            "rate_at": rfc3339_or_none(taught.ceiling_at_ms or None),
            "connections": taught.ceiling_connections,
            "connections_at": rfc3339_or_none(taught.connections_at_ms or None),
        },
    }


def _rounded(per_s: float | None) -> float | None:
    return None if per_s is None else round(per_s, 3)
