"""The story of one message, told from what the store and the settings know: it changes nothing.

`facts` are gathered first; the rest makes words of them and is pure. What a reply means, and
which way mail would go, is worked out with the present configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.outcome import Meaning, Scope
from relaygw.mail.reply import provider_id
from relaygw.mail.state import OPEN, CaptureCode, DeliveryState, RecipientState, capture_code
from relaygw.mail.suppression import told_remedy
from relaygw.mail.words import counted, some_of, span
from relaygw.operations.obstacles import join_obstacles, obstacles, seen_from
from relaygw.operations.providers import Usage, rate_words, turn_words
from relaygw.operations.queue_actions import ACTIONS
from relaygw.operations.queue_object import shown_state
from relaygw.operations.resend import RESEND
from relaygw.operations.story.answer import answer
from relaygw.operations.story.causes import (
    MAYBE_TAKEN,
    attempt_cause,
    headline,
    held_until,
    repeated,
    tried_again,
)
from relaygw.operations.story.events import acceptance, attempt_events, endings, notice_events
from relaygw.operations.story.facts import Facts, Meanings, gather, held_advice, held_words
from relaygw.operations.story.reports import (
    listed_in,
    report_advice,
    report_events,
    suppressed_by,
    suppression_events,
    suppression_notes,
)
from relaygw.policy.retry import LEAST_TRIES, given_up_at_ms
from relaygw.policy.story import Advice, EventKind, Note, Outlook, Story, StoryEvent
from relaygw.policy.untended import most_in_hand_s
from relaygw.settings.model import Settings
from relaygw.settings.section import format_duration, format_waits
from relaygw.store.queue_entry import DeliveryEntry, RecipientEntry, tried_since_ms
from relaygw.store.store import Store

_NEW_MS = 60_000
"""Mail that waits for its first try for so long has not just come."""
_BY_ITSELF = "queue.reroute"
_DONE = {
    **{f"queue.{queue_action.name}": queue_action.told for queue_action in ACTIONS.values()},
    _BY_ITSELF: "moved it to the current route, since its own is no longer configured",
    "queue.import": "imported it from a file",
    "sandbox.release": "released it from the sandbox",
    "sandbox.delete": "deleted it from the sandbox",
    "sandbox.check_links": "had its links visited",
}
_EXPLAINED = ("meaning", "remedy")
_CHECK_ONLINE = "relaygw check --online"
_WAITS = "; it is sent when that is over"
_SILENT_MS, _STALE_MS = 10_000, 20_000
"""A heartbeat of the second age: others take over. It is renewed in half the first one."""
_R = RecipientState
_FEW = 3
TRASH_MS = 7 * 86_400_000
"""How long the trash keeps a message."""


def tell_story(store: Store, settings: Settings, queue_id: str, *, now_ms: int) -> Story | None:
    """Return the story of a message, None if there is none of that id.

    Raises StoreUnavailable.
    """
    facts = gather(store, settings, queue_id, now_ms=now_ms)
    if facts is None:
        return None
    meanings, entry = Meanings(facts.settings), facts.entry
    listed, suppressed = listed_in(store, entry), suppressed_by(store, entry)
    facts = replace(facts, listed=listed, suppressed=suppressed)
    open_parts = [part for part in entry.deliveries if part.state in OPEN]
    prospects = [_prospect(facts, part, meanings) for part in open_parts]
    outlooks = tuple(outlook for outlook, _ in prospects)
    timed = [(operator_event.at_ms, operator_event) for operator_event in _operator_events(facts)]
    timed += [(notice_event.at_ms, notice_event) for notice_event in notice_events(facts)]
    timed += [
        (attempt_event.at_ms, attempt_event) for attempt_event in attempt_events(facts, meanings)
    ]
    timed += report_events(facts)
    timed += [
        (suppression_event.at_ms, suppression_event)
        for suppression_event in suppression_events(facts)
    ]
    later = [  # of one moment: first the cause
        event for _, event in sorted(timed, key=itemgetter(0))
    ]
    advice = [step for _, steps in prospects for step in steps] or _last_advice(facts, meanings)
    return Story(
        queue_id=entry.queue_id,
        sender=entry.sender,
        recipients=tuple(recipient.address for recipient in entry.recipients),
        subject=entry.subject,
        state=shown_state(entry),
        is_over=not prospects,
        headline=headline(facts, outlooks, meanings),
        answer=answer(facts, outlooks, meanings),
        events=(acceptance(facts), *endings(facts), *_without_repetition(later)),
        outlooks=outlooks,
        advice=tuple(dict.fromkeys(advice)),
        now_ms=facts.now_ms,
    )


def _without_repetition(events: Sequence[StoryEvent]) -> Iterator[StoryEvent]:
    told: set[Note] = set()
    for event in events:
        notes = [note for note in event.notes if note.label not in _EXPLAINED or note not in told]
        told.update(event.notes)
        yield replace(event, notes=tuple(notes))


def _operator_events(facts: Facts) -> Iterator[StoryEvent]:
    for action in facts.record.actions:
        done = _DONE.get(action.action, f"did {action.action}")
        others = [
            queue_id for queue_id in action.target.split() if queue_id != facts.entry.queue_id
        ]
        notes = [Note("with", counted(len(others), "other message"))] if others else []
        if action.action == RESEND and others:
            is_first = action.target.startswith(facts.entry.queue_id)
            done = f"sent {others[0]} again, as this message"
            done, notes = f"sent it again, as {others[0]}" if is_first else done, []
        if action.detail:
            notes.append(Note("detail", action.detail))
        who = action.actor if action.action == _BY_ITSELF else f"operator {action.actor}"
        yield StoryEvent(
            kind=EventKind.OPERATOR, at_ms=action.at_ms, text=f"{who} {done}", notes=tuple(notes)
        )


# --- what is not finished ------------------------------------------------------------------


_Prospect = tuple[Outlook, list[Advice]]
"""How a delivery stands that is not finished, and what to do about it."""


def _prospect(facts: Facts, part: DeliveryEntry, meanings: Meanings) -> _Prospect:
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
    is_in_the_way: bool = False,
) -> _Prospect:
    outlook = Outlook(
        delivery_no=part.delivery_no,
        route=part.route,
        stream=part.stream,
        state=part.state.value,
        recipients=tuple(
            member.address for member in facts.members(part) if member.state is _R.PENDING
        ),
        text=text,
        next_at_ms=next_at_ms,
        notes=(*notes, *suppression_notes(facts, part)),
        is_in_the_way=is_in_the_way,
    )
    return outlook, advice


def _held(facts: Facts, part: DeliveryEntry) -> _Prospect:
    causes = part.causes or (HoldCause(HoldCode.OTHER),)
    since_ms = facts.circumstances(part).held_at_ms
    notes = () if since_ms is None else (Note("since", seen_from(since_ms, facts.now_ms)),)
    entry = facts.entry
    whose = (entry.queue_id, entry.message_id, part.provider)
    advice = dict.fromkeys(it for cause in causes for it in held_advice(cause, *whose))
    reasons = [
        f"{held_words(cause)}; it is held {held_until(cause, facts.ends_ms)}" for cause in causes
    ]
    text = "; and: ".join(reasons)
    return _make(facts, part, text, [*advice], notes=notes)


def _in_hand(facts: Facts, part: DeliveryEntry) -> _Prospect:
    lease = facts.circumstances(part).lease
    owner = next((instance for instance in facts.instances if instance.incarnation == lease), None)
    if owner is None:
        text = "the worker that was sending it is gone; another one takes over"
        return _make(facts, part, text, [Advice("Nothing: that takes seconds.")])
    silent_ms = facts.now_ms - owner.heartbeat_at_ms
    if silent_ms >= _SILENT_MS:
        who = f"the worker on {owner.name} that is sending it"
        text = f"{who} is silent for {span(silent_ms)}; another one takes over"
        advice = Advice("Check that machine; to see what runs:", "relaygw status")
        return _make(facts, part, text, [advice], next_at_ms=owner.heartbeat_at_ms + _STALE_MS)
    if (turn := facts.turn(part)) is not None:
        return _in_turn(facts, part, f"a worker on {owner.name} has claimed it; ", *turn)
    since_ms, number = facts.circumstances(part).changed_at_ms, len(facts.members(part))
    if facts.now_ms - since_ms >= _SILENT_MS:
        text = f"a worker on {owner.name} has it in hand for {span(facts.now_ms - since_ms)}: it "
        text += f"waits for a connection or an answer of {' or '.join(facts.providers(part))}"
        last_ms = since_ms + int(most_in_hand_s(facts.settings, part.route, number) * 1000)
        notes = (Note("at the latest", seen_from(last_ms, facts.now_ms)),)
        advice = Advice("Nothing yet; to see whether the provider answers:", _CHECK_ONLINE)
        return _make(facts, part, text, [advice], notes=notes)
    text = f"a worker on {owner.name} has claimed it and sends it now or in a moment"
    return _make(facts, part, text, [Advice("Nothing: check again in a moment.")])


def _in_turn(facts: Facts, part: DeliveryEntry, text: str, name: str, usage: Usage) -> _Prospect:
    """Say that it waits for the rate of its provider, and until when at the latest."""
    what = f"Wait, or raise the rate of {name}, if it allows more."
    if usage.is_slower:
        what = f"Nothing: {name} asked for less, and relaygw sends it more step by step."
    text += f"it is sent when its turn comes: {turn_words(name, usage)}"
    until = seen_from(facts.now_ms + int(usage.behind_s * 1000), facts.now_ms)
    notes = (*_pace_notes(facts, part), Note("at the latest", until))
    return _make(facts, part, text, [Advice(what)], notes=notes)


def _waiting(facts: Facts, part: DeliveryEntry, meanings: Meanings) -> _Prospect:
    """Say what it waits for, and that it is in doubt, whatever is said of its last attempt."""
    outlook, advice = _waiting_for(facts, part, meanings)
    last = facts.last_attempt(part)
    is_said = not outlook.is_in_the_way and last is not None and last.state in MAYBE_TAKEN
    if facts.is_in_doubt(part) and not is_said:
        text = f"it is in doubt: {part.provider} may have taken it already; {outlook.text}"
        outlook = replace(outlook, text=text)
    return outlook, advice


def _waiting_for(facts: Facts, part: DeliveryEntry, meanings: Meanings) -> _Prospect:
    in_the_way = obstacles(facts, facts.way(part), queue_id=facts.entry.queue_id)
    if in_the_way:
        # when it may go at the earliest, None when nobody knows
        ends_ms = [
            obstacle.ends_at_ms for obstacle in in_the_way if obstacle.ends_at_ms is not None
        ]
        first_ms = max(part.due_at_ms, min(ends_ms, default=0))
        has_time = first_ms > facts.now_ms
        text = join_obstacles(in_the_way) + ("" if has_time else _WAITS)
        return _make(
            facts,
            part,
            text,
            [obstacle.advice for obstacle in in_the_way],
            notes=tuple(note for obstacle in in_the_way for note in obstacle.notes),
            next_at_ms=first_ms if has_time else None,
            is_in_the_way=True,
        )
    if part.due_at_ms > facts.now_ms:
        return _with_timer(facts, part, meanings)
    if (turn := facts.turn(part)) is not None:
        return _in_turn(facts, part, "", *turn)
    last = facts.last_attempt(part)
    text = "it was just accepted and is sent as soon as a connection is free"
    if last is not None:
        text = f"{attempt_cause(last, meanings.of(last))}; it is due and tried as soon as a "
        text += "connection is free"
    elif part.state is not DeliveryState.INCOMING or facts.now_ms - part.due_at_ms > _NEW_MS:
        text = "nothing blocks it: it is sent as soon as a connection is free"
    notes = tuple(_pace_notes(facts, part))
    advice = Advice("Nothing: that takes seconds unless the queue is long.")
    return _make(facts, part, text, [advice], notes=notes, next_at_ms=part.due_at_ms)


def _with_timer(facts: Facts, part: DeliveryEntry, meanings: Meanings) -> _Prospect:
    last = facts.last_attempt(part)
    meaning = None if last is None else meanings.of(last)
    text = part.reason or "it waits"
    if last is not None:
        text = attempt_cause(last, meaning)
    if part.hold is not None and part.hold.code is HoldCode.PROVIDER_DOWN:
        text = f"it {part.reason}, which could not take it then"
    retry = Advice("Wait, or try it now:", f"relaygw queue retry --id {facts.entry.queue_id}")
    advice, notes = [retry], [_wait_note(facts, part, meaning), _lifetime_note(facts, part)]
    match None if last is None else last.state:
        case AttemptState.IN_DOUBT:
            then, what = tried_again(facts, part)
            notes, advice = [Note("then", then)], [Advice(what)]
        case AttemptState.THROTTLED:
            advice = [Advice("Nothing: relaygw keeps to the rate automatically.")]
            notes = list(_pace_notes(facts, part))
        case AttemptState.HELD if meaning is None or meaning.scope is not Scope.SENDER_DOMAIN:
            text += f"; {part.provider} is no longer held"
            notes = []
        case _ if meaning is not None and meaning.remedy:
            advice = [Advice(meaning.remedy), retry]
    return _make(facts, part, text, advice, notes=tuple(notes), next_at_ms=part.due_at_ms)


def _wait_note(facts: Facts, part: DeliveryEntry, meaning: Meaning | None) -> Note:
    number, retry = f"for try {part.attempts + 1}", facts.settings.retry
    if meaning is not None and meaning.wait_s:
        waits = f"after such a reply the wait is {format_waits(meaning.wait_s)}"
    else:
        waits = f"waits begin with {format_duration(retry.first)}"
        waits += f" and grow to {format_duration(retry.max)} at most"
    return Note("waits", f"{number}; {waits}")


def _lifetime_note(facts: Facts, part: DeliveryEntry) -> Note:
    held_ms = facts.circumstances(part).held_ms
    since_ms = tried_since_ms(facts.record.attempts, part.delivery_no)
    until_ms = given_up_at_ms(
        facts.entry.accepted_at_ms, held_ms, facts.settings.retry, tried_since_ms=since_ms
    )
    text = seen_from(until_ms, facts.now_ms)
    if until_ms <= facts.now_ms:
        text = f"its time is over ({text}): with the next try that fails"
    if part.attempts + 1 < LEAST_TRIES:
        text += f", after {LEAST_TRIES} tries at least"
    return Note("given up", text)


def _pace_notes(facts: Facts, part: DeliveryEntry) -> Iterator[Note]:
    waiting = facts.queued.get(part.route, 0)
    if waiting > 1:
        yield Note("queue", f"{counted(waiting, 'message')} of its route wait")
    for name in facts.providers(part):
        usage = facts.usages.get(name)
        if usage is None:
            continue
        if usage.is_slower:
            pace = rate_words(usage.rate_per_s)
            yield Note("pace", f"{name} gets {pace}, since it asked for less")
        elif usage.settings.rate is not None:
            yield Note("pace", f"{name} gets {usage.settings.rate}, its configured rate")
        if usage.is_narrower:
            yield Note("pace", f"{name} gets {counted(usage.connections, 'connection')} for now")


# --- the end ----------------------------------------------------------------------------


def _last_advice(facts: Facts, meanings: Meanings) -> list[Advice]:
    queue_id = facts.entry.queue_id
    if facts.is_deleted:
        deleted_ms = max(delivery.changed_at_ms for delivery in facts.record.deliveries)
        until = seen_from(deleted_ms + TRASH_MS, facts.now_ms)
        undelete = f"relaygw queue undelete --id {queue_id}"
        return [Advice(f"Nothing, or restore it from the trash until {until}:", undelete)]
    advice: list[Advice] = []
    by_state: dict[RecipientState, list[RecipientEntry]] = {}
    for recipient in facts.entry.recipients:
        by_state.setdefault(recipient.state, []).append(recipient)
    for state in (_R.BOUNCED, _R.EXPIRED):
        if state in by_state:
            advice += _failed(facts, meanings, by_state[state])
    if _R.CAPTURED in by_state:
        send = f"relaygw sandbox release {queue_id} --to {by_state[_R.CAPTURED][0].address}"
        advice.append(Advice("Nothing; to release it to an allowed address:", send))
    if _R.BLOCKED in by_state:
        advice += _dropped(facts, by_state[_R.BLOCKED])
    advice += report_advice(facts)
    taken = by_state.get(_R.DELIVERED)
    if taken and not advice:
        own_id = provider_id(taken[0].reply or "")
        by_id = f" by its id {own_id}" if own_id else ""
        twice = repeated(facts, taken)
        asked = f"{taken[0].provider} can be asked{by_id}"
        advice.append(Advice(f"Nothing.{twice} If it is missing, {asked}."))
    return advice or [Advice("Nothing.")]


def _dropped(facts: Facts, members: Sequence[RecipientEntry]) -> Iterator[Advice]:
    again = "send the mail again"
    if not facts.entry.chunk_count:
        again = "send a new message, as its content is no longer kept"
    suppressed = [
        member for member in members if capture_code(member.reply) is CaptureCode.SUPPRESSED
    ]
    others = [member.address for member in members if member not in suppressed]
    if others:
        text = f"If {some_of(others)} should receive, change recipients.block and {again}."
        yield Advice(text)
    for recipient in suppressed[:_FEW]:
        _, command = told_remedy(recipient.reply or "")
        text = f"Nothing; if {recipient.address} works again, lift it, then {again}:"
        yield Advice(text, command)


def _failed(
    facts: Facts, meanings: Meanings, members: Sequence[RecipientEntry]
) -> Iterator[Advice]:
    who = some_of([member.address for member in members])
    numbers = {member.delivery_no for member in members}
    told = [attempt for attempt in facts.record.attempts if attempt.delivery_no in numbers]
    meaning = meanings.of(told[-1]) if told else None
    if meaning is not None and meaning.remedy:
        yield Advice(meaning.remedy)
    text = f"It is not tried again: correct the cause and send a new one to {who}."
    if not facts.entry.chunk_count:
        yield Advice(text)
    else:
        text = f"It is not tried again. Correct the cause, then send it to {who} again:"
        yield Advice(text, f"relaygw queue resend {facts.entry.queue_id}")
