"""What a mistake in a configuration of Postfix is, and what the rules that find some look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from relaygw.postfix.classes import REST, recipient_classes, sample, sender_classes
from relaygw.postfix.deliveries import Delivery, Hop
from relaygw.postfix.main_cf import Configuration, PostfixUnreadable, Service
from relaygw.postfix.maps import Entry
from relaygw.postfix.report import Report
from relaygw.postfix.resolve import Resolver
from relaygw.postfix.rewriting import Rewriting


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
