"""What two keys of a configuration must agree on.

Each function yields what it finds wrong; `raise_conflicts` turns all of it into one
exception that pydantic carries to the loader, which adds file and line. A path is relative
to the section that is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from relaygw.settings.addresses import entry_matches

if TYPE_CHECKING:
    from relaygw.settings.model import Recipients, Retry, Route, Settings


class Conflict(NamedTuple):
    """One disagreement: the key to point at, and what is wrong with the remedy."""

    path: tuple[str | int, ...]
    problem: str


class ConflictsFound(ValueError):
    """Keys that do not fit together; a ValueError, so that pydantic collects it."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, c.path))}: {c.problem}" for c in conflicts))
        self.conflicts = conflicts


def raise_conflicts(found: Iterable[Conflict]) -> None:
    """Raise ConflictsFound with everything in `found`, if there is anything."""
    conflicts = list(found)
    if conflicts:
        raise ConflictsFound(conflicts)


def recipients_conflicts(recipients: Recipients) -> Iterator[Conflict]:
    """Check that mail is only redirected to someone who may receive it."""
    target = recipients.refused.redirect_to
    if target is not None and not any(entry_matches(e, target) for e in recipients.allow):
        yield Conflict(
            ("refused",), f"redirects to {target}, who may not receive; add it to recipients.allow"
        )


def retry_conflicts(retry: Retry) -> Iterator[Conflict]:
    """Check that the delays can grow from first to max."""
    if retry.first > retry.max:
        yield Conflict(("first",), "is longer than retry.max; write a shorter delay")


def settings_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check what sections must agree on: mode, providers and routes."""
    if settings.mode != "sandbox":
        if not settings.providers:
            yield Conflict(
                ("providers",), f"mode {settings.mode} sends mail and needs a provider; add one"
            )
        if not settings.routes or not settings.routes[-1].is_unconditional:
            yield Conflict(
                ("routes",),
                "the last route must have no condition, so that every message finds one; add "
                "{name: default, providers: [NAME]} at the end",
            )
    yield from _route_conflicts(settings)


def _route_conflicts(settings: Settings) -> Iterator[Conflict]:
    seen: dict[str, int] = {}
    last = len(settings.routes) - 1
    for number, route in enumerate(settings.routes):
        earlier = seen.setdefault(route.name, number)
        if earlier != number:
            yield _same_name(settings, earlier, number)
        if route.is_unconditional and number != last:
            yield Conflict(("routes", number), _never_reached(settings, route))
        yield from _unknown_providers(settings, number, route)
        yield from _unknown_sources(settings, number, route)


def _same_name(settings: Settings, earlier: int, number: int) -> Conflict:
    name = settings.routes[number].name
    if settings.relay_to and number == len(settings.routes) - 1:
        return Conflict(
            ("routes", earlier, "name"),
            f'"{name}" is the name of the route that relay_to makes; choose another',
        )
    return Conflict(
        ("routes", number, "name"), f'"{name}" is the name of an earlier route; choose another'
    )


def _never_reached(settings: Settings, route: Route) -> str:
    if settings.relay_to:
        return (
            f'route "{route.name}" has no condition, so relay_to is never used; remove one of the '
            "two"
        )
    return (
        f'route "{route.name}" has no condition, so no route after it is ever used; '
        "move it to the end"
    )


def _unknown_providers(settings: Settings, number: int, route: Route) -> Iterator[Conflict]:
    known = ", ".join(settings.providers) or "none yet"
    for position, provider in enumerate(route.providers):
        if provider not in settings.providers:
            yield Conflict(
                ("routes", number, "providers", position),
                f'"{provider}" is not one of the providers; write one of: {known}',
            )


def _unknown_sources(settings: Settings, number: int, route: Route) -> Iterator[Conflict]:
    binds = [str(listener.bind) for listener in settings.listeners]
    users = [user.name for user in settings.users]
    for key, wanted, known in (
        ("listener", tuple(map(str, route.listener)), binds),
        ("user", route.user, users),
    ):
        for position, name in enumerate(wanted):
            if name not in known:
                yield Conflict(
                    ("routes", number, key, position),
                    f'"{name}" is not one of the {key}s; write one of: '
                    + (", ".join(known) or "none yet"),
                )
