"""What a configuration does with mail from one address to another, in words.

Follows the same steps as acceptance: rewrite, block and allow, route. Nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from relaygw.cli.text import labelled

if TYPE_CHECKING:
    from relaygw.policy.recipients import Decision
    from relaygw.settings.model import Listener, Route, Settings
    from relaygw.settings.provider import Provider

_TLS_WORDS = {
    "required": "STARTTLS, verified",
    "implicit": "TLS at once, verified",
    "opportunistic": "STARTTLS if offered, not verified",
    "none": "no TLS",
}


def provider_words(provider: Provider) -> str:
    """Return where a provider is and how it is spoken to."""
    auth = "AUTH" if provider.has_credentials else "no AUTH"
    return f"{provider.host}:{provider.port}, {_TLS_WORDS[provider.tls.value]}, {auth}"


def listener_words(listener: Listener, *, has_users: bool) -> str:
    """Return who may send through a listener, and how."""
    networks = ", ".join(map(str, listener.allow)) or "nobody"
    # no password is taken in clear over a network
    can_log_in = has_users and (listener.tls.mode != "off" or listener.bind.is_loopback)
    who = {"required": "users only", "off": networks}.get(
        listener.auth, f"{networks} and users" if can_log_in else networks
    )
    tls = {"starttls": ", STARTTLS", "implicit": ", TLS at once"}.get(listener.tls.mode, "")
    balancers = ", behind a balancer" if listener.proxy_protocol else ""
    mode = f", mode {listener.mode.value}" if listener.mode is not None else ""
    return f"{who}{tls}{balancers}{mode}"


def web_words(settings: Settings) -> str:
    """Return who may look at captured mail."""
    web = settings.web
    if web.has_logins:
        kinds = (("user", len(web.users)), ("token", len(web.tokens)))
        return " and ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in kinds if n)
    if settings.mode.value != "sandbox":
        return "health checks only: there are no web.users"
    return "everyone who can connect" if web.open else "everyone on this machine"


def explain(
    settings: Settings,
    *,
    sender: str,
    recipient: str,
    headers: Mapping[str, str],
    listener: str | None = None,
    user: str | None = None,
) -> Iterator[str]:
    """Yield the lines; header names are in lower case."""
    from relaygw.policy.modes import Modes
    from relaygw.policy.recipients import Fate, RecipientPolicy
    from relaygw.policy.rewriting import Rewriter
    from relaygw.policy.routing import Router

    rewriter = Rewriter(settings.rewrite, settings.hostname)
    used_sender = rewriter.sender(sender)
    rewritten = rewriter.recipient(recipient)
    yield labelled("sender", _change(sender or "<>", used_sender or "<>"))
    yield labelled("recipient", _change(recipient, rewritten))
    mode = Modes(settings).of(listener, user)
    decision = RecipientPolicy(settings.mode, settings.recipients).decide(rewritten, mode)
    target = decision.redirect_to or rewritten
    route = Router(settings.routes).route_for(
        sender=used_sender, recipient=target, headers=headers, listener=listener, user=user
    )
    yield labelled("decision", _fate_words(decision))
    if decision.fate is not Fate.DELIVER:
        yield labelled("route", "none is used, nothing is sent")
    elif route is None:
        yield labelled("route", "none matches: captured, nothing is sent")
    else:
        yield from _way_out(settings, route)
        yield from _header_note(settings, route, headers)


def _change(given: str, used: str) -> str:
    return f"{given}, as given" if given == used else f"{given} becomes {used} (rewrite)"


def _fate_words(decision: Decision) -> str:
    if decision.redirect_to:
        return f"sent to {decision.redirect_to} instead ({decision.reason})"
    words = {
        "deliver": "sent",
        "capture": "captured, 250 to the client",
        "drop": "dropped and recorded, 250 to the client",
        "reject": "rejected, 550 5.7.1 to the client",
    }[decision.fate.value]
    return f"{words}: {decision.reason}" if decision.reason else words


def _way_out(settings: Settings, route: Route) -> Iterator[str]:
    position = settings.routes.index(route) + 1
    why = "no condition" if route.is_unconditional else "its conditions match"
    yield labelled(
        "route",
        f"{route.name} ({route.stream.value}), number {position} of {len(settings.routes)}: {why}",
    )
    for name in route.providers:
        yield labelled("provider", f"{name}: {provider_words(settings.providers[name])}")


def _header_note(settings: Settings, route: Route, headers: Mapping[str, str]) -> Iterator[str]:
    """Name the headers by which an earlier route might have matched."""
    earlier = settings.routes[: settings.routes.index(route)]
    names = sorted({name for one in earlier for name in one.header if name.lower() not in headers})
    if names:
        yield labelled("note", f"an earlier route looks at {', '.join(names)}; see --header")
