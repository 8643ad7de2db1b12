"""The beginning of the story: who handed a message in, and what was decided at the door."""

from __future__ import annotations

from collections.abc import Iterator

from relaygw.mail.state import RecipientState
from relaygw.operations.story.facts import Facts
from relaygw.operations.story.words import some_of
from relaygw.policy.explaining import Explainer, Way
from relaygw.policy.routing import CAPTURE_ROUTE, provider_of_route
from relaygw.policy.story import EventKind, Note, StoryEvent
from relaygw.settings.model import Mode
from relaygw.store.attempts import AttemptEntry
from relaygw.store.protocol import DeliveryEntry, RecipientEntry

_MODES = {
    Mode.PRODUCTION: "production: mail goes out",
    Mode.STAGING: "staging: only who is on the allow list receives",
    Mode.SANDBOX: "sandbox: everything is captured, nothing goes out",
}
_NOT_SENT = frozenset({RecipientState.CAPTURED, RecipientState.BLOCKED})


def acceptance(facts: Facts) -> StoryEvent:
    """Return the event of a message's acceptance, with what was decided about its recipients."""
    notes = [*_source_notes(facts), Note("mode", _MODES[Mode(facts.entry.mode)])]
    explainer = Explainer(facts.settings)
    for part in facts.entry.deliveries:
        if part.released is None:  # else it was added later, by an operator
            notes += _part_notes(facts, part, explainer)
    if facts.fields.names and any(one.state not in _NOT_SENT for one in facts.entry.recipients):
        names = ", ".join(facts.fields.names)
        notes.append(Note("left out", f"{names}: names recipients ({facts.fields.why})"))
    return StoryEvent(
        kind=EventKind.ACCEPTED,
        at_ms=facts.entry.accepted_at_ms,
        text=f"accepted from {_who(facts)}",
        notes=tuple(notes),
    )


def endings(facts: Facts) -> Iterator[StoryEvent]:
    """Yield what ended at the door: who is captured, who is dropped."""
    groups: dict[tuple[EventKind, str], list[str]] = {}
    for one in facts.entry.recipients:
        if one.state is RecipientState.CAPTURED:
            kind = EventKind.CAPTURED
        elif is_blocked_at_door(facts, one):
            kind = EventKind.BLOCKED
        else:
            continue
        groups.setdefault((kind, one.reply or ""), []).append(one.address)
    for (kind, reason), addresses in groups.items():
        text = "captured in the sandbox" if kind is EventKind.CAPTURED else "dropped"
        because = f" ({reason})" if reason else ""
        audience = "" if len(addresses) == len(facts.entry.recipients) else some_of(addresses)
        yield StoryEvent(
            kind=kind,
            at_ms=facts.entry.accepted_at_ms,
            text=f"{text}, not sent{because}" + (f", for {audience}" if audience else ""),
        )


def _who(facts: Facts) -> str:
    source = facts.entry.source
    at_host = f" on host {source.host}" if source.host is not None else ""
    if source.uid is not None:
        return f"a program of local user {source.uid}{at_host}"
    if source.user is not None:
        return f"user {source.user}{at_host}" + (f" at {source.client}" if source.client else "")
    return f"client {source.client}{at_host}" if source.client else f"this machine{at_host}"


def _source_notes(facts: Facts) -> Iterator[Note]:
    source = facts.entry.source
    if source.client is not None and source.helo is not None:
        yield Note("client", f"{source.client}, which called itself {source.helo}")
    elif source.client is not None:
        yield Note("client", source.client)
    if source.listener is not None:
        yield Note("listener", source.listener)
    if source.script is not None:
        yield Note("script", source.script)
    if source.cwd is not None:
        yield Note("directory", source.cwd)


def _part_notes(facts: Facts, part: DeliveryEntry, explainer: Explainer) -> Iterator[Note]:
    by_fate: dict[str, list[RecipientEntry]] = {}
    for one in facts.members(part):
        by_fate.setdefault(_fate(facts, part, one), []).append(one)
    for fate, members in by_fate.items():
        shown = some_of([_as_given(one) for one in members])
        yield Note("to", f"{shown}: {fate}")
    first = facts.members(part)[:1]
    if first:
        yield from _way_notes(facts, part, first[0], explainer)


def _as_given(one: RecipientEntry) -> str:
    return f"{one.address} (given as {one.original})" if one.original else one.address


def _fate(facts: Facts, part: DeliveryEntry, one: RecipientEntry) -> str:
    if one.state is RecipientState.CAPTURED:
        reason = f": {one.reply}" if one.reply else ""
        return f"captured, not sent{reason}"
    if one.state is RecipientState.BLOCKED and is_blocked_at_door(facts, one):
        return f"dropped, not sent: {one.reply or 'on the block list'}"
    moved_to = provider_of_route(part.route)
    if moved_to is not None:
        return f"to be sent; moved to provider {moved_to} since"
    return f"to be sent by route {part.route} ({part.stream})"


def is_blocked_at_door(facts: Facts, one: RecipientEntry) -> bool:
    """True unless a recipient was found on the block list at a later attempt."""
    return one.state is RecipientState.BLOCKED and not any(
        _is_about(attempt, one) for attempt in facts.record.attempts
    )


def _is_about(attempt: AttemptEntry, one: RecipientEntry) -> bool:
    return attempt.delivery_no == one.delivery_no and attempt.rcpt_no in (None, one.rcpt_no)


def _way_notes(
    facts: Facts, part: DeliveryEntry, one: RecipientEntry, explainer: Explainer
) -> Iterator[Note]:
    """Yield why it goes this way, worked out once more: the reason itself is not kept."""
    source = facts.entry.source
    way = explainer.way(
        sender=facts.entry.sender,
        recipient=one.address,
        headers=facts.headers or {},
        listener=source.listener,
        user=source.user,
        accepted_in=Mode(facts.entry.mode),
    )
    yield Note("route", f"with the present configuration: {_way_words(way)}")
    is_sent = one.state is not RecipientState.CAPTURED and provider_of_route(part.route) is None
    if is_sent and part.route not in (CAPTURE_ROUTE, way.route_name):
        yield Note("changed", f"it took route {part.route} by the configuration of that time")
    if facts.headers is None and way.unseen_headers:
        names = ", ".join(way.unseen_headers)
        yield Note("unknown", f"an earlier route looks at {names}, and the content is gone")


def _way_words(way: Way) -> str:
    if way.route_name is None:
        return f"{way.decision}; route: {way.route}"
    return f"{way.decision}, by route {way.route}; providers: {', '.join(way.providers)}"
