"""What a story is told from: all that the store and the settings know of one message.

And what it says by itself: what replies mean, why a delivery is held, what is in its way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relaygw.mail.address import split
from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.clock import utc_text
from relaygw.mail.content import read_header
from relaygw.mail.hold import DOUBTFUL, OF_KEY, HoldCause, HoldCode
from relaygw.mail.keys import packed
from relaygw.mail.outcome import Meaning, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.mail.suppression import Listed, Suppression
from relaygw.mail.words import printable, span, wait_span
from relaygw.operations.providers import Usage, holds_of, read_usages
from relaygw.policy.recipient_fields import NOTHING, FieldsFound
from relaygw.policy.recipients import Screen
from relaygw.policy.router import Explainer, provider_of_route, providers_of
from relaygw.policy.story import Advice, Note
from relaygw.policy.untended import known_routes
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.store.holds import PAUSED, PROBE_LONGEST_S, RETRIED, STOPS, UNREACHABLE, Hold
from relaygw.store.home import home_elsewhere
from relaygw.store.instances import Instance
from relaygw.store.queue import LaneCount
from relaygw.store.queue_entry import (
    AttemptEntry,
    DeliveryCircumstances,
    DeliveryEntry,
    MessageRecord,
    QueueEntry,
    RecipientEntry,
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
class Facts:
    """The facts of one moment; all times in ms."""

    entry: QueueEntry
    record: MessageRecord
    settings: Settings
    now_ms: int
    holds: Sequence[Hold] = ()
    ends_ms: Mapping[str, int] = field(default_factory=dict)  # of standing holds that have an end
    instances: Sequence[Instance] = ()
    headers: Mapping[str, str] | None = None  # None: the content is gone
    fields: FieldsFound = NOTHING  # that name recipients to a provider and are not sent
    usages: Mapping[str, Usage] = field(default_factory=dict)  # by provider
    queued: Mapping[str, int] = field(default_factory=dict)  # deliveries that wait, by route
    listed: Mapping[str, Listed] = field(default_factory=dict)  # who is suppressed of those
    suppressed: Sequence[Suppression] = ()  # because of this mail, and still so
    home: str | None = None  # the machine of the queue, where this one sends nothing

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

    def providers(self, part: DeliveryEntry) -> tuple[str, ...]:
        """Return which providers may take a delivery, in their order."""
        if self.is_in_doubt(part) and part.provider is not None:
            return (part.provider,)
        return providers_of(self.settings, part.route)

    def turn(self, part: DeliveryEntry) -> tuple[str, Usage] | None:
        """Return the provider whose rate a delivery waits for, None if it does not for long."""
        stopped = {hold.key for hold in self.holds if hold.scope in STOPS}
        free = [name for name in self.providers(part) if name not in stopped]
        usage = self.usages.get(free[0]) if free else None
        return (free[0], usage) if usage is not None and usage.is_behind else None

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
    holds, standing = store.holds.all_in_force() if is_open else ([], [])
    lanes = store.queue.counts() if is_open else []
    return Facts(
        entry=entry,
        record=store.queue.record_of(queue_id),
        settings=settings,
        now_ms=now_ms,
        holds=holds,
        ends_ms={hold.hold_id: hold.until_ms for hold in standing if hold.until_ms is not None},
        instances=store.instances.registered() if is_open else (),
        headers=headers if names else {},
        fields=NOTHING if rule is None or head is None else rule.look(head),
        usages=read_usages(store, settings, holds, lanes) if is_open else {},
        queued=_queued(lanes),
        home=_home_elsewhere(store, settings),
    )


def _home_elsewhere(store: Store, settings: Settings) -> str | None:
    home = home_elsewhere(store.homes, settings)
    return None if home is None else printable(home.owner)


def _queued(lanes: Sequence[LaneCount]) -> dict[str, int]:
    numbers: Counter[str] = Counter()
    for lane in lanes:
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


# --- words that all parts of the story use -------------------------------------------------


def seen_from(at_ms: int, now_ms: int) -> str:
    """Return a time and how far it is from now."""
    if at_ms > now_ms:
        return f"{utc_text(at_ms)}, in {wait_span(at_ms - now_ms)}"
    return f"{utc_text(at_ms)}, {span(now_ms - at_ms)} ago"


# --- what is in the way --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something in the way, and what to do about it."""

    text: str  # a clause
    advice: Advice
    notes: tuple[Note, ...] = ()
    ends_at_ms: int | None = None  # when it is looked at again


def obstacles(facts: Facts, part: DeliveryEntry) -> list[Obstacle]:
    """Return the obstacles of a delivery that waits; none when it may go now."""
    if not any(instance.role == "delivery" for instance in facts.instances):
        advice = Advice("Start the gateway; to see what runs:", "relaygw status")
        return [Obstacle("no delivery worker runs", advice)]
    if facts.home is not None:
        advice = Advice("If this is the machine that sends, and not a copy:", "relaygw db adopt")
        what = f"the queue belongs to {facts.home}"
        return [Obstacle(f"{what}, so nothing is sent from this one", advice)]
    names = facts.providers(part)
    if not names or part.route not in known_routes(facts.settings):
        moved_to = provider_of_route(part.route)
        what = f"route {part.route}" if moved_to is None else f"provider {moved_to}"
        advice = Advice(
            f"Add {what} to the configuration again and reload, or move the mail:",
            f"relaygw queue move --id {facts.entry.queue_id} --to PROVIDER",
        )
        return [Obstacle(f"{what} is not in the configuration, so no worker takes it", advice)]
    in_the_way = [next(_of_provider(facts, name), None) for name in names]
    found = [obstacle for obstacle in in_the_way if obstacle is not None]
    return found if len(found) == len(names) else []


def _of_provider(facts: Facts, name: str) -> Iterator[Obstacle]:
    domain = split(facts.entry.sender)[1] or ""
    for hold in sorted(holds_of(facts.holds, name), key=_weight):
        if hold.scope != Scope.SENDER_DOMAIN or hold.key == packed(name, domain):
            yield _of_hold(name, hold, facts.now_ms)
    quota = facts.settings.providers[name].daily_quota
    usage = facts.usages.get(name)
    if quota is not None and usage is not None and usage.quota_used >= quota:
        advice = Advice(
            "Wait: the quota covers the last 24 hours. Or have it raised at the provider."
        )
        yield Obstacle(f"{name} has used its daily_quota of {quota}", advice)


def _weight(hold: Hold) -> tuple[bool, bool]:
    """Sort an operator's hold to the front and an outage, which ends by itself, to the end."""
    return hold.scope == UNREACHABLE, hold.probe_at_ms is not None


def _of_hold(name: str, hold: Hold, now_ms: int) -> Obstacle:
    since: tuple[Note, ...] = (Note("since", seen_from(hold.since_ms, now_ms)),)
    if hold.scope == UNREACHABLE:
        first = "Nothing, if it comes back:" if hold.remedy == RETRIED else f"{hold.remedy};"
        advice = Advice(
            f"{first} it is retried automatically. To see what is wrong:", "relaygw check --online"
        )
        text = f"{name} cannot be reached ({hold.reason})"
        ends_ms = (hold.probe_at_ms or 0) + int(PROBE_LONGEST_S * 1000)
        if (hold.probe_at_ms or 0) <= now_ms < ends_ms:
            since += (Note("its probe ends", f"{seen_from(ends_ms, now_ms)} at the latest"),)
        return Obstacle(text, advice, since, hold.probe_at_ms)
    release = f"relaygw provider release {name}"
    if hold.scope == PAUSED:
        advice = Advice(
            "Nothing: one message tries it at least once a minute. To try it now:", release
        )
        return Obstacle(f"{name} is paused ({hold.reason})", advice, since, hold.probe_at_ms)
    if hold.probe_at_ms is None:
        advice = Advice("Release the provider when the reason is resolved:", release)
        return Obstacle(f"an operator holds provider {name} ({hold.cause.key})", advice, since)
    what = f"{name} refuses this sender" if hold.scope == Scope.SENDER_DOMAIN else f"{name} is held"
    remedy = hold.remedy.strip()
    remedy = f"{remedy[:1].upper()}{remedy[1:].rstrip('.')}." if remedy else ""
    advice = Advice(f"{remedy} A probe finds out automatically; now:", release)
    return Obstacle(f"{what} ({hold.reason})", advice, since, hold.probe_at_ms)


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
