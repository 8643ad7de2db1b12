"""Mail that is built to be expensive, opened in the pages of a real gateway: time and memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.e2e.browser.heavy import (
    large_html,
    large_html_in_base64,
    large_message,
    many_parts,
    nested_message,
)
from tests.e2e.gateway import Gateway

MAX_PROCESSOR_S = 2.0
MAX_ADDED_MIB = 150
MIB = 2**20
PATHS = ("", "/html", "?view=text", "?view=headers", "?view=links", "?view=parts", "?view=source")

HEAVY: dict[str, tuple[Callable[[], bytes], str]] = {
    "25 MB": (lambda: large_message(25 * MIB), "all.zip"),
    "25 MB of HTML": (lambda: large_html(25 * MIB), "too large to show completely"),
    "25 MB of HTML in base64": (
        lambda: large_html_in_base64(25 * MIB),
        "too large to show completely",
    ),
    "10,000 nested parts": (lambda: nested_message(10_000), "parts more than 100 levels deep"),
    "a million parts": (lambda: many_parts(1_000_000, name=b""), "everything after 1000 parts"),
}


def peak_mib(pid: int) -> float:
    """Return the most memory that a process had since the last `forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def processor_s(pid: int) -> float:
    """Return the processor time of a process: unlike the clock, it leaves out what others do."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its ended children's, too


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_mail_is_opened_within_its_limits(sandbox: Gateway, base: str, name: str) -> None:
    build, expected = HEAVY[name]
    sandbox.wait_for_roles()
    (pid,) = sandbox.pids("web")
    with httpx2.Client(base_url=base, timeout=60) as client:
        light = sandbox.send("a@x.test", ["b@x.test"], b"Subject: light\r\n\r\nx\r\n")
        for path in PATHS:
            client.get(f"/sandbox/{light}{path}")
        forget_peak(pid)
        before_mib = peak_mib(pid)
        queue_id = sandbox.send("a@x.test", ["b@x.test"], build())
        # the list shows what the content says once somebody has read it
        assert client.get("/sandbox").status_code == 200
        took_s = {}
        for path in PATHS:
            began_s = processor_s(pid)
            answer = client.get(f"/sandbox/{queue_id}{path}")
            took_s[path] = processor_s(pid) - began_s
            assert answer.status_code in ((200, 404) if path == "/html" else (200,))
            if path == "":
                assert expected in answer.text
        added_mib = peak_mib(pid) - before_mib
        assert client.get("/healthz").status_code == 200
    slowest = max(took_s.values())
    print(f"{name}: slowest view {slowest:.2f} s of processor time, {added_mib:.0f} MiB more")
    assert slowest <= MAX_PROCESSOR_S, took_s
    assert added_mib <= MAX_ADDED_MIB
