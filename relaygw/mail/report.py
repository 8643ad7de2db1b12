"""What a report of a provider says of mail, in plain words."""

from __future__ import annotations

from relaygw.mail.verdict import Kind

_K = Kind
_WORDS = {
    _K.ACCEPTED: "it has it and is sending it",
    _K.DEFERRED: "delayed, it goes on trying",
    _K.DELIVERED: "delivered, the recipient's server accepted it",
    _K.HARD: "hard bounce, the address cannot receive mail",
    _K.SOFT: "bounced, given up; the address may work later",
    _K.BLOCKED: "not sent, the address is on the provider's own suppression list",
    _K.REJECTED: "not sent, the provider rejected it",
    _K.COMPLAINED: "spam complaint by the recipient",
    _K.UNSUBSCRIBED: "the recipient unsubscribed",
}
_HARD = {  # by RFC 3463 status: what it says of an address
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
    """Return what a report says, as a clause."""
    if kind is _K.HARD and dsn in _HARD:
        return _HARD[dsn]
    if kind is _K.SOFT and dsn in FULL:
        return "bounced, the mailbox is full"
    return _WORDS[kind]
