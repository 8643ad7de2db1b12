"""Where a coroutine stands each time that it is suspended, and every place where one can be."""

from __future__ import annotations

import ast
import gc
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterator
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple


class Thrown(Exception):
    """Raised by who looks on, to have `error` raised where the coroutine is suspended."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Stepped:
    """Awaits `work`; `look` is called with its frames at each suspension, the outermost first."""

    def __init__(
        self, work: Coroutine[Any, Any, Any], look: Callable[[list[FrameType]], None]
    ) -> None:
        self._work = work
        self._look = look

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = partial(self._work.send, None)
        while True:
            try:
                waited_for = step()
            except StopIteration as end:
                return end.value
            try:
                self._look(list(_frames(self._work)))
            except Thrown as thrown:
                step = partial(self._work.throw, thrown.error)
                continue
            try:
                sent = yield waited_for
            except BaseException as error:
                step = partial(self._work.throw, error)
            else:
                step = partial(self._work.send, sent)


def _frames(awaited: object) -> Iterator[FrameType]:
    while awaited is not None:
        if inspect.iscoroutine(awaited):
            if awaited.cr_frame is not None:
                yield awaited.cr_frame
            awaited = awaited.cr_await
        elif inspect.isasyncgen(awaited):
            if awaited.ag_frame is not None:
                yield awaited.ag_frame
            awaited = awaited.ag_await
        else:  # what `async for` and `anext` wait for names its generator to the collector only
            awaited = next(
                (
                    one
                    for one in gc.get_referents(awaited)
                    if inspect.iscoroutine(one) or inspect.isasyncgen(one)
                ),
                None,
            )


class Site(NamedTuple):
    """The lines of one `await` or `async for`, and the function that it stands in."""

    file: str
    first: int
    last: int
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.first} in {self.function}"


def sites_of(module: ModuleType, *, less: frozenset[str] = frozenset()) -> list[Site]:
    """Return all places of a module where it may be suspended, less those of some functions."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text())
    return [site for site in _sites(tree, module.__file__, "") if site.function not in less]


def _sites(node: ast.AST, file: str, function: str) -> Iterator[Site]:
    for child in ast.iter_child_nodes(node):
        inner = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = child.name
        match child:
            case ast.Await():
                yield Site(file, child.lineno, child.end_lineno or 0, function)
            case ast.AsyncFor():
                yield Site(file, child.lineno, child.iter.end_lineno or 0, function)
            case ast.ListComp() if any(one.is_async for one in child.generators):
                yield Site(file, child.lineno, child.end_lineno or 0, function)
        yield from _sites(child, file, inner)
