"""Where settings come from: the file, conf.d beside it, the environment over both.

`load_settings` reads, merges and checks everything, and reports all problems of a step
together: first what is no YAML, then what the model refuses, then loose permissions. Each
problem is one line of the SettingsError. Secrets are not read here, only their places.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relaygw.errors import SettingsError
from relaygw.mail import drop
from relaygw.settings.certificates import broken_certificates
from relaygw.settings.conflicts import Conflict, ConflictsFound
from relaygw.settings.environment import merge_environment
from relaygw.settings.explain import explain, line_for
from relaygw.settings.filling import Filling
from relaygw.settings.loose_secrets import loose_secrets
from relaygw.settings.model import Mode, Settings
from relaygw.settings.preset_filling import fill_presets
from relaygw.settings.relay_to import fill_relay_to
from relaygw.settings.show import shown_leaves
from relaygw.settings.tree import Keys, Place, Tree, shown_keys
from relaygw.settings.yaml_text import read_tree

_NO_LISTENER = {"bind": "127.0.0.1:0"}
DEFAULT_FILE = Path("/etc/relaygw/relaygw.yaml")
_SYSTEM_STATE_DIR = Path("/var/lib/relaygw")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings with the origin of each value.

    `origins` has a dotted key for every value: `relaygw.yaml:12`, `environment NAME`,
    `preset NAME` or `default`. `state_dir` is where a SQLite queue and all other state live.
    """

    settings: Settings
    origins: Mapping[str, str]
    files: tuple[Path, ...]
    state_dir: Path
    is_without_file: bool


def load_settings(
    *, config: Path | None, environ: Mapping[str, str], default_file: Path = DEFAULT_FILE
) -> LoadedSettings:
    """Return the settings of `config`, else of $RELAYGW_CONFIG, else of `default_file`.

    Without any file the mode is sandbox. Afterwards `queue.url`, `listeners` and
    `maildrop.path` are never empty, presets are laid under their providers, and `relay_to`
    has its providers and route. Raises SettingsError with one line for each problem.
    """
    main = _main_file(config, environ, default_file)
    files = _with_conf_d(main) if main else ()
    tree = Tree(places={(): Place(main.name, file=main)}) if main else Tree()
    for file in files:
        short = file.name if file == main else f"{file.parent.name}/{file.name}"
        tree.merge(_read_file(file, short))
    _raise_if(tree.problems if not tree.is_readable else [])
    merge_environment(tree, environ)
    default_dir = _default_state_dir(environ)
    values = _with_defaults(tree.values, default_dir, is_without_file=main is None)
    filling = Filling(values)
    fill_presets(filling)
    fill_relay_to(filling, tree)
    settings = _validated(filling, tree)
    state_dir = _state_dir(settings.queue.url, default_dir)
    owners = _trusted_owners((*files, state_dir))
    _raise_if(
        [
            *loose_secrets(settings, tree, owners=owners),
            *broken_certificates(settings, tree, owners=owners),
        ]
    )
    return LoadedSettings(
        settings=settings,
        origins=_origins(settings, tree, filling),
        files=files,
        state_dir=state_dir,
        is_without_file=main is None,
    )


def _trusted_owners(paths: Iterable[Path]) -> frozenset[int]:
    """Return who may own a secret: root, this user, and whoever owns configuration or queue."""
    owners = {0, os.geteuid()}
    for path in paths:
        with contextlib.suppress(OSError):
            owners.add(path.stat().st_uid)
    return frozenset(owners)


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise SettingsError("\n".join(problems))


def _main_file(config: Path | None, environ: Mapping[str, str], default_file: Path) -> Path | None:
    if config is not None:
        return config
    if environ.get("RELAYGW_CONFIG"):
        return Path(environ["RELAYGW_CONFIG"])
    return default_file if default_file.exists() else None


def _with_conf_d(main: Path) -> tuple[Path, ...]:
    parts = (main.parent / "conf.d").glob("*.yaml")
    return (main, *sorted(part for part in parts if not part.name.startswith(".")))


def _read_file(file: Path, short: str) -> Tree:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be read ({error.strerror}); create it, or name another by --config"
        ) from error
    return read_tree(content, Place(short, file=file))


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    chosen = environ.get("XDG_STATE_HOME", "")
    if chosen.startswith("/"):
        return Path(chosen) / "relaygw"
    if os.geteuid() == 0:
        return _SYSTEM_STATE_DIR
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return home / ".local/state/relaygw"


def _state_dir(url: str, default_dir: Path) -> Path:
    """Return where state lies: beside a SQLite file, in the usual place with PostgreSQL."""
    path = url.removeprefix("sqlite:///")
    return Path(path).parent if path != url else default_dir


def _with_defaults(
    values: dict[str, Any], default_dir: Path, *, is_without_file: bool
) -> dict[str, Any]:
    filled = dict(values)
    if is_without_file and filled.get("mode") is None:
        filled["mode"] = "sandbox"
    if not filled.get("listeners"):
        port = 1025 if filled.get("mode") == "sandbox" else 25
        filled["listeners"] = [{"bind": f"127.0.0.1:{port}"}]
    queue = filled.get("queue") or {}
    if isinstance(queue, dict) and not queue.get("url"):
        filled["queue"] = queue = {**queue, "url": f"sqlite:///{default_dir}/queue.db"}
    maildrop = filled.get("maildrop") or {}
    if isinstance(maildrop, dict) and maildrop.get("path") is None:
        url = str(queue.get("url")) if isinstance(queue, dict) else ""
        state_dir = _state_dir(url, default_dir)
        filled["maildrop"] = {**maildrop, "path": _default_maildrop(filled.get("mode"), state_dir)}
    return filled


def _default_maildrop(mode: object, state_dir: Path) -> str:
    """Return the machine's maildrop, but for a sandbox that is somebody's own: one beside it.

    What a gateway sends is looked for in one place, wherever its queue lies; a developer's
    sandbox neither needs root nor takes the machine's mail.
    """
    if mode != "sandbox" or state_dir == _SYSTEM_STATE_DIR or not state_dir.is_absolute():
        return drop.DIRECTORY
    return str(state_dir / "maildrop")


def _validated(filling: Filling, tree: Tree) -> Settings:
    problems = list(tree.problems)
    problems += [line_for(keys, text, tree) for keys, text in filling.problems.items()]
    try:
        settings = Settings.model_validate(filling.values)
    except ValidationError as error:
        problems += explain(error, tree, filling.problems.keys())
        wrong = {tuple(key for key in item["loc"] if key != "[key]") for item in error.errors()}
        for conflict in _conflicts_despite(wrong | filling.problems.keys(), filling.values):
            problems.append(line_for(conflict.path, conflict.problem, tree))
    _raise_if(list(dict.fromkeys(problems)))
    return settings


def _conflicts_despite(wrong: Collection[Keys], values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Return what the sections without a wrong value disagree on: an open relay first of all.

    A mode that is wrong may have been meant for any but a sandbox.
    """
    at_fault = {keys[0] for keys in wrong if keys}
    right = {
        name: values[name] for name in Settings.model_fields if name in values.keys() - at_fault
    }
    listeners = values.get("listeners")
    if "listeners" in at_fault and isinstance(listeners, (list, tuple)):
        broken = {keys[1] for keys in wrong if keys[0] == "listeners" and len(keys) > 1}
        # the others stay where they are, so that paths name them
        right["listeners"] = [
            _NO_LISTENER if number in broken else one for number, one in enumerate(listeners)
        ]
    known = Settings.model_fields.keys() - at_fault | right.keys()
    right.setdefault("mode", Mode.PRODUCTION.value)
    try:
        Settings.model_validate(right, context=known)
    except ValidationError as error:
        causes = (item.get("ctx", {}).get("error") for item in error.errors())
        return next((one.conflicts for one in causes if isinstance(one, ConflictsFound)), ())
    return ()


def _origins(settings: Settings, tree: Tree, filling: Filling) -> dict[str, str]:
    origins = {keys: str(place) for keys, place in tree.places.items()} | filling.origins
    return {shown_keys(keys): origins.get(keys, "default") for keys, _ in shown_leaves(settings)}
