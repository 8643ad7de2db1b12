"""The section `routes`: which provider a message goes to, and what routes must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from relaygw.settings.addresses import Bind, HeaderName, Name, Pattern
from relaygw.settings.listener import UserLogin
from relaygw.settings.section import Conflict, Section, unknown_names

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
