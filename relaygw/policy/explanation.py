"""What a configuration does with mail from one address to another, in words.

The same steps as at acceptance: block and allow, route. Pure; addresses are those after rewriting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relaygw.policy.recipients import Decision, Fate, Modes, RecipientPolicy
from relaygw.policy.router import Router
from relaygw.settings.mode import Mode
from relaygw.settings.model import Settings
from relaygw.settings.routes import Route

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


class Explainer:
    """Explains the ways of one configuration, compiled once."""

    def __init__(self, settings: Settings) -> None:
        self._routes = settings.routes
        self._modes = Modes(settings)
        self._policy = RecipientPolicy(settings.mode, settings.recipients)
        self._router = Router(settings.routes)

    @property
    def header_names(self) -> frozenset[str]:
        """The header fields that routes look at, in lower case."""
        return self._router.header_names

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
        words = _fate_words(decision)
        if decision.fate is not Fate.DELIVER:
            text = "none is used, nothing is sent"
            return Way(decision=words, route=text, route_name=None)
        if route is None:
            text = "none matches: captured, nothing is sent"
            return Way(decision=words, route=text, route_name=None)
        return Way(
            decision=words,
            route=self._route_words(route),
            route_name=route.name,
            providers=route.providers,
            unseen_headers=self._unseen_headers(route, headers),
        )

    def _route_words(self, route: Route) -> str:
        position = self._routes.index(route) + 1
        why = "no condition" if route.is_unconditional else "its conditions match"
        return (
            f"{route.name} ({route.stream.value}), number {position} of {len(self._routes)}: {why}"
        )

    def _unseen_headers(self, route: Route, headers: Mapping[str, str]) -> tuple[str, ...]:
        earlier = self._routes[: self._routes.index(route)]
        names = {name for one in earlier for name in one.header if name.lower() not in headers}
        return tuple(sorted(names))


def _fate_words(decision: Decision) -> str:
    if decision.redirect_to:
        return f"sent to {decision.redirect_to} instead ({decision.reason})"
    words = _FATES[decision.fate]
    return f"{words}: {decision.reason}" if decision.reason else words
