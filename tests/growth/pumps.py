"""Texts by which a regular expression may take more than linear time, made from the expression.

A match is slow where it goes over the same text again and again: from each of many beginnings, or
by sharing a run out among neighbours in every way. So the texts are runs of what the expression's
own parts take (its letters, one of each class of characters that it tells apart, whole matches of
its parts), behind what leads there, with an end that fits nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from re import _compiler as compiler  # type: ignore[attr-defined]
from re import _constants as c  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_LETTERS = [chr(code) for code in (*range(9, 14), *range(32, 127), 0, 1, 0x7F, 0xE9, 0xFF)]
_WIDE = ["\u201e", "\u2028", "\u0661"]  # a quote, a line end, a digit; for texts, not for bytes
_MOST_LETTERS = 12
_PAIRED = 8  # of them: with each other
_MOST_BRANCHES = 5
_MOST_STARTS = 8
_ENDS = ("\x01", "", "\n!")
_REPEATS = (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT)
_LONG = 64  # times: what repeats less often takes a time that has a limit


class Text:
    """A text of any size: a beginning, a run, an end."""

    def __init__(self, start: str, pump: str, end: str) -> None:
        self.start, self.pump, self.end = start, pump, end

    def of(self, size: int) -> str:
        """Return the text of about `size` characters."""
        return self.start + self.pump * (size // len(self.pump)) + self.end

    def __repr__(self) -> str:
        return f"{self.start[:40]!r} + {self.pump[:40]!r} * n + {self.end!r}"


def texts(pattern: re.Pattern[Any]) -> list[Text]:
    """Return the hostile texts for one expression."""
    is_bytes = isinstance(pattern.pattern, bytes)
    written = pattern.pattern.decode("latin-1") if is_bytes else pattern.pattern
    flags = pattern.flags & ~(re.UNICODE if is_bytes else 0)
    tree = parser.parse(written, flags & ~re.DEBUG)
    letters = _letters(tree, flags, is_bytes=is_bytes)
    starts, bodies = _repeats(tree, letters)
    whole = _samples(tree, letters)
    short = [*letters, *bodies]
    pairs = [one + two for one, two in product(letters[:_PAIRED], letters[:_PAIRED]) if one != two]
    long = [*whole, *starts, *(start + one for start in starts for one in short[:_PAIRED])]
    made = {("", pump, end) for pump in short for end in _ENDS}
    made |= {("", pump, _ENDS[0]) for pump in (*pairs, *long) if pump}
    made |= {(start, pump, _ENDS[0]) for start in (*starts, *letters) for pump in short}
    return [Text(*one) for one in sorted(made)]


def _letters(tree: Any, flags: int, *, is_bytes: bool) -> list[str]:
    """Return one character of each class that the expression tells apart."""
    sets = [
        _one(op, av, flags) for op, av in _nodes(tree) if op in (c.LITERAL, c.NOT_LITERAL, c.IN)
    ]
    classes: dict[tuple[bool, ...], str] = {}
    for letter in _LETTERS if is_bytes else [*_LETTERS, *_WIDE]:
        fits = tuple(one.fullmatch(letter) is not None for one in sets)
        classes.setdefault(fits, letter)
    # those that fit most places are shared by most neighbours
    return sorted(classes.values(), key=lambda x: -_fits(x, sets))[:_MOST_LETTERS]


def _fits(letter: str, sets: list[re.Pattern[str]]) -> int:
    return sum(one.fullmatch(letter) is not None for one in sets)


def _one(op: Any, av: Any, flags: int) -> re.Pattern[str]:
    """Return an expression of one character of a tree."""
    state = parser.State()
    state.flags = flags & (re.IGNORECASE | re.ASCII)
    state.str = ""
    one: re.Pattern[str] = compiler.compile(parser.SubPattern(state, [(op, av)]), state.flags)
    return one


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each node of a tree, those within others too."""
    for op, av in tree:
        yield op, av
        for inner in _inner(op, av):
            yield from _nodes(inner)


def _inner(op: Any, av: Any) -> list[Any]:
    """Return the trees within a node."""
    if op in _REPEATS:
        return [av[2]]
    if op is c.SUBPATTERN:
        return [av[3]]
    if op is c.ATOMIC_GROUP:
        return [av]
    if op in (c.ASSERT, c.ASSERT_NOT):
        return [av[1]]
    if op is c.BRANCH:
        return list(av[1])
    if op is c.GROUPREF_EXISTS:
        return [tree for tree in av[1:] if tree is not None]
    return []


def _samples(tree: Any, letters: list[str]) -> list[str]:
    """Return some texts that a tree takes, or nearly: short ones, each branch once."""
    made = [""]
    for op, av in tree:
        parts = _parts(op, av, letters)
        made = [one + part for one in made for part in parts][:_MOST_BRANCHES]
    return made


def _parts(op: Any, av: Any, letters: list[str]) -> list[str]:
    if op is c.LITERAL:
        return [chr(av)]
    if op in (c.NOT_LITERAL, c.IN):
        one = _one(op, av, 0)
        return [x for x in [*letters, *_LETTERS] if one.fullmatch(x)][:2] or [""]
    if op is c.ANY:
        return ["a"]
    if op in _REPEATS:
        return [x * max(1, min(av[0], 40)) for x in _samples(av[2], letters)]
    if op is c.BRANCH:
        return [x for branch in av[1] for x in _samples(branch, letters)[:2]][:_MOST_BRANCHES]
    if op in (c.SUBPATTERN, c.ATOMIC_GROUP):
        return _samples(_inner(op, av)[0], letters)
    return [""]  # places, assertions, groups said again


def _repeats(tree: Any, letters: list[str]) -> tuple[list[str], list[str]]:
    """Return what leads to each long repeat of a tree, and what each repeats."""
    starts, bodies = [""], []

    def look(tree: Any, before: str) -> None:
        for op, av in tree:
            if op in _REPEATS and av[1] >= _LONG:
                starts.append(before)
                bodies.extend(_samples(av[2], letters))
            for inner in _inner(op, av):
                look(inner, before)
            before += _parts(op, av, letters)[0]

    look(tree, "")
    unique = list(dict.fromkeys(starts))
    return unique[:_MOST_STARTS], list(dict.fromkeys(filter(None, bodies)))[:_MOST_LETTERS]
