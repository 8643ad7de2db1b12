"""`relaygw users`: who may log in, and hashes of passwords."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import click

from relaygw.cli import frame
from relaygw.cli.frame import Command, CommandFailed, Group, Invocation, pass_invocation
from relaygw.cli.text import aligned, as_json, print_lines, terminal_width
from relaygw.mail.clock import clock_ms, utc_text
from relaygw.mail.words import age, counted

_MAX_PASSWORD_BYTES = 1024
_LOGIN_CELLS = (6, 9, 6, 16)  # of kind, role, age and last use
# OWASP's second choice for argon2id: 20 ms and 19 MiB a login, of which two run at once
_PASSES = 2
_MEMORY_KIB = 19 * 1024
_LANES = 1


@click.group(cls=Group)
def users() -> None:
    """Manage the users who may log in to the gateway."""


@users.command("hash", cls=Command)
def hash_password() -> None:
    """Read a password and print its hash for `password_hash`.

    On a terminal it is asked for twice and not shown; otherwise it is the first line of standard
    input.
    """
    try:
        password = _asked() if sys.stdin.isatty() else _first_line()
        _check_password(password)
    except UnicodeDecodeError as error:
        raise CommandFailed(
            f"the password is not UTF-8, from byte {error.start + 1} on, as logins send it; "
            "write it in UTF-8"
        ) from None
    click.echo(hash_of(password))


def _asked() -> bytes:
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="strict")  # with a question mark it were another password
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return asked.encode()


def _first_line() -> bytes:
    return sys.stdin.buffer.readline(_MAX_PASSWORD_BYTES + 3).rstrip(b"\n").rstrip(b"\r")


def _check_password(password: bytes) -> None:
    """Refuse one that some login cannot send: AUTH PLAIN (RFC 4616), a page.

    Raises CommandFailed, UnicodeDecodeError for one that is not UTF-8.
    """
    if not password:
        raise CommandFailed("the password is empty; write one")
    if len(password) > _MAX_PASSWORD_BYTES:
        raise CommandFailed(
            f"the password has more than {_MAX_PASSWORD_BYTES} bytes; choose a shorter one"
        )
    if b"\0" in password:
        raise CommandFailed(
            "the password holds a NUL, which AUTH PLAIN cannot send; write text in UTF-8 "
            "without NUL"
        )
    password.decode()


def hash_of(password: bytes) -> str:
    """Return the hash of a password, for `password_hash`."""
    import argon2

    hasher = argon2.PasswordHasher(
        time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES, type=argon2.Type.ID
    )
    return hasher.hash(password)


@users.command("list", cls=Command)
@frame.JSON_LINES
@pass_invocation
def list_users(invocation: Invocation, wants_json: bool) -> None:
    """List who may log in, by web, token and SMTP: the role, the age, and the last use."""
    from relaygw.operations.access import access_object, review

    loaded = invocation.load_running()
    with invocation.open_store(loaded) as store:
        found = review(store, loaded.settings)
    if wants_json:
        print_lines(as_json(access_object(access_rule)) for access_rule in found)
        return
    now_ms = clock_ms()
    widths = (max(20, terminal_width() - sum(_LOGIN_CELLS) - 4), *_LOGIN_CELLS)
    if found:
        click.echo(aligned(widths, "NAME", "KIND", "ROLE", "AGE", "LAST USED (UTC)"))
    for access_rule in found:
        since = "-" if access_rule.since_ms is None else age(now_ms - access_rule.since_ms)
        used = (
            "never"
            if access_rule.used_at_ms is None
            else utc_text(access_rule.used_at_ms, "%Y-%m-%d %H:%M")
        )
        used = used.removesuffix(" UTC")
        click.echo(
            aligned(
                widths, access_rule.name, access_rule.kind, access_rule.role or "-", since, used
            )
        )
    click.echo(f"-- {counted(len(found), 'login')}")
