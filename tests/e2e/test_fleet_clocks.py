"""A gateway has a clock that is wrong by an hour: all mail goes, once (F20)."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.fleet import Traffic, arrived, send_all, starter, worker_of
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.queues import EmptyQueues

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


@dataclass
class Fleet:
    """A gateway with the right clock, one that is fast and one that is slow."""

    right: Gateway
    fast: Gateway
    slow: Gateway

    @contextmanager
    def only(self, working: Gateway) -> Iterator[None]:
        """Keep the workers of the others from working."""
        others = [one for one in (self.right, self.fast, self.slow) if one is not working]
        pids = [worker_of(one) for one in others]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, provider: ThreadedProvider, empty_queues: EmptyQueues
) -> Iterator[Fleet]:
    with empty_queues.lend() as url, ExitStack() as stack:
        start = starter(tmp_path_factory.mktemp("fleet"), url, stack)
        # enough for all: a worker that is stopped keeps the permits that it has
        settings = {"p": provider_settings(provider.port, max_connections=6 * COUNT)}
        yield Fleet(
            start("right", providers=settings, retry=RETRY),
            *(
                start(name, providers=settings, retry=RETRY, environment=wrong_clock(offset))
                for name, offset in (("fast", "+1h"), ("slow", "-1h"))
            ),
        )


@pytest.mark.parametrize("name", ["fast", "slow"])
def test_mail_passes_between_gateways_whose_clocks_differ(
    fleet: Fleet, provider: ThreadedProvider, name: str
) -> None:
    """Each takes mail that the other accepted, and each what the other put off."""
    right, wrong = fleet.right, getattr(fleet, name)
    seen = len(provider.messages)
    sent: list[int] = []
    for number, (accepts, puts_off) in enumerate(((wrong, right), (right, wrong))):
        lines = {one: len(one.lines) for one in (accepts, puts_off)}
        with fleet.only(puts_off):
            provider.script("RCPT", *[LATER] * COUNT)
            sent += send_all(accepts, COUNT, first=100 * number)
            puts_off.wait_for_log("status=deferred", count=COUNT, start=lines[puts_off])
        with fleet.only(accepts):
            accepts.wait_for_log("status=sent", count=COUNT, start=lines[accepts])
    right.wait_until_empty()
    assert arrived(provider, seen) == Counter(sent)


def test_gateways_whose_clocks_differ_work_side_by_side(
    fleet: Fleet, provider: ThreadedProvider
) -> None:
    gateways = (fleet.right, fleet.fast, fleet.slow)
    lines = [len(gateway.lines) for gateway in gateways]
    seen = len(provider.messages)
    provider.script("RCPT", *[LATER] * 20)
    with Traffic(*gateways) as traffic:
        traffic.wait_for_more(60)
    fleet.right.wait_until_empty()
    assert arrived(provider, seen) == Counter(traffic.acknowledged)
    for gateway, start in zip(gateways, lines, strict=True):
        assert not [line for line in gateway.lines[start:] if "a new worker" in line]
