"""What lets a provider know a second try of the same mail: its key (decision 20).

Each recipient has a transaction, and so a key, of its own. Whoever was refused or settled at the
first try is then no part of the second one, and both are the same to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from relaygw.delivery.context import WorkerContext
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import header_end, read_header
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.sending_key import MAX_OWN_KEY_CHARACTERS, is_usable_key, sending_key
from relaygw.policy.retry import is_doubt_spent, key_until_ms
from relaygw.settings.idempotency import KeyHeader

Field = tuple[str, str]


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """How one attempt uses keys; without a header it does not."""

    header: str | None = None
    generations: Mapping[int, int] = field(default_factory=dict)  # by recipient, else 0
    until_ms: int | None = None  # a second try is harmless until then
    is_own: bool = False  # the sender set a key: it stays

    def fields_for(
        self, claimed: ClaimedDelivery, recipients: Sequence[tuple[int, str]]
    ) -> tuple[Field, ...]:
        """Return the field with the key of a transaction, if it needs one."""
        if self.header is None or self.is_own:
            return ()
        generation = max(self.generations.get(number, 0) for number, _ in recipients)
        key = sending_key(claimed.queue_id, claimed.sender, recipients, generation=generation)
        return ((self.header, key),)


NO_KEY = KeyPlan()


def has_been_tried(claimed: ClaimedDelivery) -> bool:
    """True when there may be something to know of earlier tries."""
    return claimed.attempts > 0 or claimed.provider is not None


def own_key(content_start: bytes, header: str) -> str | None:
    """Return the key that the sender of a mail set itself, None without the field."""
    end = header_end(content_start)
    name = header.lower()
    if name.encode() not in content_start[:end].lower():
        return None
    return read_header(content_start[:end], frozenset({name})).values.get(name)


def key_at_once(
    header: KeyHeader, claimed: ClaimedDelivery, addresses: Sequence[str]
) -> tuple[Field, ...] | None:
    """Return the key of mail that is begun without a look at what was before, None if it needs one.

    That is so for a first try to one recipient.
    """
    content = claimed.content or b""
    if len(addresses) > 1 or has_been_tried(claimed) or own_key(content, header.header) is not None:
        return None
    number = next(one.rcpt_no for one in claimed.recipients if one.address == addresses[0])
    return KeyPlan(header.header).fields_for(claimed, [(number, addresses[0])])


async def plan_key(
    context: WorkerContext,
    header: KeyHeader,
    claimed: ClaimedDelivery,
    content_start: bytes,
) -> KeyPlan | HoldCause:
    """Return how to use keys in an attempt, or why it must not be made; raises StoreUnavailable."""
    own = own_key(content_start, header.header)
    if own is not None and not is_usable_key(own):
        what = f"its {header.header} is not 1 to {MAX_OWN_KEY_CHARACTERS} visible characters"
        return HoldCause(HoldCode.HEADER, what)
    generations: Mapping[int, int] = {}
    since_ms = claimed.claimed_at_ms
    if has_been_tried(claimed):
        numbers = [one.rcpt_no for one in claimed.recipients]
        known = await context.call(context.store.doubts.history, claimed.queue_id, numbers)
        generations = known.generations
        if known.since_ms is not None:
            since_ms = known.since_ms
        elif claimed.may_be_taken:  # nobody wrote when: as early as it can be
            since_ms = claimed.accepted_at_ms
    until_ms: int | None = key_until_ms(since_ms, header.life_s)
    if own is not None and len(claimed.recipients) > 1:
        until_ms = None  # one key for all of them: who is left would not be sent to
    is_known = until_ms is not None and clock_ms() < until_ms
    if claimed.may_be_taken and is_doubt_spent(claimed) and not is_known:
        return HoldCause(HoldCode.IN_DOUBT)
    return KeyPlan(header.header, generations, until_ms, is_own=own is not None)
