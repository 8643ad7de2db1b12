"""relaygw that logs nothing, counts nothing and watches nothing; no user can start it so.

What observing costs is measured against it. Started as `python -m bench.rig.unobserved ARGUMENTS`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

from relaygw.cli import main
from relaygw.observe.maillog import MailLog
from relaygw.roles import delivery, front


@contextlib.asynccontextmanager
async def _nothing_kept(*_: Any, **__: Any) -> AsyncIterator[None]:
    yield


_REPLACED: tuple[tuple[ModuleType, dict[str, Any]], ...] = (
    (
        front,
        {
            "history_kept": _nothing_kept,
            "History": lambda **_: None,
            "can_count": lambda *_: False,
        },
    ),
    (
        delivery,
        {
            "history_kept": _nothing_kept,
            "History": lambda **_: None,
            "can_count": lambda *_: False,
            "_watching": lambda *_: contextlib.nullcontext(),
        },
    ),
)


def _blind() -> None:
    """Replace everything that observes, before any process is forked."""
    MailLog.write = lambda *_: None  # type: ignore[method-assign]
    for role, others in _REPLACED:
        for name, other in others.items():
            setattr(role, name, other)


if __name__ == "__main__":
    _blind()
    main()
