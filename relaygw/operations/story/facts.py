"""What a story is told from: all that the store and the settings know of one message.

And what it says by itself: what replies mean, why a delivery is held, what is in its way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.content import read_header
from relaygw.mail.hold import DOUBTFUL, OF_KEY, HoldCause, HoldCode, sender_domain
from relaygw.mail.outcome import Meaning, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.mail.suppression import Listed, Suppression
from relaygw.operations.obstacles import Surroundings, look_around
from relaygw.operations.providers import Usage
from relaygw.policy.recipient_fields import NOTHING, FieldsFound
from relaygw.policy.recipients import Screen
from relaygw.policy.router import Explainer
from relaygw.policy.story import Advice, Note
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.store.queue_entry import (
    AttemptEntry,
    DeliveryCircumstances,
    DeliveryEntry,
    MessageRecord,
    QueueEntry,
    RecipientEntry,
    Way,
)
from relaygw.store.store import Store
from relaygw.upstream.classifier import Classifier
from relaygw.upstream.failure import known_remedy

_REPLY = re.compile(r"([2-5]\d\d)(?: (.*))?", re.DOTALL)
_WORDS = {
    HoldCode.MODE: "the mode or the allow list at the time of sending does not permit its "
    "recipients",
    HoldCode.POISON: "its worker died or failed with it three times, so it is held alone",
    HoldCode.RECOVERED: "the queue was recovered after damage, and this may have been sent already",
    HoldCode.RESTORED: "the queue was restored from a backup, and this may have been sent since",
}
_RELEASE = "relaygw queue release --id {id}"
_DELETE = "relaygw queue delete --id {id}"
_DOUBT = ("Check {log} for {message}. If it was not accepted:", _RELEASE)
_CONFIGURATION = (
    "Correct senders, daily_quota or the route in the configuration and reload: it is then "
    "checked again.",
    "",
)
_PERHAPS_SENT = (
    "Check relaygw's mail log for {id}, or the provider's for {message}. If it was not sent:",
    _RELEASE,
)
_ADVICE: dict[HoldCode, tuple[str, str]] = {
    HoldCode.IN_DOUBT: _DOUBT,
    HoldCode.LOST_PROVIDER: _DOUBT,
    HoldCode.MODE: (
        "Correct mode and recipients.allow, reload, then release it:",
        _RELEASE,
    ),
    HoldCode.POISON: (
        "Check relaygw's own log for {id}. If a worker died while sending it, the provider may "
        "have it: ask there before you release it:",
        _RELEASE,
    ),
    HoldCode.RECOVERED: _PERHAPS_SENT,
    HoldCode.RESTORED: _PERHAPS_SENT,
    HoldCode.HEADER: (
        "A provider may send to recipients in the header. Remove the address in the sending "
        "program (or shorten an endless header) and delete this mail; or remove the address from "
        "recipients.block and reload: it is then checked again.",
        "",
    ),
    HoldCode.NEEDS_8BITMIME: (
        "Give the route a provider with 8BITMIME and reload: it is then checked again. Or let the "
        "sending program write ASCII.",
        "",
    ),
    HoldCode.STORM: (
        "Stop the program that sends it, then delete it; or, where its recipient is to get it once "
        "more:",
        _RELEASE,
    ),
    HoldCode.NO_SENDER: _CONFIGURATION,
    HoldCode.OVER_QUOTA: _CONFIGURATION,
}
"""What to do about held mail, and the command that does it."""
_OWN_KEY = (
    "Let the sending program write one field with a key, or none, and send it again; then delete "
    "this mail:",
    _DELETE,
)
_LOOKED_AT = (
    ("Look at its text first:", "relaygw queue show {id} --raw"),
    ("If it may be sent:", _RELEASE),
    ("If not:", _DELETE),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(Surroundings):
    """The facts of one moment; all times in ms."""

    entry: QueueEntry
    record: MessageRecord
    headers: Mapping[str, str] | None = None  # None: the content is gone
    fields: FieldsFound = NOTHING  # that name recipients to a provider and are not sent
    listed: Mapping[str, Listed] = field(default_factory=dict)  # who is suppressed of those
    suppressed: Sequence[Suppression] = ()  # because of this mail, and still so

    def circumstances(self, part: DeliveryEntry) -> DeliveryCircumstances:
        """Return the circumstances of a delivery, which only the record knows."""
        for delivery in self.record.deliveries:
            if delivery.delivery_no == part.delivery_no:
                return delivery
        return DeliveryCircumstances(  # it came between two looks at the store
            delivery_no=part.delivery_no,
            changed_at_ms=self.now_ms,
            held_at_ms=None,
            held_ms=0,
            doubts=0,
            reclaims=0,
            lease=None,
        )

    def way(self, part: DeliveryEntry) -> Way:
        """Return by which way a delivery goes."""
        return Way(
            route=part.route,
            sender_domain=sender_domain(self.entry.sender),
            in_doubt_with=part.provider if self.is_in_doubt(part) else None,
            is_due=part.due_at_ms <= self.now_ms,
        )

    def providers(self, part: DeliveryEntry) -> tuple[str, ...]:
        """Return which providers may take a delivery, in their order."""
        return self.providers_of(self.way(part))

    def turn(self, part: DeliveryEntry) -> tuple[str, Usage] | None:
        """Return the provider whose rate a delivery waits for, None if it does not for long."""
        return self.turn_of(self.way(part))

    def is_in_doubt(self, part: DeliveryEntry) -> bool:
        """True when its provider may have taken it already."""
        state = self.circumstances(part)
        return part.provider is not None and bool(state.doubts or state.reclaims)

    def members(self, part: DeliveryEntry) -> list[RecipientEntry]:
        """Return the recipients of a delivery."""
        return [
            recipient
            for recipient in self.entry.recipients
            if recipient.delivery_no == part.delivery_no
        ]

    @property
    def tries(self) -> Iterator[AttemptEntry]:
        """The attempts without what was only noted beside them."""
        return (
            attempt for attempt in self.record.attempts if attempt.state is not AttemptState.WARNED
        )

    def last_attempt(self, part: DeliveryEntry) -> AttemptEntry | None:
        """Return the last attempt of a delivery, None without any."""
        mine = (attempt for attempt in self.tries if attempt.delivery_no == part.delivery_no)
        return max(mine, key=lambda attempt: attempt.at_ms, default=None)

    def attempts_on(self, recipient: RecipientEntry) -> list[AttemptEntry]:
        """Return the attempts that were about a recipient, alone or with others."""
        mine = (it for it in self.tries if it.delivery_no == recipient.delivery_no)
        return [attempt for attempt in mine if attempt.rcpt_no in (None, recipient.rcpt_no)]

    @property
    def is_deleted(self) -> bool:
        """True when something of it lies in the trash."""
        return any(part.state is DeliveryState.DELETED for part in self.entry.deliveries)


def gather(store: Store, settings: Settings, queue_id: str, *, now_ms: int) -> Facts | None:
    """Read the facts of a message, None if there is no such message."""
    entries = store.queue.entries([queue_id])
    if not entries:
        return None
    (entry,) = entries
    is_open = any(part.state in OPEN for part in entry.deliveries)
    names = Explainer(settings).header_names
    # of what was released beside a captured part: the rule for the part that came in
    released = {part.released for part in entry.deliveries}
    made = released.pop() if len(released) == 1 else None
    rule = Screen(settings).field_rule(entry.source, Mode(entry.mode), made)
    is_read = entry.chunk_count and (names or rule is not None)
    head = store.intake.read_chunk(queue_id, 0) if is_read else None
    headers = None if head is None else read_header(head, names).values
    around = Surroundings(settings=settings, now_ms=now_ms)
    if is_open:
        around = look_around(store, settings, now_ms=now_ms)
    return Facts(
        **{known.name: getattr(around, known.name) for known in fields(Surroundings)},
        entry=entry,
        record=store.queue.record_of(queue_id),
        headers=headers if names else {},
        fields=NOTHING if rule is None or head is None else rule.look(head),
    )


# --- what replies mean, by the present configuration ----------------------------------------


def reply_of(text: str) -> SmtpReply | None:
    """Return the reply that a line tells of, None where no reply came."""
    match = _REPLY.fullmatch(text)
    return SmtpReply(int(match[1]), (match[2] or "",)) if match else None


class Meanings:
    """The meanings of replies as the catalogue says them."""

    def __init__(self, settings: Settings) -> None:
        self._providers = settings.providers
        self._classifiers: dict[str, Classifier] = {}

    def of(self, attempt: AttemptEntry) -> Meaning | None:
        """Return the meaning of an attempt's reply, None of a provider that is gone.

        None, too, where a refusal was held although its words bounce: everybody was refused with
        them, and the hold of the provider tells why.
        """
        name = attempt.provider
        if name is None or name not in self._providers:
            return None
        if name not in self._classifiers:
            self._classifiers[name] = Classifier(self._providers[name])
        reply = reply_of(attempt.reply)
        meaning = self._classifiers[name].meaning(
            Stage(attempt.stage), reply, in_doubt=attempt.state is AttemptState.IN_DOUBT
        )
        if reply is None and (remedy := known_remedy(attempt.reply)) is not None:
            meaning = replace(meaning, remedy=remedy)
        is_held_apart = attempt.state is AttemptState.HELD and meaning.verdict is Verdict.BOUNCE
        return None if is_held_apart else meaning


def meaning_notes(meaning: Meaning | None) -> Iterator[Note]:
    """Yield what a reply means and what can be done about it."""
    if meaning is not None and meaning.explanation:
        yield Note("meaning", meaning.explanation)
    if meaning is not None and meaning.remedy:
        yield Note("remedy", meaning.remedy)


# --- held by itself ------------------------------------------------------------------------


def held_words(cause: HoldCause) -> str:
    """Return why a delivery is held, as the end of a sentence."""
    if cause.code in DOUBTFUL:
        return "a provider may have taken it already, it is not known"
    if cause.code is HoldCode.SENDER_REFUSED:
        return f"{' and '.join(sorted(cause.providers))} refused to send for {cause.domain}"
    if cause.code is HoldCode.OPERATOR:
        return f"an operator holds it ({cause.key})"
    return _WORDS.get(cause.code) or cause.sentence or "no reason is recorded"


def held_advice(
    cause: HoldCause, queue_id: str, message_id: str, provider: str | None
) -> list[Advice]:
    """Return the advice about a held delivery."""
    if cause.hold_id is not None:
        return [
            Advice("End the hold, and all its mail is due:", f"relaygw hold end {cause.hold_id}")
        ]
    if cause.code is HoldCode.SENDER_REFUSED:
        what = f"Have {cause.domain} verified as a sender at"
        return [
            Advice(
                f"{what} {name}. A probe finds out automatically; now:",
                f"relaygw provider release {name}",
            )
            for name in sorted(cause.providers)
        ]
    where = f"the log of {provider}" if provider else "the provider's log"
    of = {"id": queue_id, "message": message_id or queue_id, "log": where}
    rows = [_ADVICE.get(cause.code, ("Release it:", _RELEASE))]
    if cause.code is HoldCode.HEADER and cause.key.startswith(OF_KEY):
        rows = [_OWN_KEY]
    if cause.code in DOUBTFUL | {HoldCode.RECOVERED, HoldCode.RESTORED}:
        rows.append(("If it was:", _DELETE))
    if cause.code is HoldCode.CONTENT_CHECK:
        rows = [*_LOOKED_AT]
    return [Advice(text.format_map(of), command.format_map(of)) for text, command in rows]
