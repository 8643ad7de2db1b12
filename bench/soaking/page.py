"""A run as one page: a plot for each measure, faults as bands behind it, and the verdict."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from bench.soaking.samples import DATABASE, Sample
from bench.soaking.verdict import Verdict

_WIDTH, _HEIGHT, _LEFT, _TOP = 1100, 200, 90, 24
_COLOURS = {
    **{"supervisor": "#777777", "front": "#2a6fb0", "delivery": "#2c8a3d", "web": "#8a2be2"},
    DATABASE: "#b06a00",
}
_PLOTS = (
    ("Memory (PSS), MiB", False, "pss_bytes", 1 << 20),
    ("Descriptors", False, "descriptors", 1),
    ("Threads", False, "threads", 1),
    ("Size of the database, MiB", True, "bytes", 1 << 20),
    ("Write-ahead log, MiB", True, "wal_bytes", 1 << 20),
    ("Rows of mail", True, "rows", 1),
)
_STYLE = """
body { font: 14px system-ui, sans-serif; margin: 1.5em; color: #222 }
svg { display: block; overflow: visible; margin-bottom: 1.5em } svg text { font-size: 12px }
pre { font: 12px ui-monospace, monospace; white-space: pre-wrap }
.bad { color: #c00000; font-weight: bold }
"""
Lives = Mapping[tuple[str, int], Sequence[tuple[float, float]]]


def page(verdict: Verdict, title: str) -> str:
    """Return a self-contained page."""
    text = verdict.to_text()
    state = "good" if verdict.is_good else "bad"
    roles = ", ".join(f'<b style="color:{colour}">{role}</b>' for role, colour in _COLOURS.items())
    plots = "".join(_plot(verdict, *one) for one in _PLOTS)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f'<p class="{state}">{html.escape(text.splitlines()[-1])}</p>'
        f"<p>{roles}. A line that ends is a process that ended. Bands are faults; point at one to "
        "read it. Judged is what is right of the dashed line.</p>"
        f"{plots}<pre>{html.escape(text)}</pre></html>\n"
    )


def _plot(verdict: Verdict, name: str, is_database: bool, measure: str, scale: int) -> str:
    lives = _lives(verdict.samples, measure, is_database=is_database)
    most = max((value for life in lives.values() for _, value in life), default=0.0) or 1.0
    x_of = _WIDTH / max(verdict.run_s, 1.0)
    y_of = _HEIGHT / (most * 1.1)
    judged = _LEFT + verdict.run_s / 3 * x_of
    foot = _TOP + _HEIGHT
    parts = [
        f'<svg width="{_LEFT + _WIDTH + 20}" height="{foot + 24}" role="img" aria-label="{name}">',
        f'<text x="{_LEFT}" y="14" font-weight="bold">{name}</text>',
        *_bands(verdict, x_of),
        *_grid(verdict.run_s, most / scale * 1.1, x_of),
        f'<line x1="{judged:.1f}" y1="{_TOP}" x2="{judged:.1f}" y2="{foot}" stroke="#222" '
        'stroke-dasharray="5 4"/>',
    ]
    for (of, _), life in lives.items():
        points = " ".join(
            f"{_LEFT + at_s * x_of:.1f},{foot - value * y_of:.1f}" for at_s, value in life
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{_COLOURS[of]}" stroke-width="1.5"/>'
        )
    return "".join([*parts, "</svg>"])


def _lives(samples: Sequence[Sample], measure: str, *, is_database: bool) -> Lives:
    found: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for one in samples:
        if one.measure == measure and (one.of == DATABASE) == is_database:
            found[one.of, one.life].append((one.at_s, one.value))
    return found


def _bands(verdict: Verdict, x_of: float) -> Iterator[str]:
    for seen in verdict.faults:
        from_s = seen.at_s - verdict.begun_s
        to_s = (seen.ended_s or seen.at_s + 1) - verdict.begun_s
        colour = "#f3e6c8" if seen.is_whole else "#f3b0b0"
        text = f"{from_s:.0f} to {to_s:.0f} s: {seen.fault} {seen.trouble}"
        yield (
            f'<rect x="{_LEFT + from_s * x_of:.1f}" y="{_TOP}" height="{_HEIGHT}" '
            f'width="{max(1.0, (to_s - from_s) * x_of):.1f}" fill="{colour}">'
            f"<title>{html.escape(text)}</title></rect>"
        )


def _grid(run_s: float, most: float, x_of: float) -> Iterator[str]:
    foot = _TOP + _HEIGHT
    for step in range(5):
        y = foot - _HEIGHT * step / 4
        yield f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + _WIDTH}" y2="{y}" stroke="#ddd"/>'
        yield (f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{most * step / 4:,.4g}</text>')
    for step in range(9):
        at_s = run_s * step / 8
        x = _LEFT + at_s * x_of
        yield f'<text x="{x:.1f}" y="{foot + 16}" text-anchor="middle">{at_s / 60:.1f} min</text>'
