"""What a configuration does with mail from one address to another, in words.

Follows the same steps as acceptance: rewrite, block and allow, route. Nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from relaygw.cli.text import labelled

if TYPE_CHECKING:
    from relaygw.settings.model import Listener, Settings
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
    from relaygw.policy.explaining import Explainer
    from relaygw.policy.rewriting import Rewriter

    rewriter = Rewriter(settings.rewrite, settings.hostname)
    used_sender = rewriter.sender(sender)
    rewritten = rewriter.recipient(recipient)
    yield labelled("sender", _change(sender or "<>", used_sender or "<>"))
    yield labelled("recipient", _change(recipient, rewritten))
    way = Explainer(settings).way(
        sender=used_sender, recipient=rewritten, headers=headers, listener=listener, user=user
    )
    yield labelled("decision", way.decision)
    yield labelled("route", way.route)
    for name in way.providers:
        yield labelled("provider", f"{name}: {provider_words(settings.providers[name])}")
    if way.route_name is not None:
        yield from _field_lines(settings, headers, listener=listener, user=user)
    if way.unseen_headers:
        names = ", ".join(way.unseen_headers)
        yield labelled("note", f"an earlier route looks at {names}; see --header")


def _field_lines(
    settings: Settings, headers: Mapping[str, str], *, listener: str | None, user: str | None
) -> Iterator[str]:
    """Yield what happens to fields in which a provider reads recipients."""
    from relaygw.mail.envelope import Source
    from relaygw.policy.recipient_fields import FieldRules

    source = Source(listener=listener, user=user)
    rule = FieldRules(settings).of(source, accepted_in=settings.mode, is_released=False)
    if rule is None:
        return
    lines = (f"{name}: {' '.join(value.split())}\r\n" for name, value in headers.items())
    found = rule.look("".join(lines).encode())
    if found.obstacle is not None:
        yield labelled("fields", f"the mail is held: {found.obstacle}")
    elif found.names:
        yield labelled(
            "fields",
            f"left out, as a provider reads recipients there: "
            f"{', '.join(found.names)} ({found.why})",
        )


def _change(given: str, used: str) -> str:
    return f"{given}, as given" if given == used else f"{given} becomes {used} (rewrite)"
