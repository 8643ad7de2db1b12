"""Whether the last reload of this host's gateway was refused: a file in its state directory.

Its supervisor keeps it, and `relaygw check` where systemd asks that before it reloads. The settings
of before stay in force, in which no rule of alerts could say that newer ones wait.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from relaygw.mail.clock import clock_ms

_NAME = "reload-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedReload:
    """When it was refused (of the clock, in ms), and the first line of the reason."""

    at_ms: int
    reason: str


def note_refused_reload(state_dir: Path, reason: str) -> None:
    """Write that the last reload was refused; what fails is not told: the log has it."""
    refused = RefusedReload(at_ms=clock_ms(), reason=reason)
    new = state_dir / f"{_NAME}.new"
    with contextlib.suppress(OSError):
        new.write_text(json.dumps(asdict(refused)) + "\n")
        new.replace(state_dir / _NAME)


def note_settings_in_force(state_dir: Path) -> None:
    """Write that the newest settings are in force: after a start, or a reload."""
    with contextlib.suppress(OSError):
        (state_dir / _NAME).unlink(missing_ok=True)


def read_refused_reload(state_dir: Path) -> RefusedReload | None:
    """Return the reload that was refused since the last one that was not, if there is one."""
    try:
        return RefusedReload(**json.loads((state_dir / _NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None
