"""What `relaygw setup` does once there is a configuration; it is told before it is done.

The key is read once, compared with the one that is there, and shown nowhere.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from relaygw import service_file, state_owner
from relaygw.cli import send_test as sending
from relaygw.cli import setup_host as host
from relaygw.cli.check import check
from relaygw.cli.frame import CommandFailed, Invocation, address_of, warn
from relaygw.cli.install_sendmail import Programs, install_sendmail, php_line
from relaygw.cli.setup_plan import SECRETS, Answers, NewFile
from relaygw.errors import SettingsError
from relaygw.postfix.written import check_private
from relaygw.settings.load import DEFAULT_FILE, LoadedSettings
from relaygw.settings.secrets import SecretRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How it is done, beside what is answered."""

    key_file: str | None
    recipient: str | None
    prefix: Path
    is_sure: bool
    is_dry_run: bool
    is_offline: bool
    is_smtp_only: bool


def later_steps(config: Path, wishes: Wishes) -> Iterator[str]:
    """Yield what is done once the configuration is there."""
    yield "check the configuration" + ("" if wishes.is_offline else ", and ask the mail service")
    if not wishes.is_smtp_only:
        yield f"install-sendmail --prefix {wishes.prefix}, unless another mailer is installed"
    if config == DEFAULT_FILE and host.has_units():
        yield f"systemctl enable --now {' '.join(host.UNITS)}"
    if wishes.recipient:
        yield f"send a test mail to {wishes.recipient}, by SMTP and the way PHP does"


class Steps:
    """What is done with a configuration that is there; each step finds out whether it is done."""

    def __init__(self, invocation: Invocation, wishes: Wishes) -> None:
        self._invocation = invocation
        self._wishes = wishes
        self._config = invocation.config
        self._context = click.get_current_context()
        self._loaded: LoadedSettings = invocation.read()

    def run(self) -> None:
        """Do them all; raises CommandFailed at the first that fails."""
        self._check()
        if not self._wishes.is_smtp_only:
            self._install_sendmail()
        self._start()
        self._try()

    def _check(self) -> None:
        nothing: dict[str, Any] = {
            "sender": None,
            "recipient": None,
            "headers": {},
            "listener": None,
            "user": None,
        }
        is_online = not self._wishes.is_offline and bool(self._loaded.settings.providers)
        click.echo(f"--- relaygw check{' --online' if is_online else ''}")
        with state_owner.as_owner_of(self._loaded.state_dir):
            code = self._context.invoke(check, **nothing, online=is_online, wants_json=False)
        if code != os.EX_OK:
            raise CommandFailed(
                f"the mail service refuses it; correct {self._config}, or the key in "
                f"{self._config.parent / SECRETS if self._config else SECRETS}, and run relaygw "
                "setup again",
                exit_code=os.EX_UNAVAILABLE,
            )

    def _install_sendmail(self) -> None:
        click.echo(f"--- relaygw install-sendmail --prefix {self._wishes.prefix}")
        programs = Programs(self._wishes.prefix.absolute())
        if programs.are_there():
            click.echo("is there")
            click.echo(f"  {php_line(self._wishes.prefix)}")
            return
        if foreign := programs.foreign():
            warn(
                f"{foreign[0]} belongs to another mailer and is kept; PHP's mail goes to it until "
                "the package relaygw-mta, or relaygw install-sendmail --force, replaces it"
            )
            return
        self._context.invoke(
            install_sendmail, prefix=self._wishes.prefix, force=False, uninstall=False
        )

    def _start(self) -> None:
        if self._config != DEFAULT_FILE or not host.has_units():
            return
        click.echo(f"--- systemctl enable --now {' '.join(host.UNITS)}")
        change = host.socket_change(self._loaded.settings)
        if change:
            click.echo(f"{change} {host.DROP_IN}")
            host.put_socket_file(self._loaded.settings)
        elif host.is_enabled():
            click.echo("runs")
            return
        host.enable(is_new=bool(change))

    def _try(self) -> None:
        with state_owner.as_owner_of(self._loaded.state_dir):
            recipient = self._try_by_smtp()
        if recipient:
            self._try_as_web_user(recipient)

    def _try_by_smtp(self) -> str:
        """Send a test mail, and return to whom; empty: none was sent."""
        if service_file.running_service(self._loaded.state_dir) is None:
            words = shlex.join(["relaygw", "serve", "--config", str(self._config)])
            click.echo(f"The gateway is not running here. Start it: {words}")
            return ""
        recipient = self._wishes.recipient or self._ask_recipient()
        if not recipient:
            click.echo("No test mail was sent. Send one: relaygw send-test --to ADDRESS")
            return ""
        click.echo(f"--- relaygw send-test --to {recipient}")
        self._must_end(
            self._context.invoke(
                sending.send_test, recipient=recipient, sender=self._sender(), timeout_s=60.0
            )
        )
        return recipient

    def _ask_recipient(self) -> str:
        if self._wishes.is_sure or not sys.stdin.isatty():
            return ""
        question = "Recipient of a test mail (empty: none)"
        said: str = click.prompt(question, default="", show_default=False, err=True).strip()
        return address_of(said, "the answer") if said else ""

    def _sender(self) -> str | None:
        return next(iter(self._loaded.settings.rewrite.senders.values()), None)

    def _try_as_web_user(self, recipient: str) -> None:
        program = self._wishes.prefix.absolute() / "sbin/sendmail"
        user = host.user_entry(*host.WEB_USERS)
        if user is None or os.geteuid() != 0 or not Programs(program.parents[1]).are_there():
            return
        click.echo(f"--- {program} -t -i, as {user.pw_name}")
        subject = f"Test from relaygw as {user.pw_name} {secrets.token_hex(4)}"
        host.send_as(user, program, recipient, subject)
        with (
            state_owner.as_owner_of(self._loaded.state_dir),
            self._invocation.open_store(self._loaded) as store,
        ):
            queue_id = host.queued_as(store, subject)
            click.echo(f"{queue_id}: accepted from {user.pw_name}")
            code = sending.watch(store, self._loaded.settings, queue_id, timeout_s=60.0)
        self._must_end(code)

    def _must_end(self, code: int) -> None:
        if code != os.EX_OK:
            raise CommandFailed(
                "the test mail did not arrive; the output above shows why", exit_code=code
            )


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
