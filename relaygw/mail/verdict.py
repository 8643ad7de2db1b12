"""What became of mail after a provider's 250: one vocabulary for all who report of it.

A provider's event, a bounce mail and a complaint all become an `Event`. What a later event may
change of an earlier one is decided here, by `outweighs`, and nowhere else. What a provider says of
mail it was given comes on top of what it answered then (`mail.state`): the words that people ask
for, see, and are told by webhooks look at the one, at the other, or at both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relaygw.mail.state import RecipientState

BOUNCE_MAIL = "bounce mail"
"""Who tells of it, in the place of a provider's name; no provider can be called so."""


class Kind(StrEnum):
    """What a provider reports of one recipient."""

    ACCEPTED = "accepted"  # the provider has it
    DEFERRED = "deferred"  # the receiving server wants it later; the provider goes on trying
    DELIVERED = "delivered"  # the receiving server took it
    HARD = "hard"  # bounced: the address does not work
    SOFT = "soft"  # given up, the address may work later
    BLOCKED = "blocked"  # not tried: the address is on the provider's own list
    REJECTED = "rejected"  # not tried for another reason
    COMPLAINED = "complained"  # the recipient called it spam
    UNSUBSCRIBED = "unsubscribed"  # the recipient wants no more mail of this kind


PASSING = frozenset({Kind.ACCEPTED, Kind.DEFERRED})
"""Kinds that are no last word."""
FAILED = frozenset({Kind.HARD, Kind.SOFT, Kind.BLOCKED, Kind.REJECTED})
"""Kinds that say that the recipient did not get it."""
_WEIGHTS = {
    kind: weight
    for weight, kinds in enumerate(
        (
            (Kind.ACCEPTED,),
            (Kind.DEFERRED,),
            (Kind.DELIVERED,),
            (Kind.SOFT, Kind.BLOCKED, Kind.REJECTED),
            (Kind.HARD,),
            (Kind.UNSUBSCRIBED,),
            (Kind.COMPLAINED,),
        )
    )
    for kind in kinds
}


def outweighs(new: Kind, old: Kind | None) -> bool:
    """Return whether `new` replaces `old` as the last word, in whatever order they came."""
    return old is None or _WEIGHTS[new] > _WEIGHTS[old]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that was reported of one recipient, or of all of a message.

    `key` is the same however often it is reported. `mark` is the token that we gave the mail,
    `provider_id` the provider's name for it, `message_id` its Message-ID without angle brackets,
    `queue_id` our own name for it, where a bounce mail shows it in our Received field.
    """

    key: str
    kind: Kind
    at_ms: int  # by the provider's clock
    address: str | None = None  # None: it does not say which recipient
    others: int = 0  # how many more people it may be about, or may come of
    mark: str | None = None
    provider_id: str | None = None
    message_id: str | None = None
    queue_id: str | None = None
    dsn: str | None = None  # the enhanced status, where the report has one
    detail: str = ""  # in the provider's words, on one line
    raw: str = ""  # the report as it came: JSON, or the machine-readable part of a bounce mail


# --- in plain words ---------------------------------------------------------------------


_REPORT_WORDS = {
    Kind.ACCEPTED: "it has it and is sending it",
    Kind.DEFERRED: "delayed, it goes on trying",
    Kind.DELIVERED: "delivered, the recipient's server accepted it",
    Kind.HARD: "hard bounce, the address cannot receive mail",
    Kind.SOFT: "bounced, given up; the address may work later",
    Kind.BLOCKED: "not sent, the address is on the provider's own suppression list",
    Kind.REJECTED: "not sent, the provider rejected it",
    Kind.COMPLAINED: "spam complaint by the recipient",
    Kind.UNSUBSCRIBED: "the recipient unsubscribed",
}
_HARD_WORDS = {  # by RFC 3463 status: what it says of an address
    "5.1.1": "hard bounce, the address does not exist",
    "5.1.2": "hard bounce, the domain of the address does not exist",
    "5.1.3": "hard bounce, the address is malformed",
    "5.1.6": "hard bounce, the mailbox has moved",
    "5.1.10": "hard bounce, the domain accepts no mail at all",
    "5.2.1": "hard bounce, the mailbox is disabled",
}
FULL = frozenset({"4.2.2", "5.2.2"})
NO_ADDRESS = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})


def report_words(kind: Kind, dsn: str | None = None) -> str:
    """Return a report as a clause."""
    if kind is Kind.HARD and dsn in _HARD_WORDS:
        return _HARD_WORDS[dsn]
    if kind is Kind.SOFT and dsn in FULL:
        return "bounced, the mailbox is full"
    return _REPORT_WORDS[kind]


# --- for receivers of webhooks -------------------------------------------------------------


class Told(StrEnum):
    """What happened to one recipient, in a word that a shop understands."""

    DELIVERED = "delivered"  # a provider took it
    DEFERRED = "deferred"  # not taken yet; it is tried again
    BOUNCED = "bounced"  # refused for good, or a provider reports that it could not deliver it
    EXPIRED = "expired"  # not delivered within its lifetime, or ended by an operator
    BLOCKED = "blocked"  # on the block list or the suppression list; nobody was asked
    CAPTURED = "captured"  # kept in the sandbox, not sent
    CANCELLED = "cancelled"  # deleted by an operator
    ARRIVED = "arrived"  # a provider reports: the recipient's server took it
    DELAYED = "delayed"  # a provider reports: the recipient's server wants it later
    COMPLAINED = "complained"  # a provider reports: the recipient called it spam
    UNSUBSCRIBED = "unsubscribed"  # a provider reports: the recipient wants no more of it


OF_OUTCOME = {state: Told(state.value) for state in RecipientState if state.value != "pending"}
"""What is told of a recipient that came to its end here."""
OF_VERDICT = {
    Kind.DEFERRED: Told.DELAYED,
    Kind.DELIVERED: Told.ARRIVED,
    **dict.fromkeys(FAILED, Told.BOUNCED),
    Kind.COMPLAINED: Told.COMPLAINED,
    Kind.UNSUBSCRIBED: Told.UNSUBSCRIBED,
}
"""What is told of a provider's word; of `accepted` nothing: its 250 said so."""
ONLY_LAST = PASSING | {Kind.DELIVERED}
"""Verdicts that are no news once something that outweighs them is known."""
