"""Which HTML and CSS of a mail which mail programs do not know, by the table of caniemail.com.

The table is a file of this package (`packaging/caniemail.py` writes it); nobody is asked.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from relaygw.web.mail.html_syntax import Tag, tokens

MAX_TAGS = 50_000
MAX_CSS_CHARACTERS = 512 * 1024
MAX_CSS_PIECES = 20_000  # rules and declarations
_MAX_VALUE = 2000
_TABLE = Path(__file__).with_name("caniemail.json")

_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_END = re.compile(r"[{};]")
_AT_RULE = re.compile(r"@([a-z-]+)")
_MEDIA_FEATURE = re.compile(r"\(\s*([a-z-]+)")
_FUNCTION = re.compile(r"(?<![a-z-])-*+([a-z][a-z-]*+)\(")
_NUMBER = re.compile(r"(?<![#\w.-])-?(?:\d++(?:\.\d++)?+|\.\d++)(%|[a-z]{1,4}+)")
_WORD = re.compile(r"!?[a-z][a-z-]*+")
_PSEUDO = re.compile(r"::?[a-z][a-z-]*+")
_URL = re.compile(r"""url\(\s*["']?([^"')]{1,2000})""")
_DATA = re.compile(r"data:image/([a-z0-9.-]+)")
_ENDING = re.compile(r"\.([a-z0-9]{2,5})(?:[?#]|$)")
_HTML_COMMENT = re.compile(r"<!--(?!\[)")
_OLD_PSEUDO_ELEMENTS = frozenset({":before", ":after", ":first-letter", ":first-line"})
_SELECTORS = {  # a selector's kind by what it has
    "class": re.compile(r"\.[a-z_-]", re.IGNORECASE),
    "id": re.compile(r"#[a-z_-]", re.IGNORECASE),
    "attribute": re.compile(r"\["),
    "child": re.compile(r">"),
    "adjacent-sibling": re.compile(r"\+"),
    "general-sibling": re.compile(r"~(?!=)"),
    "universal": re.compile(r"(?:^|[\s>+~,])\*"),
    "grouping": re.compile(r","),
    "descendant": re.compile(r"[\w\])*]\s+[\w.#\[*:]"),
    "chaining": re.compile(r"[\w\])][.#][a-z_-]", re.IGNORECASE),
    "type": re.compile(r"(?:^|[\s>+~,])[a-z]", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Program:
    """A mail program, and what it makes of a feature: yes, partial or no."""

    name: str
    family: str
    platform: str
    support: str
    note: str  # its number among the feature's notes


@dataclass(frozen=True, slots=True)
class Feature:
    """What a mail uses and not every program knows; shares are percent of the tested programs."""

    slug: str
    title: str
    about: str
    found: int
    programs: tuple[Program, ...]
    notes: dict[str, str]
    supported: float
    partial: float
    unsupported: float

    @property
    def url(self) -> str:
        """The page of the table about it."""
        return f"https://www.caniemail.com/features/{self.slug}/"

    @property
    def category(self) -> str:
        """One of css, html and image."""
        return self.slug.partition("-")[0]


@dataclass(frozen=True, slots=True)
class HtmlCheck:
    """The features that some programs lack, worst first, and the mean of all that are used."""

    lacking: tuple[Feature, ...]
    used: int  # features, also those that all know
    tags: int
    supported: float
    partial: float
    unsupported: float


@cache
def table() -> dict[str, Any]:
    """Return the table: source, licence, date, clients, features."""
    found: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return found


@cache
def _by_mark() -> dict[str, list[str]]:
    slugs: dict[str, list[str]] = {}
    for slug, entry in table()["features"].items():
        for mark in entry["marks"]:
            slugs.setdefault(mark, []).append(slug)
    return slugs


def check_html(page: str) -> HtmlCheck:
    """Return the features of HTML that some programs lack; never raises, linear in its length."""
    marks = _Marks()
    marks.read(page)
    by_mark, found = _by_mark(), Counter[str]()
    for mark, number in marks.found.items():
        for slug in by_mark.get(mark, ()) if number else ():
            found[slug] += number
    features = [_feature(slug, number) for slug, number in found.items()]
    lacking = [feature for feature in features if feature.partial or feature.unsupported]
    lacking.sort(key=lambda feature: (-feature.unsupported, -feature.partial, feature.slug))
    number = len(features) or 1
    return HtmlCheck(
        lacking=tuple(lacking),
        used=len(features),
        tags=marks.tags,
        supported=sum(feature.supported for feature in features) / number if features else 100.0,
        partial=sum(feature.partial for feature in features) / number,
        unsupported=sum(feature.unsupported for feature in features) / number,
    )


_SUPPORT = {"y": "yes", "a": "partial", "n": "no"}  # else nobody knows


def _feature(slug: str, found: int) -> Feature:
    entry = table()["features"][slug]
    programs = tuple(
        Program(name, family, platform, _SUPPORT[cell[0]], cell[1:])
        for (family, platform, name), cell in zip(
            table()["clients"], entry["support"].split(), strict=True
        )
        if cell[0] in _SUPPORT
    )
    numbers = Counter(each.support for each in programs)
    share = 100 / (len(programs) or 1)
    return Feature(
        slug=slug,
        title=entry["title"],
        about=entry["about"],
        found=found,
        programs=programs,
        notes=entry["notes"],
        supported=numbers["yes"] * share if programs else 100.0,
        partial=numbers["partial"] * share,
        unsupported=numbers["no"] * share,
    )


class _Marks:
    """Counts what shows that features are used, named as in the table."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.tags = 0
        self._css_left = MAX_CSS_CHARACTERS
        self._pieces_left = MAX_CSS_PIECES

    def read(self, page: str) -> None:
        if re.match(r"\s*<!doctype html", page[:1000], re.IGNORECASE):
            self.found["html:doctype"] += 1
        self.found["html:comment"] += sum(1 for _ in _HTML_COMMENT.finditer(page))
        for token in islice(tokens(page), 4 * MAX_TAGS):  # a stray "<" is one, too
            if isinstance(token, Tag) and not token.is_end:
                self.tags += 1
                if self.tags > MAX_TAGS:
                    return
                self._read_tag(token)

    def _read_tag(self, tag: Tag) -> None:
        attributes = tag.attributes()
        self.found[f"<{tag.name}"] += 1
        self.found.update(f"[{name}" for name in attributes)
        for name in ("type", "name"):
            if name in attributes:
                self.found[f"<{tag.name}[{name}={attributes[name].strip().lower()[:40]}]"] += 1
        target = attributes.get("href", "").strip().lower()
        if tag.name == "a" and target.startswith(("#", "mailto:")):
            self.found[f"<a[href={'#' if target[0] == '#' else 'mailto'}]"] += 1
        if tag.name in ("img", "source"):
            self._read_address(attributes.get("src", ""))
        if tag.name == "style":
            self._read_sheet(tag.raw)
        if "style" in attributes:
            for declaration in self._taken(attributes["style"]).lower().split(";"):
                self._read_declaration(declaration)

    def _taken(self, css: str) -> str:
        css = css[: self._css_left]
        self._css_left -= len(css)
        return css

    def _read_sheet(self, css: str) -> None:
        css, comments = _COMMENT.subn("", self._taken(css))
        self.found["css:comment"] += comments
        open_blocks: list[str] = []  # the at-rule, or "" for a rule
        start = 0
        for match in _END.finditer(css):
            text, end = css[start : match.start()].strip(), match[0]
            start = match.end()
            self._pieces_left -= 1
            if self._pieces_left < 0:
                return
            if end == "{":
                open_blocks.append(self._open(text, open_blocks))
                continue
            if text.startswith("@"):
                self._read_at_rule(text.lower())
            else:
                self._read_declaration(text.lower())
            if end == "}" and open_blocks:
                open_blocks.pop()

    def _open(self, text: str, outer: list[str]) -> str:
        if text.startswith("@"):
            return self._read_at_rule(text.lower())
        if outer and outer[-1] == "":
            self.found["css:nesting"] += 1
        if not (outer and outer[-1].endswith("keyframes")):
            self._read_selector(text[:_MAX_VALUE])
        return ""

    def _read_at_rule(self, text: str) -> str:
        match = _AT_RULE.match(text)
        name = match[1] if match else "@"
        self.found[f"@{name}"] += 1
        if name == "media":
            features = _MEDIA_FEATURE.findall(text[:_MAX_VALUE])
            self.found.update(f"@media({feature})" for feature in features)
        return name

    def _read_selector(self, text: str) -> None:
        self.found.update(
            f"s:{kind}" for kind, pattern in _SELECTORS.items() if pattern.search(text)
        )
        for name in _PSEUDO.findall(text.lower()):
            self.found[f":{name}" if name in _OLD_PSEUDO_ELEMENTS else name] += 1

    def _read_declaration(self, text: str) -> None:
        name, colon, value = text.partition(":")
        name, value = name.strip()[:60], value.strip()[:_MAX_VALUE]
        self._pieces_left -= 1
        if not colon or not name or self._pieces_left < 0:
            return
        self.found[f"p:{name}"] += 1
        self.found.update(self._marks_of(name, value))
        for match in _URL.finditer(value):
            self._read_address(match[1])

    def _marks_of(self, name: str, value: str) -> Iterator[str]:
        yield f"p:{name}:{value.partition('!')[0].strip()[:40]}"
        yield from (f"f:{each}" for each in set(_FUNCTION.findall(value)))
        yield from (f"u:{each}" for each in set(_NUMBER.findall(value)))
        yield from (f"v:{each}" for each in set(_WORD.findall(value)))

    def _read_address(self, address: str) -> None:
        address = address.strip().lower()[:_MAX_VALUE]
        if data := _DATA.match(address):
            self.found["i:base64"] += 1
            self.found[f"i:{data[1]}"] += 1
        elif ending := _ENDING.search(address):
            self.found[f"i:{ending[1]}"] += 1
