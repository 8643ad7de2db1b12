"""The beginning of the line: Postfix's smtp-source."""

from __future__ import annotations

import subprocess
import time

SESSIONS = 10


def send(port: int, *, messages: int, size_bytes: int, is_numbered: bool = False) -> float:
    """Hand over `messages`, one connection each, ten at a time; return the seconds it took.

    `size_bytes` is the body's size; each message has one recipient. smtp-source gives up,
    and this raises CalledProcessError, at the first reply that is not positive. `is_numbered`: each
    recipient is another one.
    """
    command = ["smtp-source", "-s", str(SESSIONS), "-l", str(size_bytes), "-m", str(messages)]
    command += ["-f", "shop@shop.bench.test", "-t", "customer@customer.bench.test"]
    command += ["-N"] if is_numbered else []
    begun_s = time.monotonic()
    subprocess.run([*command, f"127.0.0.1:{port}"], check=True)
    return time.monotonic() - begun_s
