"""`relaygw users`: what users of the configuration need, and a review of their access."""

from __future__ import annotations

import sys

import click

from relaygw.cli.frame import Command, CommandFailed, Group, Invocation, pass_invocation
from relaygw.cli.text import aligned, as_json, print_lines, terminal_width
from relaygw.mail.clock import clock_ms, utc_text
from relaygw.mail.words import age, counted

MAX_PASSWORD_BYTES = 1024
_CELLS = (6, 9, 6, 16)  # of kind, role, age and last use
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


@users.command("list", cls=Command)
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object per line.")
@pass_invocation
def list_users(invocation: Invocation, wants_json: bool) -> None:
    """List who may log in, by web, token and SMTP: the role, the age, and the last use."""
    from relaygw.operations.access import access_object, review

    loaded = invocation.load_running()
    with invocation.open_store(loaded) as store:
        found = review(store, loaded.settings)
    if wants_json:
        print_lines(as_json(access_object(one)) for one in found)
        return
    now_ms = clock_ms()
    widths = (max(20, terminal_width() - sum(_CELLS) - 4), *_CELLS)
    if found:
        click.echo(aligned(widths, "NAME", "KIND", "ROLE", "AGE", "LAST USED (UTC)"))
    for one in found:
        since = "-" if one.since_ms is None else age(now_ms - one.since_ms)
        used = "never" if one.used_at_ms is None else utc_text(one.used_at_ms, "%Y-%m-%d %H:%M")
        used = used.removesuffix(" UTC")
        click.echo(aligned(widths, one.name, one.kind, one.role or "-", since, used))
    click.echo(f"-- {counted(len(found), 'login')}")
