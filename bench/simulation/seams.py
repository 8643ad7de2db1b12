"""Where the product meets threads, sockets and chance; what stands there in a run."""

from __future__ import annotations

import asyncio
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

from bench.simulation import clocks, marks
from bench.simulation.loop import PROCESS, VirtualLoop
from bench.simulation.settings import shorten
from bench.simulation.wire import PROBING, socket_module
from relaygw.delivery import attempt
from relaygw.settings.provider import Provider
from relaygw.store import batch_writer
from relaygw.upstream import connection, pool
from relaygw.upstream.classifier import Classifier


class BatchQueue:
    """Stands for the queue to the thread of a BatchWriter: the thread runs when something came."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self.serve: Callable[[], None] | None = None

    def put(self, item: Any) -> None:
        if item is None:
            return
        self._items.append(item)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        wait_s, _ = loop.thread_wait(PROCESS.get())
        loop.call_later(wait_s, self._run)

    def get(self) -> Any:
        return self._items.popleft() if self._items else None

    def _run(self) -> None:
        assert self.serve is not None
        self.serve()


class BatchThread:
    """Stands for that thread."""

    def __init__(self, *, target: Any, **_: Any) -> None:
        target.__self__._batches.serve = target

    def start(self) -> None:
        pass


class KnownClassifiers:
    """Stands for the class of classifiers: each is made once, which takes as long as a message."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Provider, Classifier]] = {}

    def __call__(self, provider: Provider) -> Classifier:
        if id(provider) not in self._made:
            self._made[id(provider)] = provider, Classifier(provider)
        return self._made[id(provider)][1]


def _probing(probe: Any) -> Any:
    """Tell probes from connections for mail: they do not count against the limit."""

    async def told(self: Any, patience_s: float) -> None:
        token = PROBING.set(True)
        try:
            await probe(self, patience_s)
        finally:
            PROBING.reset(token)

    return told


def close() -> None:
    """Put them in place, in this process for good."""
    vars(batch_writer).update(SimpleQueue=BatchQueue, Thread=BatchThread)
    replaced: Any = pool.Pool
    replaced.probe = _probing(replaced.probe)
    vars(attempt)["Classifier"] = KnownClassifiers()
    vars(connection)["socket"] = socket_module()
    shorten()
    marks.install()
    warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines that a run left unbegun
    sys.unraisablehook = lambda _: None  # what a run left standing is ended without its end


def begin(loop: VirtualLoop, seed: int) -> None:
    """Let time and chance be those of a run."""
    random.seed(f"product {seed}")
    clocks.use(loop)


def end() -> None:
    """Let them be those of this machine again."""
    clocks.use(None)
