"""Nobody waits for the log: what happens while its outlet is full, broken or gone."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from relaygw.observe.maillog import Channel, OutletGone

PATIENCE_S = 60.0


class Valve:
    """An outlet that does as it is told, and remembers what it took."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.trouble: Exception | None = None
        self.room = 10**9  # bytes
        self.calls = 0
        self.reopened = 0
        self.opened = threading.Event()

    def send(self, records: Sequence[bytes]) -> int:
        self.calls += 1
        if self.trouble is not None:
            raise self.trouble
        data = b"".join(records)[: self.room]
        if not data:
            raise BlockingIOError
        self.room -= len(data)
        self.taken.append(data)
        return len(data)

    def open(self, room: int = 10**9) -> None:
        self.trouble, self.room = None, room
        self.opened.set()

    def wait(self, timeout_s: float) -> None:
        self.opened.wait(timeout_s)

    def reopen(self) -> None:
        self.reopened += 1
        self.open()

    def close(self) -> None:
        pass

    @property
    def text(self) -> bytes:
        return b"".join(self.taken)


@pytest.fixture
def valve() -> Valve:
    return Valve()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def channel(valve: Valve, told: list[str]) -> Channel:
    return made_channel(valve, told, retry_s=0.02)


@pytest.fixture
def patient_channel(valve: Valve, told: list[str]) -> Channel:
    return made_channel(valve, told, retry_s=3600.0)


def made_channel(valve: Valve, told: list[str], *, retry_s: float) -> Channel:
    made = Channel(
        valve,
        loss=lambda count, why: f"[{count} lost: {why}]".encode(),
        tell=told.append,
        max_waiting_bytes=45,
        retry_s=retry_s,
    )
    made.adopt()
    return made


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.005)


NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_record_goes_out_within_the_call(channel: Channel, valve: Valve) -> None:
    threads = threading.active_count()
    channel.write([b"one ", b"two "])
    assert valve.taken == [b"one two "]
    assert threading.active_count() == threads


def test_what_does_not_fit_follows_in_order(channel: Channel, valve: Valve) -> None:
    valve.room = 6
    channel.write([b"one ", b"two "])
    channel.write([b"three "])
    assert (valve.text, channel.is_waiting) == (b"one tw", True)
    valve.open()
    until(lambda: not channel.is_waiting)
    assert valve.text == b"one two three "


def test_a_full_outlet_costs_the_caller_nothing(channel: Channel, valve: Valve) -> None:
    valve.room = 0
    began_s = time.thread_time()
    for _ in range(1000):
        channel.write([b"x"])
    assert time.thread_time() - began_s < 1
    valve.open()


def test_what_exceeds_the_queue_is_counted_where_it_is_missing(
    channel: Channel, valve: Valve, told: list[str]
) -> None:
    valve.room = 0
    for number in range(10):
        channel.write([b"%9d " % number])
    channel.write([b"fits"])  # but would stand before what was lost
    valve.open()
    until(lambda: not channel.is_waiting)
    channel.write([b"after"])
    kept = b"".join(b"%9d " % number for number in range(4))
    assert valve.text == kept + b"[7 lost: its reader is too slow]after"
    assert told == ["its reader is too slow; lines are lost"]


def test_a_broken_outlet_is_told_once_and_tried_again(
    channel: Channel, valve: Valve, told: list[str]
) -> None:
    before = threading.active_count()
    valve.trouble = NO_SPACE
    channel.write([b"one "])
    channel.write([b"two "])
    until(lambda: valve.calls >= 4)
    assert told == [NO_SPACE.strerror]
    assert threading.active_count() - before <= 1
    valve.open()
    until(lambda: not channel.is_waiting)
    channel.write([b"three"])
    assert valve.text == b"one two three"


def test_a_broken_outlet_is_not_tried_by_each_record(
    patient_channel: Channel, valve: Valve
) -> None:
    channel = patient_channel
    valve.trouble = NO_SPACE
    channel.write([b"one"])
    until(lambda: valve.calls >= 2)  # the call's own try and the thread's first
    for _ in range(100):
        channel.write([b"x"])
    assert valve.calls == 2


def test_the_thread_ends_when_nothing_waits(channel: Channel, valve: Valve) -> None:
    before = set(threading.enumerate())  # another test's may end at any moment
    valve.room = 0
    channel.write([b"one"])
    (own,) = set(threading.enumerate()) - before
    valve.open()
    until(lambda: not own.is_alive())
    valve.room = 0
    channel.write([b"two"])
    valve.open()
    until(lambda: valve.text == b"onetwo")


def test_nothing_is_kept_for_a_reader_who_has_gone(channel: Channel, valve: Valve) -> None:
    valve.trouble = OutletGone()
    channel.write([b"one"])
    assert not channel.is_waiting
    calls = valve.calls
    channel.write([b"two"])
    assert valve.calls == calls


def test_reopening_goes_on_at_once(patient_channel: Channel, valve: Valve) -> None:
    valve.trouble = NO_SPACE
    patient_channel.write([b"one"])
    until(lambda: valve.calls >= 2)  # the thread has seen it, too, and sleeps
    patient_channel.reopen()
    until(lambda: valve.text == b"one")


def test_a_reopen_that_fails_is_told(channel: Channel, valve: Valve, told: list[str]) -> None:
    def refuse() -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    valve.reopen = refuse  # type: ignore[method-assign]
    channel.reopen()
    channel.write([b"one"])
    assert told == ["cannot be reopened: Permission denied; the old one is kept"]
    assert valve.text == b"one"


def test_without_threads_pump_sends_what_waits(valve: Valve) -> None:
    channel = Channel(valve, loss=lambda count, why: b"", tell=print)
    valve.trouble = NO_SPACE
    channel.write([b"one"])
    valve.open()
    channel.write([b"two"])
    assert valve.text == b""
    channel.pump()
    assert (valve.text, channel.is_waiting) == (b"onetwo", False)


def test_a_child_does_not_repeat_what_its_parent_still_has(valve: Valve) -> None:
    channel = Channel(valve, loss=lambda count, why: b"", tell=print)
    valve.trouble = NO_SPACE
    channel.write([b"of the parent"])
    channel.adopt()
    valve.open()
    channel.write([b"of the child"])
    assert valve.text == b"of the child"


def test_close_waits_for_a_slow_reader_only_so_long(channel: Channel, valve: Valve) -> None:
    valve.room = 0
    channel.write([b"never"])
    began_s = time.monotonic()
    channel.close(patience_s=0.2)
    assert 0.1 < time.monotonic() - began_s < 5
    valve.open()


def test_close_does_not_wait_for_a_broken_outlet(channel: Channel, valve: Valve) -> None:
    valve.trouble = NO_SPACE
    channel.write([b"never"])
    began_s = time.monotonic()
    channel.close(patience_s=60)
    assert time.monotonic() - began_s < 5
    valve.open()
