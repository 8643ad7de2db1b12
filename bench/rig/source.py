"""The beginning of the line: Postfix's smtp-source."""

from __future__ import annotations

import secrets
import subprocess
import time

SESSIONS = 10


def send(port: int, *, messages: int, size_bytes: int, sessions: int = SESSIONS) -> float:
    """Hand over `messages`, a connection each, `sessions` at a time; return the seconds it took.

    `size_bytes` is the body's size; each message has one recipient, another one each: the same mail
    to one recipient over and over would be a storm. smtp-source gives up, and this raises
    CalledProcessError, at the first reply that is not positive.
    """
    command = ["smtp-source", "-s", str(sessions), "-l", str(size_bytes), "-m", str(messages)]
    name = f"customer-{secrets.token_hex(3)}-"
    command += ["-f", "shop@shop.bench.test", "-N", "-t", f"{name}@customer.bench.test"]
    begun_s = time.monotonic()
    subprocess.run([*command, f"127.0.0.1:{port}"], check=True)
    return time.monotonic() - begun_s
