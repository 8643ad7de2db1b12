"""Listening sockets of the roles, held by the supervisor across restarts and reloads.

Where systemd hands sockets over (relaygw.socket), all listeners are among them, and nothing else is
but what web, metrics and events may take: on another socket nobody would answer, and one that is
opened here refuses connections while the gateway restarts.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from relaygw.errors import SettingsError, StoreUnavailable
from relaygw.settings.addresses import Bind
from relaygw.settings.model import Settings
from relaygw.state_owner import as_caller

_BIND_PATIENCE_S = 5.0  # the front of a killed supervisor needs a moment to let go


@dataclass(frozen=True, slots=True)
class _Place:
    """An address that a role listens on; `number`: how often it stood before, as port 0 may."""

    role: str
    bind: Bind
    number: int
    setting: str = field(compare=False)  # the key that says so
    service: str = field(compare=False)  # what is told of it, up to the address


class ListeningSockets:
    """One socket for each address that the settings name, for the roles that run here."""

    def __init__(self, roles: Sequence[str], *, handed: Sequence[socket.socket] = ()) -> None:
        self._roles = roles
        self._open: dict[_Place, socket.socket] = {}
        self._handed = {
            _key(Bind(*handed_socket.getsockname()[:2])): handed_socket for handed_socket in handed
        }

    def open(self, settings: Settings) -> None:
        """Listen on each address that is not open yet.

        Raises StoreUnavailable, and SettingsError unless what was handed over is what is named.
        """
        wanted = self._wanted(settings)
        if self._handed:
            self._compare(wanted)
        for place in wanted:
            if place not in self._open:
                handed = self._handed.get(_key(place.bind))
                with as_caller():  # a port below 1024 may be root's to open
                    self._open[place] = handed or _listen(place.bind, place.setting)

    def _compare(self, wanted: Sequence[_Place]) -> None:
        named = {_key(place.bind) for place in wanted}
        idle = [handed_socket for key, handed_socket in self._handed.items() if key not in named]
        missing = [
            str(place.bind)
            for place in wanted
            if place.setting == "listeners" and _key(place.bind) not in self._handed
        ]
        unnamed = [str(Bind(*handed_socket.getsockname()[:2])) for handed_socket in idle]
        problems = [
            *([f"listeners do not name {', '.join(unnamed)} of relaygw.socket"] if idle else []),
            *([f"relaygw.socket does not pass {', '.join(missing)}"] if missing else []),
        ]
        if problems:
            raise SettingsError(
                f"{'; '.join(problems)}; run: relaygw setup, or write one ListenStream= for each "
                "entry of listeners (systemctl edit relaygw.socket, with an empty ListenStream= "
                "first), then: systemctl stop relaygw.socket relaygw.service && systemctl start "
                "relaygw.socket relaygw.service"
            )

    def keep_only(self, role: str, settings: Settings) -> list[socket.socket]:
        """Return the sockets of a role in the order of its addresses; close all others."""
        places = _places_of(role, settings)
        for place, listening in self._open.items():
            if place not in places:
                listening.close()
        return self.of(role, settings)

    def of(self, role: str, settings: Settings) -> list[socket.socket]:
        """Return the sockets of a role in the order of its addresses."""
        return [self._open[place] for place in _places_of(role, settings)]

    def close_unused(self, settings: Settings) -> None:
        """Close what `settings` do not name."""
        for place in set(self._open) - set(self._wanted(settings)):
            self._open.pop(place).close()

    def close(self) -> None:
        """Close all."""
        for listening in self._open.values():
            listening.close()
        self._open.clear()

    def addresses(self, settings: Settings) -> Iterator[str]:
        """Yield what is served where, with the ports that port 0 became."""
        for place in self._wanted(settings):
            address = Bind(*self._open[place].getsockname()[:2])
            yield f"{place.service}{address}"

    def _wanted(self, settings: Settings) -> list[_Place]:
        return [place for role in self._roles for place in _places_of(role, settings)]


def _key(bind: Bind) -> tuple[IPv4Address | IPv6Address, int]:
    return ip_address("127.0.0.1" if bind.host == "localhost" else bind.host), bind.port


def _places_of(role: str, settings: Settings) -> list[_Place]:
    found: list[tuple[Bind, str, str]] = []
    if role == "front":
        found = [(listener.bind, "listeners", "SMTP on ") for listener in settings.listeners]
    elif role == "web":
        found = [(settings.web.bind, "web.bind", "web on http://")]
        if settings.metrics.bind is not None:
            found.append((settings.metrics.bind, "metrics.bind", "metrics on http://"))
        if settings.events.bind is not None:
            found.append((settings.events.bind, "events.bind", "events on http://"))
    binds = [bind for bind, _, _ in found]
    return [
        _Place(role, bind, binds[:number].count(bind), setting, service)
        for number, (bind, setting, service) in enumerate(found)
    ]


def _listen(bind: Bind, setting: str) -> socket.socket:
    """Return a listening socket; waits a moment for an address that is being let go."""
    host = "127.0.0.1" if bind.host == "localhost" else bind.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    give_up_s = time.monotonic() + _BIND_PATIENCE_S
    while True:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listening.bind((host, bind.port))
            listening.listen(1024)
            listening.setblocking(False)
            return listening
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE or time.monotonic() > give_up_s:
                raise StoreUnavailable(_bind_problem(bind, setting, error)) from error
            time.sleep(0.1)


def _move_words(bind: Bind, setting: str) -> str:
    """Return how to take another port, with a configuration file and without one."""
    other = Bind(bind.host, bind.port + (1000 if bind.port < 60_000 else -1000))
    if setting == "listeners":
        key, value = "bind of its entry in listeners", f"'[{{bind: \"{other}\"}}]'"
    else:
        key, value = setting, f"'{other}'"
    variable = f"RELAYGW__{setting.upper().replace('.', '__')}"
    return f"set {key}, or without a configuration file {variable}={value}"


def _bind_problem(bind: Bind, setting: str, error: OSError) -> str:
    remedy = {
        errno.EADDRINUSE: "another program listens there; stop it, or use another port: "
        + _move_words(bind, setting),
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(error.errno or 0, "choose another address")
    return f"cannot listen on {bind}: {error.strerror}; {remedy}"
