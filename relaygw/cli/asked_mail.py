"""One mail that `relaygw check` is asked about: its way, what stays behind, who is suppressed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relaygw.cli.frame import Invocation
from relaygw.cli.text import labelled
from relaygw.errors import SchemaMismatch, SettingsError, StoreUnavailable
from relaygw.mail.envelope import Source
from relaygw.mail.suppression import Action
from relaygw.policy.recipients import Screen
from relaygw.policy.router import Explainer, Rewriter, Way
from relaygw.settings.load import LoadedSettings
from relaygw.settings.model import Settings


@dataclass(frozen=True, slots=True)
class AskedMail:
    """What is known of it."""

    sender: str | None
    recipient: str | None
    headers: Mapping[str, str]  # names in lower case
    listener: str | None
    user: str | None


def way_of(settings: Settings, mail: AskedMail) -> tuple[str, str, Way]:
    """Return sender and recipient as they are rewritten, and the way of the mail."""
    rewriter = Rewriter(settings.rewrite, settings.hostname)
    sender, recipient = rewriter.sender(mail.sender or ""), rewriter.recipient(mail.recipient or "")
    way = Explainer(settings).way(
        sender=sender,
        recipient=recipient,
        headers=mail.headers,
        listener=mail.listener,
        user=mail.user,
    )
    return sender, recipient, way


def field_lines(settings: Settings, mail: AskedMail) -> Iterator[str]:
    """Yield what is said of its header."""
    source = Source(listener=mail.listener, user=mail.user)
    rule = Screen(settings).field_rule(source, settings.mode)
    if rule is None:
        return
    lines = (f"{name}: {' '.join(value.split())}\r\n" for name, value in mail.headers.items())
    found = rule.look("".join(lines).encode())
    if found.obstacle is not None:
        yield labelled("fields", f"the mail is held: {found.obstacle}")
    elif found.names:
        names = ", ".join(found.names)
        words = f"left out, because a provider would read recipients from it: {names} ({found.why})"
        yield labelled("fields", words)


def change(given: str, used: str) -> str:
    """Return an address, and what it was rewritten to."""
    return f"{given}, as given" if given == used else f"{given} becomes {used} (rewrite)"


def suppression_lines(
    invocation: Invocation, loaded: LoadedSettings, mail: AskedMail
) -> Iterator[str]:
    """Yield whether its recipient is suppressed; a queue out of reach says nothing."""
    sender, recipient, way = way_of(loaded.settings, mail)
    route = next((one for one in loaded.settings.routes if one.name == way.route_name), None)
    if route is None:
        return
    try:
        with invocation.open_store(loaded) as store:
            look = store.suppressions.listed_for
            listed = look([recipient], sender=sender, stream=route.stream.value).get(recipient)
    except (StoreUnavailable, SchemaMismatch, SettingsError):
        return
    if listed is not None:
        what = "not sent" if listed.action is Action.BLOCK else "sent with a warning"
        yield labelled("suppressed", f"{what}: {listed.sentence.partition(': ')[2]}")
