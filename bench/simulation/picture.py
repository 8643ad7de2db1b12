"""The history of a run as one page: a lane for each process, time from left to right."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bench.history import Event
from bench.simulation.run import Result

_LANE, _TOP, _LEFT, _WIDTH = 34, 40, 130, 1500
_COLOURS = {
    "send": "#2a6fb0",
    "dot-sent": "#b06a00",
    "dot": "#b06a00",
    "deliver": "#2c8a3d",
    "record": "#2c8a3d",
    "doubt": "#8a2be2",
    "kill": "#c00000",
    "fault": "#c00000",
    "mood": "#777777",
    "clock": "#777777",
    "connect": "#c9c9c9",
}
_STYLE = """
body { font: 14px system-ui, sans-serif; margin: 1.5em; color: #222 }
svg { display: block; overflow: visible } svg text { font-size: 12px }
.scroll { overflow-x: auto; border: 1px solid #ddd; padding: 8px }
pre { font: 12px ui-monospace, monospace; white-space: pre-wrap }
.broken { color: #c00000; font-weight: bold }
circle:hover, rect:hover { stroke: #000; stroke-width: 2 }
"""


class _Mark(NamedTuple):
    at_s: float
    lane: str
    colour: str
    text: str


def picture(result: Result) -> str:
    """Return a self-contained page."""
    shown = [event for event in result.events if event.f != "fate"]
    lanes = _lanes(shown)
    last_s = max((_at_s(event) for event in shown), default=1.0)
    marks = [*_marks(shown), *_log_marks(result.lines, lanes)]
    broken = "".join(f'<p class="broken">{html.escape(one)}</p>' for one in result.violations)
    title = f"Seed {result.seed}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>"
        f"{broken or '<p>Every promise was kept.</p>'}"
        f'<div class="scroll">{_svg(lanes, marks, last_s)}</div>'
        "<p>Blue: a client. Orange: a final dot leaves, and arrives. Green: taken, and recorded. "
        "Violet: a doubt. Red: kills and faults. Grey: moods, clocks, lines of the log. Point at a "
        "mark to read it.</p>"
        f"<pre>{html.escape(_table(result))}</pre></html>\n"
    )


def _at_s(event: Event) -> float:
    return event.time / 1e9 - 1000


def _lane_of(event: Event) -> str:
    """Return the lane of an event: all clients share one, as do the connections of a provider."""
    name = event.process.partition("/")[0]
    return "clients" if name.startswith("client") else name


def _lanes(events: Sequence[Event]) -> list[str]:
    names = dict.fromkeys(map(_lane_of, events))
    order = ("clients", "front", "gw", "gateway", "p", "q", "world")
    return sorted(
        names,
        key=lambda name: (
            next((n for n, one in enumerate(order) if name.startswith(one)), len(order)),
            name,
        ),
    )


def _marks(events: Sequence[Event]) -> Iterator[_Mark]:
    for event in events:
        told = ", ".join(f"{name} {value}" for name, value in event.value.items())
        text = f"{_at_s(event):.4f} s: {event.process} {event.type} {event.f} {told}"
        yield _Mark(_at_s(event), _lane_of(event), _COLOURS.get(event.f, "#444444"), text)


def _log_marks(lines: Sequence[tuple[int, str, str]], lanes: Sequence[str]) -> Iterator[_Mark]:
    for at_ns, process, text in lines:
        if process in lanes:
            at_s = at_ns / 1e9 - 1000
            yield _Mark(at_s, process, "#bbbbbb", f"{at_s:.4f} s: {process}: {text}")


def _svg(lanes: Sequence[str], marks: Sequence[_Mark], last_s: float) -> str:
    height = _TOP + _LANE * len(lanes) + 20
    place = {name: _TOP + _LANE * number for number, name in enumerate(lanes)}
    scale = _WIDTH / max(last_s, 1.0)
    parts = [
        f'<svg width="{_LEFT + _WIDTH + 40}" height="{height}" role="img" '
        'aria-label="Events of each process over time">'
    ]
    step_s = max(1, round(last_s / 20))
    for at_s in range(0, int(last_s) + 1, step_s):
        x = _LEFT + at_s * scale
        parts.append(f'<line x1="{x:.1f}" y1="24" x2="{x:.1f}" y2="{height}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.1f}" y="18" text-anchor="middle">{at_s} s</text>')
    for name, y in place.items():
        seen = [mark.at_s for mark in marks if mark.lane == name]
        first, last = (_LEFT + at_s * scale for at_s in (min(seen), max(seen)))
        parts.append(f'<text x="4" y="{y + 4}">{html.escape(name)}</text>')
        parts.append(
            f'<line x1="{first:.1f}" y1="{y}" x2="{last:.1f}" y2="{y}" stroke="#999" '
            'stroke-width="2"/>'
        )
    for mark in marks:
        x, y = _LEFT + mark.at_s * scale, place[mark.lane]
        radius = 3 if mark.colour in ("#bbbbbb", "#c9c9c9") else 5
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y}" r="{radius}" fill="{mark.colour}">'
            f"<title>{html.escape(mark.text)}</title></circle>"
        )
    return "".join([*parts, "</svg>"])


def _table(result: Result) -> str:
    marks = [*_marks(result.events), *_log_marks(result.lines, [p for _, p, _ in result.lines])]
    return "\n".join(mark.text for mark in sorted(marks, key=lambda mark: mark.at_s))
