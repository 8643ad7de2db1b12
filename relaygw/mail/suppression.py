"""Suppressed addresses: who gets no more mail of a sender's domain, why, and what is done about it.

Pure. A mailbox has one name here (`mail.address.mailbox`), whatever way it is written.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from relaygw.mail.address import ascii_domain, check_address, split
from relaygw.mail.clock import utc_text
from relaygw.mail.reply import EnhancedStatus
from relaygw.mail.state import CaptureCode
from relaygw.mail.verdict import Kind

ANY = ""
"""Stands for every sender's domain, and for both streams."""
ANY_DOMAIN = "*"
"""What people write for every sender's domain."""
NULL_SENDER = "<>"
"""The domain of mail that has no sender."""
PROMOTIONAL = "promotional"
STREAMS = ("transactional", PROMOTIONAL)


class Action(StrEnum):
    """What happens to mail for a suppressed address."""

    OFF = "off"  # it is sent
    WARN = "warn"  # it is sent, and told of once a message
    BLOCK = "block"  # it is not sent


class Cause(StrEnum):
    """Why an address is suppressed."""

    BOUNCE = "bounce"  # a provider reported a hard bounce
    REFUSED = "refused"  # two messages to it were refused with 5.1.x
    COMPLAINT = "complaint"  # the recipient called a mail spam
    UNSUBSCRIBE = "unsubscribe"  # the recipient wants no more promotional mail
    MANUAL = "manual"  # an operator added it


_WORDS = {
    Cause.BOUNCE: "hard bounce",
    Cause.REFUSED: "refused twice as an address that does not exist",
    Cause.COMPLAINT: "spam complaint",
    Cause.UNSUBSCRIBE: "unsubscribed",
    Cause.MANUAL: "added by hand",
}
CAUSE_OF = {
    Kind.HARD: Cause.BOUNCE,
    Kind.COMPLAINED: Cause.COMPLAINT,
    Kind.UNSUBSCRIBED: Cause.UNSUBSCRIBE,
}
"""The verdicts of a provider that suppress an address."""
_WEIGHTS = {cause: weight for weight, cause in enumerate(Cause)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """An address that gets no more mail of a sender's domain, or of a stream of it."""

    address: str  # as `mailbox` returns it
    sender_domain: str = ANY
    stream: str = ANY
    cause: Cause
    source: str = ""  # a provider, "import FORMAT", or who added it
    detail: str = ""
    queue_id: str | None = None  # the mail that it came of
    created_at_ms: int
    expires_at_ms: int | None = None  # None: never

    @property
    def key(self) -> tuple[str, str, str]:
        """What there is one of."""
        return self.address, self.sender_domain, self.stream

    @property
    def words(self) -> str:
        """Why, since when and by whom, in words."""
        source = f", {self.source}" if self.source else ""
        detail = f": {self.detail}" if self.detail else ""
        since = utc_text(self.created_at_ms, "%Y-%m-%d %H:%M")
        return f"{_WORDS[self.cause]}{source}, {since}{detail}"

    @property
    def way_back(self) -> str:
        """The command that lifts it."""
        domain = f" --sender-domain {shlex.quote(self.sender_domain)}" if self.sender_domain else ""
        stream = f" --stream {self.stream}" if self.stream else ""
        return f"relaygw suppress remove {shlex.quote(self.address)}{domain}{stream}"

    @property
    def told(self) -> str:
        """What the log says when an address becomes suppressed."""
        whose = self.sender_domain or "any sender"
        stream = f" of stream {self.stream}" if self.stream else ""
        return f"{self.address} is suppressed for mail{stream} of {whose}: {self.words}"

    def is_over(self, now_ms: int) -> bool:
        """True once it has expired."""
        return self.expires_at_ms is not None and self.expires_at_ms <= now_ms


class Listed(NamedTuple):
    """What a suppression means for one recipient of a mail."""

    entry: Suppression
    action: Action  # WARN or BLOCK
    is_told: bool = False  # of WARN: the log and the story have it already

    @property
    def sentence(self) -> str:
        """What people read of it."""
        return CaptureCode.SUPPRESSED.sentence(
            f": {self.entry.words}; {self.entry.way_back}{_LIFTS}"
        )


_LIFTS = " lifts it"


def told_remedy(sentence: str) -> tuple[str, str]:
    """Return a `Listed.sentence` without the command that lifts it, and that command."""
    words, _, command = sentence.removesuffix(_LIFTS).rpartition("; ")
    return (words, command) if sentence.endswith(_LIFTS) else (sentence, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionRules:
    """What is done about suppressed addresses, by stream, and how long one stays suppressed."""

    transactional: Action = Action.OFF
    promotional: Action = Action.OFF
    expire_ms: int | None = None  # None: never
    spared: str | None = None  # a mailbox that never is

    @property
    def is_on(self) -> bool:
        """True unless suppression is off for all mail."""
        return {self.transactional, self.promotional} != {Action.OFF}

    def action(self, entry: Suppression, stream: str) -> Action:
        """Return the action for mail of a stream; an unsubscribe concerns promotional mail."""
        is_other = entry.stream not in (ANY, stream) or entry.address == self.spared
        if is_other or (entry.cause is Cause.UNSUBSCRIBE and stream != PROMOTIONAL):
            return Action.OFF
        return self.promotional if stream == PROMOTIONAL else self.transactional

    def expiry(self, cause: Cause, now_ms: int, lasts_s: float | None = None) -> int | None:
        """Return when an address ceases to be suppressed for a cause; `lasts_s`: who adds it says.

        Who unsubscribed stays so unless told otherwise: no law lets such a wish expire.
        """
        if lasts_s is not None:
            return None if lasts_s == math.inf else now_ms + int(lasts_s * 1000)
        if cause is Cause.UNSUBSCRIBE or self.expire_ms is None:
            return None
        return now_ms + self.expire_ms

    def listed(self, entries: Iterable[Suppression], stream: str) -> Listed | None:
        """Return the entry of one address that applies: the narrowest, the gravest cause."""
        found = [
            (entry.sender_domain != ANY, entry.stream != ANY, _WEIGHTS[entry.cause], entry)
            for entry in entries
            if self.action(entry, stream) is not Action.OFF
        ]
        if not found:
            return None
        entry = max(found, key=lambda candidate: candidate[:3])[3]
        return Listed(entry, self.action(entry, stream))


OFF = SuppressionRules()


def merged(old: Suppression | None, new: Suppression, *, now_ms: int) -> Suppression:
    """Return the entry once `new` came to an address: the graver cause, the later end."""
    if old is None or old.is_over(now_ms):
        return new
    ends = (old.expires_at_ms, new.expires_at_ms)
    last_ms = None if None in ends else max(end_ms for end_ms in ends if end_ms is not None)
    stands = new if _WEIGHTS[new.cause] > _WEIGHTS[old.cause] else old
    return replace(stands, expires_at_ms=last_ms)


def domain_of(sender: str) -> str:
    """Return the domain that suppressions of a sender's mail are kept for."""
    domain = split(sender)[1] if sender else None
    return NULL_SENDER if domain is None else ascii_domain(domain)


# --- refusals by SMTP ---------------------------------------------------------------------

# RFC 3463 section 3.2, and RFC 7505 section 4.2 for the last one: these say that no mail can ever
# reach the address. 1: there is no such mailbox; 2: there is no such system, or it takes no mail;
# 3: the address is none; 6: the mailbox has moved and left no address; 10: the domain takes no mail
# (null MX). Not: 0 says nothing, 4 that the address is ambiguous, 5 that it is valid, 7 and 8 are
# about the sender's address, 9 about a program on the way.
_DEAD_DETAILS = frozenset({1, 2, 3, 6, 10})


def is_dead_address(status: EnhancedStatus | None) -> bool:
    """True if a refusal with this status says that the recipient's address does not work."""
    if status is None:
        return False
    return status.klass == 5 and status.subject == 1 and status.detail in _DEAD_DETAILS


def read_domain(text: str) -> str:
    """Return a sender's domain as people write it, with or without @. Raises InvalidAddress."""
    written = text.strip()
    if written in (ANY, ANY_DOMAIN, NULL_SENDER):
        return ANY if written == ANY_DOMAIN else written
    sender = written if "@" in written.lstrip("@") else f"postmaster@{written.lstrip('@')}"
    check_address(sender)
    return domain_of(sender)


def as_promotional(suppression: Suppression) -> Suppression:
    """Return an entry with the stream that it can be about: an unsubscribe has no other."""
    return (
        replace(suppression, stream=PROMOTIONAL)
        if suppression.cause is Cause.UNSUBSCRIBE
        else suppression
    )
