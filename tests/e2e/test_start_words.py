"""What systemd says to a process that starts: odd values, and signals that come too early."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from relaygw.errors import SettingsError
from relaygw.roles.systemd import ServiceManager, handed_sockets
from tests.e2e.gateway import Gateway


def test_a_watchdog_of_nothing_is_none() -> None:
    for limit in ("0", "", "soon"):
        assert ServiceManager({"WATCHDOG_USEC": limit}).alive_each_s == float("inf")
    assert ServiceManager({"WATCHDOG_USEC": "2000000"}).alive_each_s == 1.0


def test_a_number_of_sockets_that_is_none_is_told() -> None:
    with pytest.raises(SettingsError, match="LISTEN_FDS is 'banana', expected a number"):
        handed_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "banana"})


def test_signals_that_come_before_a_gateway_can_follow_them_do_not_end_it(tmp_path: Path) -> None:
    early = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    with Gateway(tmp_path, mode="sandbox") as gateway:
        pid = gateway.processes()[0]
        caught = int(status_of(pid, "SigCgt"), 16)
        assert all(caught >> (number - 1) & 1 for number in early)
        assert int(status_of(pid, "SigBlk"), 16) == 0


def status_of(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
