"""What a story tells of doubts: whether mail was sent twice, or may be."""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.mail.outcome import AttemptState, Stage
from relaygw.mail.words import span
from relaygw.operations.story.facts import Facts
from relaygw.policy.retry import DOUBT_LADDER_S, key_until_ms
from relaygw.store.queue_entry import AttemptEntry, DeliveryEntry, RecipientEntry

MAYBE_TAKEN = frozenset({AttemptState.IN_DOUBT, AttemptState.INTERRUPTED})
_TWICE = " It may have arrived more than once."
_ONE_KEY = " {} was given the same idempotency key each time, and sends one message for it."
_REPEATED = (_TWICE, _ONE_KEY, "")


def repeated(facts: Facts, taken: Sequence[RecipientEntry]) -> str:
    """Return what is to be said of mail that was sent again after a doubt, "" of what was not."""
    said = min((_repeated(facts, one) for one in taken), key=_REPEATED.index)
    return said.format(taken[0].provider)


def tried_again(facts: Facts, part: DeliveryEntry) -> tuple[str, str]:
    """Return how mail in doubt is tried again, and what to do about it."""
    mine = [one for one in facts.tries if one.delivery_no == part.delivery_no]
    doubts = [one for one in mine if one.state in MAYBE_TAKEN]
    who = part.provider
    if _is_known_by_key(facts, doubts, who, part.due_at_ms):
        then = f"it is tried again with the same idempotency key, only through {who}"
        return then, f"Nothing: {who} sends one message for each key."
    waits = " and ".join(span(int(wait_s * 1000)) for wait_s in DOUBT_LADDER_S)
    then = f"it is tried again {waits} after, only through {who}, then held"
    return then, "Nothing yet; it may arrive twice."


def _repeated(facts: Facts, one: RecipientEntry) -> str:
    mine = facts.attempts_on(one)
    doubts = [attempt for attempt in mine if attempt.state in MAYBE_TAKEN]
    is_settled = any(  # by an event: nothing was sent for that
        attempt.state is AttemptState.DELIVERED and attempt.stage == Stage.LOCAL for attempt in mine
    )
    if not doubts or (is_settled and sum(attempt.times for attempt in doubts) == 1):
        return ""
    is_known = _is_known_by_key(facts, doubts, one.provider, one.changed_at_ms)
    return _ONE_KEY if is_known else _TWICE


def _is_known_by_key(
    facts: Facts, doubts: Sequence[AttemptEntry], name: str | None, at_ms: int
) -> bool:
    """True when a provider takes a try at that time for the first one, by the present settings."""
    provider = facts.settings.providers.get(name or "")
    key = provider.key_header if provider is not None else None
    if key is None or not doubts or any(one.provider != name for one in doubts):
        return False
    first_ms = min(one.since_ms for one in doubts)
    # a release of what is held has another key
    is_one = not any(action.at_ms > first_ms for action in facts.record.actions)
    return is_one and at_ms < key_until_ms(first_ms, key.life_s)
