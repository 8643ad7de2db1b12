"""The rows of the reply catalogue: the built-in ones, by preset, and all as they are asked.

replies.yaml is data: sections named by one or more presets, and `generic` for everybody. It is
read once a process, by the same reader and model as the user's own rows.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from relaygw.mail.outcome import BEFORE_MAIL, Limit, Meaning, Scope, SmtpReply, Stage, Verdict
from relaygw.settings.reply_row import STAGES, ReplyRow
from relaygw.settings.yaml_text import read_own

GENERIC = "generic"
"""The section for all providers, asked after the provider's own."""
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


# --- rows as they are asked


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


@dataclass(frozen=True, slots=True)
class Rule:
    """A row at one stage: its compiled conditions, None where it has none, and its meaning."""

    code: re.Pattern[str] | None
    status: re.Pattern[str] | None
    text: re.Pattern[str] | None
    meaning: Meaning

    @property
    def bounces_one(self) -> bool:
        """True when a match bounces one recipient, not the message."""
        return self.meaning.verdict is Verdict.BOUNCE and self.meaning.scope is Scope.RECIPIENT

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
        # a row for a bounce knows 5xx from MAIL on only: the promise is kept here once more
        code, status, text = (
            re.compile(expression, re.IGNORECASE) if expression else None
            for expression in (row.code or ("5.." if bounces else ""), row.status, row.text)
        )
        for stage in [STAGES[name] for name in row.stages] or rules:
            if not (bounces and stage in BEFORE_MAIL):
                rules[stage].append(Rule(code, status, text, _meaning(placed, stage)))
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
