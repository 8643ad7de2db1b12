"""The secrets that `relaygw setup` is given: where each is read, and the file that keeps it.

Each is read once, compared with the one that is there, and shown nowhere.
"""

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
from relaygw.cli.setup_plan import (
    CERTIFICATE,
    CLIENT_SECRET,
    PASSWORD,
    PRIVATE_KEY,
    REFRESH_TOKEN,
    SECRETS,
    Answers,
    NewFile,
    Secret,
)
from relaygw.cli.setup_steps import Wishes
from relaygw.errors import SettingsError
from relaygw.settings.secrets import MAX_SECRET_BYTES, PemRef, SecretRef, check_private

_MAX_KEY_BYTES = 4096
_GROUPS = ((PASSWORD, CLIENT_SECRET, PRIVATE_KEY), (REFRESH_TOKEN,), (CERTIFICATE,))
"""Those of one option: a provider has one of each group at most."""


def source_of(secret: Secret, answers: Answers, wishes: Wishes) -> str | None:
    """Return the file that an option names for a secret, `-` for standard input."""
    if secret is CERTIFICATE:
        return answers.certificate
    return wishes.refresh_token_file if secret is REFRESH_TOKEN else wishes.key_file


def is_left_out(secret: Secret, answers: Answers, wishes: Wishes) -> bool:
    """True where a secret would have to be typed for a dry run."""
    source = source_of(secret, answers, wishes)
    return wishes.is_dry_run and source is None and sys.stdin.isatty()


def read_secret(secret: Secret, answers: Answers, wishes: Wishes) -> str:
    """Return a secret from its file, from standard input, or as it is typed unseen."""
    source = source_of(secret, answers, wishes)
    if source is None and sys.stdin.isatty() and secret.is_pem:
        source = click.prompt(f"File with the {secret.words}, PEM", err=True).strip()
    if source is None and sys.stdin.isatty():
        prompt = f"{secret.words.capitalize()} (not shown)"
        return _clean(secret, click.prompt(prompt, hide_input=True, err=True), "the terminal")
    if source is None and (secret.is_pem or secret is REFRESH_TOKEN):
        raise click.UsageError(f"give {secret.option} FILE with the {secret.words}")
    if source is None or source == "-":
        return _clean(secret, _standard_input(secret), "standard input")
    try:
        # O_NONBLOCK: a pipe is refused, not waited for
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            raw = os.read(descriptor, _max_bytes(secret) + 1) if is_file else b""
        finally:
            os.close(descriptor)
        problem = "" if is_file else "is not a regular file"
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        form = "" if secret.is_pem else " in one line"
        raise CommandFailed(
            f"{secret.option} {_shown(source)}: {problem}; name a file that holds the "
            f"{secret.words}{form}, or give it on standard input",
            exit_code=os.EX_NOINPUT,
        )
    return _clean(secret, _decoded(raw), source)


def _shown(source: str) -> str:
    """Return the name of a file, unless it may be the secret: not even its directory is there."""
    path = Path(source)
    is_in_directory = len(path.parents) > 1 and path.parent.is_dir()
    if not source or os.path.lexists(source) or is_in_directory:
        return source or repr(source)
    return "(the value is not shown)"


def _given(secret: Secret, answers: Answers, wishes: Wishes) -> str | None:
    """Return the secret that comes with a later call, None for none; nobody is waited for."""
    source = source_of(secret, answers, wishes)
    if source not in (None, "-"):
        return read_secret(secret, answers, wishes)
    if source is None and (secret.option != PASSWORD.option or sys.stdin.isatty()):
        return None
    # what is open there may be anybody's, such as a script, unless the first call is repeated
    if not (source or answers.given):
        return None
    text = _standard_input(secret)
    return _clean(secret, text, "standard input") if text.strip() else None


def _max_bytes(secret: Secret) -> int:
    return MAX_SECRET_BYTES if secret.is_pem else _MAX_KEY_BYTES


def _standard_input(secret: Secret) -> str:
    with suppress(OSError, ValueError):
        if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode) or sys.stdin.isatty():
            words = f"reading the {secret.words} from standard input until end of file"
            click.echo(words, err=True)
    return _decoded(sys.stdin.buffer.read(_max_bytes(secret) + 1))


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _clean(secret: Secret, text: str, source: str) -> str:
    key, what, limit = text.strip(), secret.words, _max_bytes(secret)
    lines = len(key.splitlines())
    if len(text.encode()) > limit:
        problem = f"is longer than {limit} bytes"
    elif secret.is_pem:
        problem = "" if "-----BEGIN " in key else f"holds no {what}"
    elif lines > 1:
        problem = f"has {lines} lines"
    elif not key:
        problem = f"holds no {what}"
    else:
        is_text = key.isprintable() and "\ufffd" not in key
        problem = "" if is_text else "is not a single line of text"
    if problem and secret.is_pem:
        raise CommandFailed(f"{source} {problem}; give the whole PEM file of the {what}")
    if problem:
        raise CommandFailed(f"{source} {problem}; give only the {what}, in one line")
    return key


def secret_files(secret: Secret, file: Path, text: str | None) -> Iterator[NewFile]:
    """Yield what has to be made for a secret; raises CommandFailed where another one is there."""
    try:
        check_private(file.parent, by="--config")
    except SettingsError as error:
        raise CommandFailed(str(error), exit_code=os.EX_CANTCREAT) from error
    if not file.parent.exists():
        yield NewFile(path=file.parent, is_own=True)
    if not os.path.lexists(file):
        yield NewFile(path=file, text=f"{text}\n", is_own=True)
    elif text is not None and _stored(secret, file) != text:
        raise CommandFailed(
            f"{file}: holds another {secret.words} than the one given, and setup changes no file; "
            f"write the new {secret.words} into it and run this again, or move it away and run "
            "this again",
            exit_code=os.EX_CANTCREAT,
        )


def reference(secret: Secret, kind: str, target: str) -> SecretRef:
    """Return a reference to a secret, of the form that reads it."""
    return (PemRef if secret.is_pem else SecretRef)(kind, target)


def _stored(secret: Secret, file: Path) -> str:
    """Return the secret in a file; raises CommandFailed for what holds none."""
    try:
        return reference(secret, "file", str(file)).read()
    except SettingsError as error:
        is_denied = isinstance(error.__cause__, PermissionError)
        code = os.EX_NOPERM if is_denied else os.EX_CANTCREAT
        remedy = "run it as root" if is_denied else "or move it away and run this again"
        raise CommandFailed(f"{error}; {remedy}", exit_code=code) from error


def missing_files(
    found: object, config: Path, answers: Answers, wishes: Wishes
) -> Iterator[NewFile]:
    """Yield what a configuration that is there lacks of its secrets, each once.

    Raises CommandFailed where one is given that is not the one it has.
    """
    missing: dict[Path, NewFile] = {}
    for group in _GROUPS:
        files = _missing(group, found, config, answers, wishes)
        missing |= {file.path: file for file in files}
    yield from missing.values()


def _missing(
    group: tuple[Secret, ...], found: object, config: Path, answers: Answers, wishes: Wishes
) -> Iterator[NewFile]:
    kept = _kept(group, found)
    if answers.provider in kept and answers.given:
        kept = {answers.provider: kept[answers.provider]}
    files = [pair for pair in kept.values() if pair[1].kind == "file"]
    is_clear = len(kept) == len(files) == 1
    secret, file = (files[0][0], Path(files[0][1].target)) if is_clear else (group[0], None)
    is_missing = (
        file is not None and file.parent == config.parent / SECRETS and not os.path.lexists(file)
    )
    if is_missing and is_left_out(secret, answers, wishes):
        return
    text = (read_secret if is_missing else _given)(secret, answers, wishes)
    if text is None:
        return
    if file is None:
        places = ", ".join(f"{name}: {pair[1]}" for name, pair in kept.items()) or "no provider"
        raise CommandFailed(
            f"{config} is there and reads its keys from elsewhere ({places}), so the "
            f"{secret.words} given would not be used; write it to that place",
            exit_code=os.EX_CANTCREAT,
        )
    yield from secret_files(secret, file, text)


def has_password(found: object, provider: str) -> bool:
    """Return whether a configuration logs this provider in by password."""
    return provider in _kept((PASSWORD,), found)


def _kept(group: tuple[Secret, ...], found: Any) -> dict[str, tuple[Secret, SecretRef]]:
    """Return which secret of a group each provider of a configuration has, and where."""
    kept = {}
    providers = found.get("providers") if isinstance(found, dict) else None
    for name, provider in (providers if isinstance(providers, dict) else {}).items():
        for secret in group:
            with suppress(ValueError, AttributeError, KeyError, TypeError):
                section = provider if len(secret.keys) == 1 else provider["oauth"]
                written = section[secret.keys[-1]]
                place = f"file:{written}" if secret is CERTIFICATE else written
                kept[str(name)] = secret, SecretRef.parse(place)
    return kept
