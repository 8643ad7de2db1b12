"""Connections that a server of a test has accepted and nobody has ended are ended with their loop.

A client may come right before its test ends. What the end of a server then warns of would fail
another test, whichever runs when it is collected. What a client leaves open still does.
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
                if getattr(transport, "_server", None) is not None:
                    transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
        close(runner)

    asyncio.Runner.close = close_with_connections
