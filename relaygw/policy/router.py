"""Which route a recipient takes: the first whose conditions match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from relaygw.policy.recipients import AddressPatterns, Fate, Modes, RecipientPolicy
from relaygw.settings.model import Settings
from relaygw.settings.routes import Route, Stream
from relaygw.settings.section import Mode

CAPTURE_ROUTE = "captured"  # of captured mail where no route is configured or matches

_PROVIDER = "provider:"  # no name that may stand in a configuration has a colon


def provider_route(provider: str, stream: str = "transactional") -> str:
    """Return the route of mail that an operator moved to one provider, apart by stream."""
    name = f"{_PROVIDER}{provider}"
    return name if stream == Stream.TRANSACTIONAL else f"{name}:{stream}"


def provider_of_route(route: str) -> str | None:
    """Return the provider of such a route, None of one that is configured."""
    if not route.startswith(_PROVIDER):
        return None
    return route.removeprefix(_PROVIDER).partition(":")[0]


def providers_of(settings: Settings, route: str) -> tuple[str, ...]:
    """Return the configured providers that mail of a route may take, in their order."""
    moved_to = provider_of_route(route)
    configured = (entry.providers for entry in settings.routes if entry.name == route)
    names = next(configured, ()) if moved_to is None else (moved_to,)
    return tuple(name for name in names if name in settings.providers)


class _CompiledRoute:
    def __init__(self, route: Route) -> None:
        self.route = route
        self._sender = AddressPatterns(route.sender) if route.sender else None
        self._recipient = AddressPatterns(route.recipient) if route.recipient else None
        self._headers = {name.lower(): glob.lower() for name, glob in route.header.items()}
        self._listeners = frozenset(map(str, route.listener))
        self._users = frozenset(route.user)

    def matches(
        self,
        sender: str,
        recipient: str,
        headers: Mapping[str, str],
        listener: str | None,
        user: str | None,
    ) -> bool:
        return (
            (not self._listeners or listener in self._listeners)
            and (not self._users or user in self._users)
            and (self._sender is None or (sender != "" and self._sender.matches(sender)))
            and (self._recipient is None or self._recipient.matches(recipient))
            and (
                not self._headers
                or all(
                    name in headers and fnmatchcase(headers[name].lower(), glob)
                    for name, glob in self._headers.items()
                )
            )
        )


class Router:
    """The routes of a configuration, compiled once."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [_CompiledRoute(route) for route in routes]
        self.header_names = frozenset(name.lower() for route in routes for name in route.header)
        """The header fields that conditions look at, in lower case."""

    def route_for(
        self,
        *,
        sender: str,
        recipient: str,
        headers: Mapping[str, str],
        listener: str | None = None,
        user: str | None = None,
    ) -> Route | None:
        """Return the route, or None when no route matches.

        `headers` holds the first value of each of `header_names`. The null sender, no listener and
        no user match no condition on them.
        """
        for compiled in self._routes:
            if compiled.matches(sender, recipient, headers, listener, user):
                return compiled.route
        return None


# --- in words ------------------------------------------------------------------------------


_FATES = {
    Fate.DELIVER: "sent",
    Fate.CAPTURE: "captured, 250 to the client",
    Fate.DROP: "dropped and recorded, 250 to the client",
    Fate.REJECT: "rejected, 550 5.7.1 to the client",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What happens to mail to one recipient, and why."""

    decision: str
    route: str  # in words
    route_name: str | None  # None: none is used
    providers: tuple[str, ...] = ()
    unseen_headers: tuple[str, ...] = ()  # by which an earlier route might have matched
    is_redirected: bool = False


class Explainer:
    """Explains the ways of one configuration, compiled once."""

    def __init__(self, settings: Settings) -> None:
        self._routes = settings.routes
        self._modes = Modes(settings)
        self._policy = RecipientPolicy(settings.mode, settings.recipients)
        self._router = Router(settings.routes)
        self.header_names = self._router.header_names

    def way(
        self,
        *,
        sender: str,
        recipient: str,
        headers: Mapping[str, str],
        listener: str | None = None,
        user: str | None = None,
        accepted_in: Mode | None = None,
    ) -> Way:
        """Return the way of mail; header names are in lower case."""
        mode = self._modes.of(listener, user, accepted_in=accepted_in)
        decision = self._policy.decide(recipient, mode)
        route = self._router.route_for(
            sender=sender,
            recipient=decision.redirect_to or recipient,
            headers=headers,
            listener=listener,
            user=user,
        )
        words = _FATES[decision.fate]
        if decision.redirect_to:
            words = f"sent to {decision.redirect_to} instead ({decision.reason})"
        elif decision.reason:
            words = f"{words}: {decision.reason}"
        if decision.fate is not Fate.DELIVER or route is None:
            none = "is used" if decision.fate is not Fate.DELIVER else "matches: captured"
            return Way(decision=words, route=f"none {none}, nothing is sent", route_name=None)
        place = self._routes.index(route)
        named = {name for earlier_route in self._routes[:place] for name in earlier_route.header}
        why = "no condition" if route.is_unconditional else "its conditions match"
        number = f"number {place + 1} of {len(self._routes)}"
        return Way(
            decision=words,
            route=f"{route.name} ({route.stream.value}), {number}: {why}",
            route_name=route.name,
            providers=route.providers,
            unseen_headers=tuple(sorted(name for name in named if name.lower() not in headers)),
            is_redirected=decision.redirect_to is not None,
        )
