"""What must be so after a run: flat series, nothing lost, each fault seen to begin and to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.checking.report import Report
from bench.soaking.faults import Seen
from bench.soaking.samples import DATABASE, Sample
from bench.soaking.trends import HEADING, Trend, find_trends

PLANTED = (("front", "pss_bytes"), ("front", "descriptors"), (DATABASE, "rows"))
"""What a control leaks at least."""
_SHOWN_TABLES = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that a run came to."""

    samples: Sequence[Sample]
    trends: Sequence[Trend]
    faults: Sequence[Seen]
    report: Report
    run_s: float
    begun_s: float

    @classmethod
    def of(
        cls,
        samples: Sequence[Sample],
        faults: Sequence[Seen],
        report: Report,
        *,
        run_s: float,
        begun_s: float,
    ) -> Verdict:
        """Judge a run."""
        return cls(samples, find_trends(samples), faults, report, run_s, begun_s)

    @property
    def unseen(self) -> list[Seen]:
        """The faults that were not seen to begin, or to end."""
        return [one for one in self.faults if not one.is_whole]

    @property
    def growing(self) -> list[Trend]:
        """What is not flat, or of which too little was seen."""
        return [one for one in self.trends if not one.is_flat]

    @property
    def is_good(self) -> bool:
        """True when everything is as it must be."""
        seen = bool(self.trends) and bool(self.faults)
        return seen and not self.growing and not self.unseen and self.report.is_clean

    @property
    def finds_the_leak(self) -> bool:
        """True when all that a control leaks is among what grows, and was judged."""
        found = {(one.of, one.measure) for one in self.growing if one.growth > one.bound}
        return found.issuperset(PLANTED)

    def to_text(self) -> str:
        """Return the tables and the last line."""
        return "\n".join(
            [
                f"{self.run_s / 60:g} minutes, {len(self.samples)} samples",
                "",
                f"{HEADING}  over the last two thirds",
                *(one.to_text() for one in self.trends),
                "",
                *self._faults(),
                "",
                *self._tables(),
                "",
                self.report.to_text(),
                "",
                self._last_line(),
            ]
        )

    def _faults(self) -> list[str]:
        counts = Counter(one.fault for one in self.faults)
        whole = Counter(one.fault for one in self.faults if one.is_whole)
        return [
            f"{fault:<22}{whole[fault]:>3} of {count:>3} seen to begin and to end"
            for fault, count in sorted(counts.items())
        ]

    def _tables(self) -> list[str]:
        """Tell which tables have more rows at the end than after the first third; not judged."""
        from_s = max((one.at_s for one in self.samples), default=0.0) / 3
        firsts: dict[str, float] = {}
        lasts: dict[str, float] = {}
        for one in self.samples:
            if one.measure.startswith("rows of ") and one.at_s >= from_s:
                firsts.setdefault(one.measure, one.value)
                lasts[one.measure] = one.value
        grown = sorted(
            ((lasts[name] - first, name) for name, first in firsts.items()), reverse=True
        )
        return [
            f"{name}: {firsts[name]:.0f}, at the end {lasts[name]:.0f}"
            for more, name in grown[:_SHOWN_TABLES]
            if more > 0
        ]

    def _last_line(self) -> str:
        if self.is_good:
            return "GOOD"
        wrong = [f"{one.of} {one.measure}" for one in self.growing]
        wrong += [f"{one.fault} not seen" for one in self.unseen]
        wrong += [] if self.report.is_clean else ["the history is not clean"]
        return f"NOT GOOD: {', '.join(wrong) or 'nothing was seen'}"
