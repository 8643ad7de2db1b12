"""Holds a provider that refuses everybody with the same words.

What is said of one recipient may be about all of us: a table of users that is gone, an account
closed in words that no row knows, a provider that asks everybody to try again later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from relaygw.mail.address import split
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.outcome import (
    BEFORE_MAIL,
    AttemptReport,
    Meaning,
    RecipientOutcome,
    Scope,
    Stage,
    Verdict,
)
from relaygw.upstream.classifier import look_at

REFUSALS_IN_A_ROW = 20  # messages, and recipients, refused alike before the provider is held
DOMAINS_PUT_OFF = 3  # of recipients: one server may ask all mail to come later (greylisting)
BRAKED = Meaning(
    verdict=Verdict.HOLD,
    scope=Scope.PROVIDER,
    explanation="The provider refuses everybody with the same words: no recipient is at fault.",
    remedy="have it fixed at the provider or here; if all these addresses are wrong, delete "
    "their mail and release the rest",
    rule=f"{REFUSALS_IN_A_ROW} messages in a row refused alike",
)
_WITH_A_NUMBER = re.compile(r"(?<!\S)[^\s\d]*+\d\S*+")
_NAME = re.compile(r"(?<![\w.+-])[\w.+-]*\w")
_REFUSED = frozenset({Verdict.BOUNCE, Verdict.RETRY})


@dataclass(slots=True)
class Brake:
    """Watches the refusals of one provider.

    On from the REFUSALS_IN_A_ROW-th message refused alike until one is taken, or until the hold
    that it sets has ended: so long every refusal for good holds the provider and bounces nobody.
    """

    is_on: bool = False
    _is_held: bool = False  # a hold of a brake was seen in force
    _words: str | None = None  # of the refusals so far, without what differs
    _messages: set[str] = field(default_factory=set)
    _recipients: set[str] = field(default_factory=set)
    _domains: set[str] = field(default_factory=set)

    def watch(self, claimed: ClaimedDelivery, report: AttemptReport) -> AttemptReport:
        """Learn from a report; return it, with refusals as holds of the provider while it is on.

        What was said at RCPT of one recipient, while another one was taken, holds nothing.
        """
        for outcome in report.outcomes:
            if outcome.meaning.verdict is Verdict.DELIVERED:
                if self._words is not None or self.is_on:
                    self._reset()
                return _apart(report) if len(report.outcomes) > 1 else report
        refused = [outcome for outcome in report.outcomes if _is_refusal(outcome)]
        if not refused:
            return report
        if not self.is_on and len(refused) == len(report.outcomes):
            self._count(claimed, refused)
        if not self.is_on:
            return report
        outcomes = tuple(
            replace(outcome, meaning=BRAKED) if _is_refusal(outcome) else outcome
            for outcome in report.outcomes
        )
        return replace(report, outcomes=outcomes)

    def obey(self, *, is_held: bool) -> None:
        """Learn whether a brake's hold is in force; one that is no more was ended by others."""
        if is_held:
            self.is_on = self._is_held = True
        elif self._is_held:
            self._reset()

    def _count(self, claimed: ClaimedDelivery, refused: list[RecipientOutcome]) -> None:
        addresses = (claimed.sender, *(recipient.address for recipient in claimed.recipients))
        names = frozenset(part.lower() for address in addresses for part in split(address) if part)
        words = {without_names(outcome, names) for outcome in refused}
        if words != {self._words}:
            self._reset()
        if len(words) > 1:
            return
        self._words = words.pop()
        is_for_good = any(outcome.verdict is Verdict.BOUNCE for outcome in refused)
        # what waits is refused again and again: only its first time tells anything new
        if claimed.attempts and not is_for_good:
            return
        people = [recipient.address.lower() for recipient in claimed.recipients]
        _add(self._messages, [claimed.queue_id])
        _add(self._recipients, people)
        _add(self._domains, (address.rpartition("@")[2] for address in people))
        self.is_on = (
            len(self._messages) >= REFUSALS_IN_A_ROW
            and len(self._recipients) >= REFUSALS_IN_A_ROW
            and (is_for_good or len(self._domains) >= DOMAINS_PUT_OFF)
        )

    def _reset(self) -> None:
        self.is_on = self._is_held = False
        self._words = None
        self._messages.clear()
        self._recipients.clear()
        self._domains.clear()


def _is_refusal(outcome: RecipientOutcome) -> bool:
    """True for a reply to mail of which nobody knows yet that it is not the recipient's fault."""
    is_of_mail = outcome.stage is not Stage.LOCAL and outcome.stage not in BEFORE_MAIL
    return is_of_mail and outcome.reply is not None and outcome.verdict in _REFUSED


def _apart(report: AttemptReport) -> AttemptReport:
    """Return a report that took somebody: who was refused at RCPT then waits alone."""
    outcomes = tuple(
        replace(
            outcome, meaning=replace(outcome.meaning, verdict=Verdict.RETRY, scope=Scope.RECIPIENT)
        )
        if outcome.verdict is Verdict.HOLD and outcome.stage is Stage.RCPT
        else outcome
        for outcome in report.outcomes
    )
    return report if outcomes == report.outcomes else replace(report, outcomes=outcomes)


def _add(known: set[str], more: Iterable[str]) -> None:
    """Add to a set as far as it counts, so that it stays small."""
    for value in more:
        if len(known) >= REFUSALS_IN_A_ROW:
            return
        known.add(value)


def without_names(outcome: RecipientOutcome, names: frozenset[str]) -> str:
    """Return a refusal without addresses, their parts, ids and numbers."""
    assert outcome.reply is not None
    seen = look_at(outcome.reply)
    text = _WITH_A_NUMBER.sub("#", seen.text.lower())
    text = _NAME.sub(lambda name: "#" if name[0] in names else name[0], text)
    return f"{seen.code} {seen.status} {text}"
