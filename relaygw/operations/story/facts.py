"""What a story is told from: all that the store and the settings know of one message.

What replies mean is read here as well, from attempts that were written down as text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from relaygw.mail.clock import utc_text
from relaygw.mail.content import read_header
from relaygw.mail.outcome import AttemptState, Meaning, SmtpReply, Stage, Verdict
from relaygw.mail.state import CLAIMABLE, OPEN, DeliveryState
from relaygw.mail.words import span
from relaygw.operations.providers import Usage, read_usages
from relaygw.policy.recipient_fields import NOTHING, FieldsFound
from relaygw.policy.recipients import Screen
from relaygw.policy.router import Explainer, provider_of_route
from relaygw.policy.story import Note
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.store.attempts import AttemptEntry, DeliveryCircumstances, MessageRecord
from relaygw.store.holds import Hold
from relaygw.store.instances import Instance
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry, RecipientEntry
from relaygw.store.store import Store
from relaygw.upstream.classifier import Classifier

_REPLY = re.compile(r"([2-5]\d\d)(?: (.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts of one moment; all times in ms."""

    entry: QueueEntry
    record: MessageRecord
    settings: Settings
    now_ms: int
    holds: Sequence[Hold] = ()
    instances: Sequence[Instance] = ()
    headers: Mapping[str, str] | None = None  # None: the content is gone
    fields: FieldsFound = NOTHING  # that name recipients to a provider and are not sent
    usages: Mapping[str, Usage] = field(default_factory=dict)  # by provider
    queued: Mapping[str, int] = field(default_factory=dict)  # deliveries that wait, by route

    def circumstances(self, part: DeliveryEntry) -> DeliveryCircumstances:
        """Return what only the record knows of a delivery."""
        for one in self.record.deliveries:
            if one.delivery_no == part.delivery_no:
                return one
        return DeliveryCircumstances(  # it came between two looks at the store
            delivery_no=part.delivery_no,
            changed_at_ms=self.now_ms,
            held_at_ms=None,
            held_ms=0,
            doubts=0,
            reclaims=0,
            lease=None,
        )

    def providers(self, part: DeliveryEntry) -> tuple[str, ...]:
        """Return which providers may take a delivery, in their order."""
        state = self.circumstances(part)
        if (state.doubts or state.reclaims) and part.provider is not None:
            return (part.provider,)  # which may have taken it already
        moved_to = provider_of_route(part.route)
        route = next((one for one in self.settings.routes if one.name == part.route), None)
        names = (moved_to,) if moved_to is not None else route.providers if route else ()
        return tuple(name for name in names if name in self.settings.providers)

    def members(self, part: DeliveryEntry) -> list[RecipientEntry]:
        """Return the recipients of a delivery."""
        return [one for one in self.entry.recipients if one.delivery_no == part.delivery_no]

    def attempts_on(self, one: RecipientEntry) -> list[AttemptEntry]:
        """Return the attempts that were about a recipient, alone or with others."""
        mine = (it for it in self.record.attempts if it.delivery_no == one.delivery_no)
        return [attempt for attempt in mine if attempt.rcpt_no in (None, one.rcpt_no)]

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
    # something of it might go now: what is before it matters
    is_due = any(one.state in CLAIMABLE and one.due_at_ms <= now_ms for one in entry.deliveries)
    names = Explainer(settings).header_names
    rule = Screen(settings).field_rule(entry.source, Mode(entry.mode))
    is_read = entry.chunk_count and (names or rule is not None)
    head = store.intake.read_chunk(queue_id, 0) if is_read else None
    headers = None if head is None else read_header(head, names).values
    return Facts(
        entry=entry,
        record=store.queue.record_of(queue_id),
        settings=settings,
        now_ms=now_ms,
        holds=store.holds.in_force() if is_open else (),
        instances=store.instances.registered() if is_open else (),
        headers=headers if names else {},
        fields=NOTHING if rule is None or head is None else rule.look(head),
        usages=read_usages(store, settings.providers) if is_open else {},
        queued=_queued(store) if is_due else {},
    )


def _queued(store: Store) -> dict[str, int]:
    numbers: Counter[str] = Counter()
    for lane in store.queue.counts():
        if lane.state is not DeliveryState.HELD:
            numbers[lane.route] += lane.deliveries
    return dict(numbers)


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
        """Return what an attempt's reply means, None of a provider that is gone.

        None, too, where a refusal was held although its words bounce: everybody was refused with
        them, and the hold of the provider tells why.
        """
        name = attempt.provider
        if name is None or name not in self._providers:
            return None
        if name not in self._classifiers:
            self._classifiers[name] = Classifier(self._providers[name])
        meaning = self._classifiers[name].meaning(
            Stage(attempt.stage),
            reply_of(attempt.reply),
            in_doubt=attempt.state is AttemptState.IN_DOUBT,
        )
        is_held_apart = attempt.state is AttemptState.HELD and meaning.verdict is Verdict.BOUNCE
        return None if is_held_apart else meaning


def meaning_notes(meaning: Meaning | None) -> Iterator[Note]:
    """Yield what a reply means and what can be done about it."""
    if meaning is not None and meaning.explanation:
        yield Note("meaning", meaning.explanation)
    if meaning is not None and meaning.remedy:
        yield Note("remedy", meaning.remedy)


# --- words that all parts of the story use -------------------------------------------------


def seen_from(at_ms: int, now_ms: int) -> str:
    """Return a time and how far it is from now."""
    if at_ms > now_ms:
        return f"{utc_text(at_ms)}, in {span(at_ms - now_ms)}"
    return f"{utc_text(at_ms)}, {span(now_ms - at_ms)} ago"
