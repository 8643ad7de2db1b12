"""`relaygw users`: what the `users:` of the configuration need."""

from __future__ import annotations

import sys

import click

from relaygw.cli.frame import Command, CommandFailed, Group

MAX_PASSWORD_BYTES = 1024
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
    if sys.stdin.isatty():
        asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        password = asked.encode()
    else:
        line = sys.stdin.buffer.readline(MAX_PASSWORD_BYTES + 3)
        password = line.rstrip(b"\n").rstrip(b"\r")
    if not password:
        raise CommandFailed("the password is empty; write one")
    if len(password) > MAX_PASSWORD_BYTES:
        raise CommandFailed(
            f"the password has more than {MAX_PASSWORD_BYTES} bytes; choose a shorter one"
        )
    click.echo(hash_of(password))


def hash_of(password: bytes) -> str:
    """Return what `password_hash` holds for a password."""
    import argon2

    hasher = argon2.PasswordHasher(
        time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES, type=argon2.Type.ID
    )
    return hasher.hash(password)
