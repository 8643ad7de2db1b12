"""The words of a history (bench/history.py), and what the values of each must be."""

from __future__ import annotations

import math
from typing import Any

TYPES = ("invoke", "ok", "fail", "info")
STATES = (
    *("queued", "held", "captured", "delivered"),
    *("bounced", "expired", "blocked", "cancelled"),
)
_MESSAGE = ("message",)
_NEEDED: dict[str, tuple[str, ...]] = {
    "campaign": (),
    "send": _MESSAGE,
    "connect": (),
    "login": (),
    "deliver": (),
    "dot": (),  # of the delivery that has begun
    "limit": (),
    "mode": ("mode",),
    "lease": _MESSAGE,
    "release": _MESSAGE,
    "doubt": _MESSAGE,
    "record": _MESSAGE,
    "kill": (),
    "fate": (*_MESSAGE, "state"),
    # what only the simulation tells, for its picture
    **dict.fromkeys(("start", "stop", "end", "dot-sent", "mood", "fault", "clock"), ()),
    "faults-end": (),
}
_BARE = frozenset({"campaign", *list(_NEEDED)[list(_NEEDED).index("start") :]})
"""Words whose values nobody reads."""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_any_text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and not math.isnan(value)  # type: ignore[arg-type]


def _is_positive(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]


_SHAPES = {
    **dict.fromkeys(("message", "mode"), (_is_text, "a text")),
    **dict.fromkeys(("digest", "worker", "gateway", "role", "provider"), (_is_any_text, "a text")),
    **dict.fromkeys(("recipients", "open", "begun", "allow"), (_is_texts, "a list of texts")),
    **dict.fromkeys(("code", "doubts"), (_is_count, "a whole number")),
    **dict.fromkeys(("until", "back_ms"), (_is_number, "a number")),
    "rate_per_s": (lambda value: value is None or _is_positive(value), "a number above 0, or null"),
    "connections": (lambda value: value is None or _is_count(value), "a whole number, or null"),
    "window_s": (_is_positive, "a number above 0"),
    "state": (lambda value: value in STATES, f"one of {', '.join(STATES)}"),
}


def find_fault(fields: object) -> str:
    """Return why a line is no event of a history; empty: it is one."""
    if not isinstance(fields, dict) or fields.keys() != {"time", "process", "type", "f", "value"}:
        return "an object of time, process, type, f and value is wanted"
    if not _is_count(fields["time"]):
        return "its time is not a whole number"
    if not isinstance(fields["process"], str):
        return "its process is not a text"
    if fields["type"] not in TYPES:
        return f"its type is not one of {', '.join(TYPES)}"
    word = fields["f"]
    if not isinstance(word, str) or word not in _NEEDED:
        return f"its f is {word!r:.30}, which is no word of a history"
    if not isinstance(fields["value"], dict):
        return "its value is not an object"
    return "" if word in _BARE else _fault_of(word, fields["value"])


def _fault_of(word: str, value: dict[str, Any]) -> str:
    for name in _NEEDED[word]:
        if name not in value:
            return f"{word} without {name}"
    for name, content in value.items():
        if name == "state" and word != "fate":
            continue
        fits, wanted = _SHAPES.get(name, (None, ""))
        if fits is not None and not fits(content):
            return f"the {name} of {word} is not {wanted}"
    return ""
