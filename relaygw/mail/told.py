"""What receivers of webhooks are told: one flat list of names over outcomes and verdicts."""

from __future__ import annotations

from enum import StrEnum

from relaygw.mail.state import RecipientState
from relaygw.mail.verdict import FAILED, PASSING, Kind


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
