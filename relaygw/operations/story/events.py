"""What happened to a message: how it was accepted, and what each attempt to send came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from relaygw.mail.hold import cause_of
from relaygw.mail.outcome import (
    BEFORE_MAIL,
    REPEATED,
    AttemptState,
    Meaning,
    Scope,
    Stage,
    provider_id,
)
from relaygw.mail.state import RecipientState
from relaygw.mail.words import span
from relaygw.operations.story.facts import Facts, Meanings, meaning_notes, reply_of, some_of
from relaygw.operations.story.obstacles import held_words
from relaygw.policy.explanation import Explainer, Way
from relaygw.policy.router import CAPTURE_ROUTE, provider_of_route
from relaygw.policy.story import EventKind, Note, StoryEvent
from relaygw.settings.mode import Mode
from relaygw.store.attempts import AttemptEntry
from relaygw.store.queue_entry import DeliveryEntry, RecipientEntry

_MODES = {
    Mode.PRODUCTION: "production: mail goes out",
    Mode.STAGING: "staging: only who is on the allow list receives",
    Mode.SANDBOX: "sandbox: everything is captured, nothing goes out",
}
_NOT_SENT = frozenset({RecipientState.CAPTURED, RecipientState.BLOCKED})
_STAGES = {
    Stage.CONNECT: "while connecting",
    Stage.GREETING: "at its greeting",
    Stage.TLS: "at the TLS handshake",
    Stage.CONTENT: "after the whole message",
}
_FEW = 3
"""More attempts in a row than these are one event when they were told the same."""
_REFUSALS = {Scope.CREDENTIAL: "refused the login", Scope.SENDER_DOMAIN: "refused the sender"}
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
    """Yield what ended when it was accepted: who is captured, who is dropped."""
    groups: dict[tuple[EventKind, str], list[str]] = {}
    for one in facts.entry.recipients:
        if one.state is RecipientState.CAPTURED:
            kind = EventKind.CAPTURED
        elif _is_blocked_on_acceptance(facts, one):
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
    if one.state is RecipientState.BLOCKED and _is_blocked_on_acceptance(facts, one):
        return f"dropped, not sent: {one.reply or 'on the block list'}"
    moved_to = provider_of_route(part.route)
    if moved_to is not None:
        return f"to be sent; moved to provider {moved_to} since"
    return f"to be sent by route {part.route} ({part.stream})"


def _is_blocked_on_acceptance(facts: Facts, one: RecipientEntry) -> bool:
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


# --- attempts ------------------------------------------------------------------------------


def attempt_events(facts: Facts, meanings: Meanings) -> Iterator[StoryEvent]:
    """Yield an event for each attempt, those that left no entry included."""
    for attempt in _folded(facts.record.attempts):
        yield _attempt_event(facts, attempt, meanings.of(attempt), _audience(facts, attempt))
    for attempt, members in _untold(facts):
        yield _attempt_event(facts, attempt, meanings.of(attempt), _audience_of(facts, members))


def _folded(attempts: Sequence[AttemptEntry]) -> Iterator[AttemptEntry]:
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


def _attempt_event(
    facts: Facts, attempt: AttemptEntry, meaning: Meaning | None, audience: str
) -> StoryEvent:
    text = _attempt_text(attempt, meaning)
    return StoryEvent(
        kind=EventKind(attempt.state.value),
        at_ms=attempt.since_ms,
        until_ms=attempt.at_ms if attempt.times > 1 else None,
        times=attempt.times,
        text=f"{text}, for {audience}" if audience else text,
        notes=tuple(_attempt_notes(attempt, meaning)),
    )


def _attempt_text(attempt: AttemptEntry, meaning: Meaning | None) -> str:
    if attempt.state is AttemptState.DEFERRED:
        return _deferred_text(attempt)
    if attempt.state is AttemptState.HELD:
        return _held_text(attempt, meaning)
    if attempt.state is AttemptState.INTERRUPTED and attempt.provider is None:
        return "interrupted: its worker is out of reach and may have sent it; it was sent again"
    return _TEXTS[attempt.state].format(attempt.provider or "relaygw")


def _held_text(attempt: AttemptEntry, meaning: Meaning | None) -> str:
    if attempt.provider is None:
        return f"held: {held_words(cause_of(attempt.reply))}"
    scope = meaning.scope if meaning is not None else Scope.PROVIDER
    return f"not sent: {attempt.provider} {_REFUSALS.get(scope, 'takes nothing for now')}"


def _deferred_text(attempt: AttemptEntry) -> str:
    if attempt.provider is None:
        return "deferred by relaygw itself"
    if reply_of(attempt.reply) is not None:
        return f"deferred: {attempt.provider} said no for now"
    if Stage(attempt.stage) in BEFORE_MAIL:
        return f"deferred: {attempt.provider} could not be reached"
    return f"deferred: {attempt.provider} did not answer"


def _attempt_notes(attempt: AttemptEntry, meaning: Meaning | None) -> Iterator[Note]:
    if attempt.relay is not None:
        yield Note("relay", attempt.relay)
    if attempt.reply and attempt.state is not AttemptState.INTERRUPTED:
        status = f" [{attempt.dsn}]" if attempt.dsn and attempt.dsn not in attempt.reply else ""
        has_stage = attempt.provider is not None and attempt.stage != Stage.LOCAL
        where = _STAGES.get(Stage(attempt.stage), f"at {attempt.stage}")
        stage = f", {where}" if has_stage else ""
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
        yield Note("then", f"to wait {span(wait_ms)}")


def _audience(facts: Facts, attempt: AttemptEntry) -> str:
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
    mine = [
        attempt
        for attempt in facts.record.attempts
        if attempt.delivery_no == one.delivery_no and attempt.rcpt_no in (None, one.rcpt_no)
    ]
    if one.state is RecipientState.PENDING:
        return one.provider is not None and one.reply is not None and not mine
    if one.state not in _FINAL or _is_blocked_on_acceptance(facts, one):
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
