"""Puts a change in place in functions that are loaded: nothing is imported anew."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType

from bench.mutating.points import Mutant


def loaded_functions() -> list[FunctionType]:
    """Return all functions that this process has loaded."""
    gc.unfreeze()  # what is frozen is not found
    found = [one for one in gc.get_objects() if isinstance(one, FunctionType)]
    gc.freeze()
    return found


class Functions:
    """Functions that can be changed; `root` is where the paths of changes begin."""

    def __init__(self, root: Path, functions: Iterable[FunctionType]) -> None:
        self._root = root
        self._by_file: dict[str, list[FunctionType]] = defaultdict(list)
        for one in functions:
            self._by_file[one.__code__.co_filename].append(one)

    def change(self, mutant: Mutant) -> bool:
        """Put a change in place; False: no function shows it, it takes an import."""
        path = self._root / mutant.path
        module = compile(mutant.apply(path.read_bytes()), path, "exec", dont_inherit=True)
        codes = {(code.co_qualname, code.co_firstlineno): code for code in _codes_in(module)}
        return _replace(self._by_file[str(path)], codes)


def _replace(functions: Sequence[FunctionType], codes: dict[tuple[str, int], CodeType]) -> bool:
    is_changed = False
    for function in functions:
        old = function.__code__
        new = codes.get((old.co_qualname, old.co_firstlineno), old)
        if new != old:
            if new.co_freevars != old.co_freevars:
                return False
            function.__code__ = new
            is_changed = True
    return is_changed


def _codes_in(code: CodeType) -> Iterator[CodeType]:
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes_in(one)
