"""What is wrong with a configuration: `PLACE: KEY: VALUE what is wrong; remedy`, a line each.

A value is shown only where the model knows the key and that holds no credential, so that a password
in a wrong place is not printed.
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from relaygw.settings.model import Settings
from relaygw.settings.presets import quoted
from relaygw.settings.section import ConflictsFound, Section
from relaygw.settings.tree import Keys, Tree

_CREDENTIALS = frozenset(
    {"username", "password", "password_hash", "token", "key"}
    | {"client_id", "client_secret", "refresh_token", "secret"}
)
_URLS = ("url", "token_url", "relay_to")  # keys of URLs, any of which may carry a password
_SECRET_URLS = ("webhook", "apprise", "heartbeat_url")  # keys of URLs that are secrets themselves
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_HOST = re.compile(r"[A-Za-z0-9.-]+")
_EACH = 0  # any entry of a list or mapping
_MOST_HOMES = 3
_ALIKE, _SOMEWHAT_ALIKE = 0.8, 0.7  # as difflib counts it
_MANY = 8  # words of a closed list: more are not shown where the one that is meant is known
_MEANT = {
    **dict.fromkeys(("starttls", "true", "yes", "on", "tls"), "required"),
    **dict.fromkeys(("ssl", "smtps", "tls/ssl"), "implicit"),
    **dict.fromkeys(("false", "no", "off", "never"), "none"),
    **dict.fromkeys(("live", "prod"), "production"),
    **dict.fromkeys(("dev", "development", "local", "test"), "sandbox"),
    **dict.fromkeys(("stage", "preview", "uat"), "staging"),
    **dict.fromkeys(("marketing", "bulk", "newsletter"), "promotional"),
    "orders": "transactional",
    "oauth": "xoauth2",
    "oauth2": "xoauth2",
}
"""What is meant by words of other programs, where that is one of the list."""
_MEANT_KEYS = dict.fromkeys(("limit", "rate_limit", "max_per_hour"), "rate")
"""What is meant by keys of other programs, where a section has that."""
_FIRST_LABEL = re.compile(r"[A-Za-z0-9-]+(?=\.)")


def explain(error: ValidationError, tree: Tree, told: Collection[Keys]) -> Iterator[str]:
    """Yield a line for each thing wrong with `tree`, but for what follows from keys `told` of."""
    for item in error.errors(include_url=False):
        keys = tuple(key for key in item["loc"] if key != "[key]")
        cause = item.get("ctx", {}).get("error")
        if keys in told or _follows(item, keys, told):
            continue
        if isinstance(cause, ConflictsFound):
            for conflict in cause.conflicts:
                yield tree.line_for((*keys, *conflict.path), conflict.problem)
        elif item["type"] == "extra_forbidden":
            yield tree.line_for(keys, _unknown(keys))
        elif item["type"] == "missing":
            yield tree.line_for(keys, f"is required; write {_example(keys) or expectation(keys)}")
        else:
            is_name = item["loc"][-1:] == ("[key]",)
            problem = str(cause) if cause else _mismatch(keys, item["input"])
            value = "" if is_name else _shown(keys, item["input"], is_leaf=bool(cause))
            yield tree.line_for(keys, f"{value} {problem}".lstrip())


def _follows(item: ErrorDetails, keys: Keys, told: Collection[Keys]) -> bool:
    """True for what a provider lacks because its preset could not be laid under it."""
    is_missing_host = item["type"] == "missing" and keys[2:] == ("host",)
    if is_missing_host or isinstance(item.get("ctx", {}).get("error"), ConflictsFound):
        return keys[:1] == ("providers",) and any(told_keys[:2] == keys[:2] for told_keys in told)
    return False


def _unknown(keys: Keys) -> str:
    if ":" in str(keys[-1]):
        return "is not a key; write a space after the colon"
    section = _section_at(keys[:-1])
    known = list(section.model_fields) if section else []
    # what belongs elsewhere may look like a key here
    homes = list(dict.fromkeys(_homes(str(keys[-1]))))
    least = _ALIKE if homes and len(keys) == 1 else _SOMEWHAT_ALIKE
    word = str(keys[-1]).lower().replace("-", "_")
    near = difflib.get_close_matches(word, known, n=1, cutoff=least)
    if meant := [key for key in (_MEANT_KEYS.get(word), *near) if key in known]:
        return f"is not a key here; did you mean {meant[0]}?"
    if 0 < len(homes) <= _MOST_HOMES:
        return f"is not a key here; it belongs in {' or '.join(homes)}"
    return f"is not a key here; the keys are {', '.join(known)}"


def _homes(name: str, keys: Keys = ()) -> Iterator[str]:
    """Yield where a key of this name is known."""
    if get_origin(_type_at(keys)) in (dict, tuple):
        keys = (*keys, _EACH)
    section = _section_at(keys)
    for key in section.model_fields if section else ():
        if key == name:
            yield ".".join(str(step) for step in keys if step != _EACH) or "the top level"
        yield from _homes(name, (*keys, key))


def _shown(keys: Keys, value: Any, *, is_leaf: bool) -> str:
    if value is None and expectation(keys) == "a mapping":
        return ""
    if _is_list_without_spaces(keys, value) or _is_entry_without_dash(keys, value):
        return ""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    # text in a section's place may be a password whose key was forgotten
    if not is_leaf and expectation(keys) in ("a mapping", "a list"):
        return "a single value"
    is_text = isinstance(value, str)
    safe = _safe_text(keys, value) if is_text else value
    if any(key in _CREDENTIALS for key in keys) or (is_text and safe is None):
        return "the value (not shown)"
    return quoted(safe)


def _is_list_without_spaces(keys: Keys, value: Any) -> bool:
    first = next(iter(value), "") if isinstance(value, (str, dict)) else ""
    return expectation(keys) == "a list" and str(first).startswith("-")


def _is_entry_without_dash(keys: Keys, value: Any) -> bool:
    is_of_sections = _section_at((*keys, _EACH)) is not None
    return isinstance(value, dict) and expectation(keys) == "a list" and is_of_sections


def _mismatch(keys: Keys, value: Any) -> str:
    expected = expectation(keys)
    if value == "":
        return "is empty; write a value or remove the key"
    if _is_list_without_spaces(keys, value):
        return "has no space after a -; write - VALUE"
    if _is_entry_without_dash(keys, value):
        return "is a list; write - and a space before the first key of each entry"
    if expected == "a mapping":
        return _not_a_mapping(keys, value)
    if isinstance(value, list) and expected != "a list":
        return f"is not {expected}; write one value"
    if choices := _choices(keys):
        return no_choice(str(value), choices)
    remedies = {
        "a list": "; write [VALUE, VALUE]",
        "text": "; write it in quotes",
    }
    near = _example(keys)
    return f"is not {expected}" + remedies.get(expected, f"; write {near}" if near else "")


def _not_a_mapping(keys: Keys, value: Any) -> str:
    inner = _section_at(keys)
    if inner is not None and keys[-1] in inner.model_fields:
        return f"stands where a name is expected; indent {keys[-1]} below its name"
    if isinstance(value, list):
        return "has no names; write NAME: and its keys, indented, in place of each entry"
    if value is None:
        return "has nothing below it; indent its keys, KEY: VALUE"
    return "has no keys; write KEY: VALUE below it, indented"


def no_choice(value: str, choices: Collection[str]) -> str:
    """Return the problem of a value that is none of the choices, and which may be meant."""
    meant = _MEANT.get(value.lower())
    near = difflib.get_close_matches(value.lower(), choices, n=1)
    guess = meant if meant in choices else next(iter(near), None)
    listed = f"is not one of {', '.join(choices)}"
    if guess is None:
        return listed
    return (
        f"is not known here; did you mean {guess}?"
        if len(choices) > _MANY
        else (f"{listed}; did you mean {guess}?")
    )


# --- how much of a wrong value is shown: nothing that may be a secret in the wrong form


def _safe_text(keys: Keys, text: str) -> str | None:
    """Return the part of a text that may be shown, None for nothing of it."""
    if any(key in _SECRET_URLS for key in keys):
        return _head_of_url(text, _FIRST_LABEL)
    if any(key in _URLS for key in keys):
        return _head_of_url(text, _HOST)
    if keys[:1] == ("alerts",) and keys[2:3] == ("command",):
        program, *arguments = text.split(maxsplit=1) or [""]
        return f"{program} ***" if arguments else program
    return text


def _head_of_url(text: str, head: re.Pattern[str]) -> str | None:
    """Return the scheme, or without one what `head` finds at the beginning."""
    if not text:
        return text
    if scheme := _SCHEME.match(text):
        return text if scheme[0] == text else f"{scheme[0]}..."
    found = head.match(text)
    if found is None or text.startswith("@", found.end()):  # a user, or worse
        return None
    return text if found[0] == text else f"{found[0]}..."


# --- what the model wants


def _section_at(keys: Keys) -> type[Section] | None:
    kind = _type_at(keys)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _field_at(keys: Keys) -> FieldInfo | None:
    section = _section_at(keys[:-1])
    return section.model_fields.get(str(keys[-1])) if section and keys else None


def expectation(keys: Keys) -> str:
    """Return the model's expectation at `keys`, such as `an integer 1-65535`."""
    kind = _type_at(keys)
    if choices := _choices(keys):
        return "one of " + ", ".join(choices)
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is dict or _section_at(keys):
        return "a mapping"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    return names.get(kind, "a known value") + _range(_field_at(keys))


def _choices(keys: Keys) -> list[str]:
    """Return the choices at `keys` where that is a closed list."""
    kind = _type_at(keys)
    if get_origin(kind) is Literal:
        return list(map(str, get_args(kind)))
    return list(kind) if isinstance(kind, type) and issubclass(kind, StrEnum) else []


def _example(keys: Keys) -> str:
    """Return a value that fits, from the model's examples or its default; "" for a choice."""
    info = _field_at(keys)
    if info is None or expectation(keys).startswith("one of"):
        return ""
    if info.examples:
        return f"e.g. {info.examples[0]}"
    is_scalar = isinstance(info.default, (bool, int, float))
    return f"e.g. {json.dumps(info.default)}" if is_scalar else ""


def _type_at(keys: Keys) -> Any:
    kind: Any = Settings
    for key in keys:
        if isinstance(kind, type) and issubclass(kind, Section):
            info = kind.model_fields.get(str(key))
            kind = _bare(info.annotation) if info else None
        elif get_origin(kind) in (dict, tuple):
            kind = _bare(get_args(kind)[1 if get_origin(kind) is dict else 0])
        else:
            return None
    return kind


def _bare(annotation: Any) -> Any:
    """Return the type without Annotated and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(get_arg for get_arg in get_args(annotation) if get_arg is not type(None)))
    return annotation


def _range(info: FieldInfo | None) -> str:
    # `int | None` has its limits in the type, not in the field
    marks = [*info.metadata, *_marks_in(info.annotation)] if info else []
    limits = {
        name: getattr(mark, name)
        for mark in marks
        for name in ("ge", "gt", "le")
        if getattr(mark, name, None) is not None
    }
    if "ge" in limits and "le" in limits:
        return f" {limits['ge']}-{limits['le']}"
    if "ge" in limits:
        return f" from {limits['ge']}"
    return f" above {limits['gt']}" if "gt" in limits else ""


def _marks_in(annotation: Any) -> Iterator[Any]:
    """Yield what Annotated says of a type and of the parts of a union."""
    if get_origin(annotation) is Annotated:
        for mark in annotation.__metadata__:
            yield from mark.metadata if isinstance(mark, FieldInfo) else [mark]
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _marks_in(part)
