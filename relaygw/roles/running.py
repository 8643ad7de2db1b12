"""Running a role in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable, Coroutine, Sequence

from relaygw.roles.context import RoleContext

ROLES = ("front", "delivery", "web")
_GC_THRESHOLD = 20_000
_SWITCH_INTERVAL_S = 0.0005


def preload(roles: Sequence[str]) -> None:
    """Import what the roles need before the fork, so that they share it."""
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401
    for role in roles:
        _main_of(role)


def run_role(role: str, context: RoleContext) -> int:
    """Run one role in this process until it is told to end; return the exit code."""
    gc.set_threshold(_GC_THRESHOLD)  # hardly any garbage here is cyclic
    sys.setswitchinterval(_SWITCH_INTERVAL_S)  # the loop gets its turn beside threads that compute
    return _run(_main_of(role)(context))


def _main_of(role: str) -> Callable[[RoleContext], Coroutine[None, None, int]]:
    if role == "front":
        from relaygw.roles.front import front

        return front
    if role == "delivery":
        from relaygw.roles.delivery import delivery

        return delivery
    from relaygw.roles.web import web

    return web


def _run(main: Coroutine[None, None, int]) -> int:
    try:
        import uvloop
    except ImportError:  # everything works without it, only slower
        return asyncio.run(main)
    return uvloop.run(main)
