"""The result of a check, as text of at most 80 columns and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bench.checking.facts import Key
from bench.checking.twice import Extra

KINDS = (
    *("lost", "given up", "untrue", "unexpected", "damaged", "twice", "unrecorded"),
    *("two leases", "no lease", "at once", "over limit", "leak"),
)
"""What must not be, worst first."""
_SHOWN = 10
_COLUMNS = 80
_FAILED_CONTROL = "FAILED: the control loses nothing"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that must not be."""

    kind: str
    key: Key
    what: str
    at_ns: int | None

    def to_text(self) -> str:
        """Return a line."""
        when = "" if self.at_ns is None else f" at {self.at_ns / 1e9:.6f} s"
        who = " ".join(part for part in self.key if part)
        return f"  {self.kind}: {who}: {self.what}{when}"[:_COLUMNS]


@dataclass(slots=True)
class Report:
    """Counts are of messages and recipients."""

    about: dict[str, Any] = field(default_factory=dict)
    attempted: int = 0  # content begun
    acknowledged: int = 0
    delivered: int = 0
    waiting: int = 0  # in the queue, sent to nobody
    given_up: int = 0  # acknowledged, and neither delivered nor waiting
    unheard: int = 0  # delivered, and the client heard no 250
    refused: int = 0  # of these, those whose client heard a refusal
    recovered: int = 0
    kills: int = 0
    duplicated: Counter[str] = field(default_factory=Counter)  # by reason
    overshoots: dict[str, float] = field(default_factory=dict)  # of rates, by provider
    most_open: dict[str, int] = field(default_factory=dict)  # connections, by provider
    anomalies: list[Anomaly] = field(default_factory=list)
    extras: list[Extra] = field(default_factory=list)

    def add(self, kind: str, key: Key, what: str, at_ns: int | None) -> None:
        """Note what must not be."""
        self.anomalies.append(Anomaly(kind, key, what, at_ns))

    def counts(self) -> dict[str, int]:
        """Return how much of each kind there is that must not be."""
        found = Counter(anomaly.kind for anomaly in self.anomalies)
        return {kind: found[kind] for kind in KINDS}

    @property
    def is_clean(self) -> bool:
        """True when something was acknowledged, and nothing is as it must not be."""
        return not self.nothing_proven and not self.anomalies

    @property
    def nothing_proven(self) -> str:
        """Why a history without anomalies proves nothing; empty: it does."""
        if not self.attempted:
            return "nothing was sent: NOTHING IS PROVEN"
        if not self.acknowledged:
            return f"0 of {self.attempted} sent were acknowledged: NOTHING IS PROVEN"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return all of it, with the anomalies one by one."""
        names = (
            *("attempted", "acknowledged", "delivered", "waiting", "given_up", "unheard"),
            *("refused", "recovered", "kills"),
        )
        return {
            "clean": self.is_clean,
            "nothing_proven": self.nothing_proven,
            "about": self.about,
            **{name: getattr(self, name) for name in names},
            "duplicated": dict(self.duplicated),
            "overshoots": self.overshoots,
            "most_open": self.most_open,
            "counts": self.counts(),
            "anomalies": [
                {
                    "kind": one.kind,
                    "message": one.key[0],
                    "recipient": one.key[1],
                    "what": one.what,
                    "time": one.at_ns,
                }
                for one in self.anomalies
            ],
        }

    def to_text(self) -> str:
        """Return a table and the verdict."""
        about = ", ".join(f"{name} {value}" for name, value in self.about.items())
        explained = ((one, self.duplicated[one]) for one in ("doubt", "kill"))
        twice = ", ".join(f"{count} by a {reason}" for reason, count in explained if count)
        if unexplained := self.duplicated["unexplained"]:
            twice = f"{twice or 'none'}; unexplained: {unexplained}"
        rows = [
            ("attempted", self.attempted, "content begun"),
            ("acknowledged", self.acknowledged, "answered 250"),
            ("delivered", self.delivered, f"{self.unheard} of them without a 250 heard"),
            ("waiting", self.waiting, "in the queue, or captured"),
            ("given up", self.given_up, "acknowledged, refused by a provider or expired"),
            ("recovered", self.recovered, f"acknowledged before one of {self.kills} kills"),
            ("duplicated", self.duplicated.total(), twice and f"explained: {twice}"),
        ]
        lines = [f"{name:<14}{count:>8}  {note}".rstrip()[:_COLUMNS] for name, count, note in rows]
        note = "over what is allowed, at most; 5 %, or one mail, may be"
        lines += [
            f"{f'rate at {name}':<14}{over:>8.1%}  {note}"[:_COLUMNS]
            for name, over in sorted(self.overshoots.items())
        ]
        if about:
            lines.insert(0, about[:_COLUMNS])
        return "\n".join([*lines, "", *self.verdict()])

    def verdict(self) -> list[str]:
        """Return the counts of what must not be, and the first of each kind."""
        counts = self.counts()
        words = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        shown = [
            anomaly.to_text()
            for kind in KINDS
            for anomaly in [one for one in self.anomalies if one.kind == kind][:_SHOWN]
        ]
        if self.is_clean:
            return [*_wrapped(words), "CLEAN"]
        wrong = ", ".join(f"{kind} {count}" for kind, count in counts.items() if count)
        return [*_wrapped(words), *shown, *_wrapped(f"NOT CLEAN: {wrong or self.nothing_proven}")]


def control_verdict(loses: int, kind: str) -> str:
    """Return the last line of a run with a planted fault, which has to be found."""
    return f"PASSED: the control loses ({kind} {loses})" if loses else _FAILED_CONTROL


def _wrapped(words: str) -> list[str]:
    lines = [""]
    for word in words.split(", "):
        joined = f"{lines[-1]}, {word}" if lines[-1] else word
        if len(joined) < _COLUMNS:
            lines[-1] = joined
        else:
            lines[-1] += ","
            lines.append(word)
    return lines
