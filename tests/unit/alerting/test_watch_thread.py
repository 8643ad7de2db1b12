"""A coroutine in a thread: it begins, ends with its block, and holds nobody up for long."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from relaygw.alerting import watch_thread
from relaygw.alerting.watch_thread import WatchThread


def test_it_runs_beside_and_is_cancelled_at_the_end() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def watch() -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    with WatchThread(watch):
        assert begun.wait(30)
        assert not ended.is_set()
    assert ended.is_set()


def test_one_that_ends_by_itself_is_no_trouble() -> None:
    async def watch() -> None:
        pass

    with WatchThread(watch) as thread:
        thread._thread.join(30)


def test_one_that_is_stopped_before_it_began() -> None:
    async def watch() -> None:
        await asyncio.sleep(600)

    with WatchThread(watch):
        pass


def test_what_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_thread, "_STOP_S", 0.1)
    go_on, begun = threading.Event(), threading.Event()

    async def watch() -> None:
        begun.set()
        go_on.wait()

    with WatchThread(watch):
        assert begun.wait(30)
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 30
    go_on.set()
