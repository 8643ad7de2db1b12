"""The end of the story so far: how what is not finished stands, and when it is tried again."""

from __future__ import annotations

from dataclasses import dataclass

from relaygw.mail.attempt import AttemptState
from relaygw.mail.outcome import Meaning
from relaygw.mail.state import DeliveryState
from relaygw.operations.story.facts import Facts
from relaygw.operations.story.meanings import Meanings
from relaygw.operations.story.obstacles import Obstacle, obstacles
from relaygw.operations.story.pace import pace_notes
from relaygw.operations.story.reasons import held_advice, held_words
from relaygw.operations.story.words import seen_from, span_words
from relaygw.policy.retry import DOUBT_LADDER_S, LEAST_TRIES, given_up_at_ms
from relaygw.policy.story import Advice, Note, Outlook
from relaygw.settings.units import format_duration
from relaygw.store.attempts import tried_since_ms
from relaygw.store.protocol import DeliveryEntry

_SOON = Advice("Nothing: that takes seconds unless much waits.")
_STALE_MS = 20_000
"""A heartbeat of this age: others may take over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """An outlook, and what to do about it."""

    outlook: Outlook
    advice: tuple[Advice, ...]


def prospect(facts: Facts, part: DeliveryEntry, meanings: Meanings) -> Prospect:
    """Return how a delivery stands that is not finished."""
    match part.state:
        case DeliveryState.HELD:
            return _held(facts, part)
        case DeliveryState.ACTIVE:
            return _in_hand(facts, part)
        case _:
            return _waiting(facts, part, meanings)


def _make(
    facts: Facts,
    part: DeliveryEntry,
    text: str,
    advice: list[Advice],
    *,
    notes: tuple[Note, ...] = (),
    next_at_ms: int | None = None,
) -> Prospect:
    outlook = Outlook(
        delivery_no=part.delivery_no,
        route=part.route,
        stream=part.stream,
        state=part.state.value,
        recipients=tuple(one.address for one in facts.waiting(part)),
        text=text,
        next_at_ms=next_at_ms,
        notes=notes,
    )
    return Prospect(outlook=outlook, advice=tuple(advice))


def _held(facts: Facts, part: DeliveryEntry) -> Prospect:
    reason = part.reason or ""
    since_ms = facts.circumstances(part).held_at_ms
    notes = () if since_ms is None else (Note("since", seen_from(since_ms, facts.now_ms)),)
    entry = facts.entry
    advice = held_advice(reason, entry.queue_id, entry.message_id, part.provider)
    return _make(facts, part, f"it is held: {held_words(reason)}", advice, notes=notes)


def _in_hand(facts: Facts, part: DeliveryEntry) -> Prospect:
    lease = facts.circumstances(part).lease
    owner = next((one for one in facts.instances if one.incarnation == lease), None)
    if owner is None:
        text = "the worker that had it in hand is gone; another one takes it over"
        return _make(facts, part, text, [Advice("Nothing: that takes seconds.")])
    silent_ms = facts.now_ms - owner.heartbeat_at_ms
    if silent_ms >= _STALE_MS:
        text = (
            f"the worker on {owner.name} that has it in hand is silent for "
            f"{span_words(silent_ms)}; another one takes it over"
        )
        advice = Advice("Look at that machine; what runs is told by:", "relaygw status")
        return _make(facts, part, text, [advice])
    text = f"a worker on {owner.name} has it in hand and sends it now or in a moment"
    return _make(facts, part, text, [Advice("Nothing: ask again in a moment.")])


def _waiting(facts: Facts, part: DeliveryEntry, meanings: Meanings) -> Prospect:
    in_the_way = obstacles(facts, part)
    if in_the_way:
        return _make(
            facts,
            part,
            " and ".join(one.text for one in in_the_way),
            [one.advice for one in in_the_way],
            notes=tuple(note for one in in_the_way for note in one.notes),
            next_at_ms=_after(part, in_the_way, facts.now_ms),
        )
    if part.due_at_ms > facts.now_ms:
        return _with_timer(facts, part, meanings)
    is_first = part.state is DeliveryState.INCOMING
    which = "waits for its first try, which comes" if is_first else "is due and is tried"
    text = f"it {which} as soon as a connection is free"
    notes = tuple(pace_notes(facts, part))
    return _make(facts, part, text, [_SOON], notes=notes, next_at_ms=part.due_at_ms)


def _after(part: DeliveryEntry, in_the_way: list[Obstacle], now_ms: int) -> int | None:
    """Return when a delivery may go at the earliest, None when nobody knows."""
    ends_ms = [one.ends_at_ms for one in in_the_way if one.ends_at_ms is not None]
    first_ms = max(part.due_at_ms, min(ends_ms, default=0))
    return first_ms if ends_ms or first_ms > now_ms else None


def _with_timer(facts: Facts, part: DeliveryEntry, meanings: Meanings) -> Prospect:
    last = facts.last_attempt(part)
    retry = Advice("Wait, or try it now:", f"relaygw queue retry --id {facts.entry.queue_id}")
    notes: tuple[Note, ...] = ()
    match AttemptState.DEFERRED if last is None else last.state:
        case AttemptState.IN_DOUBT:
            text, advice = _doubt_words(part), [Advice("Nothing yet; it may arrive twice.")]
        case AttemptState.THROTTLED:
            text = f"{part.provider} asked to slow down, so it waits its turn at the slower pace"
            advice = [Advice("Nothing: relaygw keeps to the pace by itself.")]
            notes = tuple(pace_notes(facts, part))
        case AttemptState.HELD:
            text = f"{part.provider} did not take it, but is not held any more: it is tried again"
            advice = [retry]
        case _:
            meaning = None if last is None else meanings.of(last)
            text = _wait_words(facts, part, meaning)
            remedy = meaning.remedy if meaning is not None else ""
            advice = [Advice(remedy), retry] if remedy else [retry]
            notes = (_lifetime_note(facts, part),)
    return _make(facts, part, text, advice, notes=notes, next_at_ms=part.due_at_ms)


def _doubt_words(part: DeliveryEntry) -> str:
    waits = " and ".join(span_words(int(wait_s * 1000)) for wait_s in DOUBT_LADDER_S)
    return (
        f"{part.provider} may have taken it: it is tried again {waits} after, by that provider "
        "alone, then held"
    )


def _wait_words(facts: Facts, part: DeliveryEntry, meaning: Meaning | None) -> str:
    """Return why the wait is as long as it is."""
    if (part.reason or "").startswith("waits for provider"):
        return f"it {part.reason}, which is in trouble"
    number = f"it waits for try {part.attempts + 1}"
    if meaning is not None and meaning.wait_s:
        *first, last = map(format_duration, meaning.wait_s)
        ladder = ", ".join([*first, f"{last} again and again" if first else f"{last} each time"])
        return f"{number}; after such a reply the wait is {ladder}"
    retry = facts.settings.retry
    return (
        f"{number}; waits begin with {format_duration(retry.first)} and grow to "
        f"{format_duration(retry.max)} at most"
    )


def _lifetime_note(facts: Facts, part: DeliveryEntry) -> Note:
    held_ms = facts.circumstances(part).held_ms
    since_ms = tried_since_ms(facts.record.attempts, part.delivery_no)
    until_ms = given_up_at_ms(
        facts.entry.accepted_at_ms, held_ms, facts.settings.retry, tried_since_ms=since_ms
    )
    text = seen_from(until_ms, facts.now_ms)
    if part.attempts + 1 < LEAST_TRIES:
        text += f", after {LEAST_TRIES} tries at least"
    return Note("given up", text)
