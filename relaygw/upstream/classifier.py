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
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from relaygw.mail.outcome import BEFORE_MAIL, Limit, Meaning, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
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
    return {name: tuple(placed.row for placed in rows) for name, rows in rule_sections().items()}


def preset_rows(preset: str | None) -> tuple[PlacedRow, ...]:
    """Return the rows of one preset; none for a provider without one."""
    return rule_sections().get(preset, ()) if preset is not None else ()


@cache
def rule_sections() -> Mapping[str, tuple[PlacedRow, ...]]:
    """Return the rows of replies.yaml by section, with their places; read once."""
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
def known_rules(preset: str | None) -> dict[Stage, tuple[Rule, ...]]:
    """Return the rules of a preset, then those of all providers, by stage; made once."""
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
        known = known_rules(provider.preset)
        self._rules = {stage: own[stage] + known[stage] for stage in known}

    def meaning(
        self, stage: Stage, reply: SmtpReply | None, *, in_doubt: bool = False, recipients: int = 1
    ) -> Meaning:
        """Return the meaning of `reply` (None: none came) at `stage`, as it came: unmasked.

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
