"""The story as an answer to a customer: no addresses, no names of ours, no words of the trade."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.clock import utc_text, utc_time
from relaygw.mail.hold import DOUBTFUL, HoldCode
from relaygw.mail.outcome import Meaning, Scope
from relaygw.mail.state import EXPIRED_BY, RESULTS, DeliveryState, RecipientState
from relaygw.mail.verdict import FULL, NO_ADDRESS, Kind
from relaygw.mail.words import counted, printable, span
from relaygw.operations.story.facts import Facts, Meanings
from relaygw.operations.story.reports import last_report
from relaygw.policy.story import Outlook
from relaygw.settings.section import Mode
from relaygw.store.queue_entry import RecipientEntry

_R = RecipientState
_MAX_SUBJECT = 200
_ADDRESS = re.compile(r"(?<!\S)\S*@\S*")
_OURS = "because of a problem on our side"
_WITHDRAWN = "was not sent: it was withdrawn on our side."
_LOOK = "If it cannot be found, please check the spam folder and the filters of the mailbox."
_PERHAPS = f"may have arrived already, we cannot tell for certain. {_LOOK}"
_NOT_ACCEPTED = "the mail server of the recipient did not accept it"
_WHY = tuple(  # what the catalogue says of a reply, and how a customer hears it
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        ("mailbox (?:is full|is out of space)", "the mailbox of the recipient is full"),
        (
            "does not exist|no such (?:mailbox|recipient)|address is malformed|no mail at all",
            "the address does not exist or cannot receive mail. Please check how it is written",
        ),
        ("is disabled", "the mailbox of the recipient is disabled"),
        ("too large|larger than", "it is too large for the mail server of the recipient"),
        ("asks to try later", "the mail server of the recipient asks to try again later"),
    )
)


def answer(facts: Facts, outlooks: Sequence[Outlook], meanings: Meanings) -> str:
    """Return an answer for the customer, in a few plain sentences."""
    entry = facts.entry
    subject = _ADDRESS.sub("…", printable(entry.subject[:_MAX_SUBJECT]).strip())
    named = f" “{subject}”" if subject else ""
    what = f"Our e-mail{named} of {_when(entry.accepted_at_ms)}"
    told: dict[str, int] = {}
    for number, text in _parts(facts, outlooks, meanings):
        told[text] = told.get(text, 0) + number
    if len(told) == 1:
        return f"{what} {next(iter(told))}"
    parts = [f"For {number} of them it {text}" for text, number in told.items()]
    return " ".join([f"{what} had {counted(len(entry.recipients), 'recipient')}.", *parts])


def _when(at_ms: int) -> str:
    at = utc_time(at_ms)
    return f"{at.day} {at:%B %Y} at {utc_text(at_ms, '%H:%M')}"


def _parts(
    facts: Facts, outlooks: Sequence[Outlook], meanings: Meanings
) -> Iterator[tuple[int, str]]:
    """Yield how many recipients there are of a kind, and what became of their mail."""
    for outlook in outlooks:
        yield len(outlook.recipients), _waiting(facts, outlook, meanings)
    ended = (*RESULTS, *(() if outlooks else (_R.PENDING,)))
    for recipient in facts.entry.recipients:
        if recipient.state in ended:
            yield 1, _ended(facts, recipient, meanings)


def _waiting(facts: Facts, outlook: Outlook, meanings: Meanings) -> str:
    part = next(
        delivery
        for delivery in facts.entry.deliveries
        if delivery.delivery_no == outlook.delivery_no
    )
    last = facts.last_attempt(part)
    is_maybe_taken = (AttemptState.IN_DOUBT, AttemptState.INTERRUPTED)
    if facts.is_in_doubt(part) or (last is not None and last.state in is_maybe_taken):
        return _PERHAPS
    if part.state is DeliveryState.HELD:
        unsure = DOUBTFUL | {HoldCode.RECOVERED, HoldCode.RESTORED, HoldCode.POISON}
        is_unsure = any(cause.code in unsure for cause in part.causes)
        return _PERHAPS if is_unsure else _stopped()
    if outlook.is_in_the_way:
        return _stopped()
    if outlook.next_at_ms is None or outlook.next_at_ms <= facts.now_ms:
        return "is being sent right now. Please check again in a few minutes."
    why = _why(None if last is None else meanings.of(last))
    because = f": {why}" if why else ""
    then = f"We try again automatically, next on {_when(outlook.next_at_ms)}."
    return f"has not been delivered yet{because}. {then}"


def _stopped() -> str:
    return f"has not been sent yet {_OURS}. It will be sent as soon as that is solved."


def _why(meaning: Meaning | None) -> str:
    """Return why the other side did not take it; "" when the cause is ours, or nobody knows."""
    if meaning is None:
        return ""
    for pattern, text in _WHY:
        if pattern.search(meaning.explanation):
            return text
    return _NOT_ACCEPTED if meaning.scope is Scope.RECIPIENT else ""


def _taken(facts: Facts, recipient: RecipientEntry) -> str:
    """Say what became of mail that a provider took, as far as it told since."""
    at_ms = recipient.verdict_at_ms or recipient.changed_at_ms
    match recipient.verdict:
        case Kind.DELIVERED:
            return f"was accepted by the mail server of the recipient on {_when(at_ms)}. {_LOOK}"
        case Kind.COMPLAINED:
            return f"arrived, and was reported as spam by the recipient on {_when(at_ms)}."
        case Kind.UNSUBSCRIBED:
            return f"arrived, and the recipient unsubscribed on {_when(at_ms)}."
        case None:
            return (
                f"was sent on {_when(recipient.changed_at_ms)} and accepted for delivery. {_LOOK}"
            )
    report = last_report(facts.record.reports, recipient)
    dsn = report.dsn if report is not None else None
    why = _NOT_ACCEPTED
    if recipient.verdict is Kind.HARD and (dsn in NO_ADDRESS or dsn is None):
        why = "the address does not exist or cannot receive mail. Please check how it is written"
    elif dsn in FULL:
        why = "the mailbox of the recipient is full"
    elif recipient.verdict is Kind.BLOCKED:
        why = "earlier mail to this address was returned or unwanted, so no more was sent to it"
    elif recipient.verdict is Kind.REJECTED:
        why = "the mail service that we use did not accept it"
    return f"was sent on {_when(recipient.changed_at_ms)}, but could not be delivered: {why}."


def _ended(facts: Facts, recipient: RecipientEntry, meanings: Meanings) -> str:
    entry = facts.entry
    match recipient.state:
        case _R.DELIVERED:
            return _taken(facts, recipient)
        case _R.BLOCKED:
            return "was not sent: the address is on our list of blocked addresses."
        case _R.CAPTURED if entry.mode != Mode.PRODUCTION:
            return "was not sent: it comes from a test system."
        case _R.CAPTURED:
            return f"was not sent {_OURS}."
        case _R.CANCELLED | _R.PENDING:
            return _WITHDRAWN
    if recipient.state is _R.EXPIRED and (recipient.reply or "").startswith(EXPIRED_BY):
        return _WITHDRAWN
    mine = facts.attempts_on(recipient)
    why = _why(meanings.of(mine[-1])) if mine else ""
    tried = f" We tried for {span(recipient.changed_at_ms - entry.accepted_at_ms)}."
    return (
        f"could not be delivered{f': {why}' if why else f' {_OURS}'}."
        f"{tried if recipient.state is _R.EXPIRED else ''}"
    )
