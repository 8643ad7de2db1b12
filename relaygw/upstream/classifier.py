"""What a provider's reply means: the catalogue, the verdict and scope it gives; the brake.

Asked are the user's own rows, those of the provider's preset, the generic ones. Pure and total:
what no row knows is RETRY. Delivered is a 2xx after the final dot, nothing else; only a 5xx from
MAIL on bounces, and only for what a row knows as the fault of the recipient or of the message; at
RCPT so does a 2xx of which a row knows that it delivers nothing. RFC 5321 section 4.2, RFC 3463,
RFC 4954 section 6.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from relaygw.mail.address import split
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.outcome import (
    BEFORE_MAIL,
    AttemptReport,
    Limit,
    Meaning,
    RecipientOutcome,
    Scope,
    SmtpReply,
    Stage,
    Verdict,
)
from relaygw.settings.provider import STAGES, Provider, ReplyRow
from relaygw.settings.tree import read_own

GENERIC = "generic"  # the section for all providers, asked after the provider's own
_FILE = Path(__file__).with_name("replies.yaml")
# what a client typed must not look like a reason; linear, whatever a provider sends
_ADDRESS = re.compile(r"<[^<>]*>|(?<!\S)\S*@\S*")
_REPEATED_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?:\s+|$)")
_MAX_CHARS = 4096
_OF_A_MESSAGE = frozenset({Scope.RECIPIENT, Scope.MESSAGE, Scope.SENDER_DOMAIN})


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row and where it stands, for people."""

    place: str
    row: ReplyRow


@cache
def catalogue() -> Mapping[str, tuple[ReplyRow, ...]]:
    """Return the rows of each section in the order in which they are asked."""
    return {name: tuple(placed.row for placed in rows) for name, rows in _sections().items()}


def preset_rows(preset: str | None) -> tuple[PlacedRow, ...]:
    """Return the rows of one preset; none for a provider without one."""
    return _sections().get(preset, ()) if preset is not None else ()


@cache
def _sections() -> Mapping[str, tuple[PlacedRow, ...]]:
    tree = read_own(_FILE)
    sections: dict[str, tuple[PlacedRow, ...]] = defaultdict(tuple)
    for names, rows in tree.values.items():
        read = tuple(
            PlacedRow(f"{names}, row {number + 1} ({tree.place_of((names, number))})", row)
            for number, row in enumerate(map(ReplyRow.model_validate, rows))
        )
        for name in names.split():
            sections[name] += read
    return dict(sections)


@dataclass(frozen=True, slots=True)
class SeenReply:
    """The parts of a reply that rules look at."""

    code: str
    status: str  # empty without one
    text: str


def look_at(reply: SmtpReply) -> SeenReply:
    """Return `reply` in one line, so that a phrase is found wherever the provider broke it."""
    first, *more = reply.lines or ("",)
    text = " ".join((first, *(_REPEATED_STATUS.sub("", line, count=1) for line in more)))
    words = _ADDRESS.sub(" ", text[:_MAX_CHARS]).split()
    return SeenReply(str(reply.code), str(reply.status or ""), " ".join(words))


@dataclass(frozen=True, slots=True)
class Rule:
    """A row at one stage: its compiled conditions, None where it has none, and its meaning."""

    code: re.Pattern[str] | None
    status: re.Pattern[str] | None
    text: re.Pattern[str] | None
    meaning: Meaning

    def matches(self, seen: SeenReply) -> bool:
        """Return whether all conditions hold."""
        return (
            (self.code is None or self.code.fullmatch(seen.code) is not None)
            and (self.status is None or bool(seen.status and self.status.fullmatch(seen.status)))
            and (self.text is None or self.text.search(seen.text) is not None)
        )


def rules_by_stage(rows: Iterable[PlacedRow]) -> dict[Stage, tuple[Rule, ...]]:
    """Return the rules to ask at each stage of a session, in the order of the rows."""
    rules: dict[Stage, list[Rule]] = {stage: [] for stage in STAGES.values()}
    for placed in rows:
        row = placed.row
        bounces = row.verdict == "bounce"
        # a row for a bounce that names no code is for 5xx: the promise is kept here once more
        code, status, text = (
            re.compile(expression, re.IGNORECASE) if expression else None
            for expression in (row.code or ("5.." if bounces else ""), row.status, row.text)
        )
        for stage in [STAGES[name] for name in row.stages] or rules:
            if not (bounces and stage in BEFORE_MAIL):
                rules[stage].append(Rule(code, status, text, _meaning(placed, stage)))
    return {stage: tuple(found) for stage, found in rules.items()}


@cache
def _known_rules(preset: str | None) -> dict[Stage, tuple[Rule, ...]]:
    return rules_by_stage((*preset_rows(preset), *preset_rows(GENERIC)))


def own_scope(stage: Stage) -> Scope:
    """Return whom a reply at `stage` concerns when nothing says more."""
    if stage in BEFORE_MAIL:
        return Scope.PROVIDER
    return Scope.RECIPIENT if stage is Stage.RCPT else Scope.MESSAGE


def _meaning(placed: PlacedRow, stage: Stage) -> Meaning:
    row = placed.row
    verdict, limit = Verdict(row.verdict), None
    if verdict is Verdict.THROTTLE:
        usual = Limit.CONNECTIONS if stage in BEFORE_MAIL else Limit.RATE
        limit = Limit(row.limit or usual)
    return Meaning(
        verdict=verdict,
        scope=_scope(row, verdict, stage),
        limit=limit,
        wait_s=row.wait,
        explanation=row.explanation,
        remedy=row.remedy,
        source=row.source,
        rule=placed.place,
    )


def _scope(row: ReplyRow, verdict: Verdict, stage: Stage) -> Scope:
    if row.scope is not None:
        scope = Scope(row.scope)
        # a row for all stages: before MAIL no message is known yet
        return Scope.PROVIDER if stage in BEFORE_MAIL and scope in _OF_A_MESSAGE else scope
    if verdict is Verdict.HOLD:
        return Scope.CREDENTIAL if stage is Stage.AUTH else Scope.PROVIDER
    return Scope.PROVIDER if verdict is Verdict.THROTTLE else own_scope(stage)


# --- what they come to

_DELIVERED = Meaning(
    verdict=Verdict.DELIVERED,
    scope=Scope.MESSAGE,
    explanation="The provider has taken the message and is responsible for it now.",
    source="RFC 5321, 4.2.5",
    rule="2xx after the final dot",
)
IN_DOUBT = Meaning(
    verdict=Verdict.DOUBT,
    scope=Scope.MESSAGE,
    explanation="The whole message was sent, and no reply came that can be understood: "
    "it is not known whether the provider has taken it.",
    remedy="Check the provider's own log before you release it; it may be sent twice.",
)
_NO_SESSION = Meaning(
    verdict=Verdict.RETRY,
    scope=Scope.PROVIDER,
    explanation="No session with the provider could be opened.",
    remedy="Check host, port and TLS of the provider, and whether a firewall blocks the port.",
)
_NO_REPLY = Meaning(
    verdict=Verdict.RETRY,
    scope=Scope.MESSAGE,
    explanation="The connection was lost before the message was sent.",
)
_REFUSED_HERE = "relaygw did not send it: this provider cannot accept such a message."
_LOCAL_MESSAGE = Meaning(verdict=Verdict.BOUNCE, scope=Scope.MESSAGE, explanation=_REFUSED_HERE)
_LOCAL = {  # by the status of what upstream.outgoing refuses
    "5.6.7": Meaning(verdict=Verdict.BOUNCE, scope=Scope.RECIPIENT, explanation=_REFUSED_HERE),
    "5.6.3": Meaning(
        verdict=Verdict.HOLD,
        scope=Scope.MESSAGE,
        explanation="The content has 8-bit bytes, the provider has no 8BITMIME, and the content "
        "cannot be rewritten without loss.",
        remedy="Give its route a provider with 8BITMIME, or have the sending program write ASCII.",
        source="RFC 6152, 3",
    ),
}
_NOT_SENT = Meaning(verdict=Verdict.RETRY, scope=Scope.MESSAGE)
_WHOSE = Meaning(
    verdict=Verdict.RETRY,
    scope=Scope.MESSAGE,
    wait_s=(3600.0,),
    explanation="One of several recipients is refused after the content, without saying which.",
    remedy="Set max_recipients of this provider to 1, so that each recipient gets its own reply.",
    rule="a refusal of one recipient after the content, of several",
)
_UNKNOWN = {
    stage: Meaning(
        verdict=Verdict.RETRY,
        scope=own_scope(stage),
        explanation="No rule matches this reply; mail with an unknown reply is tried again.",
        remedy="If it keeps coming back, ask the provider and add a row of your own.",
        rule="none",
    )
    for stage in Stage
}


class Classifier:
    """Says what the replies of one provider mean."""

    def __init__(self, provider: Provider) -> None:
        own = rules_by_stage(
            PlacedRow(f"own row {n}", row) for n, row in enumerate(provider.replies, 1)
        )
        known = _known_rules(provider.preset)
        self._rules = {stage: own[stage] + known[stage] for stage in known}

    def meaning(
        self, stage: Stage, reply: SmtpReply | None, *, in_doubt: bool = False, recipients: int = 1
    ) -> Meaning:
        """Return what `reply` (None: none came) at `stage` means, as it came: unmasked.

        `in_doubt`: the final dot had been sent by then. `recipients` are those of the transaction:
        a refusal of one of several after the content bounces nobody.
        """
        if in_doubt:
            return IN_DOUBT
        if stage is Stage.LOCAL:
            if reply is None or not reply.is_permanent:
                return _NOT_SENT
            return _LOCAL.get(str(reply.status), _LOCAL_MESSAGE)
        if reply is None:
            return _NO_SESSION if stage in BEFORE_MAIL else _NO_REPLY
        code = reply.code
        if stage is Stage.CONTENT and 200 <= code < 300:  # nearly every reply: no rule is asked
            return _DELIVERED
        is_taken = stage is Stage.RCPT and 200 <= code < 300
        if 400 <= code < 600 or is_taken:
            seen = look_at(reply)
            for rule in self._rules[stage]:
                found = rule.meaning
                if rule.matches(seen) and (found.verdict is Verdict.BOUNCE or not is_taken):
                    bounces_one = found.verdict is Verdict.BOUNCE and found.scope is Scope.RECIPIENT
                    is_one_of_several = recipients > 1 and stage is not Stage.RCPT
                    return _WHOSE if is_one_of_several and bounces_one else found
        return _UNKNOWN[stage]


# --- the same words to everybody --------------------------------------------------------
# What is said of one recipient may be about all of us: a table of users that is gone, an account
# closed in words that no row knows.


REFUSALS_IN_A_ROW = 20  # messages, and recipients, refused alike before the provider is held
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
        addresses = (claimed.sender, *(one.address for one in claimed.recipients))
        names = frozenset(part.lower() for one in addresses for part in split(one) if part)
        words = {_without_names(outcome, names) for outcome in refused}
        if words != {self._words}:
            self._reset()
        if len(words) > 1:
            return
        self._words = words.pop()
        # what waits is refused again and again: only its first time tells anything new
        if claimed.attempts and not any(one.verdict is Verdict.BOUNCE for one in refused):
            return
        _add(self._messages, [claimed.queue_id])
        _add(self._recipients, (one.address.lower() for one in claimed.recipients))
        self.is_on = (
            len(self._messages) >= REFUSALS_IN_A_ROW and len(self._recipients) >= REFUSALS_IN_A_ROW
        )

    def _reset(self) -> None:
        self.is_on = self._is_held = False
        self._words = None
        self._messages.clear()
        self._recipients.clear()


def _is_refusal(outcome: RecipientOutcome) -> bool:
    """True for a 5xx to mail of which nobody knows yet that it is not the recipient's fault."""
    is_of_mail = outcome.stage is not Stage.LOCAL and outcome.stage not in BEFORE_MAIL
    is_permanent = outcome.reply is not None and outcome.reply.is_permanent
    return is_of_mail and is_permanent and outcome.verdict in _REFUSED


def _apart(report: AttemptReport) -> AttemptReport:
    """Return a report that took somebody: who was refused at RCPT then waits alone."""
    outcomes = tuple(
        replace(one, meaning=replace(one.meaning, verdict=Verdict.RETRY, scope=Scope.RECIPIENT))
        if one.verdict is Verdict.HOLD and one.stage is Stage.RCPT
        else one
        for one in report.outcomes
    )
    return report if outcomes == report.outcomes else replace(report, outcomes=outcomes)


def _add(known: set[str], more: Iterable[str]) -> None:
    """Add to a set as far as it counts, so that it stays small."""
    for one in more:
        if len(known) >= REFUSALS_IN_A_ROW:
            return
        known.add(one)


def _without_names(outcome: RecipientOutcome, names: frozenset[str]) -> str:
    """Return a refusal without addresses, their parts, ids and numbers."""
    assert outcome.reply is not None
    seen = look_at(outcome.reply)
    text = _WITH_A_NUMBER.sub("#", seen.text.lower())
    text = _NAME.sub(lambda name: "#" if name[0] in names else name[0], text)
    return f"{seen.code} {seen.status} {text}"
