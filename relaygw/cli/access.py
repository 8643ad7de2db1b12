"""`relaygw users`, `clients` and `audit`: who may log in, who was throttled, who did what."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from io import TextIOWrapper

import click

from relaygw.cli import frame
from relaygw.cli.frame import Command, CommandFailed, Group, Invocation, pass_invocation
from relaygw.cli.selection import NOT_EMPTY, TIME
from relaygw.cli.text import aligned, as_json, cut, labelled, print_lines, terminal_width
from relaygw.mail.clock import clock_ms, rfc3339, utc_text
from relaygw.mail.words import age, counted
from relaygw.operations.access import (
    CAUSES,
    ExemptNetwork,
    exempt_networks,
    exempt_object,
    throttled_object,
)
from relaygw.operations.audit import audit_object, deed_of, settings_change_words
from relaygw.operations.selectors import TIMES, read_moment
from relaygw.policy.settings_change import SETTINGS_CHANGE
from relaygw.store.audit import AuditEntry, Trail
from relaygw.store.visitors import Throttled

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
    """Return what `password_hash` holds for a password."""
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
        print_lines(as_json(access_object(one)) for one in found)
        return
    now_ms = clock_ms()
    widths = (max(20, terminal_width() - sum(_LOGIN_CELLS) - 4), *_LOGIN_CELLS)
    if found:
        click.echo(aligned(widths, "NAME", "KIND", "ROLE", "AGE", "LAST USED (UTC)"))
    for one in found:
        since = "-" if one.since_ms is None else age(now_ms - one.since_ms)
        used = "never" if one.used_at_ms is None else utc_text(one.used_at_ms, "%Y-%m-%d %H:%M")
        used = used.removesuffix(" UTC")
        click.echo(aligned(widths, one.name, one.kind, one.role or "-", since, used))
    click.echo(f"-- {counted(len(found), 'login')}")


_CLIENT_CELLS = (-7, -6, -6)


@click.command(cls=Command)
@click.option(
    "--since", metavar="T", type=TIME, default="7d", show_default=True,
    help=f"Throttled not before T: {TIMES}.",
)  # fmt: skip
@click.option("--json", "wants_json", is_flag=True, help="JSON, one object.")
@pass_invocation
def clients(invocation: Invocation, since: str, wants_json: bool) -> None:
    """List throttled clients and exempt networks.

    A throttled client of a listener sent more than rate_per_client, opened too many connections,
    or was locked out for failed logins; the latest are listed first.
    """
    loaded, now_ms = invocation.load_running(), clock_ms()
    since_ms = read_moment(since, now_ms=now_ms) or 0
    with invocation.open_store(loaded) as store:
        found = store.visitors.throttled(since_ms)
    exempt = list(exempt_networks(loaded.settings))
    if wants_json:
        told = {"throttled": list(map(throttled_object, found))}
        click.echo(as_json({**told, "exempt": list(map(exempt_object, exempt))}))
    else:
        print_lines(_client_lines(found, exempt, now_ms))


def _client_lines(
    found: Sequence[Throttled], exempt: Sequence[ExemptNetwork], now_ms: int
) -> Iterator[str]:
    left = max(60, terminal_width() - 22)
    widths = (*_CLIENT_CELLS, left // 3, left // 3, left // 3)
    if found:
        yield aligned(widths, "TIMES", "FIRST", "LAST", "CLIENT", "LISTENER", "CAUSE")
    for one in found:
        ages = (age(now_ms - at_ms) for at_ms in (one.first_seen_ms, one.last_seen_ms))
        yield aligned(widths, one.times, *ages, one.client, one.listener, one.cause)
    yield f"-- {counted(len(found), 'throttled client')}"
    for cause in sorted({one.cause for one in found} & {*CAUSES}):
        yield labelled(cause, CAUSES[cause])
    for network in exempt:
        of = " and ".join(network.limits)
        yield labelled("exempt", f"{network.network} at {network.listener} ({network.by}): {of}")


_TIME_CELLS = 20
_MAX_CELLS = 400  # of a sentence


@click.command(cls=Command)
@frame.limit_option(100, "entries")
@click.option(
    "--who", "--actor", "actor", metavar="TEXT", type=NOT_EMPTY,
    help="The actor's name contains TEXT.",
)  # fmt: skip
@click.option(
    "--action", metavar="TEXT", type=NOT_EMPTY,
    help="The action is TEXT or begins with it: queue matches queue.delete.",
)  # fmt: skip
@click.option("--since", metavar="T", type=TIME, help=f"Not before T: {TIMES}.")
@click.option("--until", metavar="T", type=TIME, help="Not after T; a day means its end.")
@frame.JSON_LINES
@pass_invocation
def audit(
    invocation: Invocation,
    limit: int,
    actor: str | None,
    action: str | None,
    since: str | None,
    until: str | None,
    wants_json: bool,
) -> None:
    """List what operators did to mail and providers, newest first.

    It includes changes to the configuration: when, on which host, in which sections.
    """
    now_ms = clock_ms()
    trail = Trail(
        since_ms=read_moment(since, now_ms=now_ms) if since else None,
        until_ms=read_moment(until, now_ms=now_ms, is_end=True) if until else None,
        actor=actor,
        action=action,
    )
    with invocation.open_store() as store:
        entries = store.audit.entries(limit=limit + 1, trail=trail)
    shown = entries[:limit]
    if wants_json:
        print_lines(as_json({**audit_object(one), "detail": _detail(one)}) for one in shown)
        return
    if shown:
        click.echo(f"{'TIME (UTC)':<{_TIME_CELLS}}WHAT")
    for entry in shown:
        at, text = rfc3339(entry.at_ms)[:19].replace("T", " "), cut(deed_of(entry).text, _MAX_CELLS)
        click.echo(labelled(at, text, label_cells=_TIME_CELLS, breaks_words=True))
    more = ", more match" if len(entries) > limit else ""
    click.echo(f"-- {counted(len(shown), 'entry', 'entries')}{more}")


def _detail(entry: AuditEntry) -> str:
    return settings_change_words(entry.detail) if entry.action == SETTINGS_CHANGE else entry.detail
