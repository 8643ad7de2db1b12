"""The process that reads bounce mails: takes one after the other, writes the events as JSON."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

MAX_MEMORY_BYTES = 512 * 2**20
MAX_CPU_S = 1
"""For one mail; the kernel counts whole seconds, so it may be almost two."""


def main() -> int:
    """Read until no more comes, and return the exit code."""
    logging.disable(logging.CRITICAL)
    sys.path.append(str(Path(__file__).parents[2]))  # wherever this package is
    from relaygw.feedback.bounce_mail import OUT_OF_MEMORY

    try:
        _read_all(sys.argv[1])
    except MemoryError:
        return OUT_OF_MEMORY
    return 0


def _read_all(hostname: str) -> None:
    from relaygw.feedback.bounce_mail import REQUEST
    from relaygw.feedback.bounce_report import read

    _confine()  # not before: as the last in turn it would start for ever on a busy machine
    while request := sys.stdin.buffer.read(REQUEST.size):
        received_at_ms, size_bytes = REQUEST.unpack(request)
        content = sys.stdin.buffer.read(size_bytes)
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        limit_s = math.ceil(time.process_time() + MAX_CPU_S)
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, most))  # SIGXCPU ends what takes more
        mentions = read(content, received_at_ms=received_at_ms, hostname=hostname)
        told = [
            (asdict(mention.events[0]), [event.address for event in mention.events])
            for mention in mentions
        ]
        sys.stdout.write(f"{json.dumps(told)}\n")
        sys.stdout.flush()


def _confine() -> None:
    for limit, value in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    with contextlib.suppress(OSError):
        os.nice(10)


if __name__ == "__main__":
    sys.exit(main())
