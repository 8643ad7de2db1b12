"""Trees of plain values that remember where each one was written, and YAML as such a tree.

The places survive merging and filling in, so that an error or `config show --origin` names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from relaygw.mail.words import printable

Keys = tuple[str | int, ...]  # the way to a value: mapping keys and list positions, from the top


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written."""

    source: str  # a file's short name, or "environment NAME"
    line: int | None = None
    file: Path | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(slots=True)
class Tree:
    """Values, the place of each by its keys, and what is wrong with the text or odd about it."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, Place] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    is_readable: bool = True  # False: the text is no YAML, so `values` says nothing

    def merge(self, other: Tree) -> None:
        """Lay `other` over this tree: mappings deep, lists and scalars replace."""
        for key, value in other.values.items():
            self.lay(self.values, (key,), value)
        known = self.places.keys() & {()}  # the place of the whole stays
        self.places |= {keys: place for keys, place in other.places.items() if keys not in known}
        self.problems += other.problems
        self.is_readable = self.is_readable and other.is_readable

    def lay(self, container: Any, keys: Keys, value: Any, place: Place | None = None) -> None:
        """Lay `value` over what stands in `container`, to which all but the last of `keys` lead."""
        old = item_at(container, keys[-1])
        if isinstance(value, dict) and isinstance(old, dict):
            for key, item in value.items():
                self.lay(old, (*keys, key), item, place)
            return
        for stale in [known for known in self.places if known[: len(keys)] == keys]:
            del self.places[stale]
        put(container, keys[-1], value)
        if place is not None:
            self._mark(keys, value, place)

    def _mark(self, keys: Keys, value: Any, place: Place) -> None:
        self.places[keys] = place
        for key, item in inner_items(value):
            self._mark((*keys, key), item, place)

    def place_of(self, keys: Keys) -> Place | None:
        """Return the place of a value, or of the nearest thing around it."""
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.places:
                return self.places[keys[:length]]
        return None

    def line_for(self, keys: Keys, problem: str) -> str:
        """Return the line for one problem: where, which key, what."""
        place = self.place_of(keys)
        key = shown_keys(keys) or "the configuration"
        return f"{place}: {key}: {problem}" if place else f"{key}: {problem}"


@dataclass(slots=True)
class FilledValues:
    """A configuration's values filled in, where each comes from, and by key what could not be."""

    values: dict[str, Any]
    origins: dict[Keys, str] = field(default_factory=dict)
    problems: dict[Keys, str] = field(default_factory=dict)

    def lay_under(
        self, written: dict[str, Any], keys: Mapping[str, Any], at: Keys, origin: str
    ) -> dict[str, Any]:
        """Return `written` with what `keys` adds, in any case; mappings merge, null is nothing."""
        merged = dict(written)
        taken = {name.lower(): name for name, value in written.items() if value is not None}
        for name, value in keys.items():
            here = taken.get(name.lower())
            if here is None:
                merged[name] = value
                self.origins |= {keys: origin for keys, _ in leaves((*at, name), value)}
            elif isinstance(value, dict) and isinstance(merged[here], dict):
                merged[here] = self.lay_under(merged[here], value, (*at, here), origin)
        return merged


def inner_items(value: Any) -> list[tuple[str | int, Any]]:
    """Return the items of a mapping or list by key or position; none of any other value."""
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def item_at(container: Any, key: Any) -> Any:
    """Return the item of a mapping or list there, None where there is none."""
    if isinstance(container, list):
        return container[key] if key < len(container) else None
    return container.get(key)


def put(container: Any, key: Any, value: Any) -> None:
    """Set what a mapping or list holds; the next free position of a list adds one."""
    if isinstance(container, list) and key == len(container):
        container.append(value)
    else:
        container[key] = value


def leaves(at: Keys, value: Any) -> Iterator[tuple[Keys, Any]]:
    """Yield keys and value of all that is single; lists of scalars count as one value."""
    inner = inner_items(value)
    if inner and (isinstance(value, dict) or any(isinstance(item, dict) for item in value)):
        for key, item in inner:
            yield from leaves((*at, key), item)
    else:
        yield at, value


def shown_keys(keys: Keys) -> str:
    """Return the dotted form on one line; after a colon without a space the rest is a value."""
    parts = (str(key) for key in keys)
    return ".".join(
        printable(part.partition(":")[0])[:64] + (":…" if ":" in part else "") for part in parts
    )


# --- YAML: a deliberate subset of 1.2
# Mappings with text keys, lists, and scalars that are null, true/false, numbers or text. Aliases,
# anchors and tags are refused (no object is ever built, nothing can expand), duplicate keys too.
# `yes`, `no`, `on`, `off`, dates and `1:30` are text, as people mean them. Problems come back as
# lines `FILE:LINE: …` without any value, since a value in a broken file may be a password.

_MAX_BYTES = 2**20
_MAX_DEPTH = 20
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}")
_WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class _PlainLoader(yaml.SafeLoader):
    """Composes nodes with depth and kind limits; it never constructs anything."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise _refusal(event, "anchors and aliases (& and *) are not supported; quote the text")
        if getattr(event, "tag", None) is not None:
            raise _refusal(event, "tags (!) are not supported; quote the text")
        if self.depth >= _MAX_DEPTH:
            raise _refusal(event, f"nested deeper than {_MAX_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refusal(event: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def content_of(path: Path) -> bytes:
    """Return a file's content, of one that is too long, or has no end, as much as tells that."""
    with path.open("rb") as file:
        return file.read(_MAX_BYTES + 1)


def read_tree(content: bytes, place: Place) -> Tree:
    """Read a whole YAML text; `place` names its source."""
    tree = Tree(places={(): place})
    try:
        if len(content) > _MAX_BYTES:
            raise yaml.YAMLError(f"longer than {_MAX_BYTES} bytes")
        loader = _PlainLoader(content.decode("utf-8-sig"))
        node = loader.get_single_node()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line, problem = _explain(error, content)
        tree.problems.append(f"{replace(place, line=line)}: {problem}")
        tree.is_readable = False
        return tree
    if isinstance(node, yaml.MappingNode):
        tree.values = _mapping(node, (), tree)
    elif node is not None:
        tree.problems.append(f"{replace(place, line=1)}: {_without_keys(content)}")
        tree.is_readable = False
    return tree


def read_own(path: Path) -> Tree:
    """Read a data file of the program's own."""
    tree = read_tree(path.read_bytes(), Place(path.name))
    if tree.problems:
        raise ValueError("; ".join(tree.problems))
    return tree


def write_tree(values: dict[str, Any]) -> str:
    """Return values as the text of a file."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def read_flow(text: str) -> Any:
    """Read a scalar or flow YAML, as a variable has it; a ValueError does not show the value."""
    if not text.startswith(("[", "{", '"', "'")):
        return _scalar(text.strip())
    tree = read_tree(b"value: " + text.encode(errors="replace"), Place(""))
    if tree.problems:
        raise ValueError(tree.problems[0].partition(": ")[2])
    return tree.values["value"]


def _value(node: Any, keys: Keys, tree: Tree) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, keys, tree)
    if isinstance(node, yaml.SequenceNode):
        values = []
        for position, item in enumerate(node.value):
            at = (*keys, position)
            tree.places[at] = replace(tree.places[()], line=item.start_mark.line + 1)
            values.append(_value(item, at, tree))
        return values
    return node.value if node.style else _scalar(node.value)


def _mapping(node: Any, keys: Keys, tree: Tree) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        here = replace(tree.places[()], line=key_node.start_mark.line + 1)
        if not isinstance(key_node, yaml.ScalarNode):
            tree.problems.append(f"{here}: a key is not a string; write KEY: VALUE")
            continue
        at = (*keys, key_node.value)
        if key_node.value in values:
            first = tree.places[at].line
            tree.problems.append(
                f"{here}: {shown_keys(at)}: is set twice, first on line {first}; remove one"
            )
            continue
        tree.places[at] = here
        values[key_node.value] = _value(value_node, at, tree)
    return values


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    return text


def _explain(error: Exception, content: bytes) -> tuple[int | None, str]:
    """Return line and problem; multi-letter quotations are cut, they may be a secret."""
    if isinstance(error, UnicodeDecodeError):
        line = content.count(b"\n", 0, error.start) + 1
        return line, "is not UTF-8 text; save the file as UTF-8"
    if isinstance(error, yaml.reader.ReaderError):
        before = content.decode("utf-8-sig")[: error.position]
        return before.count("\n") + 1, "holds a control character; remove it"
    if place := _NO_BREAK_SPACE.search(content):
        line = content[: place.end()].count(b"\n") + 1
        return line, "holds a no-break space; type a plain space"
    if not isinstance(error, yaml.MarkedYAMLError):
        return None, str(error)
    mark = error.problem_mark or error.context_mark
    begun = f" that begins on line {error.context_mark.line + 1}" if error.context_mark else ""
    words = error.problem or "is not valid YAML"
    if mark and ("mapping values" in words or "':'" in words):
        *_, last = b"", *content.splitlines()[: mark.line]
        key_problem = _key_problem(last)
        if key_problem is not None:
            return mark.line, key_problem
    open_quotes = [n for n, line in enumerate(content.splitlines(), 1) if line.count(b'"') % 2]
    if mark and "cannot start any token" in words and open_quotes[:1] < [mark.line + 1]:
        for number in open_quotes[:1]:  # the next quote, which was to open a text, has closed this
            return number, "the quote on this line is not closed; close it"
    problem = _known_problem(words, content.splitlines()[mark.line :] if mark else [])
    if problem is None:  # the parser may quote a secret
        problem = re.sub(r"'[^'<]{2,}'|\"[^\"]{2,}\"", "…", words)
    return mark.line + 1 if mark else None, problem.replace("{begun}", begun)


def _known_problem(words: str, lines: list[bytes]) -> str | None:
    """Say what the parser's words mean at the first of these lines, None if that is unknown."""
    if r"'\t'" in words and not any(line.lstrip(b" ").startswith(b"\t") for line in lines[:1]):
        return "a tab stands before a value; write a space instead"
    return next((said for part, said in _YAML_PROBLEMS.items() if part in words), None)


def _key_problem(line: bytes) -> str | None:
    """Return the problem of a line that a parser notices on the next one, None for none."""
    if _NO_SPACE.match(line):
        return _NO_SPACE_WORDS
    return _NO_COLON_WORDS if _NO_COLON.fullmatch(line) else None


def _without_keys(content: bytes) -> str:
    """Return the problem of a file that is a text or a list."""
    if _MAIN_CF.search(content):
        return (
            "is written as Postfix's main.cf is; relaygw import-postfix makes a configuration of it"
        )
    if _NO_SPACE.search(content):
        return _NO_SPACE_WORDS
    return "has no keys; write KEY: VALUE, e.g. mode: sandbox"


_NO_BREAK_SPACE = re.compile(rb"^[ -]*+(?:\w[\w-]*+:)? *+\xc2\xa0", re.M)  # where one counts
_MAIN_CF = re.compile(rb"^[a-z][a-z0-9_]+\s*=", re.MULTILINE)
_NO_SPACE = re.compile(rb"^ *[a-z_]+:\S", re.MULTILINE)
_NO_COLON = re.compile(rb" *[a-z_]+ +[^:#\s]+ *")
_NO_SPACE_WORDS = "has no space after a colon; write KEY: VALUE"
_NO_COLON_WORDS = "a key has no value; write KEY: VALUE, with a space after the colon"
_YAML_PROBLEMS = {
    r"'\t'": "a tab is used for indentation; write spaces instead",
    "expected ',' or '}'": (
        "the {{begun} is not closed before this; write }, or a comma between its entries"
    ),
    "expected ',' or ']'": (
        "the [{begun} is not closed before this; write ], or a comma between its entries"
    ),
    "cannot start any token": (
        'a value cannot begin with this sign; put the text in quotes, e.g. "@example.com"'
    ),
    "mapping values are not allowed": (
        "a key cannot stand here; check the indentation, and quote a text that holds a colon and a "
        "space"
    ),
    "could not find expected ':'": _NO_COLON_WORDS,
    "<block end>": (
        "this does not stand below what is before it; indent the keys of a section alike, and "
        'quote an address such as "[::1]:25"'
    ),
    "unexpected end of stream": "the quote{begun} is not closed; close it",
    "end of stream": "the bracket or quote{begun} is not closed; close it",
    "another document": "--- begins a second document here; remove it: a file is one document",
    "node content": ('a value is missing before this sign; quote an address such as "[::1]:25"'),
    "alphabetic or numeric": "a value cannot begin with * or &; put the text in quotes",
    "unknown escape": "a backslash in double quotes; write single quotes around the text",
}
"""What is wrong and what to do, by what stands in the parser's words."""
