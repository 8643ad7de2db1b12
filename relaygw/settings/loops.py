"""Listeners by which the mail of a provider would come back to it: the gateway would be its own."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from relaygw.settings.addresses import Bind
from relaygw.settings.section import Mode

if TYPE_CHECKING:
    from relaygw.settings.model import Settings

_LOCALHOST = ("127.0.0.1", "::1")


def looping_binds(settings: Settings, provider: str) -> tuple[Bind, ...]:
    """Return where listeners are that hand mail to a provider, whatever else of it they know.

    Not those that capture all of it, and none whose mail a route of their own takes elsewhere.
    """
    return tuple(
        listener.bind
        for listener in settings.listeners
        if (listener.mode or settings.mode) is not Mode.SANDBOX
        and _comes_back(settings, provider, listener.bind)
    )


def _comes_back(settings: Settings, provider: str, bind: Bind) -> bool:
    for route in settings.routes:
        if route.user or (route.listener and bind not in route.listener):
            continue  # mail that comes from a provider has no user
        if provider in route.providers:
            return True
        if route.listener:
            return False
    return False


def listening_at(host: str, port: int, binds: tuple[Bind, ...]) -> Bind | None:
    """Return the one of `binds` that takes connections to an address of this machine, if any.

    A name but localhost is none.
    """
    hosts = _LOCALHOST if host.lower() == "localhost" else (host.partition("%")[0],)
    try:
        here = [Bind(str(ip_address(address)), port) for address in hosts]
    except ValueError:
        return None
    return next((bind for bind in binds if any(map(bind.overlaps, here))), None)
