"""Whose file a secret may be, and who may read it: its owner and group, nobody else.

What is wrong with the secrets of a configuration is told at the key that the user wrote.
"""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from relaygw.settings.tree import Keys, Tree

if TYPE_CHECKING:
    from relaygw.settings.model import Settings
    from relaygw.settings.secrets import SecretRef

MAX_SECRET_BYTES = 65536


def loose_permissions(path: Path, *, owners: Collection[int] | None = None) -> str | None:
    """Return what is wrong when others than owner and group may read or write `path`.

    Another owner than `owners` (user ids) is wrong, too: who owns a file can open it to anyone,
    or put a key of his own in its place. A file that does not exist or cannot be looked at has
    nothing wrong.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    problem = _loose(path, status)
    if problem is None and owners is not None and status.st_uid not in owners:
        own = " or ".join(user_name(uid) for uid in sorted(owners))
        problem = (
            f"{path} belongs to {user_name(status.st_uid)}, who could replace it, not to {own}; "
            f"run: chown {user_name(max(owners))} {shlex.quote(str(path))}"
        )
    return problem


def user_name(uid: int) -> str:
    """Return the name of a user of this host, its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _loose(path: Path, status: os.stat_result) -> str | None:
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        return (
            f"everyone on this machine may read or write {path} (mode {mode:04o}); "
            f"run: chmod o-rwx {shlex.quote(str(path))}"
        )
    return None


def secret_file_problem(path: Path, status: os.stat_result) -> str | None:
    """Return why an opened file with `status` cannot serve as a secret, or None."""
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is not a regular file; write the path of a file"
    if status.st_size > MAX_SECRET_BYTES:
        return f"{path} is too long for a secret; store one line in it"
    return _loose(path, status)


def loose_secrets(settings: Settings, tree: Tree, *, owners: Collection[int]) -> list[str]:
    """Return one line for each secret that everyone may read or that another one owns."""
    problems = []
    for keys, secret in _secrets(settings):
        place = tree.place_of(keys)
        if secret.kind == "file":
            problem = loose_permissions(Path(secret.target), owners=owners)
        elif secret.kind == "plain" and place and place.file:
            problem = loose_permissions(place.file)
        else:
            continue
        if problem:
            problems.append(tree.line_for(keys, f"{secret}: {problem}"))
    return problems


def _secrets(settings: Settings) -> Iterator[tuple[Keys, SecretRef]]:
    """Yield every secret where the user wrote it."""
    if settings.queue.password is not None:
        yield ("queue", "password"), settings.queue.password
    for number, relay in enumerate(settings.relay_to):
        if relay.password is not None:
            yield ("relay_to", number, "password"), relay.password
    made = {relay.name for relay in settings.relay_to}
    for name, provider in settings.providers.items():
        if provider.password is not None and name not in made:
            yield ("providers", name, "password"), provider.password
        for key in ("client_secret", "refresh_token"):
            secret = getattr(provider.oauth, key, None)
            if secret is not None:
                yield ("providers", name, "oauth", key), secret
    yield from _secrets_of_alerts(settings)
    for number, token in enumerate(settings.web.tokens):
        yield ("web", "tokens", number, "token"), token.token


def _secrets_of_alerts(settings: Settings) -> Iterator[tuple[Keys, SecretRef]]:
    for number, alert in enumerate(settings.alerts):
        if alert.apprise is not None:
            yield ("alerts", number, "apprise"), alert.apprise
        if alert.webhook is not None and alert.webhook.host is None:  # else written as it is
            yield ("alerts", number, "webhook"), alert.webhook.reference
