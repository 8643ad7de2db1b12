"""The middle of the story: what each attempt to send came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from relaygw.mail.attempt import REPEATED, AttemptState
from relaygw.mail.outcome import Meaning, Scope, Stage
from relaygw.mail.state import RecipientState
from relaygw.mail.taken_as import provider_id
from relaygw.operations.story.door import is_blocked_at_door
from relaygw.operations.story.facts import Facts
from relaygw.operations.story.meanings import Meanings, meaning_notes, reply_of
from relaygw.operations.story.reasons import held_words
from relaygw.operations.story.words import is_before_mail, some_of, span_words, stage_words
from relaygw.policy.story import EventKind, Note, StoryEvent
from relaygw.store.attempts import AttemptEntry
from relaygw.store.protocol import DeliveryEntry, RecipientEntry

_FEW = 3
"""More attempts in a row than these are one event when they were told the same."""
_REFUSALS = {
    Scope.CREDENTIAL: "refused the login",
    Scope.SENDER_DOMAIN: "refused the sender",
}
_TEXTS = {
    AttemptState.DELIVERED: "delivered: {} took it",
    AttemptState.THROTTLED: "throttled: {} asks to slow down",
    AttemptState.IN_DOUBT: "in doubt: nobody knows whether {} took it",
    AttemptState.INTERRUPTED: "interrupted: the worker that was sending it by {0} died; {0} may "
    "have taken it, and it was sent again",
    AttemptState.BOUNCED: "bounced: {} refused it for good",
    AttemptState.EXPIRED: "expired: given up",
    AttemptState.BLOCKED: "dropped, not sent: on the block list",
}
_FINAL = {
    RecipientState.DELIVERED: AttemptState.DELIVERED,
    RecipientState.BOUNCED: AttemptState.BOUNCED,
    RecipientState.EXPIRED: AttemptState.EXPIRED,
    RecipientState.BLOCKED: AttemptState.BLOCKED,
}


def attempt_events(facts: Facts, meanings: Meanings) -> Iterator[StoryEvent]:
    """Yield an event for each attempt, those that left no entry included."""
    for attempt in _folded(facts.record.attempts):
        yield _event(facts, attempt, meanings.of(attempt), _audience(facts, attempt))
    for attempt, members in _untold(facts):
        yield _event(facts, attempt, meanings.of(attempt), _audience_of(facts, members))


def _folded(attempts: Sequence[AttemptEntry]) -> Iterator[AttemptEntry]:
    """Yield attempts, many in a row that were told the same as one."""
    for _, run in groupby(attempts, key=_alike):
        alike = list(run)
        if len(alike) <= _FEW:
            yield from alike
        else:
            times = sum(one.times for one in alike)
            yield replace(alike[-1], since_ms=alike[0].since_ms, times=times)


def _alike(attempt: AttemptEntry) -> tuple[object, ...]:
    a = attempt
    return a.delivery_no, a.rcpt_no, a.provider, a.relay, a.stage, a.state, a.reply


def _event(
    facts: Facts, attempt: AttemptEntry, meaning: Meaning | None, audience: str
) -> StoryEvent:
    text = _text(attempt, meaning)
    return StoryEvent(
        kind=EventKind(attempt.state.value),
        at_ms=attempt.since_ms,
        until_ms=attempt.at_ms if attempt.times > 1 else None,
        times=attempt.times,
        text=f"{text}, for {audience}" if audience else text,
        notes=tuple(_notes(attempt, meaning)),
    )


def _text(attempt: AttemptEntry, meaning: Meaning | None) -> str:
    if attempt.state is AttemptState.DEFERRED:
        return _deferred_text(attempt)
    if attempt.state is AttemptState.HELD:
        return _held_text(attempt, meaning)
    if attempt.state is AttemptState.INTERRUPTED and attempt.provider is None:
        return "interrupted: its worker is out of reach and may have sent it; it was sent again"
    return _TEXTS[attempt.state].format(attempt.provider or "relaygw")


def _held_text(attempt: AttemptEntry, meaning: Meaning | None) -> str:
    if attempt.provider is None:
        return f"held: {held_words(attempt.reply)}"
    scope = meaning.scope if meaning is not None else Scope.PROVIDER
    return f"not sent: {attempt.provider} {_REFUSALS.get(scope, 'takes nothing for now')}"


def _deferred_text(attempt: AttemptEntry) -> str:
    if attempt.provider is None:
        return "deferred by relaygw itself"
    if reply_of(attempt.reply) is not None:
        return f"deferred: {attempt.provider} said no for now"
    if is_before_mail(Stage(attempt.stage)):
        return f"deferred: {attempt.provider} could not be reached"
    return f"deferred: {attempt.provider} did not answer"


def _notes(attempt: AttemptEntry, meaning: Meaning | None) -> Iterator[Note]:
    if attempt.relay is not None:
        yield Note("relay", attempt.relay)
    if attempt.reply and attempt.state is not AttemptState.INTERRUPTED:
        status = f" [{attempt.dsn}]" if attempt.dsn and attempt.dsn not in attempt.reply else ""
        has_stage = attempt.provider is not None and attempt.stage != Stage.LOCAL
        stage = f", {stage_words(Stage(attempt.stage))}" if has_stage else ""
        yield Note("said", f"{attempt.reply}{status}{stage}")
    if attempt.state is AttemptState.DELIVERED:
        own_id = provider_id(attempt.reply)
        if own_id is not None:
            yield Note("its id", f"{own_id}, which {attempt.provider}'s own log and support know")
        return
    yield from meaning_notes(meaning)
    if attempt.state in REPEATED and attempt.provider is not None:
        yield Note("count", "not counted as a try")
    if attempt.next_at_ms is not None:
        wait_ms = attempt.next_at_ms - attempt.at_ms
        yield Note("then", f"to wait {span_words(wait_ms)}")


def _audience(facts: Facts, attempt: AttemptEntry) -> str:
    """Return whom an attempt was for, "" when for everybody."""
    if attempt.rcpt_no is not None:
        return some_of(
            [one.address for one in facts.entry.recipients if one.rcpt_no == attempt.rcpt_no]
        )
    if len(facts.entry.deliveries) == 1:
        return ""
    part = _part(facts, attempt.delivery_no)
    return f"route {part.route}" if part is not None else ""


def _audience_of(facts: Facts, members: list[RecipientEntry]) -> str:
    if len(members) == len(facts.entry.recipients):
        return ""
    return some_of([one.address for one in members])


def _part(facts: Facts, delivery_no: int) -> DeliveryEntry | None:
    return next((one for one in facts.entry.deliveries if one.delivery_no == delivery_no), None)


# --- what left no entry: first tries that were taken, and tries of an earlier version -------


def _untold(facts: Facts) -> Iterator[tuple[AttemptEntry, list[RecipientEntry]]]:
    groups: dict[tuple[object, ...], list[RecipientEntry]] = {}
    for one in facts.entry.recipients:
        if _is_untold(facts, one):
            key = (one.delivery_no, one.state, one.provider, one.changed_at_ms)
            groups.setdefault(key, []).append(one)
    for members in groups.values():
        yield _told_by(members[0]), members


def _is_untold(facts: Facts, one: RecipientEntry) -> bool:
    """True when no attempt tells what a recipient's own row does."""
    mine = [
        attempt
        for attempt in facts.record.attempts
        if attempt.delivery_no == one.delivery_no and attempt.rcpt_no in (None, one.rcpt_no)
    ]
    if one.state is RecipientState.PENDING:
        return one.provider is not None and one.reply is not None and not mine
    if one.state not in _FINAL or is_blocked_at_door(facts, one):
        return False
    state, at_ms = _FINAL[one.state], one.changed_at_ms
    return not any(attempt.state is state and attempt.at_ms == at_ms for attempt in mine)


def _told_by(one: RecipientEntry) -> AttemptEntry:
    state = _FINAL.get(one.state, AttemptState.DEFERRED)
    return AttemptEntry(
        delivery_no=one.delivery_no,
        rcpt_no=None,
        at_ms=one.changed_at_ms,
        since_ms=one.changed_at_ms,
        times=1,
        provider=one.provider,
        relay=None,
        stage=Stage.CONTENT if state is AttemptState.DELIVERED else Stage.LOCAL,
        state=state,
        reply=one.reply or "",
        dsn=one.dsn,
        next_at_ms=None,
    )
