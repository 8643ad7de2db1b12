"""Connections that nobody has ended by the end of a test are ended with its loop.

A client may come right before its test ends, and tests of faults cut attempts anywhere. What a
connection warns of when it is collected would fail another test, whichever runs then. That a
gateway closes what it opens is shown by `e2e/test_descriptors.py`.
"""

from __future__ import annotations

import asyncio
from asyncio import runners


def end_with_their_loop() -> None:
    """See to it for all loops of this process."""
    close = asyncio.Runner.close

    def close_with_connections(runner: asyncio.Runner) -> None:
        loop = runner._loop
        if loop is not None and not loop.is_closed():
            runners._cancel_all_tasks(loop)
            for transport in list(getattr(loop, "_transports", {}).values()):
                transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
        close(runner)

    asyncio.Runner.close = close_with_connections
