"""One event loop for all processes of a run: time is virtual, and chance decides who goes on.

Within a process callbacks keep the order that asyncio promises. Which process goes on, when an
answer comes and when a thread gets its turn is drawn. A process that was killed never runs again,
not even its `finally`; one that was stopped runs later. Threads are moments: a blocking call runs
at one, in one piece, and its result comes back at a later one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, cast

from bench.simulation.clocks import BEGIN_S

STEP_S = 2e-6  # what a callback takes
MOST_STEPS = 400_000  # of one run: more is a loop that has no end
PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class Killed(BaseException):
    """Ends a blocking call of a process that was killed in the middle of it."""


class Machine:
    """What processes of one host share: a wall clock that may be set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ahead_s = 0.0


class Process:
    """One process of a run: its callbacks wait here for their turn."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        self.ready: deque[Handle] = deque()
        self.is_dead = False
        self.is_stopped = False
        self.context = contextvars.Context()
        self.context.run(PROCESS.set, self)


class Handle:
    """A callback that waits, for its turn or for a time."""

    __slots__ = ("_when", "args", "callback", "context", "is_cancelled", "process")

    def __init__(
        self, callback: Callable[..., Any], args: Any, context: contextvars.Context, when: float
    ) -> None:
        self.callback, self.args, self.context = callback, args, context
        self._when = when
        self.is_cancelled = False
        self.process = context[PROCESS]

    def cancel(self) -> None:
        self.is_cancelled = True
        self.callback = _nothing
        self.args = ()

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when


def _nothing() -> None:
    pass


class Task(asyncio.Task[Any]):
    """A task whose place in a set depends on nothing but the seed."""

    def __init__(self, number: int, coro: Any, **more: Any) -> None:
        self._number = number  # before it is put anywhere
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self._number


class Future(asyncio.Future[Any]):
    """The same for a future."""

    def __init__(self, number: int, **more: Any) -> None:
        self._number = number
        super().__init__(**more)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop:
    """The loop of a run; `connect` gives what a socket leads to."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_s = 1000.0
        self.current: Process | None = None
        self.steps = 0
        self.errors: list[str] = []  # what callbacks raised, and nobody took
        self.thread_wait: Callable[[Process], tuple[float, float]] = lambda _: (1e-4, 1e-4)
        self.connecting: Callable[[Process, Any], Coroutine[Any, Any, Any]] | None = None
        self._active: list[Process] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._number = 0
        self._tasks: list[Task] = []
        self._single: dict[int, float] = {}  # executors of one thread: when it is free

    # --- clocks

    def time(self) -> float:
        return self.now_s

    def running_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        ahead_s = self.current.machine.ahead_s if self.current is not None else 0.0
        return BEGIN_S + self.now_s + ahead_s

    def slept(self, seconds: float) -> None:
        self.now_s += seconds

    # --- what waits

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        return self._add(Handle(callback, args, context or contextvars.copy_context(), 0.0))

    def _add(self, handle: Handle) -> Handle:
        process = handle.process
        if not process.is_dead:
            if not process.ready and not process.is_stopped:
                self._active.append(process)
            process.ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        """Hand something back from a thread, which gets there when it gets there."""
        _, wait_s = self.thread_wait(PROCESS.get())
        return self.call_at(self.now_s + wait_s, callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> Any:
        handle = Handle(callback, args, context or contextvars.copy_context(), when)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, handle))
        return handle

    # --- processes

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> Task:
        """Run a coroutine in a process."""
        task: Task = process.context.copy().run(self.create_task, work)
        return task

    def at(self, process: Process, wait_s: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Call something in a process after a wait."""
        return self.call_at(self.now_s + wait_s, callback, *args, context=process.context.copy())

    def kill(self, process: Process) -> None:
        """Let a process never run again."""
        process.is_dead = True
        process.ready.clear()
        if process in self._active:
            self._active.remove(process)

    def stop_process(self, process: Process) -> None:
        """Stop a process, as by SIGSTOP."""
        process.is_stopped = True
        if process in self._active:
            self._active.remove(process)

    def resume(self, process: Process) -> None:
        """Let a stopped process go on."""
        process.is_stopped = False
        if process.ready and not process.is_dead:
            self._active.append(process)

    # --- running

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """Run until it is over, or nothing is left to run."""
        asyncio.events._set_running_loop(cast(Any, self))
        try:
            while not is_over():
                if not self._step():
                    break
        finally:
            self.current = None
            asyncio.events._set_running_loop(None)

    def _step(self) -> bool:
        """Run one callback, or let time pass; False: there is nothing to wait for."""
        timers, active = self._timers, self._active
        if not active:
            if not timers:
                return False
            self.now_s = max(self.now_s, timers[0][0])
        while timers and timers[0][0] <= self.now_s:
            handle = heapq.heappop(timers)[2]
            if not handle.is_cancelled:
                self._add(handle)
        if active:
            self._run_next(active)
        return True

    def _run_next(self, active: list[Process]) -> None:
        place = int(self.chance.random() * len(active)) if len(active) > 1 else 0
        process = active[place]
        handle = process.ready.popleft()
        if not process.ready:
            active.pop(place)
        if handle.is_cancelled:
            return
        self.now_s += STEP_S
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise RuntimeError(f"{MOST_STEPS} steps and no end: {handle.callback}")
        self.current = process
        try:
            handle.context.run(handle.callback, *handle.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except Killed:
            pass
        except BaseException as error:
            self.errors.append(f"{process.name}: {type(error).__name__}: {error}")

    # --- futures, tasks, threads

    def create_future(self) -> Any:
        self._number += 1
        return Future(self._number, loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> Any:
        self._number += 1
        task = Task(self._number, coro, loop=self, name=name or "task", context=context)
        self._tasks.append(task)
        return task

    def let_go(self) -> None:
        """End what still runs: nothing of it may do anything any more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if not task.done():
                cast(Any, task)._log_destroy_pending = False
                with contextlib.suppress(BaseException):
                    cast(Any, task.get_coro()).close()
        self._timers.clear()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run a call in one piece at a moment that is drawn; what it brings comes later."""
        future = self.create_future()
        before_s, after_s = self.thread_wait(PROCESS.get())
        at_s = self.now_s + before_s
        if getattr(executor, "_max_workers", 0) == 1:
            at_s = max(at_s, self._single.get(id(executor), 0.0))
            self._single[id(executor)] = at_s
        self.call_at(at_s, self._run_call, future, func, args, after_s)
        return future

    def _run_call(
        self, future: Future, func: Callable[..., Any], args: Any, after_s: float
    ) -> None:
        try:
            result = func(*args)
        except Killed:
            return
        except BaseException as error:
            self.call_later(after_s, _end, future, future.set_exception, error)
        else:
            self.call_later(after_s, _end, future, future.set_result, result)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Killed):
            return
        name = self.current.name if self.current is not None else "?"
        self.errors.append(f"{name}: {context.get('message')}: {type(error).__name__}: {error}")

    async def shutdown_default_executor(self) -> None:
        pass

    # --- sockets

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Lead a socket to a provider."""
        assert self.connecting is not None
        sock.link = await self.connecting(PROCESS.get(), address[0])

    async def create_connection(
        self, protocol_factory: Callable[[], Any], *, sock: Any, **_: Any
    ) -> Any:
        protocol = protocol_factory()
        transport = sock.link.open(protocol)
        protocol.connection_made(transport)
        return transport, protocol


def _end(future: Future, end: Callable[[Any], None], what: Any) -> None:
    if not future.done():
        end(what)
