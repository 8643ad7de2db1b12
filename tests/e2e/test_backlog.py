"""A gateway starts with a long queue: it greets, takes and sends mail, in little memory (F26)."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest

from tests.builders import accepted
from tests.campaign import times
from tests.e2e.fleet import CONTENT, arrived, send_all
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.queues import make_queue

COUNT = times(1_500, campaign=10_000)
SENT = 150
MEMORY_BYTES = 200_000_000  # of all processes, what they share counted once
_A_BATCH = 500
_PSS = re.compile(r"^Pss: +(\d+) kB$", re.MULTILINE)


def fill(gateway: Gateway, count: int) -> None:
    """Put messages 0, 1, ... into the queue of a gateway that does not run."""
    (gateway.directory / "state").mkdir(exist_ok=True)
    make_queue(gateway.settings["queue"]["url"])
    now_ms = time.time_ns() // 1_000_000
    for first in range(0, count, _A_BATCH):
        gateway.store.intake.accept_batch(
            [
                accepted(at_ms=now_ms - 60_000, subject=f"order {number}", content=CONTENT % number)
                for number in range(first, first + _A_BATCH)
            ]
        )


def memory_bytes(gateway: Gateway) -> int:
    """Return the PSS of all processes of a gateway; one may end meanwhile."""
    kilobytes = 0
    for pid in gateway.processes():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            kilobytes += sum(map(int, _PSS.findall(text)))
    return 1024 * kilobytes


@pytest.mark.campaign
@pytest.mark.usefixtures("each_database")
def test_a_start_with_a_long_queue(tmp_path: Path) -> None:
    with ThreadedProvider() as provider:
        gateway = Gateway(tmp_path, providers={"p": provider_settings(provider.port)})
        fill(gateway, COUNT)
        began_s = time.monotonic()
        with gateway:
            gateway.connect().close()
            greeted_s = time.monotonic() - began_s
            provider.wait_for_messages(1)
            sent_s = time.monotonic() - began_s
            new = send_all(gateway, 10, first=COUNT)
            provider.wait_for_messages(SENT)
            taken_bytes = memory_bytes(gateway)
            left = {int(entry.subject.removeprefix("order ")) for entry in gateway.queue()}
            counts = arrived(provider)
    print(f"220 {greeted_s:.2f} s, first delivery {sent_s:.2f} s, {taken_bytes / 1e6:.0f} MB")
    assert left | counts.keys() == {*range(COUNT), *new}, "lost or invented"
    assert counts.total() == len(counts), "sent twice"
    assert taken_bytes <= MEMORY_BYTES
