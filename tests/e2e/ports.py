"""Ports of gateways that keep them over a restart or a reload."""

from __future__ import annotations

from typing import Any

from bench.rig.ports import free_port

__all__ = ["fixed_binds", "free_port"]


def fixed_binds() -> dict[str, Any]:
    """Return listeners and web settings of a gateway that is going to be reloaded.

    With port 0 the harness learns the ports from the log and writes them into the file, which
    a reload would take for other addresses than those already open.
    """
    return {
        "listeners": [{"bind": f"127.0.0.1:{free_port()}"}],
        "web": {"bind": f"127.0.0.1:{free_port()}"},
    }
