"""relaygw.yaml as text, and its files on the disk: never over a file, secrets 0600."""

from __future__ import annotations

import json
import os
import pwd
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from relaygw.errors import SettingsError
from relaygw.settings.load import LoadedSettings, load_settings
from relaygw.settings.tree import read_flow

_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9 ./_+=-]*(?::[A-Za-z0-9./_+=-]+)*")
_LONG = 90
_OWNER = "relaygw"


def as_yaml(values: Mapping[str, Any], heading: str = "") -> str:
    """Return values as YAML; `heading` stands before them as a comment."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    for key, value in values.items():
        lines += ["", *_item(key, value, 0)] if isinstance(value, (dict, list)) else []
        lines += [] if isinstance(value, (dict, list)) else _item(key, value, 0)
    return "\n".join(lines) + "\n"


def _item(key: str, value: Any, indent: int) -> Iterator[str]:
    lead = " " * indent
    if isinstance(value, dict) and value:
        yield f"{lead}{_scalar(key)}:"
        for name, inner in value.items():
            yield from _item(name, inner, indent + 2)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield f"{lead}{_scalar(key)}:"
        for entry in value:
            inner = [line for name, it in entry.items() for line in _item(name, it, indent + 4)]
            yield f"{lead}  - {inner[0].strip()}"
            yield from inner[1:]
    elif value == {}:
        yield f"{lead}{_scalar(key)}: {{}}"
    elif isinstance(value, (list, dict)):
        yield from _list(f"{lead}{_scalar(key)}: ", list(map(_scalar, value)), indent)
    else:
        yield f"{lead}{_scalar(key)}: {_scalar(value)}"


def _list(lead: str, words: list[str], indent: int) -> Iterator[str]:
    whole = f"{lead}[{', '.join(words)}]"
    if len(whole) <= _LONG:
        yield whole
        return
    yield lead.rstrip()
    yield from (f"{' ' * (indent + 2)}- {word}" for word in words)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    is_plain = _PLAIN.fullmatch(value) and value == value.strip() and read_flow(value) == value
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def check_text(text: str) -> LoadedSettings:
    """Return the settings that a text means. Raises SettingsError."""
    with tempfile.TemporaryDirectory(prefix="relaygw-import-") as directory:
        file = Path(directory) / "relaygw.yaml"
        file.write_text(text)
        return load_settings(config=file, environ={"HOME": directory})


def output_file(output: str) -> Path:
    """Return the file that is written: a name without .yaml or .yml is a directory's."""
    path = Path(os.path.abspath(output))  # noqa: PTH100 - without its ".."
    is_file = path.suffix in (".yaml", ".yml") and not output.endswith("/")
    # False for what may not be looked at as well
    is_there = os.path.isdir(path)  # noqa: PTH112
    return path if is_file and not is_there else path / "relaygw.yaml"


def check_free(files: list[Path], to_make: Path | None = None) -> None:
    """Raise SettingsError where files are there, or where the place of the first is none.

    `to_make` is a directory that may still be missing.
    """
    there = [str(file) for file in files if os.path.lexists(file)]
    if there:
        exist, them = ("exists", "it") if len(there) == 1 else ("exist", "them")
        raise SettingsError(
            f"{', '.join(there)} already {exist}; no file is overwritten; move {them} away, or "
            "name another place with --output"
        )
    directory = files[0].parent
    is_made = directory == to_make and not os.path.lexists(directory)
    if is_made:
        directory = next(parent for parent in directory.parents if os.path.lexists(parent))
    if not directory.is_dir():
        raise SettingsError(
            f"{directory} is not a directory; create it, or name another with --output"
        )


def write_files(file: Path, text: str, secrets: Mapping[str, str], directory: Path) -> None:
    """Write relaygw.yaml and a file for each secret; all or nothing. Raises OSError."""
    owner = _owner()
    made: list[Path] = []
    try:
        if not file.parent.is_dir():
            file.parent.mkdir(parents=True)
            file.parent.chmod(0o755)
        if secrets:
            if not directory.is_dir():
                directory.mkdir(mode=0o700)
                os.chown(directory, *owner)
            for name, secret in secrets.items():
                made.append(_create(directory / name, f"{secret}\n", 0o600, owner))
        _create(file, text, 0o640, (-1, owner[1]))  # the gateway reads it, and changes nothing
    except OSError:
        for path in made:
            path.unlink(missing_ok=True)
        raise


def _create(path: Path, text: str, mode: int, owner: tuple[int, int]) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), mode)
        os.fchown(stream.fileno(), *owner)
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return path


def _owner() -> tuple[int, int]:
    """Return whom the files are given to: root gives them to the user that the gateway runs as."""
    if os.geteuid() == 0:
        try:
            account = pwd.getpwnam(_OWNER)
        except KeyError:
            return -1, -1
        return account.pw_uid, account.pw_gid
    return -1, -1
