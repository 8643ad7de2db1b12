"""The key of `relaygw setup`: read once, compared with the one that is there, shown nowhere."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from relaygw.cli.frame import CommandFailed
from relaygw.cli.setup_plan import SECRETS, Answers, NewFile
from relaygw.cli.setup_steps import Wishes
from relaygw.errors import SettingsError
from relaygw.postfix.written import check_private
from relaygw.settings.secrets import SecretRef

_MAX_KEY_BYTES = 4096


def is_left_out(wishes: Wishes) -> bool:
    """True where a key would have to be typed for a dry run."""
    return wishes.is_dry_run and wishes.key_file is None and sys.stdin.isatty()


def read_key(wishes: Wishes) -> str:
    """Return the key from its file, from standard input, or as it is typed unseen."""
    source = wishes.key_file
    if source is None and sys.stdin.isatty():
        typed: str = click.prompt("Key (not shown)", hide_input=True, err=True)
        return _clean(typed, "the terminal")
    if source in (None, "-"):
        return _clean(_standard_input(), "standard input")
    try:
        # O_NONBLOCK: a pipe is refused, not waited for
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            raw = os.read(descriptor, _MAX_KEY_BYTES + 1) if is_file else b""
        finally:
            os.close(descriptor)
        problem = "" if is_file else "is not a regular file"
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        raise CommandFailed(
            f"--key-file {source or repr(source)}: {problem}; name a file that holds the key in "
            "one line, or give it on standard input",
            exit_code=os.EX_NOINPUT,
        )
    return _clean(_decoded(raw), source)


def _given_key(answers: Answers, wishes: Wishes) -> str | None:
    """Return the key that comes with a later call, None for none; nobody is waited for."""
    if wishes.key_file not in (None, "-"):
        return read_key(wishes)
    if wishes.key_file is None and sys.stdin.isatty():
        return None
    is_file = False
    with suppress(OSError, ValueError):
        is_file = stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    # an open pipe may be anybody's, unless the whole of the first call is repeated
    if not (wishes.key_file or answers.given or is_file):
        return None
    text = _standard_input()
    return _clean(text, "standard input") if text.strip() else None


def _standard_input() -> str:
    with suppress(OSError, ValueError):
        if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode) or sys.stdin.isatty():
            click.echo("reading the key from standard input until end of file", err=True)
    return _decoded(sys.stdin.buffer.read(_MAX_KEY_BYTES + 1))


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _clean(text: str, source: str) -> str:
    key = text.strip()
    if len(text.encode()) > _MAX_KEY_BYTES:
        raise CommandFailed(
            f"{source} is longer than {_MAX_KEY_BYTES} bytes; give only the key, in one line"
        )
    lines = len(key.splitlines())
    if lines > 1:
        raise CommandFailed(f"{source} has {lines} lines; give only the key, in one line")
    if not key or not key.isprintable() or "\ufffd" in key:
        what = "is not a single line of text" if key else "holds no key"
        raise CommandFailed(f"{source} {what}; give only the key, in one line")
    return key


def key_files(file: Path, key: str | None) -> Iterator[NewFile]:
    """Yield what has to be made for a key; raises CommandFailed where another one is there."""
    try:
        check_private(file.parent, by="--config")
    except SettingsError as error:
        raise CommandFailed(str(error), exit_code=os.EX_CANTCREAT) from error
    if not file.parent.exists():
        yield NewFile(path=file.parent, is_own=True)
    if not os.path.lexists(file):
        yield NewFile(path=file, text=f"{key}\n", is_own=True)
    elif key is not None and _stored(file) != key:
        raise CommandFailed(
            f"{file}: holds another key than the one given, and setup changes no file; write the "
            "new key into it and run this again, or move it away and run this again",
            exit_code=os.EX_CANTCREAT,
        )


def _stored(file: Path) -> str:
    """Return the key in a file; raises CommandFailed for what holds none."""
    try:
        return SecretRef("file", str(file)).read()
    except SettingsError as error:
        is_denied = isinstance(error.__cause__, PermissionError)
        code = os.EX_NOPERM if is_denied else os.EX_CANTCREAT
        remedy = "run it as root" if is_denied else "or move it away and run this again"
        raise CommandFailed(f"{error}; {remedy}", exit_code=code) from error


def missing_files(
    found: object, config: Path, answers: Answers, wishes: Wishes
) -> Iterator[NewFile]:
    """Yield what a configuration that is there lacks of its key.

    Raises CommandFailed where a key is given that is not the one it has.
    """
    passwords = _passwords(found)
    if answers.provider in passwords and answers.given:
        passwords = {answers.provider: passwords[answers.provider]}
    files = [one for one in passwords.values() if one.kind == "file"]
    file = Path(files[0].target) if len(passwords) == len(files) == 1 else None
    is_missing = (
        file is not None and file.parent == config.parent / SECRETS and not os.path.lexists(file)
    )
    if is_missing and is_left_out(wishes):
        return
    key = read_key(wishes) if is_missing else _given_key(answers, wishes)
    if key is None:
        return
    if file is None:
        places = ", ".join(f"{name}: {one}" for name, one in passwords.items()) or "no provider"
        raise CommandFailed(
            f"{config} is there and reads its keys from elsewhere ({places}), so the key given "
            "would not be used; write it to that place",
            exit_code=os.EX_CANTCREAT,
        )
    yield from key_files(file, key)


def _passwords(found: Any) -> dict[str, SecretRef]:
    """Return where the providers of a configuration have their keys."""
    passwords = {}
    providers = found.get("providers") if isinstance(found, dict) else None
    for name, provider in (providers if isinstance(providers, dict) else {}).items():
        with suppress(ValueError, AttributeError):
            passwords[str(name)] = SecretRef.parse(provider.get("password"))
    return passwords
