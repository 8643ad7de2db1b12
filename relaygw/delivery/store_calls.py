"""Store calls of a worker: they block, so they run in its threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Spawn = Callable[[Coroutine[None, None, None]], None]
"""Runs work in the background, until the worker has drained."""


async def in_thread(
    threads: ThreadPoolExecutor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return what a blocking call returns, without blocking the event loop."""
    return await asyncio.get_running_loop().run_in_executor(threads, partial(call, *args, **kwargs))
