"""What the keys of one provider that have to do with logging in must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from relaygw.settings.addresses import is_loopback_host
from relaygw.settings.conflicts import Conflict

if TYPE_CHECKING:
    from relaygw.settings.provider import Provider


def auth_conflicts(provider: Provider) -> Iterator[Conflict]:
    """Check one provider: user name and secret come together, and never in clear over a network."""
    yield from _oauth_conflicts(provider)
    if provider.username is not None and not provider.has_credentials:
        if provider.auth != "xoauth2" and provider.oauth is None:  # else it is told already
            yield Conflict(("username",), "has no password beside it; set both or neither")
        return
    if provider.username is None and provider.password is not None:
        yield Conflict(("password",), "has no username beside it; set both or neither")
    is_clear = provider.tls == "none" and not is_loopback_host(provider.host)
    if provider.has_credentials and is_clear and not provider.auth_without_tls:
        secret = "access token" if provider.uses_xoauth2 else "password"
        yield Conflict(
            ("tls",),
            f"none would send the {secret} to {provider.host} in clear text; write "
            "tls: required, or auth_without_tls: true if the network is yours",
        )


def _oauth_conflicts(provider: Provider) -> Iterator[Conflict]:
    oauth = provider.oauth
    if oauth is None:
        if provider.auth == "xoauth2":
            yield Conflict(
                ("auth",), "xoauth2 needs to know where tokens come from; add the section oauth"
            )
        return
    if not provider.uses_xoauth2:
        yield Conflict(
            ("oauth",),
            f"is of no use with auth: {provider.auth}; write auth: xoauth2, or remove one of them",
        )
    if provider.username is None:
        yield Conflict(
            ("oauth",), "has no username beside it; add the mailbox that the token is for"
        )
    if oauth.client_secret is None and oauth.refresh_token is None:
        yield Conflict(
            ("oauth",), "has neither client_secret nor refresh_token; add what your provider gave"
        )
