"""What a case hands back: figures with their targets, and the runs behind them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Figure:
    """One measured value against what it must be (`at_least`) and should be (`aim`)."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    aim: float | None = None
    is_more_better: bool = False

    def named(self, name: str) -> Figure:
        """Return it by another name."""
        return replace(self, name=name)

    @property
    def verdict(self) -> str:
        """`aim`, `at least` or `MISSED`: the best target that is reached; `` without one."""
        if self.at_least is None or self.aim is None:
            return ""
        if self._reaches(self.aim):
            return "aim"
        return "at least" if self._reaches(self.at_least) else "MISSED"

    def _reaches(self, target: float) -> bool:
        return self.value >= target if self.is_more_better else self.value <= target


@dataclass(frozen=True)
class Result:
    """The figures of a case, and a line for each run or circumstance, at most 78 columns."""

    figures: list[Figure]
    notes: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """True when there are figures and none misses what it must at least be."""
        return bool(self.figures) and all(each.verdict != "MISSED" for each in self.figures)
