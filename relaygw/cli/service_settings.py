"""The environment that systemd gives the service, which the caller's shell does not have."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any

from relaygw.cli import setup_host as host
from relaygw.cli.frame import CommandFailed
from relaygw.cli.install_sendmail import maildrop_warnings
from relaygw.errors import SettingsError
from relaygw.settings.load import (
    DEFAULT_FILE,
    LoadedSettings,
    load_settings,
    origin_lines,
    overlaid,
)

_PREFIX = "RELAYGW_"
Variables = dict[str, tuple[str, str]]
"""Values of variables, each with where it is set."""


def service_variables() -> Variables:
    """Return what relaygw.service is started with; raises OSError for a file that is closed."""
    found: Variables = {}
    files: list[str] = []
    for line in host.shown_of_service("Environment", "EnvironmentFiles"):
        name, _, value = line.partition("=")
        if name == "Environment":
            for word in shlex.split(value):
                key, _, text = word.partition("=")
                found[key] = text, host.UNITS[-1]
        elif name == "EnvironmentFiles":
            files += sorted(glob(value.rpartition(" (")[0]))  # noqa: PTH207 - a pattern, or absolute
    for file in files:
        for key, text in _variables_in(Path(file).read_text(errors="replace")):
            found[key] = text, file
    return found


def _variables_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield the variables of an EnvironmentFile=, see systemd.exec(5)."""
    for line in text.replace("\\\n", "").splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith(("#", ";")):
            continue
        value = value.strip()
        if value.startswith(("'", '"')):
            try:
                value = "".join(shlex.split(value))
            except ValueError:
                value = value[1:]
        yield name.strip(), value


def environment_of(variables: Variables, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the service: its own variables, and no settings of `base`."""
    kept = {name: value for name, value in base.items() if not name.startswith(_PREFIX)}
    return kept | {name: value for name, (value, _) in variables.items()}


def is_of_service(config: Path | None) -> bool:
    """True for the configuration that relaygw.service of this host reads."""
    return config == DEFAULT_FILE and host.has_units()


def refuse_overlaid(config: Path, written: Mapping[str, Any]) -> None:
    """Raise CommandFailed where something says otherwise than what setup writes into a file.

    Such as a file of conf.d, a variable here, or one of the service: nothing is to start then.
    """
    found = [f"{key} is set by {origin}" for key, origin in overlaid(config, written, os.environ)]
    if is_of_service(config):
        variables = service_variables()
        named, place = variables.get("RELAYGW_CONFIG", (str(config), ""))
        if named != str(config):
            found.append(f"the whole file is replaced by RELAYGW_CONFIG in {place}")
        for key, origin in overlaid(config, written, environment_of(variables, {})):
            found.append(f"{key} is set by {_with_source(origin, variables)}")
    if found:
        raise CommandFailed(
            f"{config}: what runs would differ from what setup writes: "
            f"{'; '.join(dict.fromkeys(found))}; remove it there, and run this again",
            exit_code=os.EX_CANTCREAT,
        )


def _with_source(origin: str, variables: Variables) -> str:
    source = variables.get(origin.removeprefix("environment "), ("", ""))[1]
    return f"{origin} in {source}" if source else origin


def service_warnings(loaded: LoadedSettings) -> Iterator[str]:
    """Yield what service and sendmail command have otherwise than the caller's settings."""
    yield from maildrop_warnings(loaded.settings)
    if not loaded.files or not is_of_service(loaded.files[0]):
        return
    try:
        variables = service_variables()
    except OSError as error:
        yield (
            f"{error.filename}: {error.strerror}; the service reads its variables from there, and "
            "this output ignores them: run it as root"
        )
        return
    own = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    if own == {name: value for name, (value, _) in variables.items() if name.startswith(_PREFIX)}:
        return
    base = {**os.environ, "XDG_STATE_HOME": variables.get("XDG_STATE_HOME", ("", ""))[0]}
    try:
        mine = load_settings(config=loaded.files[0], environ=base)
        config = Path(variables.get("RELAYGW_CONFIG", (str(loaded.files[0]), ""))[0])
        theirs = load_settings(config=config, environ=environment_of(variables, base))
    except SettingsError as error:
        yield f"the service has its own variables, and cannot start with them: {error}"
        return
    here = {key: (value, origin) for key, value, origin in origin_lines(mine)}
    for key, value, origin in origin_lines(theirs):
        before, place = here.pop(key, (None, ""))
        if value != before:
            yield _difference(
                key, value.strip('"') if key == "mode" else "", origin, variables, place
            )


def _difference(key: str, value: str, origin: str, variables: Variables, place: str) -> str:
    by = _with_source(origin, variables)
    return (
        f"{key}: the service has another value{f', {value},' if value else ''} from {by} than is "
        f"shown here{f' from {place}' if place else ''}; change it where it is set, and restart "
        "the service"
    )
