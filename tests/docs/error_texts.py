"""The texts of errors and log lines as they stand in the code, with … for what is filled in."""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.sources import BESIDE, GATEWAY, ROOT

_FILLED_IN = "…"


def _place(name: str) -> Path:
    """Return the module or room of a name, as it is below the gateway or a package beside it."""
    is_beside = any(name.startswith(f"{package.name}/") for package in BESIDE)
    return (ROOT if is_beside else GATEWAY) / name


@functools.cache
def _module(name: str) -> ast.Module:
    return ast.parse(_place(name).read_text())


@functools.cache
def _constants(name: str) -> dict[str, ast.expr]:
    """Return what the module gives a name once, at its top."""
    return {
        target.id: node.value
        for node in _module(name).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _text(node: ast.expr, name: str) -> str | None:
    """Return the text of an expression, None when it is none that can be read here."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, name) or _FILLED_IN for part in parts)
        case ast.FormattedValue(value=ast.Name() as value, format_spec=None):
            return _text(value, name)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (_text(left, name) or _FILLED_IN) + (_text(right, name) or _FILLED_IN)
        case ast.Name(id=constant) if constant in _constants(name):
            return _text(_constants(name)[constant], name)
        case _:
            return None


def modules(*rooms: str) -> list[str]:
    """Return the modules of rooms, or the single ones that are named."""
    found = map(_place, rooms)
    paths = (path for one in found for path in (sorted(one.rglob("*.py")) or [one]))
    return [str(path.relative_to(ROOT)).removeprefix("relaygw/") for path in paths]


def called(name: str, callables: Collection[str]) -> Iterator[str]:
    """Yield the texts that a module gives to these callables, in the order of the file."""
    for node in ast.walk(_module(name)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in callables:
            texts = (_text(argument, name) for argument in node.args)
            yield from (text for text in texts if text and " " in text)


@functools.cache
def _texts(name: str) -> frozenset[str]:
    texts = (_text(node, name) for node in ast.walk(_module(name)) if isinstance(node, ast.expr))
    return frozenset(filter(None, texts))


def the_text(name: str, part: str) -> str:
    """Return the one text of a module that has `part` in it."""
    found = sorted((text for text in _texts(name) if part in text), key=len)
    assert found, f"{_place(name)} has no text with {part!r} any more"
    whole = found[-1]
    assert all(text in whole for text in found), f"{_place(name)}: {part!r} is not one text"
    return whole
