"""What is wrong with a configuration, one line a problem.

A line reads `PLACE: KEY: VALUE what is wrong; remedy`. A value is shown only where the
model knows the key and the key holds no credential, so that a password in a wrong place is
not printed.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from relaygw.settings.conflicts import ConflictsFound
from relaygw.settings.schema import example, expectation, section_at
from relaygw.settings.tree import Keys, Tree, shown_keys
from relaygw.settings.wrong_value import shown_single

_NOT_YET = "is not in this version yet; remove it"
_LATER = {
    ("bounces",): _NOT_YET,
    ("retry", "warn_after"): _NOT_YET,
}


def explain(
    error: ValidationError, tree: Tree, told: Collection[Keys] = frozenset()
) -> Iterator[str]:
    """Yield one line for each thing that the model finds wrong with `tree`.

    `told` are keys whose problem the user hears of anyway; what only follows from one of
    them is left out.
    """
    for item in error.errors(include_url=False):
        keys = tuple(key for key in item["loc"] if key != "[key]")
        cause = item.get("ctx", {}).get("error")
        if keys in told or (_may_follow(item, keys) and any(one[:2] == keys[:2] for one in told)):
            continue
        if isinstance(cause, ConflictsFound):
            for conflict in cause.conflicts:
                yield line_for((*keys, *conflict.path), conflict.problem, tree)
        elif item["type"] == "extra_forbidden":
            yield line_for(keys, _unknown(keys), tree)
        elif item["type"] == "missing":
            yield line_for(keys, f"is required; write {_wanted(keys)}", tree)
        else:
            is_name = item["loc"][-1:] == ("[key]",)
            problem = str(cause) if cause else _mismatch(keys, item["input"])
            value = "" if is_name else f"{_shown(keys, item['input'], is_leaf=bool(cause))} "
            yield line_for(keys, value + problem, tree)


def _may_follow(item: ErrorDetails, keys: Keys) -> bool:
    """True for what a provider lacks because its preset could not be laid under it."""
    if keys[:1] != ("providers",):
        return False
    is_missing_host = item["type"] == "missing" and keys[2:] == ("host",)
    return is_missing_host or isinstance(item.get("ctx", {}).get("error"), ConflictsFound)


def line_for(keys: Keys, problem: str, tree: Tree) -> str:
    """Return the line for one problem: where, which key, what."""
    place = tree.place_of(keys)
    key = shown_keys(keys) or "the configuration"
    return f"{place}: {key}: {problem}" if place else f"{key}: {problem}"


def _unknown(keys: Keys) -> str:
    for pattern, problem in _LATER.items():
        if len(pattern) == len(keys) and all(
            wanted in ("*", key) for wanted, key in zip(pattern, keys, strict=True)
        ):
            return problem
    if ":" in str(keys[-1]):
        return "is no key; write a space after the colon"
    section = section_at(keys[:-1])
    known = list(section.model_fields) if section else []
    near = difflib.get_close_matches(str(keys[-1]).lower().replace("-", "_"), known, n=1)
    if near:
        return f"is no key here; did you mean {near[0]}?"
    return f"is no key here; the keys are {', '.join(known)}"


def _shown(keys: Keys, value: Any, *, is_leaf: bool) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    # text in a section's place may be a password whose key was forgotten
    if not is_leaf and expectation(keys) in ("a mapping", "a list"):
        return "a single value"
    return shown_single(keys, value)


def _mismatch(keys: Keys, value: Any) -> str:
    expected = expectation(keys)
    if value == "":
        return "is empty; write a value or remove the key"
    if isinstance(value, list) and expected != "a list":
        return f"is not {expected}; write one value"
    remedies = {
        "a list": "; write [VALUE, VALUE]",
        "a mapping": "; write KEY: VALUE below it",
        "text": "; write it in quotes",
    }
    near = example(keys)
    by_example = f"; write e.g. {near}" if near and not expected.startswith("one of") else ""
    return f"is not {expected}" + remedies.get(expected, by_example)


def _wanted(keys: Keys) -> str:
    expected = expectation(keys)
    near = example(keys)
    return f"e.g. {near}" if near and not expected.startswith("one of") else expected
