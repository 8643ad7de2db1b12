"""The names that `relaygw provider` commands take."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from relaygw.cli.frame import CommandFailed


def check_name(name: str, configured: Iterable[str], remembered: Collection[str]) -> None:
    """Raise CommandFailed for a name that is no provider, nor of one that the store remembers."""
    known = list(configured)
    if name not in known and name not in remembered:
        raise CommandFailed(
            f"{name}: no such provider; name one of: {', '.join(known) or 'none yet'}",
            exit_code=os.EX_DATAERR,
        )
