"""The process that runs flufl.bounce: reads a mail, writes the addresses it names as JSON."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import sys
from email import message_from_bytes

MAX_MEMORY_BYTES = 512 * 2**20
MAX_CPU_S = 3


def main() -> int:
    """Read, and return the exit code."""
    for limit, value in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, MAX_CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    with contextlib.suppress(OSError):
        os.nice(10)
    logging.disable(logging.CRITICAL)
    from flufl.bounce import all_failures

    try:
        temporary, permanent = all_failures(message_from_bytes(sys.stdin.buffer.read()))
    except Exception:  # its detectors raise whatever a mail makes them raise
        return 1
    json.dump({"temporary": _texts(temporary), "permanent": _texts(permanent)}, sys.stdout)
    return 0


def _texts(addresses: frozenset[bytes]) -> list[str]:
    return sorted(address.decode("ascii", "replace") for address in addresses)


if __name__ == "__main__":
    sys.exit(main())
