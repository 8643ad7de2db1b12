"""What lets a provider know a second try of the same mail: its key (decision 20).

Each recipient has a transaction, and so a key, of its own. Whoever was refused or settled at the
first try is then no part of the second one, and both are the same to the byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

from relaygw.delivery.context import WorkerContext
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import header_end, header_fields, read_header
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.hold import OF_KEY, HoldCause, HoldCode
from relaygw.policy.retry import is_doubt_spent, key_until_ms
from relaygw.settings.idempotency import KeyHeader


class KeyPlan(NamedTuple):
    """How one attempt uses keys; without a header it does not."""

    header: str | None = None
    generations: Mapping[int, int] = MappingProxyType({})  # by recipient, else 0
    until_ms: int | None = None  # a second try is harmless until then
    is_own: bool = False  # the sender set a key: it stays

    @property
    def doubt(self) -> str:
        """What is told of an attempt that ends in doubt."""
        if self.until_ms is None or self.until_ms <= clock_ms():
            return "the message may be sent more than once"
        return "its provider knows a second try by its idempotency key"

    def line_for(self, claimed: ClaimedDelivery, rcpt_no: int, address: str) -> bytes:
        """Return the line with the key of a transaction to one recipient, if there is a header."""
        generation = self.generations.get(rcpt_no, 0) if self.generations else 0
        of, sender = claimed.queue_id, claimed.sender
        key = sending_key(of, sender, rcpt_no, address, generation=generation)
        return f"{self.header}: {key}\r\n".encode("ascii")


NO_KEY = KeyPlan()
_MOST_COUNTED = 100  # fields with a key of its own in one mail


def has_been_tried(claimed: ClaimedDelivery) -> bool:
    """True when there may be something to know of earlier tries."""
    return claimed.attempts > 0 or claimed.provider is not None


class OwnKey(NamedTuple):
    """The key that the sender of a mail set itself, and in how many fields; the first one's."""

    value: str
    fields: int

    def problem(self, header: str) -> str | None:
        """Return why the mail must not be sent with it, None if it may."""
        if self.fields > 1:  # which one a provider reads is not known, and the next one is another
            return f"({header}) is in {self.fields} fields; one is expected"
        if not is_usable_key(self.value):
            return f"({header}) is not 1 to {MAX_OWN_KEY_CHARACTERS} visible characters"
        return None


def own_key(content_start: bytes, header: str) -> OwnKey | None:
    """Return the key that the sender of a mail set itself, None without the field."""
    end = header_end(content_start)
    name = header.lower()
    if name.encode() not in content_start[:end].lower():
        return None
    fields = list(islice(header_fields(content_start, 0, end, names={name}), _MOST_COUNTED))
    if not fields:
        return None
    first = content_start[fields[0].start : fields[0].end]
    return OwnKey(read_header(first, frozenset({name})).values[name], len(fields))


@cache
def _lower(name: str) -> bytes:
    return name.lower().encode("ascii")


def plan_at_once(header: KeyHeader, claimed: ClaimedDelivery) -> KeyPlan | None:
    """Return how to use keys in the first try of small mail that has none, which nearly all is.

    None: `plan_key` looks at what was before, or at the field.
    """
    content = claimed.content
    if content is None or not claimed.is_untried:
        return None
    if _lower(header.header) in content[: content.find(b"\r\n\r\n")].lower():
        return None
    return KeyPlan(header.header, until_ms=key_until_ms(claimed.claimed_at_ms, header.life_s))


async def plan_key(
    context: WorkerContext,
    header: KeyHeader,
    claimed: ClaimedDelivery,
    content_start: bytes,
) -> KeyPlan | HoldCause:
    """Return how to use keys in an attempt, or why it must not be made; raises StoreUnavailable."""
    own = own_key(content_start, header.header)
    problem = None if own is None else own.problem(header.header)
    if problem is not None:
        return HoldCause(HoldCode.HEADER, f"{OF_KEY} {problem}")
    generations: Mapping[int, int] = {}
    since_ms = claimed.claimed_at_ms
    if has_been_tried(claimed):
        numbers = [recipient.rcpt_no for recipient in claimed.recipients]
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


# --- the key itself ---------------------------------------------------------------------
# The idempotency key of a transaction: a provider that knows it sends the mail once.
#
# The same for every try of the same mail, by whatever process or instance; another for another
# recipient, another message, and once an operator has let go of it in doubt. Nothing can be read in
# it. The number of a recipient says which delivery it is of, also after a delivery was parted; that
# of released mail is another one.


MAX_OWN_KEY_CHARACTERS = 256  # resend.com/docs/dashboard/emails/idempotency-keys: 1 to 256
_VERSION = "relaygw 1"


def sending_key(queue_id: str, sender: str, rcpt_no: int, address: str, *, generation: int) -> str:
    """Return the key of a transaction to one recipient."""
    told = f"{_VERSION}\n{queue_id}\n{generation}\n{sender}\n{rcpt_no} {address}"
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def is_usable_key(key: str) -> bool:
    """True for a key that a provider may take: 1 to 256 visible characters of ASCII."""
    is_visible = key.isascii() and key.isprintable() and " " not in key
    return is_visible and 0 < len(key) <= MAX_OWN_KEY_CHARACTERS
