"""The first sentence of a story: the cause in plain words, and what comes next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.clock import utc_text
from relaygw.mail.hold import DOUBTFUL, OF_CONFIGURATION, HoldCause, HoldCode
from relaygw.mail.outcome import BEFORE_MAIL, Meaning, Scope, Stage
from relaygw.mail.state import EXPIRED_BY, CaptureCode, RecipientState, capture_code
from relaygw.mail.suppression import told_remedy
from relaygw.mail.verdict import FAILED, Kind
from relaygw.mail.words import counted, some_of, span
from relaygw.operations.queue_object import rank
from relaygw.operations.story.facts import Facts, Meanings, reply_of
from relaygw.operations.story.reports import last_word, reporter
from relaygw.policy.retry import DOUBT_LADDER_S, key_until_ms
from relaygw.policy.story import Outlook
from relaygw.store.queue_entry import AttemptEntry, DeliveryEntry, RecipientEntry

_R = RecipientState
_Groups = dict[tuple[RecipientState, Kind | None], list[RecipientEntry]]
"""Recipients by what became of them."""
_MAX_REPLY = 300
# what a row of the catalogue says of itself, behind what it means
_ASIDE = re.compile(
    r" \([^()]*\)$|[,;] (?:(?:the provider|it) says|according to the)\b.*", re.DOTALL
)
_NO_NAMES = ("The ", "This ", "There ", "More ", "Too ", "One ", "A ", "Sending ")
_CAPTURED = {
    CaptureCode.NO_ROUTE: "no configured route matches it",
    CaptureCode.SANDBOX: "nothing leaves in sandbox mode",
    CaptureCode.NOT_ALLOWED: "its recipient is not on the allow list of staging",
    CaptureCode.BLOCKED: "its recipient is on the block list",
    CaptureCode.SUPPRESSED: "its recipient is suppressed",
    CaptureCode.NO_DOMAIN: "its address has no domain, and no rewrite rule matches",
    CaptureCode.INVALID_ADDRESS: "its address is not valid",
    CaptureCode.LOOP: "it is in a mail loop",
    CaptureCode.TOO_LARGE: "it is larger than max_message_size",
    CaptureCode.HEADER_TOO_LONG: "its header is longer than max_header_size",
    CaptureCode.BOUNCE_MAIL: "mail to bounces.inbound is read here, and sent to nobody",
}
_SAY_MORE = frozenset(
    {
        *(CaptureCode.INVALID_ADDRESS, CaptureCode.LOOP),
        *(CaptureCode.TOO_LARGE, CaptureCode.HEADER_TOO_LONG),
    }
)


def attempt_cause(attempt: AttemptEntry, meaning: Meaning | None) -> str:
    """Return why an attempt did not deliver, as a clause."""
    who, reply = attempt.provider or "relaygw", attempt.reply
    match attempt.state:
        case AttemptState.IN_DOUBT:
            return f"{who} may have taken it: the connection was lost before its answer came"
        case AttemptState.INTERRUPTED:
            return f"the worker that was sending it by {who} died, and {who} may have taken it"
        case AttemptState.THROTTLED:
            return _told(f"{who} asks to slow down", reply)
    if Stage(attempt.stage) is not Stage.LOCAL and reply_of(reply) is None:
        is_early = Stage(attempt.stage) in BEFORE_MAIL
        return _told(f"{who} {'could not be reached' if is_early else 'did not answer'}", reply)
    text = plain_words(meaning)
    if not text and attempt.state is AttemptState.BOUNCED:
        text = f"{who} refuses it"
    elif not text and attempt.state is AttemptState.HELD:
        text = f"{who} accepts nothing for now"
    elif not text:
        is_recipients = meaning is not None and meaning.scope is Scope.RECIPIENT
        asks = "the recipient's server" if is_recipients else who
        text = f"{asks} {'refuses it' if reply.startswith('5') else 'asks to try later'}"
        if meaning is not None:  # no row knows it: it is tried again all the same
            text += " by an unknown reply"
    return _told(text, reply)


def plain_words(meaning: Meaning | None) -> str:
    """Return the catalogue's words for a reply, as a clause; "" where no row knows it."""
    if meaning is None or meaning.rule == "none":
        return ""
    text = _ASIDE.sub("", meaning.explanation.partition(". ")[0].rstrip("."))
    return text[:1].lower() + text[1:] if text.startswith(_NO_NAMES) else text


def _told(text: str, reply: str) -> str:
    shown = reply if len(reply) <= _MAX_REPLY else f"{reply[:_MAX_REPLY]}…"
    return f"{text} ({shown})" if shown else text


def held_until(cause: HoldCause, ends_ms: Mapping[str, int]) -> str:
    """Return until when a delivery is held, as the end of a sentence.

    `ends_ms`: when standing holds end by themselves.
    """
    if cause.code is HoldCode.SENDER_REFUSED:
        return f"until {' or '.join(sorted(cause.providers))} takes it"
    if cause.code is HoldCode.MODE:
        return "until a worker starts in a mode that permits it, or somebody releases it"
    if cause.hold_id is not None:
        end_ms = ends_ms.get(cause.hold_id)
        return f"until that hold ends{'' if end_ms is None else f', {utc_text(end_ms)}'}"
    if cause.code in OF_CONFIGURATION:
        return "until the configuration is changed, or somebody releases it"
    if cause.code in DOUBTFUL:
        return "until somebody has asked the provider"
    return "until somebody releases it"


def next_words(outlook: Outlook, now_ms: int) -> str:
    """Return when something is tried next, as the end of a sentence; "" when nobody knows."""
    if outlook.next_at_ms is None or outlook.next_at_ms <= now_ms:
        return ""
    return f", next try {utc_text(outlook.next_at_ms)}"


def headline(facts: Facts, outlooks: Sequence[Outlook], meanings: Meanings) -> str:
    """Return the whole story in a sentence."""
    groups: _Groups = {}
    for recipient in facts.entry.recipients:
        verdict = recipient.verdict if recipient.state is _R.DELIVERED else None
        groups.setdefault((recipient.state, verdict), []).append(recipient)
    states = {state for state, _ in groups}
    if facts.is_deleted and not outlooks and states <= {_R.PENDING, _R.CANCELLED}:
        text = "it was deleted by an operator; the trash keeps it for seven days"
    elif len(groups) > 1 or len(outlooks) > 1:
        text = "; ".join(_apart(facts, groups, outlooks, meanings))
    elif outlooks:
        text = outlooks[0].text + next_words(outlooks[0], facts.now_ms)
    else:
        (members,) = groups.values()
        text = _ended(facts, members, meanings)
    is_name = text.split(" ")[0] in facts.settings.providers
    return f"{text if is_name else text[:1].upper() + text[1:]}."


def _apart(
    facts: Facts,
    groups: _Groups,
    outlooks: Sequence[Outlook],
    meanings: Meanings,
) -> Iterator[str]:
    """Yield what became of each group of several recipients: how many got it, then the others."""
    total = len(facts.entry.recipients)
    got = sum(len(them) for (state, word), them in groups.items() if _got_it(state, word))
    yield f"{got or 'none'} of {counted(total, 'recipient')} got it"
    for outlook in outlooks:
        yield f"{_who(outlook.recipients)}: {outlook.text}{next_words(outlook, facts.now_ms)}"
    for members in sorted(groups.values(), key=lambda them: rank(them[0])):
        recipient = members[0]
        is_plain = recipient.state is _R.DELIVERED and recipient.verdict in (None, Kind.DELIVERED)
        if recipient.state is not _R.PENDING and not is_plain:
            who = _who([member.address for member in members])
            yield f"{who}: {_ended(facts, members, meanings)}"


def _got_it(state: RecipientState, verdict: Kind | None) -> bool:
    return state is _R.DELIVERED and verdict not in FAILED


def _who(addresses: Sequence[str]) -> str:
    return some_of(addresses, 3)


def _delivered(facts: Facts, members: Sequence[RecipientEntry]) -> str:
    """Say what became of mail that a provider took: the last word is the provider's."""
    names = " and ".join(sorted({member.provider for member in members if member.provider}))
    first = members[0]
    since = "" if first.verdict is None else last_word(facts.record.reports, first)
    if first.verdict in FAILED:
        who = reporter(facts.record.reports, first)
        return f"delivered to {names or 'a provider'}{who} reported: {since}"
    last_ms = max(member.changed_at_ms for member in members)
    took = f"{span(last_ms - facts.entry.accepted_at_ms)} after it was accepted"
    text = f"delivered{f' by {names}' if names else ''}, {took}"
    return f"{text}; reported since: {since}" if since else text


def _ended(facts: Facts, members: Sequence[RecipientEntry], meanings: Meanings) -> str:
    first = members[0]
    reply = first.reply or ""
    match first.state:
        case _R.DELIVERED:
            return _delivered(facts, members)
        case _R.CAPTURED:
            code = capture_code(first.reply)
            text = _CAPTURED.get(code, reply)
            text = _told(text, reply) if code in _SAY_MORE else text
            return f"{text}, so it was captured: not sent unless somebody releases it"
        case _R.BLOCKED if capture_code(reply) is CaptureCode.SUPPRESSED:
            return f"its recipient is {told_remedy(reply)[0]}; so it was not sent"
        case _R.BLOCKED:
            return "its recipient is on the block list, so it was dropped and not delivered"
        case _R.CANCELLED | _R.PENDING:
            return "deleted by an operator and not delivered"
        case _R.BOUNCED:
            return f"{_last_cause(facts, first, meanings)}, refused permanently and not tried again"
        case _:
            if reply.startswith(EXPIRED_BY):
                return f"{reply}, not tried again"
            cause = _last_cause(facts, first, meanings)
            after = span(first.changed_at_ms - facts.entry.accepted_at_ms)
            return f"{cause}, given up after {after} and not tried again"


def _last_cause(facts: Facts, recipient: RecipientEntry, meanings: Meanings) -> str:
    """Return why a recipient did not get it: what its last attempt was told, or was decided."""
    reply = recipient.reply or ""
    for attempt in reversed(facts.attempts_on(recipient)):
        if attempt.reply and attempt.reply in reply:
            return attempt_cause(attempt, meanings.of(attempt))
    return reply or "no reply"


# --- doubts -----------------------------------------------------------------------------


MAYBE_TAKEN = frozenset({AttemptState.IN_DOUBT, AttemptState.INTERRUPTED})
_TWICE = " It may have arrived more than once."
_ONE_KEY = " {} was given the same idempotency key each time, and sends one message for it."
_REPEATED = (_TWICE, _ONE_KEY, "")


def repeated(facts: Facts, taken: Sequence[RecipientEntry]) -> str:
    """Return a sentence about mail that was sent again after a doubt, "" if it was not."""
    said = min((_repeated(facts, recipient) for recipient in taken), key=_REPEATED.index)
    return said.format(taken[0].provider)


def tried_again(facts: Facts, part: DeliveryEntry) -> tuple[str, str]:
    """Return how mail in doubt is tried again, and what to do about it."""
    mine = [attempt for attempt in facts.tries if attempt.delivery_no == part.delivery_no]
    doubts = [attempt for attempt in mine if attempt.state in MAYBE_TAKEN]
    who = part.provider
    if _is_known_by_key(facts, doubts, who, part.due_at_ms):
        then = f"it is tried again with the same idempotency key, only through {who}"
        return then, f"Nothing: {who} sends one message for each key."
    waits = " and ".join(span(int(wait_s * 1000)) for wait_s in DOUBT_LADDER_S)
    then = f"it is tried again {waits} after, only through {who}, then held"
    return then, "Nothing yet; it may arrive twice."


def _repeated(facts: Facts, recipient: RecipientEntry) -> str:
    mine = facts.attempts_on(recipient)
    doubts = [attempt for attempt in mine if attempt.state in MAYBE_TAKEN]
    is_settled = any(  # by an event: nothing was sent for that
        attempt.state is AttemptState.DELIVERED and attempt.stage == Stage.LOCAL for attempt in mine
    )
    if not doubts or (is_settled and sum(attempt.times for attempt in doubts) == 1):
        return ""
    is_known = _is_known_by_key(facts, doubts, recipient.provider, recipient.changed_at_ms)
    return _ONE_KEY if is_known else _TWICE


def _is_known_by_key(
    facts: Facts, doubts: Sequence[AttemptEntry], name: str | None, at_ms: int
) -> bool:
    """True when a provider takes a try at that time for the first one, by the present settings."""
    provider = facts.settings.providers.get(name or "")
    key = provider.key_header if provider is not None else None
    if key is None or not doubts or any(doubt.provider != name for doubt in doubts):
        return False
    first_ms = min(doubt.since_ms for doubt in doubts)
    # a release of what is held has another key
    is_one = not any(action.at_ms > first_ms for action in facts.record.actions)
    return is_one and at_ms < key_until_ms(first_ms, key.life_s)
