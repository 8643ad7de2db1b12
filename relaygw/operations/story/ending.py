"""What a message came to, in one sentence, and what is left to do when it is finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from relaygw.mail.attempt import AttemptState
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.taken_as import provider_id
from relaygw.operations.story.facts import Facts, is_deleted
from relaygw.operations.story.meanings import Meanings
from relaygw.operations.story.outlooks import Prospect
from relaygw.operations.story.words import seen_from, some_of, span_words
from relaygw.policy.story import Advice
from relaygw.store.protocol import RecipientEntry

_R = RecipientState
_MAYBE_TAKEN = frozenset({AttemptState.IN_DOUBT, AttemptState.INTERRUPTED})
TRASH_MS = 7 * 86_400_000
"""How long the trash keeps a message."""
_ORDER = (_R.DELIVERED, _R.BOUNCED, _R.EXPIRED, _R.CAPTURED, _R.BLOCKED, _R.CANCELLED, _R.PENDING)
_WORDS = {
    _R.PENDING: "waiting",
    _R.CANCELLED: "deleted by an operator",
    _R.BLOCKED: "dropped (block list)",
}


def headline(facts: Facts, prospects: Sequence[Prospect]) -> str:
    """Return the whole story in one sentence."""
    states = {one.state for one in facts.entry.recipients}
    if prospects:
        done = _counts(facts) if len(states) > 1 else ""
        texts = dict.fromkeys(one.outlook.text for one in prospects)
        return f"Not sent yet{f' to all ({done})' if done else ''}: {'; '.join(texts)}."
    if any(is_deleted(part) for part in facts.entry.deliveries):
        return "Deleted by an operator; the trash keeps it for seven days."
    if states == {_R.DELIVERED}:
        return _delivered(facts)
    if len(states) == 1:
        return _of_one_state(facts, *states)
    return f"Finished: {_counts(facts)}."


def _counts(facts: Facts) -> str:
    numbers = Counter(one.state for one in facts.entry.recipients)
    return ", ".join(
        f"{numbers[state]} {_WORDS.get(state, state.value)}" for state in _ORDER if numbers[state]
    )


def _delivered(facts: Facts) -> str:
    recipients = facts.entry.recipients
    last_ms = max(one.changed_at_ms for one in recipients)
    after = span_words(last_ms - facts.entry.accepted_at_ms)
    names = sorted({one.provider for one in recipients if one.provider})
    by = f" by {' and '.join(names)}" if names else ""
    return f"Delivered{by}, {after} after it was accepted."


def _of_one_state(facts: Facts, state: RecipientState) -> str:
    first = facts.entry.recipients[0]
    because = f": {first.reply}" if first.reply else ""
    told = f" ({first.reply})" if first.reply else ""
    match state:
        case _R.CAPTURED:
            return f"Captured in the sandbox, not sent{because}."
        case _R.BLOCKED:
            return f"Dropped, not sent{because}."
        case _R.BOUNCED:
            return f"Not delivered: refused for good by {first.provider or 'relaygw'}{told}."
        case _R.EXPIRED:
            return f"Not delivered: given up{told}."
        case _:
            return f"Finished: {_counts(facts)}."


def last_advice(facts: Facts, meanings: Meanings) -> list[Advice]:
    """Return what is left to do for a message of which nothing waits."""
    queue_id = facts.entry.queue_id
    if any(is_deleted(part) for part in facts.entry.deliveries):
        return [_from_the_trash(facts)]
    advice: list[Advice] = []
    by_state: dict[RecipientState, list[RecipientEntry]] = {}
    for one in facts.entry.recipients:
        by_state.setdefault(one.state, []).append(one)
    for state in (_R.BOUNCED, _R.EXPIRED):
        if state in by_state:
            advice += _failed(facts, meanings, by_state[state])
    if _R.CAPTURED in by_state:
        send = f"relaygw sandbox release {queue_id} --to {by_state[_R.CAPTURED][0].address}"
        advice.append(Advice("Nothing; to send it after all, to who may have it:", send))
    if _R.BLOCKED in by_state:
        who = some_of([one.address for one in by_state[_R.BLOCKED]])
        advice.append(
            Advice(f"If {who} should receive, change recipients.block and send it again.")
        )
    if not advice:
        advice.extend(_taken(facts, by_state.get(_R.DELIVERED, [])))
    return advice or [Advice("Nothing.")]


def _from_the_trash(facts: Facts) -> Advice:
    deleted_ms = max(one.changed_at_ms for one in facts.record.deliveries)
    until = seen_from(deleted_ms + TRASH_MS, facts.now_ms)
    queue_id = facts.entry.queue_id
    return Advice(
        f"Nothing, or take it out of the trash until {until}:",
        f"relaygw queue undelete --id {queue_id}",
    )


def _failed(
    facts: Facts, meanings: Meanings, members: Sequence[RecipientEntry]
) -> Iterator[Advice]:
    who = some_of([one.address for one in members])
    numbers = {one.delivery_no for one in members}
    told = [one for one in facts.record.attempts if one.delivery_no in numbers]
    remedies = dict.fromkeys(
        meaning.remedy
        for attempt in told[-1:]
        if (meaning := meanings.of(attempt)) is not None and meaning.remedy
    )
    for remedy in remedies:
        yield Advice(remedy)
    yield Advice(f"It is not tried again: correct what was refused and send a new one to {who}.")


def _taken(facts: Facts, members: Sequence[RecipientEntry]) -> Iterator[Advice]:
    is_unsure = any(one.state in _MAYBE_TAKEN for one in facts.record.attempts)
    for one in members[:1]:
        own_id = provider_id(one.reply or "")
        by_id = f" by its id {own_id}" if own_id else ""
        twice = " It may have arrived more than once." if is_unsure else ""
        yield Advice(f"Nothing.{twice} If it is missed, {one.provider} can be asked{by_id}.")


def shown_state(facts: Facts, state: DeliveryState) -> str:
    """Return the state of a message in a word."""
    is_captured = any(one.state is _R.CAPTURED for one in facts.entry.recipients)
    is_over = state is DeliveryState.FINISHED
    return "captured" if is_over and is_captured else state.value
