"""The settings that a gateway runs with, as its supervisor leaves them for commands.

A configuration that has a mistake stops no command then: what looks at mail, or holds it, uses
these. Secrets are in the file as references only; those that are written out are left out, and
so is what would be run: the file is the service's user's, and root believes nothing in it.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from relaygw.errors import SettingsError
from relaygw.settings.load import DEFAULT_FILE, LoadedSettings
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode

_NAME = "settings-in-force.json"
_MAX_BYTES = 16 * 2**20
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: a FIFO in the file's place must not stop a command."""
_LEFT_OUT = "plain:***"
_NO_PASSWORD = f"$argon2id$v=19$m=8,t=1,p=1${'A' * 22}${'A' * 43}"
"""A hash in place of a user's, which is not shown: of no password that anybody has."""


def keep_settings(loaded: LoadedSettings) -> None:
    """Leave settings in the state directory; what fails is not logged: only commands miss them."""
    new = loaded.state_dir / f"{_NAME}.new"
    with contextlib.suppress(OSError):
        new.write_text(loaded.settings.model_dump_json())
        new.replace(loaded.state_dir / _NAME)


def kept_settings(state_dir: Path) -> LoadedSettings | None:
    """Return the settings left in a state directory, None where they are of no use."""
    try:
        with os.fdopen(os.open(state_dir / _NAME, _OPEN_FLAGS), "rb") as file:
            values = json.loads(file.read(_MAX_BYTES))
        alerts = values["alerts"]
        values["alerts"] = [channel for channel in alerts if channel["command"] is None]
        for user in (*values["users"], *values["web"]["users"]):
            user["password_hash"] = _NO_PASSWORD
        settings = Settings.model_validate(_without_commands(values))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # damaged
        return None
    doubts = tuple(
        f"alerts.{number}.command: left out, as nothing is run until the configuration is "
        "corrected; the gateway itself uses it"
        for number, channel in enumerate(alerts, 1)
        if channel["command"] is not None
    )
    return LoadedSettings(
        settings=settings, origins={}, files=(), state_dir=state_dir, doubts=doubts
    )


def is_in_force(loaded: LoadedSettings) -> bool:
    """True if a gateway has these settings in force, and their files are no newer than that.

    A password says so by the time of its file alone, since its hash is not left there.
    """
    kept = loaded.state_dir / _NAME
    try:
        since_ns = kept.stat().st_mtime_ns
        is_same = kept.read_text() == loaded.settings.model_dump_json()
        return is_same and all(file.stat().st_mtime_ns < since_ns for file in loaded.files)
    except (OSError, ValueError):
        return False


def check_sandbox_is_meant(loaded: LoadedSettings) -> None:
    """Raise SettingsError where a gateway that sent mail would be a sandbox: its file is gone."""
    is_meant = loaded.files or loaded.origins["mode"] != "default"
    before = None if is_meant else kept_settings(loaded.state_dir)
    if before is not None and before.settings.mode is not Mode.SANDBOX:
        raise SettingsError(
            f"{DEFAULT_FILE}: is not there, and the gateway of this queue ran in mode "
            f"{before.settings.mode}; write it again, name another with --config, or set "
            "RELAYGW__MODE=sandbox if all mail is to be captured from now on"
        )


def _without_commands(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_commands(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_commands(inner) for inner in value]
    is_command = isinstance(value, str) and value.startswith("command:")
    return _LEFT_OUT if is_command else value
