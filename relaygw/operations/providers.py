"""Providers: held by an operator, and let go again."""

from __future__ import annotations

from collections.abc import Iterable

from relaygw.mail.outcome import Scope
from relaygw.mail.state import DeliveryState
from relaygw.operations.messages import BATCH_MESSAGES
from relaygw.operations.queue import retry
from relaygw.policy.hold_reasons import parked_for, waits_for_provider, words_refused_alike
from relaygw.store.protocol import UNREACHABLE, AuditEntry, Hold, Selection, Store

_OF_THE_PROVIDER = (Scope.PROVIDER, Scope.CREDENTIAL, UNREACHABLE)


def hold_provider(store: Store, name: str, *, actor: str, now_ms: int, note: str = "") -> bool:
    """Send nothing by a provider until somebody releases it; False when it was held so before.

    Mail waits, or goes by the next provider of its route.
    """
    was_held = any(
        hold.scope == Scope.PROVIDER and hold.probe_at_ms is None
        for hold in holds_of(store.holds(), name)
    )
    hold = Hold(
        scope=Scope.PROVIDER.value,
        key=name,
        reason=f"operator: {note or actor}",
        remedy=f"run: relaygw provider release {name}",
        since_ms=now_ms,
        probe_at_ms=None,  # no probe ends it
    )
    entry = _provider_entry("hold", name, actor=actor, now_ms=now_ms, detail=note)
    store.put_hold(hold, entry=entry)
    return not was_held


def release_provider(store: Store, name: str, *, actor: str, now_ms: int) -> list[Hold]:
    """End all holds of a provider, its key and its sender domains; return those it ended.

    What waits because of them is due now: mail that was set aside for a refused sender domain,
    and what was put off when the provider refused it. Mail in doubt keeps its own time.
    """
    ended = []
    for hold in holds_of(store.holds(), name):
        detail = f"{hold.scope} {hold.key}: {hold.reason}"
        entry = _provider_entry("release", name, actor=actor, now_ms=now_ms, detail=detail)
        if store.drop_hold(hold.scope, hold.key, now_ms=now_ms, entry=entry):
            ended.append(hold)
        if hold.scope == Scope.SENDER_DOMAIN:
            _release_parked(store, name, hold.key.removeprefix(f"{name} "), now_ms)
    told = [words_refused_alike(hold.reason) or hold.reason for hold in ended]
    for reason in dict.fromkeys((*told, waits_for_provider(name))):
        if ended:
            _retry_put_off(store, name, reason, actor=actor, now_ms=now_ms)
    return ended


def _retry_put_off(store: Store, provider: str, reason: str, *, actor: str, now_ms: int) -> None:
    """Make due what waits longer with just this reason."""
    waiting = Selection(states=frozenset({DeliveryState.DEFERRED}), reason=reason)
    after = ""
    while ids := store.search_ids(waiting, limit=BATCH_MESSAGES, after=after):
        after = ids[-1]
        detail = f"provider {provider} was released"
        retry(store, ids, actor=actor, now_ms=now_ms, detail=detail)


def _release_parked(store: Store, provider: str, domain: str, now_ms: int) -> None:
    for reason in store.held_reasons():
        parked = parked_for(reason)
        if parked is None or provider not in parked[0] or parked[1] != domain:
            continue
        while store.release_held(reason, limit=BATCH_MESSAGES, now_ms=now_ms):
            pass


def holds_of(holds: Iterable[Hold], provider: str) -> list[Hold]:
    """Return the holds that concern a provider; a sender domain's key is `PROVIDER DOMAIN`."""
    return [
        hold
        for hold in holds
        if (hold.scope in _OF_THE_PROVIDER and hold.key == provider)
        or (hold.scope == Scope.SENDER_DOMAIN and hold.key.partition(" ")[0] == provider)
    ]


def _provider_entry(verb: str, name: str, *, actor: str, now_ms: int, detail: str) -> AuditEntry:
    return AuditEntry(
        at_ms=now_ms, actor=actor, action=f"provider.{verb}", target=name, affected=1, detail=detail
    )
