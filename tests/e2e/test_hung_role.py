"""A role that hangs is told of, and replaced, where no systemd looks after it."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relaygw.store.queue_lock import lock_directory_of
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.notice_receiver import NoticeReceiver
from tests.fakes.scripted_provider import ThreadedProvider

MAIL = b"Subject: order\r\n\r\nhello\r\n"


@contextmanager
def alerting(
    directory: Path, *, killed_after_s: int
) -> Iterator[tuple[Gateway, ThreadedProvider, NoticeReceiver]]:
    """A gateway without systemd that kills what hangs so long, and tells of it after a third."""
    watchdog_us = killed_after_s * 2_000_000 // 3
    with (
        ThreadedProvider() as provider,
        NoticeReceiver() as receiver,
        Gateway(
            directory,
            providers={"main": provider_settings(provider.port)},
            alerts=[{"webhook": receiver.url, "on": ["role_hung"]}],
            environment={"NOTIFY_SOCKET": "", "WATCHDOG_USEC": str(watchdog_us)},
        ) as gateway,
    ):
        yield gateway, provider, receiver


def suspend(gateway: Gateway, role: str) -> int:
    """Stop the process of a role while it does not write to the queue; return its pid.

    In the middle of a transaction it would keep the lock of the queue from those who tell of it.
    """
    (pid,) = gateway.pids(role)
    with (lock_directory_of(gateway.directory / "state/queue.db") / "lock").open() as lock:
        while True:
            os.kill(pid, signal.SIGSTOP)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.01)
            else:
                return pid


def test_a_delivery_that_hangs_is_told_of_and_replaced(tmp_path: Path) -> None:
    with alerting(tmp_path, killed_after_s=6) as (gateway, provider, receiver):
        gateway.send("a@shop.test", ["b@cust.test"], MAIL)
        gateway.wait_until_empty()
        hung = suspend(gateway, "delivery")
        waiting = [gateway.send("a@shop.test", ["b@cust.test"], MAIL) for _ in range(3)]
        gateway.wait_for_log(rf"error: delivery \(pid {hung}\) has hung for [\d.]+ s$")
        gateway.wait_for_log(rf"error: delivery \(pid {hung}\) has hung for [\d.]+ s; it is killed")
        gateway.wait_for_log(rf"delivery \(pid {hung}\) ended with signal 9; restarting it in 0 s")
        gateway.wait_until_empty()
        assert len(provider.messages) == 1 + len(waiting)
        receiver.wait_for(1)
        (told,) = receiver.bodies
        assert (told["rule"], told["key"], told["state"]) == (
            "role_hung",
            "gw.test delivery",
            "open",
        )
        assert told["summary"].startswith(f"delivery (pid {hung}) on gw.test hung from ")
        assert told["summary"].endswith("; another process has its place")
        (new,) = gateway.pids("delivery")
        assert new != hung
        assert gateway.stop() == 0


def test_a_front_that_hangs_is_told_of_while_it_does(tmp_path: Path) -> None:
    with alerting(tmp_path, killed_after_s=30) as (gateway, _, receiver):
        gateway.send("a@shop.test", ["b@cust.test"], MAIL)
        gateway.wait_until_empty()
        hung = suspend(gateway, "front")
        receiver.wait_for(1)
        assert receiver.bodies[0]["summary"].startswith(f"front (pid {hung}) on gw.test has hung ")
        os.kill(hung, signal.SIGCONT)
        gateway.wait_for_log(rf"front \(pid {hung}\) goes on after it hung")
        gateway.send("a@shop.test", ["b@cust.test"], MAIL)
        gateway.wait_until_empty()
        assert gateway.pids("front") == [hung]
