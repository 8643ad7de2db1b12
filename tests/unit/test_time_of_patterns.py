"""Every regular expression on a stranger's way takes time in proportion to the text.

Each is tried with texts made from its own parts (`tests/growth/pumps.py`). A new one is tried by
itself; one that grows faster fails here, unless no stranger writes what it reads and it is listed
below with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import pytest

from relaygw.mail import content
from relaygw.upstream import classifier, credentials
from relaygw.web.mail import text
from tests.growth import measure, patterns, pumps

NOT_FED = {
    "relaygw.policy.content_check:_IS_OTHER_ABOVE": "reads the 40 characters before a number",
    "relaygw.roles.heap:_OF_LIBRARIES": "reads what the kernel says of this process",
    "relaygw.settings.certificates:_PEM": "reads a file that the configuration names",
    "relaygw.settings.model:_HOSTS": "reads the configuration",
    "relaygw.settings.problems:_FIRST_LABEL": "reads the configuration",
    "relaygw.settings.presets:re.fullmatch(pattern, region)": "reads the configuration",
    "relaygw.settings.provider:re.compile(text)": "reads the configuration",
    "relaygw.settings.provider:re.fullmatch(row.code, str(code))": "reads the configuration",
}
"""Of what no stranger writes, or no more than a few letters of it."""


def _rows() -> Iterator[re.Pattern[str]]:
    for row in (row for rows in classifier.catalogue().values() for row in rows):
        yield from (re.compile(one, re.I) for one in (row.code, row.status, row.text) if one)


def _masked() -> Iterator[re.Pattern[str]]:
    mask = credentials.Mask(credentials.Login(username="user", secret="Aa0-/Aa0-/Aa0-/Aa0"))
    for form in mask.forms:
        yield re.compile(rf"(?<![^\W_]){re.escape(form)}(?![^\W_])")
    for head in mask.heads:
        yield re.compile(re.escape(head) + r"\S*")


BEGINS = {
    "relaygw.mail.content:re.compile(field, re.IGNORECASE)": "match",
    "relaygw.mail.hold:re.compile(re.escape(text).replace('\\\\{\\\\}', '(\\\\S*)', "
    "text.count('{}') - 1).replace('\\\\{\\\\}', '(.*)'), re.DOTALL)": "fullmatch",
}
"""Of those that no name stands for: which are not looked for from each place of a text."""

MADE: dict[str, Callable[[], Iterable[re.Pattern[Any]]]] = {
    "relaygw.mail.content:re.compile(field, re.IGNORECASE)": lambda: [
        content.field_patterns(names)[0] for names in (None, frozenset(("to", "from")))
    ],
    "relaygw.mail.content:re.compile(b'\\n' + field, re.IGNORECASE)": lambda: [
        content.field_patterns(names)[1] for names in (None, frozenset(("to", "from")))
    ],
    "relaygw.operations.audit:re.search(f'^{word}(?:,|$)|; {word}$', rest)": lambda: [
        re.compile("^by hand(?:,|$)|; by hand$")
    ],
    "relaygw.upstream.classifier:re.compile(expression, re.IGNORECASE)": _rows,
    "relaygw.upstream.credentials:"
    "re.sub(f'{before}{re.escape(form)}{after}', '***', text)": _masked,
    "relaygw.upstream.credentials:re.sub(re.escape(head) + '\\\\S*', '***', text)": _masked,
    "relaygw.web.mail.html_syntax:re.compile(f'</{name}(?=[\\\\s/>])', re.IGNORECASE)": lambda: [
        re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("style", "svg")
    ],
    "relaygw.web.mail.text:re.compile(f'{start}({either})(?![\\\\w-]|\\\\.[\\\\w-])', "
    "re.IGNORECASE)": lambda: [text._pattern(("shop.test", "www.käse.test"))],
}
"""Those that are made in a function, as it makes them."""

PARTS = 8


@cache
def every_pattern() -> list[tuple[str, re.Pattern[Any] | None, str]]:
    found: list[tuple[str, re.Pattern[Any] | None, str]] = []
    for module in patterns.reached():
        for used in patterns.used_in(module):
            method = BEGINS.get(used.place, used.method)
            made = list(used.patterns or MADE.get(used.place, tuple)())
            found += [(used.place, one, method) for one in made]
            if not made:
                found.append((used.place, None, ""))
    return found


def grows(pattern: re.Pattern[Any], method: str) -> str:
    """Return by what text and how the time of an expression grows, "" if it does not."""
    is_bytes = isinstance(pattern.pattern, bytes)
    used = getattr(pattern, "sub" if method == "search" else method)
    call = (lambda given: used(given[:0], given)) if method == "search" else used
    for one in pumps.texts(pattern):
        make = (lambda size, one=one: one.of(size).encode("latin-1")) if is_bytes else one.of
        if measure.is_endless(call, make):
            return f"{one}: by the power of its size"
        if measure.suspect(call, make) and (found := measure.growth(call, make)):
            return f"{one}: {found}"
    return ""


@pytest.mark.parametrize("part", range(PARTS))
def test_every_pattern_takes_time_by_size(part: int) -> None:
    slow = []
    for place, pattern, method in every_pattern()[part::PARTS]:
        if place in NOT_FED:
            continue
        assert pattern is not None, f"{place}: made in a function; add it to MADE, as it makes it"
        if told := grows(pattern, method):
            slow.append(f"{place}: {told}")
    assert not slow, "\n".join(slow)


def test_the_lists_name_nothing_that_is_gone() -> None:
    places = {place for place, _, _ in every_pattern()}
    listed = {*NOT_FED, *BEGINS, *MADE}
    assert listed <= places, sorted(listed - places)


@pytest.mark.parametrize(
    "slow, method",
    [
        (rb"[A-Za-z.]+@[a-z.]+|(?<=<)[A-Za-z.]+(?=>)", "search"),  # runs from each letter
        (rb"(\s*(?:[^<>@]*<)?)([a-z.]+)(>?\s*)", "fullmatch"),  # blanks shared by two
        (rb"(?:[ \t]*\r?\n){2,}", "search"),
        (r'(?:"(?:[^"\\]|\\.)*"|[^\s"@]+)@', "search"),
        (r"\S*\d\S*", "search"),
        (r"(a+)+$", "match"),
        (r"<a.*?>b", "search"),
    ],
)
def test_what_grows_is_seen(slow: str | bytes, method: str) -> None:
    assert grows(re.compile(slow), method)
