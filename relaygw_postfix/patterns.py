"""Tables of patterns, regexp: and pcre:, and which addresses a pattern stands for.

relaygw's conditions are addresses and domains. A pattern that says no more than these becomes some;
others are left to whoever reads the report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from relaygw.settings.tree import Place

_LINE = re.compile(r"(!?)([/|#~%+])(.*?)(?<!\\)\2([a-zA-Z]*)\s*(.*)", re.S)
_IF = re.compile(r"if\s+(!?)([/|#~%+])(.*?)(?<!\\)\2([a-zA-Z]*)\s*", re.S)
_CLASSES = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "space": r"\s", "lower": "a-z",
    "upper": "A-Z", "xdigit": "0-9a-fA-F", "punct": r"!-/:-@\[-`{-~", "blank": r" \t",
}  # fmt: skip
_ANY = "\0"  # stands for any text in what follows
_ANYTHING = re.compile(r"\((?:\?:)?(?:\.|\[\^@\]|\\S|\[\^[^\]]*\])[*+]\)|(?:\.|\[\^@\]|\\S)[*+]")
_GROUP = re.compile(r"\((?:\?:)?([^()]*)\)")
_LITERAL = re.compile(r"[\w@.\-+\0]*")
_LOCAL_PART = re.compile(r"[\w\-\1]+")  # \1 is a dot; a bare one is any sign
_ANYWHERE = re.compile(rf"\^(?:[\w-]|\\\.)+@(?:{_ANY}\$?)?")
_REFERENCE = re.compile(r"\$(?:\$|\{[^}]*\}|\([^)]*\)|[A-Za-z0-9_]*)")
"""What Postfix reads behind a `$` of a result: a group, or a `$` for `$$`."""
_MAX_ALTERNATIVES = 200


@dataclass(frozen=True, slots=True)
class Condition:
    """A pattern, or its opposite."""

    expression: re.Pattern[str]
    is_negated: bool

    def holds(self, key: str) -> bool:
        """Return whether a key is meant."""
        return bool(self.expression.search(key)) != self.is_negated


@dataclass(frozen=True, slots=True)
class PatternLine:
    """A pattern with its result, and what must hold around it."""

    source: str
    condition: Condition
    value: str
    place: Place
    around: tuple[Condition, ...] = ()

    def matches(self, key: str) -> bool:
        """Return whether the line holds for a key."""
        return self.condition.holds(key) and all(condition.holds(key) for condition in self.around)

    def result(self, key: str) -> str:
        """Return the result for a key that matches: `$1` is what the first group found."""
        match = self.condition.expression.search(key)

        def group(found: re.Match[str]) -> str:
            if found[0] == "$$" or match is None:
                return "$"
            return match[_number(found)] or ""

        return _REFERENCE.sub(group, self.value)

    @property
    def addresses(self) -> list[str] | None:
        """What it stands for: addresses, `@domain`, `.domain`, `*`; None: nothing that simple."""
        return None if self.condition.is_negated else self.told_apart

    @property
    def told_apart(self) -> list[str] | None:
        """What goes another way than the rest: what it stands for, or what its opposite does."""
        return None if self.around else addresses_of(self.source)

    @property
    def local_parts(self) -> list[str]:
        """What it stands for at any domain, as `^www-data@`; none where it means anything else."""
        is_plain = not self.condition.is_negated and not self.around
        texts = _alternatives(self.source) if is_plain else None
        is_anywhere = bool(texts) and all(map(_ANYWHERE.fullmatch, texts or ()))
        return local_parts_of(self.source) if is_anywhere else []


def read_patterns(lines: Sequence[tuple[Place, str]], notes: list[str]) -> list[PatternLine]:
    """Return the lines of a table; what is no pattern is noted."""
    found: list[PatternLine] = []
    around: list[Condition] = []
    for place, line in lines:
        if re.match(r"endif\b", line, re.I):
            if around:
                around.pop()
            else:
                notes.append(f"{place}: endif without an if; remove it")
            continue
        opening = _IF.fullmatch(line)
        match = opening or _LINE.fullmatch(line)
        if match is None:
            notes.append(f"{place}: is not /PATTERN/ RESULT, so Postfix ignores it; fix it")
            continue
        condition = _condition(match, place, notes)
        if opening is not None and condition is not None:
            around.append(condition)
        elif condition is not None:
            value = match[5].strip()
            wrong = _wrong_reference(value, condition)
            if wrong:
                notes.append(
                    f"{place}: {wrong} in the result is no group of /{match[3]}/, so Postfix "
                    "ignores the line; $1 is the first group, $$ a literal $"
                )
                continue
            found.append(PatternLine(match[3], condition, value, place, tuple(around)))
    if around:
        notes.append(f"{lines[-1][0]}: an if has no endif; add it")
    return found


def _condition(match: re.Match[str], place: Place, notes: list[str]) -> Condition | None:
    flags = match[4]
    is_folded = flags.count("i") % 2 == 0  # folded unless `i` turns it off
    source = re.sub(r"\[:(\w+):\]", lambda class_match: _CLASSES.get(class_match[1], ""), match[3])
    try:
        expression = re.compile(source, re.I if is_folded else 0)
    except (re.error, OverflowError, RecursionError) as error:
        notes.append(f"{place}: /{match[3]}/ is not a pattern ({error}); fix it")
        return None
    return Condition(expression, match[1] == "!")


def _wrong_reference(value: str, condition: Condition) -> str:
    """Return the first `$` of a result that means no group; a negated pattern has none."""
    groups = 0 if condition.is_negated else condition.expression.groups
    found = (match for match in _REFERENCE.finditer(value) if match[0] != "$$")
    return next((match[0] for match in found if not 0 < _number(match) <= groups), "")


def _number(reference: re.Match[str]) -> int:
    """Return which group is meant, 0 for none."""
    digits = reference[0].strip("${}()")
    return int(digits) if digits.isdecimal() else 0


def addresses_of(source: str) -> list[str] | None:
    """Return the addresses and domains that a regular expression stands for."""
    texts = _alternatives(source)
    if texts is None:
        return None
    found = [_entry(text) for text in texts]
    return None if None in found else list(dict.fromkeys(address for address in found if address))


def local_parts_of(source: str) -> list[str]:
    """Return the local parts that a regular expression names, at whatever domain: `^www-data@`."""
    found = (
        alternative.removeprefix("^").partition("@") for alternative in _alternatives(source) or ()
    )
    texts = (local.replace("\\.", "\1") for local, at, _ in found if at)
    names = [text.replace("\1", ".") for text in texts if _LOCAL_PART.fullmatch(text)]
    return list(dict.fromkeys(name.lower() for name in names))


def _alternatives(source: str) -> list[str] | None:
    """Return one text for each way through the groups of an expression."""
    text = _ANYTHING.sub(_ANY, source.replace("\\@", "@").replace("\\-", "-"))
    parts: list[list[str]] = []
    at = 0
    for group in _GROUP.finditer(text):
        if text[group.end() : group.end() + 1] in ("*", "+", "?", "{"):
            return None
        parts += [[text[at : group.start()]], group[1].split("|")]
        at = group.end()
    parts.append([text[at:]])
    count = 1
    for part in parts:
        count *= len(part)
    if count > _MAX_ALTERNATIVES:
        return None
    whole = ["".join(choice) for choice in product(*parts)]
    return [half for alternative in whole for half in alternative.split("|")]


def _entry(text: str) -> str | None:
    is_begun, is_ended = text.startswith("^"), text.endswith("$") and not text.endswith("\\$")
    inner = text.removeprefix("^").removesuffix("$") if is_ended else text.removeprefix("^")
    if inner in ("", ".", _ANY):
        return "*"
    if inner.replace(_ANY, "") == "@" and not re.search(r"^\^@|@\$$", text):
        return "*"  # every address has one
    dot = "\1"
    if "." in inner.replace("\\.", dot):
        return None  # a bare dot is any sign: rarely meant, never sure
    inner = inner.replace("\\.", ".")
    if not is_ended or not _LITERAL.fullmatch(inner):
        return None
    bare = inner.removeprefix(_ANY)
    is_open = not is_begun or bare != inner  # any text may stand before it
    if _ANY in bare:
        return None
    if bare.startswith("@") and is_open and bare.count("@") == 1:
        return bare.lower()
    if bare.startswith(".") and is_open and "@" not in bare:
        return bare.lower()
    if not is_open and bare.count("@") == 1 and bare[0] != "@" and bare[-1] != "@":
        return bare.lower()
    return None
