"""What the section `web` and the mode must agree on: mail is shown to nobody by accident."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from relaygw.settings.conflicts import Conflict

if TYPE_CHECKING:
    from relaygw.settings.model import Settings
    from relaygw.settings.web import WebToken, WebUser


def web_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check who may see captured mail, and that each name is one user or one token."""
    web = settings.web
    if web.open and settings.mode != "sandbox":
        yield Conflict(
            ("web", "open"),
            f"shows captured mail to everyone in mode {settings.mode}; only mode sandbox "
            "may, remove it",
        )
    elif web.open and web.has_logins:
        yield Conflict(
            ("web", "open"),
            "lets everyone in, and there are web.users or web.tokens; remove one of the two",
        )
    if settings.mode == "sandbox" and not (web.bind.is_loopback or web.open or web.has_logins):
        yield Conflict(
            ("web", "bind"),
            f"{web.bind} would show captured mail to the network without a login; add web.users, "
            "or write 127.0.0.1:8025, or web.open: true if everyone there may read it",
        )
    yield from _names(web.users, web.tokens)
    for number, network in enumerate(web.proxies):
        if network.prefixlen == 0:
            yield Conflict(
                ("web", "proxies", number),
                f"{network} believes everyone's word on who they are; list your reverse proxies",
            )


def _names(users: Sequence[WebUser], tokens: Sequence[WebToken]) -> Iterator[Conflict]:
    """Check names: the audit trail tells who did something by the name alone."""
    named = [(("web", "users", n, "name"), user.name) for n, user in enumerate(users)]
    named += [(("web", "tokens", n, "name"), token.name) for n, token in enumerate(tokens)]
    seen: set[str] = set()
    for keys, name in named:
        if name.lower() in seen:
            yield Conflict(
                keys, f'"{name}" is the name of an earlier user or token; choose another'
            )
        seen.add(name.lower())
