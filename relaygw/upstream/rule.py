"""A row of the reply catalogue as it is asked at one stage: compiled, with its meaning at hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from relaygw.mail.outcome import BEFORE_MAIL, Limit, Meaning, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.settings.reply_row import STAGES, ReplyRow

# what a client typed must not look like a reason; linear, whatever a provider sends
_ADDRESS = re.compile(r"<[^<>]*>|(?<!\S)\S*@\S*")
_REPEATED_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?:\s+|$)")
_MAX_CHARS = 4096
_OF_A_MESSAGE = frozenset({Scope.RECIPIENT, Scope.MESSAGE, Scope.SENDER_DOMAIN})


@dataclass(frozen=True, slots=True)
class SeenReply:
    """The parts of a reply that rules look at."""

    code: str
    status: str  # empty without one
    text: str


def look_at(reply: SmtpReply) -> SeenReply:
    """Return the parts of `reply`: one line of text without addresses.

    A reply of several lines repeats its status on each; the first one is kept, so that a phrase
    is found wherever the provider broke the line.
    """
    first, *more = reply.lines or ("",)
    text = " ".join((first, *(_REPEATED_STATUS.sub("", line, count=1) for line in more)))
    words = _ADDRESS.sub(" ", text[:_MAX_CHARS]).split()
    return SeenReply(str(reply.code), str(reply.status or ""), " ".join(words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """All conditions must hold; None always does."""

    code: re.Pattern[str] | None
    status: re.Pattern[str] | None
    text: re.Pattern[str] | None
    meaning: Meaning

    @property
    def bounces_one(self) -> bool:
        """True when a match bounces one recipient, not the message."""
        return self.meaning.verdict is Verdict.BOUNCE and self.meaning.scope is Scope.RECIPIENT

    def matches(self, seen: SeenReply) -> bool:
        """True when the reply is one that the row knows."""
        return (
            (self.code is None or self.code.fullmatch(seen.code) is not None)
            and (self.status is None or bool(seen.status and self.status.fullmatch(seen.status)))
            and (self.text is None or self.text.search(seen.text) is not None)
        )


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row and where it stands, for people."""

    place: str
    row: ReplyRow


def rules_by_stage(rows: Iterable[PlacedRow]) -> dict[Stage, tuple[Rule, ...]]:
    """Return the rules to ask at each stage of a session, in the order of the rows."""
    rules: dict[Stage, list[Rule]] = {stage: [] for stage in STAGES.values()}
    for placed in rows:
        row = placed.row
        # a row for a bounce knows 5xx from MAIL on only: the promise is kept here once more
        code = row.code or ("5.." if row.verdict == "bounce" else "")
        patterns = tuple(
            re.compile(expression, re.IGNORECASE) if expression else None
            for expression in (code, row.status, row.text)
        )
        for stage in [STAGES[name] for name in row.stages] or rules:
            if row.verdict == "bounce" and stage in BEFORE_MAIL:
                continue
            code_is, status_is, text_has = patterns
            meaning = _meaning(placed, stage)
            rules[stage].append(
                Rule(code=code_is, status=status_is, text=text_has, meaning=meaning)
            )
    return {stage: tuple(found) for stage, found in rules.items()}


def own_scope(stage: Stage) -> Scope:
    """Return whom a reply at `stage` concerns when nothing says more."""
    if stage in BEFORE_MAIL:
        return Scope.PROVIDER
    return Scope.RECIPIENT if stage is Stage.RCPT else Scope.MESSAGE


def _meaning(placed: PlacedRow, stage: Stage) -> Meaning:
    row = placed.row
    verdict = Verdict(row.verdict)
    limit = None
    if verdict is Verdict.THROTTLE:
        usual = Limit.CONNECTIONS if stage in BEFORE_MAIL else Limit.RATE
        limit = Limit(row.limit) if row.limit else usual
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
