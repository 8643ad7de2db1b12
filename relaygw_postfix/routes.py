"""Routes and lists of recipients for the classes that a Postfix tells apart.

Mail of each pair of classes is followed through Postfix's own steps; pairs that go the same way
share a route, with lists of their senders and recipients. What is said already by a wider class is
left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from relaygw_postfix.access import REFUSING, Judgement
from relaygw_postfix.classes import is_direct, permitted_senders, recipient_classes, sender_classes
from relaygw_postfix.main_cf import PostfixUnreadable
from relaygw_postfix.providers import Providers
from relaygw_postfix.report import Report
from relaygw_postfix.resolve import Delivery, Fate, Stop
from relaygw_postfix.rewriting import AddressCircle, Rewriting, is_end
from relaygw_postfix.samples import PROBES, REST, SAMPLE, sample

Way = tuple[str, ...]
"""The providers of mail, in order."""
Value = TypeVar("Value")


@dataclass
class Routing:
    """What is found out about a configuration's ways."""

    rewriting: Rewriting
    providers: Providers
    report: Report
    senders: list[str] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    fates: dict[str, Delivery] = field(default_factory=dict)  # of recipients
    led: set[str] = field(default_factory=set)  # recipients whose mail one reader gets
    _by_kind: dict[object, tuple[Way, ...] | None] = field(default_factory=dict)

    def find_out(self) -> None:
        """Follow mail of all classes. Raises PostfixUnreadable."""
        resolver = self.rewriting.resolver
        self.senders = sender_classes(resolver, self.report)
        self.recipients = recipient_classes(resolver, self.report)
        senders = [sample(permitted_sender) for permitted_sender in permitted_senders(resolver)]
        at_door = {
            address_class: self._at_door(senders, sample(address_class))
            for address_class in self.recipients
        }
        rest = at_door[REST]
        may_be_lock = bool(rest.doubts) and any(
            judgement.delivery is None for judgement in at_door.values()
        )
        for recipient, judgement in at_door.items():
            refusal = judgement.delivery
            is_of_rest = bool(rest.doubts) and refusal == rest.delivery
            if refusal and judgement.doubts and (is_of_rest or refusal.reason in REFUSING):
                self._doubt(judgement, may_be_lock=may_be_lock)
                refusal = None
            self.fates[recipient] = refusal or resolver.route(sample(REST), sample(recipient))
        self._find_reader()

    def _find_reader(self) -> None:
        """Look whether the maps lead everybody's mail to one reader, as of a staging host."""
        resolver = self.rewriting.resolver
        try:
            finals = [self.rewriting.final_recipients(probe) for probe in PROBES]
        except AddressCircle:
            return
        reader, *others = finals[0]
        if others or any(final != [reader] for final in finals) or is_end(reader):
            return
        if resolver.route(sample(REST), reader).fate is not Fate.SEND:
            return
        where = str(resolver.configuration.place("virtual_alias_maps"))
        told = Delivery(Fate.REDIRECT, (), "", reader, (where,))
        for recipient, delivery in self.fates.items():
            is_sent = delivery.fate is Fate.SEND and recipient != reader
            if is_sent and self.rewriting.final_recipients(sample(recipient)) == [reader]:
                self.fates[recipient] = told
                self.led.add(recipient)

    def _at_door(self, senders: Sequence[str], target: str) -> Judgement:
        """Return the door's decision on a recipient's mail, from a sender who may send."""
        found: list[Judgement] = []
        for sender in senders:
            judgement = self.rewriting.access.judge(sender, target)
            if judgement.delivery is None or judgement.delivery.fate is Fate.FILTER:
                return Judgement()
            found.append(judgement)
        return min(found, key=lambda judgement: not judgement.doubts)

    def _doubt(self, judgement: Judgement, *, may_be_lock: bool) -> None:
        """Say that a refusal is not sure; stop where it may be what locks all others out."""
        what = "; ".join(dict.fromkeys(judgement.doubts))
        where = "; ".join(judgement.delivery.places if judgement.delivery is not None else ())
        if may_be_lock:
            raise PostfixUnreadable(
                f"{what}, and comes before {where}, so it is unclear whether only listed "
                "recipients receive mail; in a copy of the directory, remove it if it permits "
                "none of your hosts, or remove what comes after it if it permits them, and "
                "import the copy"
            )
        self.report.warn(
            f"{what}, and comes before {where}: relaygw assumes that it permits your hosts, and "
            "sends their mail; set mode: staging if nobody may receive mail"
        )

    @property
    def is_allow_list(self) -> bool:
        """True when only those receive who are listed."""
        return self.fates[REST].fate is not Fate.SEND

    def of_fate(self, *fates: Fate) -> list[str]:
        """Return the classes of recipients with one of these ends, but for the rest."""
        return [
            recipient
            for recipient in self.recipients
            if recipient and self.fates[recipient].fate in fates
        ]

    def routes(self) -> list[dict[str, Any]]:
        """Return the routes; the last one has no condition. Raises PostfixUnreadable."""
        sent = [
            candidate for candidate in self.recipients
            if self.fates[candidate].fate is Fate.SEND or not candidate or candidate in self.led
        ]  # fmt: skip
        vectors: dict[str, tuple[Way, ...]] = {}
        for recipient in sent:
            ways = self._ways_to(recipient)
            if ways is not None:
                vectors[recipient] = ways
        if REST not in vectors:
            vectors[REST] = self._ways_of_most(vectors)
        kept = _without_repetitions(vectors)
        made: list[dict[str, Any]] = []
        for vector, recipients in _tiers(kept):
            made += self._of_recipients(vector, recipients)
        return _named(made)

    def _ways_to(self, recipient: str) -> tuple[Way, ...] | None:
        """Return the ways of all senders; None: the recipients' own servers.

        Recipients with one line of transport_maps, or none, and in one class have the same ways.
        """
        resolver, target = self.rewriting.resolver, sample(recipient)
        kind = resolver.kind_of(target)
        if kind is None or kind not in self._by_kind:
            ways = [self._way(sender, recipient) for sender in self.senders]
            # a sender whose mail goes nowhere takes the way of the rest, and that is told
            found = None if ways[-1] is None else tuple(way or ways[-1] for way in ways)
            if kind is None:
                return found
            self._by_kind[kind] = found
        return self._by_kind[kind]

    def _ways_of_most(self, vectors: Mapping[str, tuple[Way, ...]]) -> tuple[Way, ...]:
        """Return a way to serve where the rest is sent nowhere: relaygw wants a last route."""
        resolver, where = self.rewriting.resolver, "; ".join(self.fates[REST].places)
        if resolver.configuration.value("relayhost"):
            stops = [resolver.by_relayhost(sample(sender)).stops for sender in self.senders]
            return tuple(self._names(stop, "smtp") for stop in stops)
        if not vectors:
            raise PostfixUnreadable(
                f"{where or 'main.cf'}: no recipient is sent anywhere, but a relaygw route needs a "
                "provider; set relayhost = [HOST]:587, or give --relayhost '[HOST]:587'"
            )
        found = Counter(vectors.values()).most_common(1)[0][0]
        self.report.warn(
            f"{where or 'main.cf'}: all other mail goes nowhere, and relaygw wants a last route: "
            f"it has {', '.join(found[-1])}, and staging captures that mail; name its provider "
            "before you set mode: production"
        )
        return found

    def _way(self, sender: str, recipient: str) -> Way | None:
        """Return the providers for a pair of classes; None: the recipients' own servers."""
        target = sample(recipient)
        delivery = self.rewriting.resolver.route(sample(sender), target)
        if delivery.fate is not Fate.SEND:
            if sender and self.rewriting.resolver.route(sample(REST), target).fate is Fate.SEND:
                self.report.warn(
                    f"{delivery.places[0]}: mail of {sender} is {delivery.fate}; relaygw "
                    "restricts only the senders of users (users.senders), so it takes the "
                    "default route"
                )
            return None
        is_mx = any(stop.hop.is_mx and is_direct(stop.hop.host, target) for stop in delivery.stops)
        if is_mx or not delivery.stops:
            return self._direct(sender, recipient, delivery)
        if any(SAMPLE in stop.hop.host for stop in delivery.stops):
            raise PostfixUnreadable(
                f"{delivery.places[-1]}: the next hop depends on the address, but a relaygw route "
                "has fixed providers; write a line for each domain in use"
            )
        hint = sender.rpartition("@")[2]
        return self._names(delivery.stops, delivery.transport, hint)

    def _names(self, stops: Sequence[Stop], transport: str, hint: str = "") -> Way:
        names = (self.providers.name_for(stop, transport, hint) for stop in stops)
        return tuple(dict.fromkeys(names))

    def _direct(self, sender: str, recipient: str, delivery: Delivery) -> Way | None:
        where = delivery.places[-1] if delivery.places else "main.cf"
        if recipient == REST:
            if sender:
                self._way(REST, REST)  # it is not said of one sender what is so for all
            whose = f"of {sender} " if sender else ""
            raise PostfixUnreadable(
                f"{where}: mail {whose}goes to each recipient's own server (by MX), but relaygw "
                "sends only through a provider; name one: --relayhost '[smtp.example.com]:587'"
            )
        self.report.warn(
            f"{where}: mail to {recipient} goes directly to its own server (by MX); relaygw sends "
            "it by the default route, or add a provider with host: for that server"
        )
        return None

    def _of_recipients(
        self, vector: tuple[Way, ...], recipients: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return the routes for some classes of recipients, all of one vector."""
        ways = dict(zip(self.senders, vector, strict=True))
        kept = _without_repetitions(ways)
        condition = {"recipient": [*recipients]} if recipients != [REST] else {}
        made = []
        for way, senders in _tiers(kept):
            route: dict[str, Any] = {"name": _route_name(way, senders, recipients)}
            if senders != [REST]:
                route["sender"] = senders
            made.append({**route, **condition, "providers": [*way]})
        return made


def covering(address_class: str) -> Iterable[str]:
    """Yield the wider classes that hold for a class, the narrowest first."""
    if "@" in address_class[1:]:
        yield f"@{address_class.rpartition('@')[2]}"
    domain = address_class.rpartition("@")[2]
    if not address_class.startswith("."):
        yield f".{domain}"
    while "." in domain.removeprefix("."):
        domain = domain.removeprefix(".").partition(".")[2]
        yield f".{domain}"
    yield REST


def _without_repetitions(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes whose value is another than that of the wider one which is kept."""
    kept: dict[str, Any] = {}
    for address_class in reversed([*values]):  # the rest first, single addresses last
        wider = next((kept[name] for name in covering(address_class) if name in kept), None)
        if address_class == REST or wider is None or values[address_class] != wider:
            kept[address_class] = values[address_class]
    return {value: kept[value] for value in values if value in kept}


def _tiers(values: Mapping[str, Value]) -> list[tuple[Value, list[str]]]:
    """Return values with their classes: what must be looked at first comes first."""
    found: dict[tuple[int, Value], list[str]] = {}
    for address_class, value in values.items():
        found.setdefault((_tier(address_class, values), value), []).append(address_class)
    return [(value, classes) for (_, value), classes in sorted(found.items(), key=_tier_of)]


def _tier_of(item: tuple[tuple[int, Any], list[str]]) -> int:
    return item[0][0]


def _tier(address_class: str, values: Mapping[str, Any]) -> int:
    """Return 1 for an address whose domain goes another way; those that do not share a list."""
    if address_class == REST:
        return 1000
    if address_class.startswith("."):
        return 500 - address_class.count(".")
    is_exception = "@" in address_class[1:] and any(
        wider and wider in values for wider in covering(address_class)
    )
    return 1 if is_exception else 2


def _route_name(way: Way, senders: Sequence[str], recipients: Sequence[str]) -> str:
    if senders == [REST] and [*recipients] == [REST]:
        return "default"
    lists = [classes for classes in (senders, recipients) if [*classes] != [REST]]
    if len(lists[0]) == 1:
        text = lists[0][0].lstrip("@.")
    else:
        text = way[0] + ("-senders" if lists[0] is senders else "-recipients")
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:55] or "route"


def _named(routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each route a name of its own."""
    taken: Counter[str] = Counter()
    for route in routes:
        name = route["name"]
        taken[name] += 1
        if taken[name] > 1 or (name == "default" and route is not routes[-1]):
            route["name"] = f"{name}-{taken[name]}"
    return routes
