"""What happened to a message after a provider's 250: what was reported, and who was suppressed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from relaygw.mail.state import OPEN, RecipientState
from relaygw.mail.suppression import Action, Listed, Suppression
from relaygw.mail.verdict import BOUNCE_MAIL, FAILED, Kind, report_words
from relaygw.mail.words import some_of
from relaygw.operations.obstacles import seen_from
from relaygw.operations.story.facts import Facts
from relaygw.policy.story import Advice, EventKind, Note, StoryEvent
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry, RecipientEntry
from relaygw.store.reports import MOST_REPORTS, Report
from relaygw.store.store import Store

_K = Kind
_FEW = 3
"""More reports in a row than these are one event when they say the same."""
_LATE_MS = 300_000
"""A report that was told so much later has the time of that beside its own."""
_BY_MAIL = "a bounce mail"
_UNNAMED = "a recipient that it does not name"
_KINDS = {
    **dict.fromkeys(FAILED, EventKind.RETURNED),
    _K.DELIVERED: EventKind.ARRIVED,
    _K.COMPLAINED: EventKind.COMPLAINED,
    _K.UNSUBSCRIBED: EventKind.UNSUBSCRIBED,
}


def report_events(facts: Facts) -> Iterator[tuple[int, StoryEvent]]:
    """Yield what was reported, each with the time that puts it behind what it is about."""
    reports = facts.record.reports
    delivered_ms = {
        recipient.rcpt_no: recipient.changed_at_ms
        for recipient in facts.entry.recipients
        if recipient.state is RecipientState.DELIVERED
    }
    first_ms = min(delivered_ms.values(), default=0)
    for _, run in groupby(
        reports, key=lambda report: (report.provider, report.kind, report.dsn, report.detail)
    ):
        alike = list(run)
        for some in [alike] if len(alike) > _FEW else [[report] for report in alike]:
            # a provider's clock may be behind ours
            after_ms = delivered_ms.get(some[0].rcpt_no or 0, first_ms)
            yield max(some[0].at_ms, after_ms), _event(facts, some)
    if len(reports) == MOST_REPORTS:
        text = f"only the newest {MOST_REPORTS} reports are shown"
        at_ms = reports[0].at_ms
        yield at_ms - 1, StoryEvent(kind=EventKind.REPORTED, at_ms=at_ms, text=text)


def _event(facts: Facts, alike: Sequence[Report]) -> StoryEvent:
    first, last = alike[0], alike[-1]
    who = _BY_MAIL if first.provider == BOUNCE_MAIL else first.provider
    text = f"{who} reports: {report_words(first.kind, first.dsn)}"
    whom = _audience(facts, alike)
    return StoryEvent(
        kind=_KINDS.get(first.kind, EventKind.REPORTED),
        at_ms=first.at_ms,
        until_ms=last.at_ms if len(alike) > 1 else None,
        times=len(alike),
        text=f"{text}, for {whom}" if whom else text,
        notes=tuple(_notes(facts, first)),
    )


def _audience(facts: Facts, alike: Iterable[Report]) -> str:
    """Return whom reports are about, "" where that is clear."""
    people = {recipient.rcpt_no: recipient.address for recipient in facts.entry.recipients}
    if len(people) == 1:
        return ""
    named = (None if report.rcpt_no is None else people.get(report.rcpt_no) for report in alike)
    return some_of(list(dict.fromkeys(name or _UNNAMED for name in named)))


def _notes(facts: Facts, report: Report) -> Iterator[Note]:
    if report.detail or report.dsn:
        status = report.dsn if report.dsn and report.dsn not in report.detail else ""
        said = [report.detail, f"[{status}]" if status else ""]
        yield Note("said", " ".join(filter(None, said)))
    if report.received_at_ms - report.at_ms > _LATE_MS:
        yield Note("told", seen_from(report.received_at_ms, facts.now_ms))


def last_report(reports: Iterable[Report], recipient: RecipientEntry) -> Report | None:
    """Return the newest report that is the last word on a recipient, None if it is not kept."""
    mine = (it for it in reports if it.kind is recipient.verdict)
    return max(
        (it for it in mine if it.rcpt_no == recipient.rcpt_no),
        key=lambda it: it.at_ms,
        default=None,
    )


def reporter(reports: Iterable[Report], recipient: RecipientEntry) -> str:
    """Return who told the last word on a recipient, as what follows `delivered to NAME`."""
    report = last_report(reports, recipient)
    is_mail = report is not None and report.provider == BOUNCE_MAIL
    return f"; {_BY_MAIL}" if is_mail else ", which"


def last_word(reports: Iterable[Report], recipient: RecipientEntry) -> str:
    """Return the last word on a recipient in a sentence, with the provider's words."""
    assert recipient.verdict is not None
    report = last_report(reports, recipient)
    if report is None:
        return report_words(recipient.verdict)
    words = report_words(recipient.verdict, report.dsn)
    return f"{words} ({report.detail})" if report.detail else words


# --- what to do ----------------------------------------------------------------------------


def report_advice(facts: Facts) -> Iterator[Advice]:
    """Yield what to do about bad news of recipients whose mail a provider took."""
    groups: dict[Kind, list[RecipientEntry]] = {}
    for recipient in facts.entry.recipients:
        if recipient.state is RecipientState.DELIVERED and recipient.verdict in _ADVICE:
            groups.setdefault(recipient.verdict, []).append(recipient)
    for kind, members in groups.items():
        who = some_of([member.address for member in members])
        provider = members[0].provider or "the provider"
        for text in _ADVICE[kind]:
            yield Advice(text.format(who=who, provider=provider))
    returned = [member for kind, members in groups.items() if kind in FAILED for member in members]
    if returned:
        queue_id = facts.entry.queue_id
        if facts.entry.chunk_count:
            command = f"relaygw queue resend {queue_id} --to ADDRESS"
            yield Advice("To send it to another address, or again once that is solved:", command)
        else:
            yield Advice("Its content is no longer kept: send a new message.")


_ADVICE: dict[Kind, tuple[str, ...]] = {
    _K.HARD: (
        "Ask the customer for another address than {who}, and correct it in the shop: more mail "
        "to it harms the sender's reputation.",
    ),
    _K.SOFT: ("If {who} is important, ask the customer; the address may work again later.",),
    _K.BLOCKED: (
        "{provider} sends nothing to {who} since earlier mail bounced or was complained of. If "
        "the address works, remove it from the list there.",
    ),
    _K.REJECTED: ("Check at {provider} why it rejected the message to {who}.",),
    _K.COMPLAINED: (
        "Send no more mail of this kind to {who}: complaints make providers suspend accounts.",
    ),
    _K.UNSUBSCRIBED: ("Take {who} off the list that this mail was sent to.",),
}


def suppressed_by(store: Store, entry: QueueEntry) -> Sequence[Suppression]:
    """Return the addresses that a mail has suppressed, as far as they still are."""
    addresses = [recipient.address for recipient in entry.recipients]
    known = store.suppressions.suppressed_of(addresses)
    return [
        suppression
        for found in known.values()
        for suppression in found
        if suppression.queue_id == entry.queue_id
    ]


def listed_in(store: Store, entry: QueueEntry) -> Mapping[str, Listed]:
    """Return the entries for the recipients that wait, by their addresses."""
    found: dict[str, Listed] = {}
    for part in entry.deliveries:
        if part.state in OPEN:
            waiting = [
                recipient.address
                for recipient in entry.recipients
                if recipient.delivery_no == part.delivery_no
                and recipient.state is RecipientState.PENDING
            ]
            look = store.suppressions.listed_for
            found |= look(waiting, sender=entry.sender, stream=part.stream)
    return found


def suppression_events(facts: Facts) -> Iterator[StoryEvent]:
    """Yield whom this mail has suppressed."""
    for suppression in facts.suppressed:
        yield StoryEvent(
            kind=EventKind.SUPPRESSED,
            at_ms=suppression.created_at_ms,
            text=suppression.told,
            notes=(Note("lifted by", suppression.way_back),),
        )


def suppression_notes(facts: Facts, part: DeliveryEntry) -> Iterator[Note]:
    """Yield what happens to the recipients of a delivery that are suppressed now."""
    for member in facts.members(part):
        listed = facts.listed.get(member.address)
        if listed is not None and member.state is RecipientState.PENDING:
            does = "is not sent to" if listed.action is Action.BLOCK else "is sent to anyway"
            yield Note("suppressed", f"{member.address} {does}; {listed.sentence}")
