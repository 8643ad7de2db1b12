"""What happened to a message: how it was accepted, and what each attempt to send came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from relaygw.mail.attempt_state import REPEATED, AttemptState
from relaygw.mail.envelope import Released, Source
from relaygw.mail.hold import cause_of
from relaygw.mail.outcome import BEFORE_MAIL, Meaning, Scope, Stage
from relaygw.mail.reply import provider_id
from relaygw.mail.state import RecipientState
from relaygw.mail.words import counted, some_of, wait_span
from relaygw.operations.obstacles import seen_from
from relaygw.operations.story.facts import Facts, Meanings, held_words, meaning_notes, reply_of
from relaygw.policy.router import CAPTURE_ROUTE, Explainer, provider_of_route
from relaygw.policy.story import EventKind, Note, StoryEvent
from relaygw.settings.section import Mode, format_duration
from relaygw.store.queue_entry import AttemptEntry, DeliveryEntry, RecipientEntry

_MODES = {
    Mode.PRODUCTION: "production: mail is sent",
    Mode.STAGING: "staging: only addresses on the allow list receive mail",
    Mode.SANDBOX: "sandbox: everything is captured, nothing is sent",
}
_LET_GO = frozenset({Released.ALLOWED, Released.ANYONE})
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
    AttemptState.DELIVERED: "delivered: {} accepted it",
    AttemptState.THROTTLED: "throttled: {} asks to slow down",
    AttemptState.IN_DOUBT: "in doubt: it is not known whether {} accepted it",
    AttemptState.INTERRUPTED: "interrupted: the worker that was sending it by {0} died; {0} may "
    "have taken it, and it was sent again",
    AttemptState.BOUNCED: "bounced: {} refused it permanently",
    AttemptState.EXPIRED: "expired: given up",
    AttemptState.BLOCKED: "dropped, not sent",
    AttemptState.WARNED: "sent although the address is suppressed",
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
        if part.released not in _LET_GO:  # these were added later, by an operator
            notes += _part_notes(facts, part, explainer)
    notes += _repeat_notes(facts)
    if facts.fields.names and any(
        recipient.state not in _NOT_SENT for recipient in facts.entry.recipients
    ):
        names = ", ".join(facts.fields.names)
        notes.append(Note("left out", f"{names}: names recipients ({facts.fields.why})"))
    text, at_ms = f"accepted from {_who(facts.entry.source)}", facts.entry.accepted_at_ms
    if facts.record.notice_of is not None:
        text = f"made here, to tell of {facts.record.notice_of}"
    if any(part.released == Released.RESENT for part in facts.entry.deliveries):
        text = f"accepted as a copy of a message that came from {_who(facts.entry.source)}"
    return StoryEvent(kind=EventKind.ACCEPTED, at_ms=at_ms, text=text, notes=tuple(notes))


def endings(facts: Facts) -> Iterator[StoryEvent]:
    """Yield what ended when it was accepted: who is captured, who is dropped."""
    groups: dict[tuple[EventKind, str], list[str]] = {}
    for recipient in facts.entry.recipients:
        is_captured = recipient.state is RecipientState.CAPTURED
        if is_captured or _is_blocked_on_acceptance(facts, recipient):
            kind = EventKind.CAPTURED if is_captured else EventKind.BLOCKED
            groups.setdefault((kind, recipient.reply or ""), []).append(recipient.address)
    for (kind, reason), addresses in groups.items():
        what = "captured in the sandbox" if kind is EventKind.CAPTURED else "dropped"
        text = f"{what}, not sent" + (f" ({reason})" if reason else "")
        if len(addresses) < len(facts.entry.recipients):
            text += f", for {some_of(addresses)}"
        yield StoryEvent(kind=kind, at_ms=facts.entry.accepted_at_ms, text=text)


def notice_events(facts: Facts) -> Iterator[StoryEvent]:
    """Yield who was told by mail of what became of it, or why nobody was."""
    for notice in facts.record.notices:
        text = f"notice ({notice.kind}): {notice.detail}"
        if notice.notice_ids:
            text += f", by {' and '.join(notice.notice_ids)}"
        yield StoryEvent(kind=EventKind.NOTICE, at_ms=notice.at_ms, text=text)


def _who(source: Source) -> str:
    at_host = f" on host {source.host}" if source.host is not None else ""
    if source.uid is not None:
        return f"a program of local user {source.uid}{at_host}"
    if source.user is not None:
        return f"user {source.user}{at_host}" + (f" at {source.client}" if source.client else "")
    return f"client {source.client}{at_host}" if source.client else f"this machine{at_host}"


def _source_notes(facts: Facts) -> Iterator[Note]:
    source = facts.entry.source
    called = "" if source.helo is None else f", which called itself {source.helo}"
    if source.client is not None:
        yield Note("client", f"{source.client}{called}")
    for label, fact in (
        ("listener", source.listener),
        ("script", source.script),
        ("directory", source.cwd),
    ):
        if fact is not None:
            yield Note(label, fact)


def _repeat_notes(facts: Facts) -> Iterator[Note]:
    """Yield what came before it, or after it, that was the same."""
    found = facts.record.repeated
    if found is None:
        return
    window = format_duration(facts.settings.storms.window)
    if found.number == 1:
        yield Note("same mail", f"the same mail came to the same recipient again within {window}")
    elif found.number:
        what = f"number {found.number} of the same mail to the same recipient within {window}"
        yield Note("same mail", f"{what}; the first was {found.first_id}")
    if found.earlier_id is not None:
        yield Note("same id", f"its Message-ID is that of {found.earlier_id}, minutes before")
    if found.again and found.again_ms is not None:
        last = seen_from(found.again_ms, facts.now_ms)
        yield Note(
            "again",
            f"it came again {counted(found.again, 'time')} within a minute and was not accepted "
            f"twice (duplicates: once), the last time {last}",
        )


def _part_notes(facts: Facts, part: DeliveryEntry, explainer: Explainer) -> Iterator[Note]:
    by_fate: dict[str, list[str]] = {}
    members = facts.members(part)
    for member in members:
        given = f" (given as {member.original})" if member.original else ""
        by_fate.setdefault(_fate(facts, part, member), []).append(f"{member.address}{given}")
    for fate, addresses in by_fate.items():
        yield Note("to", f"{some_of(addresses)}: {fate}")
    if members:
        yield from _way_notes(facts, part, members[0], explainer)


def _fate(facts: Facts, part: DeliveryEntry, recipient: RecipientEntry) -> str:
    if recipient.state is RecipientState.CAPTURED:
        return "captured, not sent" + (f": {recipient.reply}" if recipient.reply else "")
    if _is_blocked_on_acceptance(facts, recipient):
        return f"dropped, not sent: {recipient.reply or 'on the block list'}"
    moved_to = provider_of_route(part.route)
    if moved_to is not None:
        return f"to be sent; moved to provider {moved_to} since"
    return f"to be sent by route {part.route} ({part.stream})"


def _is_blocked_on_acceptance(facts: Facts, recipient: RecipientEntry) -> bool:
    """True unless a recipient was found on a list at a later attempt."""
    return recipient.state is RecipientState.BLOCKED and not facts.attempts_on(recipient)


def _way_notes(
    facts: Facts, part: DeliveryEntry, recipient: RecipientEntry, explainer: Explainer
) -> Iterator[Note]:
    """Yield why it goes this way, worked out once more: the reason itself is not kept."""
    source = facts.entry.source
    way = explainer.way(
        sender=facts.entry.sender,
        recipient=recipient.address,
        headers=facts.headers or {},
        listener=source.listener,
        user=source.user,
        accepted_in=Mode(facts.entry.mode),
    )
    words = f"{way.decision}; route: {way.route}"
    if way.route_name is not None:
        words = f"{way.decision}, by route {way.route}; providers: {', '.join(way.providers)}"
    yield Note("route", f"with the present configuration: {words}")
    is_sent = (
        recipient.state is not RecipientState.CAPTURED and provider_of_route(part.route) is None
    )
    if is_sent and part.route not in (CAPTURE_ROUTE, way.route_name):
        yield Note("changed", f"it took route {part.route} under the configuration at that time")
    if facts.headers is None and way.unseen_headers:
        names = ", ".join(way.unseen_headers)
        yield Note(
            "unknown", f"an earlier route has a condition on {names}, and the content is gone"
        )


# --- attempts ------------------------------------------------------------------------------


def attempt_events(facts: Facts, meanings: Meanings) -> Iterator[StoryEvent]:
    """Yield an event for each attempt, those that left no entry included."""
    routes = {part.delivery_no: f"route {part.route}" for part in facts.entry.deliveries}
    for attempt in _folded(facts.record.attempts):
        audience = routes.get(attempt.delivery_no, "") if len(routes) > 1 else ""
        if attempt.rcpt_no is not None:
            recipients = facts.entry.recipients
            audience = some_of(
                [
                    recipient.address
                    for recipient in recipients
                    if recipient.rcpt_no == attempt.rcpt_no
                ]
            )
        yield _attempt_event(attempt, meanings.of(attempt), audience)
    for attempt, addresses in _untold(facts):
        is_part = len(addresses) < len(facts.entry.recipients)
        yield _attempt_event(attempt, meanings.of(attempt), some_of(addresses) if is_part else "")


def _folded(attempts: Sequence[AttemptEntry]) -> Iterator[AttemptEntry]:
    of = attrgetter("delivery_no", "rcpt_no", "provider", "relay", "stage", "state", "reply")
    for _, run in groupby(attempts, key=of):
        alike = list(run)
        if len(alike) <= _FEW:
            yield from alike
        else:
            times = sum(attempt.times for attempt in alike)
            yield replace(alike[-1], since_ms=alike[0].since_ms, times=times)


def _attempt_event(attempt: AttemptEntry, meaning: Meaning | None, audience: str) -> StoryEvent:
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
    provider = attempt.provider
    match attempt.state:
        case AttemptState.DEFERRED if provider is None:
            return "deferred by relaygw itself"
        case AttemptState.DEFERRED:
            if reply_of(attempt.reply) is not None:
                return f"deferred: {provider} refused it for now"
            if Stage(attempt.stage) in BEFORE_MAIL:
                return f"deferred: {provider} could not be reached"
            return f"deferred: {provider} did not answer"
        case AttemptState.HELD if provider is None:
            return f"held: {held_words(cause_of(attempt.reply))}"
        case AttemptState.HELD:
            scope = meaning.scope if meaning is not None else Scope.PROVIDER
            return f"not sent: {provider} {_REFUSALS.get(scope, 'accepts nothing for now')}"
        case AttemptState.INTERRUPTED if provider is None:
            return "interrupted: its worker is unreachable and may have sent it; it was sent again"
        case _:
            return _TEXTS[attempt.state].format(provider or "relaygw")


def _attempt_notes(attempt: AttemptEntry, meaning: Meaning | None) -> Iterator[Note]:
    if attempt.relay is not None:
        yield Note("relay", attempt.relay)
    if attempt.reply and attempt.state is not AttemptState.INTERRUPTED:
        status = f" [{attempt.dsn}]" if attempt.dsn and attempt.dsn not in attempt.reply else ""
        has_stage = attempt.provider is not None and attempt.stage != Stage.LOCAL
        where = _STAGES.get(Stage(attempt.stage), f"at {attempt.stage}")
        yield Note("said", f"{attempt.reply}{status}" + (f", {where}" if has_stage else ""))
    if attempt.state is AttemptState.DELIVERED:
        own_id = provider_id(attempt.reply)
        if own_id is not None:
            yield Note("its id", f"{own_id}, which {attempt.provider}'s own log and support know")
        return
    yield from meaning_notes(meaning)
    if attempt.state in REPEATED and attempt.provider is not None:
        yield Note("count", "not counted as a try")
    if attempt.next_at_ms is not None:
        yield Note("then", f"to wait {wait_span(attempt.next_at_ms - attempt.at_ms)}")


# --- what left no entry: first tries that were taken, and tries of an earlier version -------


def _untold(facts: Facts) -> Iterator[tuple[AttemptEntry, list[str]]]:
    groups: dict[tuple[object, ...], list[RecipientEntry]] = {}
    for recipient in facts.entry.recipients:
        if _is_untold(facts, recipient):
            key = (
                recipient.delivery_no,
                recipient.state,
                recipient.provider,
                recipient.changed_at_ms,
            )
            groups.setdefault(key, []).append(recipient)
    for members in groups.values():
        yield _told_by(members[0]), [member.address for member in members]


def _is_untold(facts: Facts, recipient: RecipientEntry) -> bool:
    mine = facts.attempts_on(recipient)
    if recipient.state is RecipientState.PENDING:
        return recipient.provider is not None and recipient.reply is not None and not mine
    if recipient.state not in _FINAL or _is_blocked_on_acceptance(facts, recipient):
        return False
    state, at_ms = _FINAL[recipient.state], recipient.changed_at_ms
    return not any(attempt.state is state and attempt.at_ms == at_ms for attempt in mine)


def _told_by(recipient: RecipientEntry) -> AttemptEntry:
    state = _FINAL.get(recipient.state, AttemptState.DEFERRED)
    return AttemptEntry(
        delivery_no=recipient.delivery_no,
        rcpt_no=None,
        at_ms=recipient.changed_at_ms,
        since_ms=recipient.changed_at_ms,
        times=1,
        provider=recipient.provider,
        relay=None,
        stage=Stage.CONTENT if state is AttemptState.DELIVERED else Stage.LOCAL,
        state=state,
        reply=recipient.reply or "",
        dsn=recipient.dsn,
        next_at_ms=None,
    )
