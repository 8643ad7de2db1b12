"""A gateway has a clock that is wrong by an hour: all mail goes, once (F20)."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.fleet import Traffic, arrived, send_all, starter, worker_of
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider

COUNT = 5
RETRY = {"first": "3s", "max": "3s", "jitter": "0%"}
LATER = b"450 4.2.1 later\r\n"


def wrong_clock(offset: str) -> dict[str, str]:
    """Return an environment in which the time of day, and only that, is wrong."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # it makes a wait for Python's lock last for ever
    }


@contextmanager
def stopped(gateway: Gateway) -> Iterator[None]:
    """Keep a gateway's worker from working."""
    pid = worker_of(gateway)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("offset", ["+1h", "-1h"], ids=["fast", "slow"])
def test_mail_passes_between_gateways_whose_clocks_differ(
    tmp_path: Path, queue_url: str, offset: str
) -> None:
    """Each takes mail that the other accepted, and each what the other put off."""
    with ThreadedProvider() as provider, ExitStack() as stack:
        start = starter(tmp_path, queue_url, stack)
        # enough for both: a worker that is stopped keeps the permits that it has
        settings = {"p": provider_settings(provider.port, max_connections=4 * COUNT)}
        right = start("gw1", providers=settings, retry=RETRY)
        wrong = start("gw2", providers=settings, retry=RETRY, environment=wrong_clock(offset))
        sent: list[int] = []
        for number, (accepts, puts_off) in enumerate(((wrong, right), (right, wrong))):
            with stopped(accepts):
                provider.script("RCPT", *[LATER] * COUNT)
                sent += send_all(accepts, COUNT, first=100 * number)
                puts_off.wait_for_log("status=deferred", count=COUNT)
            with stopped(puts_off):
                accepts.wait_for_log("status=sent", count=COUNT)
        right.wait_until_empty()
        assert arrived(provider) == Counter(sent)


def test_gateways_whose_clocks_differ_work_side_by_side(tmp_path: Path, queue_url: str) -> None:
    with ThreadedProvider() as provider, ExitStack() as stack:
        start = starter(tmp_path, queue_url, stack)
        settings = {"p": provider_settings(provider.port)}
        fleet = [start("gw1", providers=settings)]
        for name, offset in (("gw2", "+1h"), ("gw3", "-1h")):
            fleet.append(start(name, providers=settings, environment=wrong_clock(offset)))
        provider.script("RCPT", *[LATER] * 20)
        with Traffic(*fleet) as traffic:
            traffic.wait_for_more(150)
        traffic.wait_until_delivered(fleet[0], provider)
        traffic.check(provider)
        for gateway in fleet:
            assert not [line for line in gateway.lines if "a new worker" in line]
