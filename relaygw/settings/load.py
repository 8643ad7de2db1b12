"""Where settings come from: the file, conf.d beside it, the environment over both.

All problems of a step are told together, a line each: first what is no YAML, then what the model
refuses, then loose permissions. Secrets are not read here. RELAYGW__QUEUE__URL lays `queue.url`
over the files; variables are read as YAML. A mapping is merged, everything else replaced; a number
selects an entry of a list, the next free number adds one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relaygw import service_file, state_owner
from relaygw.errors import SettingsError, SettingsUnreadable
from relaygw.mail import drop
from relaygw.mail.words import printable
from relaygw.settings.certificates import broken_certificates
from relaygw.settings.model import Settings
from relaygw.settings.presets import fill_presets
from relaygw.settings.problems import expectation, explain
from relaygw.settings.routes import fill_relay_to
from relaygw.settings.secrets import (
    SERVICE_USER,
    hidden_words,
    loose_secrets,
    place_below,
    service_uids,
    sharing_command,
)
from relaygw.settings.section import Conflict, ConflictsFound, Mode
from relaygw.settings.tree import (
    FilledValues,
    Keys,
    Place,
    Tree,
    content_of,
    item_at,
    leaves,
    put,
    read_flow,
    read_tree,
    shown_keys,
)

_NO_LISTENER = {"bind": "127.0.0.1:0"}
DEFAULT_FILE = Path("/etc/relaygw/relaygw.yaml")
_SYSTEM_STATE_DIR = Path("/var/lib/relaygw")
_PREFIX = "RELAYGW__"
_CLIENTS_MAILDROP = "RELAYGW_MAILDROP"
"""A variable of the sendmail command."""
_OF_KUBERNETES = re.compile("_(?:SERVICE_HOST|(?:SERVICE_)?PORT)(?:_|$)")
"""Variables that Kubernetes makes of the name of a service, such as relaygw-web."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings with the origin of each value by its dotted key; `state_dir` has all other state.

    `doubts` name files and variables that are not read, and may have been meant as settings.
    """

    settings: Settings
    origins: Mapping[str, str]
    files: tuple[Path, ...]
    state_dir: Path
    doubts: tuple[str, ...] = ()


def load_settings(
    *, config: Path | None, environ: Mapping[str, str], default_file: Path = DEFAULT_FILE
) -> LoadedSettings:
    """Return the settings of `config`, else of $RELAYGW_CONFIG, else of `default_file`.

    Without any file the mode is sandbox. `queue.url`, `listeners` and `maildrop.path` are filled,
    so are presets and `relay_to`. Raises SettingsError with one line for each problem.
    """
    if config is None and environ.get("RELAYGW_CONFIG"):
        config = Path(environ["RELAYGW_CONFIG"])
    main = config or (default_file if _is_there(default_file) else None)
    tree, parts = Tree(), list[Path]()
    if main is not None:
        tree = Tree(places={(): Place(main.name, file=main)})
        tree.merge(_read_file(main, main.name))
        parts = _lay_over(tree, main)
    _raise_if([] if tree.is_readable else tree.problems)
    _merge_environment(tree, environ)
    files = (main, *parts) if main is not None else ()
    default_dir = _default_state_dir(environ)
    values = _with_defaults(tree.values, default_dir, has_file=main is not None)
    filling = FilledValues(values)
    fill_presets(filling)
    fill_relay_to(filling, tree)
    settings = _validated(filling, tree)
    state_dir = _state_dir(settings.queue.url, default_dir)
    owners = {
        0,
        os.geteuid(),
        *service_uids(),
    }  # who may own a secret; and whoever owns configuration or queue
    for path in (*files, state_dir):
        with contextlib.suppress(OSError):
            owners.add(path.stat().st_uid)
    problems = loose_secrets(settings, tree, owners=owners)
    _raise_if(problems + broken_certificates(settings, tree, owners=owners))
    return LoadedSettings(
        settings=settings,
        origins=_origins(settings, tree, filling),
        files=files,
        state_dir=state_dir,
        doubts=tuple(tree.doubts),
    )


def overlaid(
    main: Path, written: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield each key of what is written, or to be written, into a file that does not come so far.

    With it comes what says otherwise: a file of conf.d, or a variable. Raises SettingsError.
    """
    tree = Tree(values=deepcopy(dict(written)))
    _lay_over(tree, main)
    _raise_if([] if tree.is_readable else tree.problems)
    _merge_environment(tree, environ)
    for keys, value in leaves((), written):
        found: Any = tree.values
        for key in keys:
            found = item_at(found, key) if isinstance(found, (dict, list)) else None
        if found != value:
            yield shown_keys(keys), str(tree.place_of(keys) or main)


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise SettingsError("\n".join(problems))


def parts_directory(main: Path) -> Path:
    """Return the directory of the files that are laid over `main`; it need not be there."""
    return main.parent / "conf.d"


def _lay_over(tree: Tree, main: Path) -> list[Path]:
    """Lay the files of conf.d beside `main` over a tree; return them.

    A name such as staging.yml is a problem: the mode in it would not be in force.
    """
    directory = parts_directory(main)
    try:
        names = sorted(os.listdir(directory))  # noqa: PTH208 - glob takes what is closed as empty
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _closed(directory, error) from error
    files = []
    for name in names:
        short = f"{directory.name}/{name}"
        if name.startswith("."):
            continue
        if name.endswith(".yaml"):
            files.append(directory / name)
            tree.merge(_read_file(files[-1], short))
            continue
        is_meant = name.lower().endswith((".yaml", ".yml"))
        (tree.problems if is_meant else tree.doubts).append(
            f"{printable(short)}: is not read, only names that end in .yaml are; rename it, or "
            "move it elsewhere"
        )
    return files


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError as error:
        raise _closed(file, error) from error


def _closed(file: Path, error: OSError) -> SettingsError:
    kind = SettingsUnreadable if isinstance(error, PermissionError) else SettingsError
    user = service_file.user_name(os.geteuid())
    hidden = place_below(str(file)) if "STATE_DIRECTORY" in os.environ else None
    if hidden is not None:
        words = hidden_words(str(file), hidden)
        return kind(f"{file}: {error.strerror}; {words}; keep it in /etc/relaygw")
    if user == SERVICE_USER or "STATE_DIRECTORY" in os.environ:  # systemd's service, or its user
        return kind(f"{file}: {error.strerror}; run as root: {sharing_command(file)}")
    if state_owner.caller_uid() != os.geteuid():
        return kind(
            f"{file}: {error.strerror}; root reads it as {user}, as the service does: move it to "
            "where that user may, such as /etc/relaygw"
        )
    return kind(
        f"{file}: {error.strerror}; run it as root or as relaygw's user, or name a file of your "
        "own with --config"
    )


def _read_file(file: Path, short: str) -> Tree:
    try:
        if stat.S_ISFIFO(file.stat().st_mode):
            raise SettingsError(
                f"{file}: is a pipe, and is read more than once; name a regular file with --config"
            )
        content = content_of(file)
    except PermissionError as error:
        raise _closed(file, error) from error
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be read ({error.strerror}); create it, or name another with --config"
        ) from error
    return read_tree(content, Place(short, file=file))


def _default_state_dir(environ: Mapping[str, str]) -> Path:
    chosen = environ.get("XDG_STATE_HOME", "")
    if chosen.startswith("/"):
        return Path(chosen) / "relaygw"
    if os.geteuid() == 0 or _is_own(_SYSTEM_STATE_DIR):
        return _SYSTEM_STATE_DIR
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return home / ".local/state/relaygw"


def _is_own(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _state_dir(url: str, default_dir: Path) -> Path:
    """Return where state lies: beside a SQLite file, in the usual place with PostgreSQL."""
    path = url.removeprefix("sqlite:///")
    return Path(path).parent if path != url else default_dir


def _with_defaults(values: dict[str, Any], default_dir: Path, *, has_file: bool) -> dict[str, Any]:
    filled = dict(values)
    if not has_file and filled.get("mode") is None:
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
    """Return the machine's maildrop, but for a sandbox that is somebody's own: one beside it."""
    if mode != "sandbox" or state_dir == _SYSTEM_STATE_DIR or not state_dir.is_absolute():
        return drop.DIRECTORY
    return str(state_dir / "maildrop")


def _validated(filling: FilledValues, tree: Tree) -> Settings:
    problems = list(tree.problems)
    problems += [tree.line_for(keys, text) for keys, text in filling.problems.items()]
    try:
        settings = Settings.model_validate(filling.values)
    except ValidationError as error:
        problems += explain(error, tree, filling.problems.keys())
        wrong = {tuple(key for key in item["loc"] if key != "[key]") for item in error.errors()}
        for conflict in _conflicts_despite(wrong | filling.problems.keys(), filling.values):
            problems.append(tree.line_for(conflict.path, conflict.problem))
    _raise_if(list(dict.fromkeys(problems)))
    return settings


def _conflicts_despite(wrong: Collection[Keys], values: Mapping[str, Any]) -> Iterable[Conflict]:
    """Return conflicts between sections without a wrong value; a wrong mode is production."""
    faulty = {keys[0] for keys in wrong if keys}
    right = {name: values[name] for name in Settings.model_fields if name in values.keys() - faulty}
    listeners = values.get("listeners")
    if "listeners" in faulty and isinstance(listeners, (list, tuple)):
        broken = {keys[1] for keys in wrong if keys[0] == "listeners" and len(keys) > 1}
        # the others stay where they are, so that paths name them
        right["listeners"] = [
            _NO_LISTENER if number in broken else listener
            for number, listener in enumerate(listeners)
        ]
    known = Settings.model_fields.keys() - faulty | right.keys()
    right.setdefault("mode", Mode.PRODUCTION.value)
    try:
        Settings.model_validate(right, context=known)
    except ValidationError as error:
        causes = (item.get("ctx", {}).get("error") for item in error.errors())
        return next((cause.conflicts for cause in causes if isinstance(cause, ConflictsFound)), ())
    return ()


# --- the environment


def _merge_environment(tree: Tree, environ: Mapping[str, str]) -> None:
    """Lay every RELAYGW__ variable over `tree`; what cannot be used becomes a problem line."""
    # sorted: what is nearer the top comes first, RELAYGW__QUEUE before RELAYGW__QUEUE__URL
    for name in sorted(name for name in environ if name.startswith(_PREFIX)):
        place = Place(f"environment {name}")
        try:
            _set(tree, name.removeprefix(_PREFIX).split("__"), read_flow(environ[name]), place)
        except ValueError as error:
            tree.problems.append(f"{place}: {error}")
    for name in environ:
        key = _almost_named(name)
        if key is not None and f"env:{name}" not in (item for _, item in leaves((), tree.values)):
            (tree.problems if name.lower().endswith("_mode") else tree.doubts).append(
                f"environment {name}: is not read; write {_PREFIX}{key.upper()}, with two "
                "underscores before each key, or remove it"
            )


def _almost_named(name: str) -> str | None:
    """Return the key at the top that a variable seems to set, and does not; None for others."""
    if name.startswith(_PREFIX) or name == _CLIENTS_MAILDROP or _OF_KUBERNETES.search(name):
        return None
    head, _, rest = name.lower().partition("_")
    words = f"{rest.strip('_')}_"
    keys = (key for key in Settings.model_fields if words.startswith(f"{key}_"))
    return next(keys, None) if head == "relaygw" else None


def _set(tree: Tree, segments: list[str], value: Any, place: Place) -> None:
    if not all(segments):
        raise ValueError("is not a key; write two underscores between keys: RELAYGW__QUEUE__URL")
    container: Any = tree.values
    keys: Keys = ()
    for segment in segments[:-1]:
        keys = (*keys, _key_in(container, segment))
        container = _child(tree, container, keys, place)
    tree.lay(container, (*keys, _key_in(container, segments[-1])), value, place)


def _key_in(container: Any, segment: str) -> str | int:
    """Return the key or position that a segment of a variable's name means."""
    if isinstance(container, list):
        if segment.isdecimal() and int(segment) <= len(container):
            return int(segment)
        raise ValueError("the list has no such entry; entries count from 0; or set the whole list")
    wanted = segment.lower()
    # a variable's name has no hyphen: SES_PROMO means the provider ses-promo
    return next((key for key in container if key.lower().replace("-", "_") == wanted), wanted)


def _child(tree: Tree, container: Any, keys: Keys, place: Place) -> Any:
    child = item_at(container, keys[-1])
    if child is None:
        child = [] if expectation(keys) == "a list" else {}
        put(container, keys[-1], child)
        tree.places[keys] = place
    if not isinstance(child, (dict, list)):
        raise ValueError(f"{shown_keys(keys)} holds one value; set that key instead")
    return child


# --- as an operator sees them


def shown_leaves(settings: Settings) -> Iterator[tuple[Keys, str]]:
    """Yield keys and YAML form of every value; lists of scalars count as one value."""
    for keys, value in leaves((), settings.model_dump(mode="json")):
        # JSON is YAML, and its escapes keep a line one line
        yield keys, json.dumps(value, ensure_ascii=False) if value is not None else "~"


def origin_lines(loaded: LoadedSettings) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, value in YAML, origin) for every value, in the model's order."""
    for keys, value in shown_leaves(loaded.settings):
        yield shown_keys(keys), value, loaded.origins[shown_keys(keys)]


def _origins(settings: Settings, tree: Tree, filling: FilledValues) -> dict[str, str]:
    origins = {keys: str(place) for keys, place in tree.places.items()} | filling.origins
    return {shown_keys(keys): origins.get(keys, "default") for keys, _ in shown_leaves(settings)}
