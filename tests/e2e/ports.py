"""Ports for servers that must be told theirs before they start, or keep it over a restart."""

from __future__ import annotations

import socket
from typing import Any


def free_port() -> int:
    """Return a loopback port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fixed_binds() -> dict[str, Any]:
    """Return listeners and web settings of a gateway that is going to be reloaded.

    With port 0 the harness learns the ports from the log and writes them into the file, which
    a reload would take for other addresses than those already open.
    """
    return {
        "listeners": [{"bind": f"127.0.0.1:{free_port()}"}],
        "web": {"bind": f"127.0.0.1:{free_port()}"},
    }
