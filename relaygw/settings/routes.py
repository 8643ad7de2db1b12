"""The sections `routes` and `relay_to`: which provider a message goes to.

`relay_to` is short for one provider each for other gateways, and a route over them in order. An
entry is a URL, or `{url: ..., password: ...}` where the gateway wants a login:

    smtp://USER@HOST:PORT     STARTTLS, certificate verified; port 587
    smtps://USER@HOST:PORT    TLS at once, certificate verified; port 465

`?tls=encrypt`, `?tls=opportunistic` or `?tls=none` asks less of smtp. A password in a URL is
refused: URLs are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import Field, PlainSerializer, PlainValidator, TypeAdapter, field_validator

from relaygw.settings.addresses import Bind, HeaderName, Host, Name, Pattern, is_loopback_host
from relaygw.settings.listeners import UserLogin
from relaygw.settings.secrets import SecretRef, UserName
from relaygw.settings.section import Conflict, Section, unknown_names
from relaygw.settings.tree import FilledValues, Tree

if TYPE_CHECKING:
    from relaygw.settings.model import Settings


class Stream(StrEnum):
    """Kinds of mail; transactional goes first."""

    TRANSACTIONAL = "transactional"
    PROMOTIONAL = "promotional"


class Route(Section):
    """A condition on a message and where it goes; the first match wins."""

    name: Name = Field(examples=["default"])
    sender: tuple[Pattern, ...] = ()
    recipient: tuple[Pattern, ...] = ()
    header: dict[HeaderName, str] = {}  # header name: glob; all must match
    listener: tuple[Bind, ...] = ()  # one of the listeners, by its bind
    user: tuple[UserLogin, ...] = ()  # one of the users
    stream: Stream = Stream.TRANSACTIONAL
    providers: tuple[str, ...] = Field(examples=["[NAME]"])  # the next while the first is down

    @field_validator("providers")
    @classmethod
    def _each_once(cls, providers: tuple[str, ...]) -> tuple[str, ...]:
        if not providers:
            raise ValueError("names no provider; write one")
        if len(set(providers)) < len(providers):
            raise ValueError("names a provider twice; write each once")
        return providers

    @property
    def is_unconditional(self) -> bool:
        """True when the route matches every message."""
        conditions = (self.sender, self.recipient, self.header, self.listener, self.user)
        return not any(conditions)


def route_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check what mode, providers and routes must agree on."""
    if settings.mode != "sandbox":
        if not settings.providers:
            yield Conflict(
                ("providers",), f"mode {settings.mode} sends mail and needs a provider; add one"
            )
        if not settings.routes or not settings.routes[-1].is_unconditional:
            yield Conflict(
                ("routes",),
                "the last route must have no condition, so that every message matches a route; "
                "add {name: default, providers: [NAME]} at the end",
            )
    binds = [str(listener.bind) for listener in settings.listeners]
    users = [user.name for user in settings.users]
    seen: dict[str, int] = {}
    last = len(settings.routes) - 1
    for number, route in enumerate(settings.routes):
        place = ("routes", number)
        earlier = seen.setdefault(route.name, number)
        if earlier != number:
            yield _same_name(settings, earlier, number)
        if route.is_unconditional and number != last:
            end = "no route after it is ever used; move it to the end"
            if settings.relay_to:
                end = "relay_to is never used; remove one of the two"
            yield Conflict(place, f'route "{route.name}" has no condition, so {end}')
        yield from unknown_names(
            (*place, "providers"), route.providers, "providers", settings.providers
        )
        yield from unknown_names((*place, "listener"), map(str, route.listener), "listeners", binds)
        yield from unknown_names((*place, "user"), route.user, "users", users)


def _same_name(settings: Settings, earlier: int, number: int) -> Conflict:
    name = settings.routes[number].name
    if settings.relay_to and number == len(settings.routes) - 1:
        number, whose = earlier, "the route that relay_to creates"
    else:
        whose = "an earlier route"
    return Conflict(("routes", number, "name"), f'"{name}" is the name of {whose}; choose another')


_ROUTE = "default"  # the name of the route over the gateways; it is the last one
_USUAL_PORT = 587
_PORTS = {"smtp": _USUAL_PORT, "smtps": 465}
_TLS = {"smtp": ("required", "encrypt", "opportunistic", "none"), "smtps": ("implicit",)}
_HOST: TypeAdapter[str] = TypeAdapter(Host)
_USER: TypeAdapter[str] = TypeAdapter(UserName)
_WITH_PASSWORD = 'write {url: "smtp://USER@HOST:PORT", password: "env:NAME"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Another gateway to hand mail to."""

    url: str
    host: str
    port: int
    tls: str
    username: str | None = None
    password: SecretRef | None = None

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read one entry of `relay_to`; ValueError texts never show any of it."""
        if isinstance(value, cls):
            return value
        password = None
        if isinstance(value, dict):
            if set(value) - {"url", "password"} or not isinstance(value.get("url"), str):
                raise ValueError(f"is not a gateway; {_WITH_PASSWORD}")
            if value.get("password") is not None:
                password = _password(value["password"])
            value = value["url"]
        if not isinstance(value, str):
            raise ValueError("is not a URL; write e.g. smtp://gw1.example.com:587")
        parts, port = _split(value)
        username = unquote(parts.username) if parts.username else None
        if (username is None) != (password is None):
            has, lacks = "a user name", "password"
            if username is None:
                has, lacks = "a password", "user name"
            raise ValueError(f"has {has} but no {lacks}; {_WITH_PASSWORD}")
        relay = cls(
            url=value,
            host=_checked(_HOST, parts.hostname, "has no host name or IP address"),
            port=port,
            tls=_tls(parts),
            username=username and _checked(_USER, username, "has an invalid user name"),
            password=password,
        )
        if relay.tls == "none" and password is not None and not is_loopback_host(relay.host):
            raise ValueError(
                "would send the password in clear text; remove tls=none, or write a provider with "
                "auth_without_tls: true on a trusted network"
            )
        return relay

    @property
    def name(self) -> str:
        """The provider's name, whatever other gateways there are: the host, and a port but 587."""
        suffix = "" if self.port == _USUAL_PORT else f"-{self.port}"
        host = re.sub(r"[^a-z0-9_-]", "-", self.host.lower()).strip("-_") or "gateway"
        return host[: 63 - len(suffix)] + suffix

    def provider(self) -> dict[str, Any]:
        """Return the keys of its provider."""
        keys: dict[str, Any] = {"host": self.host, "port": self.port, "tls": self.tls}
        if self.password is not None:
            keys |= {"username": self.username, "password": self.password}
        return keys | {"send_source": True}

    def written(self) -> str | dict[str, str]:
        """Return the form that `parse` reads."""
        if self.password is None:
            return self.url
        return {"url": self.url, "password": str(self.password)}


RelayEntry = Annotated[
    Relay, PlainValidator(Relay.parse), PlainSerializer(Relay.written, when_used="json")
]


def _password(value: object) -> SecretRef:
    try:
        return SecretRef.parse(value)
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"has a password that {problem}")


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None  # its text may hold a password
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("is not a URL of smtp or smtps; write e.g. smtp://gw1.example.com:587")
    if parts.password is not None:
        raise ValueError(f"holds a password; {_WITH_PASSWORD}, and change the exposed password")
    if parts.path not in ("", "/") or parts.fragment or port == 0:
        raise ValueError("is not smtp://USER@HOST:PORT; remove everything after the port")
    return parts, port or _PORTS[parts.scheme]


def _tls(parts: SplitResult) -> str:
    allowed = _TLS[parts.scheme]
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    tls = query.pop("tls", allowed[0])
    if query or tls not in allowed:
        forms = " or ".join(f"?tls={mode}" for mode in allowed)
        raise ValueError(f"has an unknown query; write {forms}, or none")
    return tls


def _checked(kind: TypeAdapter[str], value: object, problem: str) -> str:
    try:
        return kind.validate_python(value)
    except ValueError:
        pass  # raised outside the handler: the caught error shows the value
    raise ValueError(f"{problem}; write e.g. smtp://gw1.example.com:587")


def fill_relay_to(filling: FilledValues, tree: Tree) -> None:
    """Add the providers and the route of `relay_to`; a wrong entry is left to the model."""
    entries = filling.values.get("relay_to")
    providers = filling.values.get("providers") or {}
    routes = filling.values.get("routes") or []
    if not (entries and isinstance(entries, list)):
        return
    if not (isinstance(providers, dict) and isinstance(routes, list)):
        return
    try:
        relays = [Relay.parse(entry) for entry in entries]
    except ValueError:
        return
    made: dict[str, Any] = {}
    for number, relay in enumerate(relays):
        name, at = relay.name, ("relay_to", number)
        if name in made:
            filling.problems[at] = f"repeats {relay.host}:{relay.port}; remove one"
        elif name in providers:
            filling.problems[at] = (
                f'creates a provider "{name}", but there is one of that name; rename it, or '
                "remove this entry and list the provider in a route"
            )
        else:
            origin = str(tree.place_of(at) or "default")
            made[name] = filling.lay_under({}, relay.provider(), ("providers", name), origin)
    filling.values["providers"] = {**providers, **made}
    route = {"name": _ROUTE, "providers": list(dict.fromkeys(relay.name for relay in relays))}
    origin = str(tree.place_of(("relay_to",)) or "default")
    filled = filling.lay_under({}, route, ("routes", len(routes)), origin)
    filling.values["routes"] = [*routes, filled]
