"""What a mistake in a configuration of Postfix is, what rules that find some look at, a mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from relaygw.postfix.classes import (
    REST,
    host_of,
    recipient_classes,
    sample,
    sender_classes,
    written_hops,
)
from relaygw.postfix.deliveries import Delivery, Hop, Stop, hop_of
from relaygw.postfix.main_cf import Configuration, Parameter, PostfixUnreadable, Service
from relaygw.postfix.maps import Entry
from relaygw.postfix.report import Report
from relaygw.postfix.resolve import Resolver
from relaygw.postfix.rewriting import Rewriting
from relaygw.settings.addresses import is_loopback_host
from relaygw.settings.tree import Place


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake."""

    place: str
    rule: str
    problem: str
    postfix: str  # what to do there
    relaygw: str  # what relaygw does, or what to do here
    is_hint: bool = False  # it is as Postfix has it by default

    @property
    def kind(self) -> str:
        """What it is called."""
        return "hint" if self.is_hint else "mistake"

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}: {self.problem}"


class Subject:
    """What the rules look at."""

    def __init__(self, rewriting: Rewriting) -> None:
        self.rewriting = rewriting
        self.resolver: Resolver = rewriting.resolver
        self.configuration: Configuration = self.resolver.configuration

    def place(self, name: str) -> str:
        """Return where a parameter is set."""
        return str(self.configuration.place(name))

    @cached_property
    def deliveries(self) -> list[tuple[str, Delivery]]:
        """The ways of senders to anybody, and of anybody to recipients."""
        found, nobody = [], Report()
        senders = sender_classes(self.resolver, nobody)
        recipients = recipient_classes(self.resolver, nobody)
        for sender, recipient in chain(
            ((one, REST) for one in senders), ((REST, one) for one in recipients)
        ):
            try:
                found.append((sender, self.resolver.route(sample(sender), sample(recipient))))
            except PostfixUnreadable:
                continue
        return found

    @cached_property
    def hops(self) -> dict[tuple[Hop, str], Delivery]:
        """Each next hop and its transport, once; those of the recipients' own are not here."""
        return {
            (stop.hop, delivery.transport): delivery
            for _, delivery in self.deliveries
            for stop in delivery.stops
            if not stop.hop.host.endswith(".invalid")
        }

    def service(self, transport: str) -> Service | None:
        """Return the service of a transport."""
        return self.configuration.service(transport)

    def passwords(self, service: Service | None = None) -> list[Entry]:
        """Return the lines of the password maps."""
        tables = self.resolver.tables.of("smtp_sasl_password_maps", service)
        return [entry for table in tables for entry in table.entries if not table.is_static]


Rule = Callable[[Subject], Iterator[Finding]]


# --- without the mistakes ---------------------------------------------------------------


_WRAPPED_PORTS = (465, 2465)


def mended(configuration: Configuration) -> Configuration:
    """Return the configuration with logins where there are passwords."""
    found = replace(configuration, parameters=dict(configuration.parameters))
    names = ("smtp_sasl_auth_enable", "smtp_sender_dependent_authentication")
    if not configuration.value("smtp_sasl_password_maps"):
        return found
    for name in names:
        place = configuration.place(name)
        found.parameters[name] = Parameter(name, "yes", Place("--mend", place.line, place.file))
    return found


class MendedResolver(Resolver):
    """Finds a password in whatever form it is written, and never sends one in clear."""

    @cached_property
    def _written(self) -> set[str]:
        return {one.lower() for one in written_hops(self)}

    def login_entry(
        self, sender: str, hop: Hop, written: str, service: Service | None = None
    ) -> Entry | None:
        """Return the line that was meant; see Resolver."""
        found = super().login_entry(sender, hop, written, service)
        if found is not None and "@" in found.key and not self._is_own_hop(sender, hop):
            found = super().login_entry("", hop, written, service)  # his password is for others
        if found is not None or not self.configuration.is_on("smtp_sasl_auth_enable", service):
            return found
        for table in self.tables.of("smtp_sasl_password_maps", service):
            for entry in table.entries:
                is_of_host = host_of(entry.key) == hop.host
                if is_of_host and entry.key.lower() not in self._written:
                    return entry
        return None

    def _is_own_hop(self, sender: str, hop: Hop) -> bool:
        """Return whether a sender's mail goes there but for single recipients."""
        _, nexthop, _ = self._by_class(sender, sample(REST).partition("@")[2])
        return host_of(nexthop) == hop.host and hop_of(nexthop).port == hop.port

    def _stop(self, sender: str, hop: Hop, written: str, service: Service | None) -> Stop:
        stop = super()._stop(sender, hop, written, service)
        if hop.port in _WRAPPED_PORTS:
            stop = replace(stop, is_wrapped=True)
        is_open = stop.login is not None and stop.tls in ("none", "may")
        if is_open and not is_loopback_host(hop.host):
            stop = replace(stop, tls="verify")
        return stop
