"""What becomes of mail at a Postfix from one address to another: next hop, TLS, login, or why not.

The steps are those of trivial-rewrite(8) and smtp(8). What a table says comes from a `Lookup`: the
tables as they were read, or a real Postfix that is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from relaygw.settings.addresses import Host
from relaygw.settings.section import fits
from relaygw.settings.tree import Place
from relaygw_postfix.main_cf import Configuration, PostfixUnreadable, Service, read_text
from relaygw_postfix.maps import Entry, Lookup, Table, Tables, find, look_up
from relaygw_postfix.samples import REST, sample

_PORTS = {"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465, "urd": 465, "mail": 25}
_HOP = re.compile(r"\[(?P<host>[^\]]+)\](?::(?P<port>\S+))?|(?P<mx>[^:\[\]]+)(?::(?P<mxport>\S+))?")


class Fate(StrEnum):
    """What becomes of mail in the end."""

    SEND = "sent"
    LOCAL = "put into a mailbox of this host"
    REFUSE = "refused"
    DISCARD = "discarded"
    LATER = "deferred"
    OTHER = "given to a program"
    # by an access table, which means the mail with all its recipients
    DISCARD_ALL = "discarded for all its recipients"
    HOLD = "held for all its recipients"
    FILTER = "given to a filter, with all its recipients"
    REDIRECT = "sent to another address, with all its recipients"


@dataclass(frozen=True, slots=True)
class Hop:
    """A host that mail is sent to."""

    host: str
    port: int
    is_mx: bool = False  # the DNS names the hosts

    def __str__(self) -> str:
        return f"{self.host}:{self.port} by MX" if self.is_mx else f"[{self.host}]:{self.port}"


@dataclass(frozen=True, slots=True)
class Stop:
    """A hop with how the connection is protected and logged in to."""

    hop: Hop
    tls: str  # a level of Postfix
    is_wrapped: bool = False  # implicit TLS
    login: tuple[str, str] | None = None
    written: str = field(default="", compare=False)  # the hop, as the configuration has it


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where mail goes, the next stop after the first one's failure, or why it goes nowhere."""

    fate: Fate
    stops: tuple[Stop, ...] = ()
    transport: str = ""
    reason: str = ""
    places: tuple[str, ...] = ()  # the lines that decide


def hop_of(text: str, default_port: str = "smtp") -> Hop:
    """Read `[host]:port`, `host:port`, `[host]` or `host`. Raises ValueError."""
    match = _HOP.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a next hop; write [HOST]:PORT")
    host = (match["host"] or match["mx"]).removeprefix("ipv6:").removeprefix("IPv6:")
    if not fits(Host, host):
        raise ValueError(f"{text!r} names no host; write [HOST]:PORT")
    port = match["port"] or match["mxport"] or default_port
    number = int(port) if port.isdecimal() else _PORTS.get(port.lower(), 0)
    if not 0 < number < 65536:
        raise ValueError(f"{text!r} has an invalid port; write [HOST]:PORT, e.g. [{host}]:587")
    return Hop(host.lower(), number, is_mx=match["host"] is None)


# --- the ways of a configuration ------------------------------------------------------------

_NULL_KEY = "<>"
SENDER_TRANSPORTS = "sender_dependent_default_transport_maps"
SENDER_MAPS = ("sender_dependent_relayhost_maps", SENDER_TRANSPORTS)
_SMTP = ("smtp", "relay")  # services that every master.cf has
_TRANSPORTS = {"mydestination": "local_transport", "virtual_mailbox_domains": "virtual_transport"}


class Resolver:
    """The ways of a configuration."""

    def __init__(self, configuration: Configuration, tables: Tables, lookup: Lookup = look_up):
        self.configuration = configuration
        self.tables = tables
        self.lookup = lookup

    # --- addresses ---

    @cached_property
    def origin(self) -> str:
        """The domain that an address without one gets."""
        value = self.configuration.value("myorigin")
        if not value.startswith("/"):
            return value
        try:
            return read_text(self.tables.relocated(value)).split()[0]
        except (PostfixUnreadable, IndexError):
            return self.configuration.value("myhostname")

    @cached_property
    def local_domains(self) -> list[str]:
        """The domains that mail is delivered to on this host, as far as they are listed."""
        return self.domains_of("mydestination")

    def domains_of(self, name: str) -> list[str]:
        """Return the domains that a list of names and tables has, as far as it says them."""
        words = self.configuration.values(name)
        found = [word for word in words if not re.match(r"[!/]|\w+:", word)]
        for word in (word for word in words if re.match(r"\w+:", word)):
            table = self.tables.table(word, self.configuration.place(name))
            keys = [entry.key for entry in table.entries if not table.is_static]
            # in those of virtual aliases are users, too
            found += [key for key in keys if name == "mydestination" or "." in key]
        return list(dict.fromkeys(domain.lower() for domain in found))

    @cached_property
    def door(self) -> Service | None:
        """The service that takes mail of this host's networks; None: it is not known."""
        return self.configuration.door

    def address_class(self, domain: str) -> str:
        """Return the parameter that lists a domain of this host's mail, "" for all others."""
        if self.is_local(domain):
            return "mydestination"
        for name in ("virtual_alias_domains", "virtual_mailbox_domains"):
            if self.is_listed(name, domain):
                return name
        return "relay_domains" if self.is_listed("relay_domains", domain, parents=True) else ""

    def is_local(self, domain: str) -> bool:
        """Return whether mail for a domain stays here."""
        return self.is_listed("mydestination", domain) or domain.startswith("[127.0.0.1]")

    def is_listed(self, name: str, domain: str, *, parents: bool = False) -> bool:
        """Return whether a domain is in a list of names and tables."""
        place, keys = self.configuration.place(name), [domain.lower()]
        while parents and "." in keys[-1]:
            keys.append(keys[-1].partition(".")[2])
        for word in self.configuration.values(name):
            bare = word.removeprefix("!")
            if re.match(r"[a-z]+:", bare):
                is_there = self.lookup(self.tables.table(bare, place), keys[0], False) is not None
            elif bare.startswith("/"):
                is_there = bool({*read_text(self.tables.relocated(bare)).split()} & {*keys})
            else:
                is_there = bare.lower() in keys
            if is_there:
                return bare == word
        return False

    @cached_property
    def has_every_domain_aliased(self) -> bool:
        """True where every domain is in virtual_alias_domains by default."""
        name = "virtual_alias_domains"
        is_default = self.configuration.parameter(name) is None
        # not self.is_listed: --mend asks this there
        return is_default and Resolver.is_listed(self, name, sample(REST).partition("@")[2])

    def qualified(self, address: str) -> str:
        """Return an address with a whole domain."""
        if not address:
            return address
        full = address if "@" in address else f"{address}@{self.origin}"
        domain = full.rpartition("@")[2]
        is_short = bool(domain) and "." not in domain and not domain.startswith("[")
        if is_short and self.configuration.is_on("append_dot_mydomain"):
            return f"{full}.{self.configuration.value('mydomain')}"
        return full

    def without_extension(self, address: str) -> str | None:
        """Return an address without `+text`, None where it has none."""
        local, at, domain = address.rpartition("@") if "@" in address else (address, "", "")
        signs = re.escape(self.configuration.value("recipient_delimiter"))
        parts = re.split(f"[{signs}]", local, maxsplit=1) if signs else [local]
        return f"{parts[0]}{at}{domain}" if len(parts) > 1 and parts[0] else None

    def by_address(self, tables: Sequence[Table], address: str) -> Entry | None:
        """Return the entry for an address: whole, without extension, local part, `@domain`."""
        return self._first(tables, address_keys(self, address))

    def _first(self, tables: Sequence[Table], keys: Iterable[str]) -> Entry | None:
        """Return the entry for the first of keys that has one; those behind it are partial."""
        for number, key in enumerate(keys):
            entry = find(tables, key, partial=number > 0, lookup=self.lookup)
            if entry is not None:
                return entry
        return None

    # --- where mail goes ---

    def route(self, sender: str, recipient: str) -> Delivery:
        """Return the way of mail between addresses as they are after rewriting.

        Raises PostfixUnreadable.
        """
        domain = recipient.rpartition("@")[2].lower()
        moved = self.by_address(self.tables.of("relocated_maps"), recipient)
        if moved is not None:
            line = f"{moved.place}: {moved.key} {moved.value}"
            return Delivery(Fate.REFUSE, (), "error", f"has moved to {moved.value}", (line,))
        transport, nexthop, places = self._by_class(sender, domain)
        entry = self._transport_entry(recipient, domain)
        if entry is not None:
            places = [f"{entry.place}: {entry.key} {entry.value}"]
            channel, _, host = entry.value.partition(":")
            if channel:
                transport, nexthop = channel, host or domain
            elif host:
                nexthop = host
        return self._delivery(sender, transport, nexthop, tuple(places))

    def _by_class(self, sender: str, domain: str) -> tuple[str, str, list[str]]:
        value, place = self.configuration.value, self.configuration.place
        listed = self.address_class(domain)
        places = [f"{place(listed)}: {domain} is in {listed}"] if listed else []
        if listed == "virtual_alias_domains":
            return "error", "User unknown in virtual alias table", places
        if listed in _TRANSPORTS:
            return *self._split_transport(value(_TRANSPORTS[listed]), domain), places
        places, name = list[str](), "relay_transport" if listed else "default_transport"
        sent_by = "" if listed else self._by_sender(SENDER_TRANSPORTS, sender, places)
        channel, nexthop = self._split_transport(sent_by or value(name), "")
        if not sent_by and (nexthop or channel not in _SMTP):
            places.append(f"{place(name)}: {name} = {value(name)}")
        if not nexthop:
            nexthop = self._by_sender(SENDER_MAPS[0], sender, places) or ""
        if not nexthop:
            nexthop = value("relayhost")
            places.append(f"{place('relayhost')}: relayhost")
        return channel, nexthop or domain, places

    def by_relayhost(self, sender: str) -> Delivery:
        """Return the way through relayhost, whatever transport is in use."""
        place = f"{self.configuration.place('relayhost')}: relayhost"
        return self._delivery(sender, "smtp", self.configuration.value("relayhost"), (place,))

    def kind_of(self, recipient: str) -> object:
        """Return the shared key of recipients who go the same way; None: it is their own."""
        domain = recipient.rpartition("@")[2].lower()
        entry = self._transport_entry(recipient, domain)
        channel, _, host = entry.value.partition(":") if entry is not None else ("", "", "")
        if channel and not host:
            return None
        return channel, host, self.address_class(domain)

    def _split_transport(self, text: str, default: str) -> tuple[str, str]:
        channel, _, host = text.partition(":")
        return channel, host or default

    def _by_sender(self, name: str, sender: str, places: list[str]) -> str | None:
        tables = self.tables.of(name)
        entry = self.by_address(tables, sender or _NULL_KEY) if tables else None
        if entry is None or entry.value.upper() == "DUNNO":
            return None
        places.append(f"{entry.place}: {entry.key} {entry.value}")
        return entry.value

    def _transport_entry(self, recipient: str, domain: str) -> Entry | None:
        tables = self.tables.of("transport_maps")
        if not tables:
            return None
        found = self._first(tables, self.transport_keys(recipient, domain))
        return found or find(tables, "*", lookup=self.lookup)

    def transport_keys(self, recipient: str, domain: str) -> Iterator[str]:
        """Yield what transport_maps is asked for, in order, but for the last, `*`."""
        yield recipient
        bare = self.without_extension(recipient)
        if bare is not None:
            yield bare
        yield from self.parents(domain, "transport_maps")

    def parents(self, domain: str, name: str) -> Iterator[str]:
        """Yield a domain and those above it, as the tables of a parameter have them."""
        words = self.configuration.values("parent_domain_matches_subdomains")
        sign = "" if name in words else "."
        while domain:
            yield domain
            _, dot, rest = domain.removeprefix(".").partition(".")
            domain = f"{sign}{rest}" if dot else ""

    def _delivery(
        self, sender: str, transport: str, nexthop: str, places: tuple[str, ...]
    ) -> Delivery:
        known = {"error": Fate.REFUSE, "discard": Fate.DISCARD, "retry": Fate.LATER,
                 "local": Fate.LOCAL, "virtual": Fate.LOCAL}  # fmt: skip
        service = self.configuration.service(transport)
        command = service.command if service is not None else transport
        if (command, transport) == ("error", "retry"):  # error(8) goes by the name of its service
            command = transport
        if command in known:
            return Delivery(known[command], (), transport, nexthop, places)
        if command not in _SMTP or (service is None and transport not in _SMTP):
            return Delivery(Fate.OTHER, (), transport, f"transport {transport}", places)
        value = self.configuration.value
        fallback = value("smtp_fallback_relay", service) or value("fallback_relay", service)
        words = [word for hosts in (nexthop, fallback) for word in re.split(r"[,\s]+", hosts)]
        stops: list[Stop] = []
        for word in filter(None, words):
            try:
                hop = hop_of(word, value("smtp_tcp_port", service))
            except ValueError as error:
                where = places[-1] if places else "main.cf"
                raise PostfixUnreadable(f"{where}: {error}") from error
            stops.append(self._stop(sender, hop, word, service))
        # a hop that comes again is only tried again
        return Delivery(Fate.SEND, tuple(dict.fromkeys(stops)), transport, "", places)

    def _stop(self, sender: str, hop: Hop, written: str, service: Service | None) -> Stop:
        is_wrapped = self.configuration.is_on("smtp_tls_wrappermode", service)
        level, _ = self.tls_level(written, service)
        login = self.login(sender, hop, written, service)
        return Stop(hop, level, is_wrapped, login, written)

    # --- how it goes there ---

    def tls_level(self, written: str, service: Service | None = None) -> tuple[str, Place]:
        """Return the level for a next hop as it is written, and the line that says so."""
        configuration, entry = self.configuration, self.tls_policy(written, service)
        if entry is not None:
            words = entry.value.split()
            return (words[0].lower() if words else "none"), entry.place
        level = configuration.value("smtp_tls_security_level", service).lower()
        if level:
            return level, configuration.place("smtp_tls_security_level", service)
        if configuration.is_on("smtp_enforce_tls", service):
            verifies = configuration.is_on("smtp_tls_enforce_peername", service)
            place = configuration.place("smtp_enforce_tls", service)
            return ("verify" if verifies else "encrypt"), place
        is_used = configuration.is_on("smtp_use_tls", service)
        return ("may" if is_used else "none"), configuration.place("smtp_use_tls", service)

    def tls_policy(self, written: str, service: Service | None = None) -> Entry | None:
        """Return the line of smtp_tls_policy_maps for a next hop."""
        tables = self.tables.of("smtp_tls_policy_maps", service)
        found = (find(tables, key, lookup=self.lookup) for key in _policy_keys(written))
        return next((entry for entry in found if entry is not None), None)

    def login(
        self, sender: str, hop: Hop, written: str, service: Service | None = None
    ) -> tuple[str, str] | None:
        """Return user and password for a next hop, None where Postfix does not log in."""
        entry = self.login_entry(sender, hop, written, service)
        if entry is None:
            return None
        sign = self.configuration.value("smtp_sasl_password_result_delimiter", service)
        user, _, password = entry.value.partition(sign)
        return (user, password) if user else None

    def login_entry(
        self, sender: str, hop: Hop, written: str, service: Service | None = None
    ) -> Entry | None:
        """Return the line of the password map that counts: of the sender, the host, the hop."""
        configuration = self.configuration
        if not configuration.is_on("smtp_sasl_auth_enable", service):
            return None
        tables = self.tables.of("smtp_sasl_password_maps", service)
        if sender and configuration.is_on("smtp_sender_dependent_authentication", service):
            entry = self.by_address(tables, sender)
            if entry is not None:
                return entry
        found = find(tables, hop.host, lookup=self.lookup)
        return found or find(tables, written, lookup=self.lookup)


def address_keys(resolver: Resolver, address: str) -> Iterator[str]:
    """Yield what a table is asked for an address, in order."""
    yield address
    local, at, domain = address.rpartition("@")
    bare = resolver.without_extension(address) if at else None
    if bare is not None:
        yield bare
    if not at:
        return
    if domain.lower() == resolver.origin.lower() or resolver.is_local(domain.lower()):
        yield local
        if bare is not None:
            yield bare.rpartition("@")[0]
    yield f"@{domain}"


def _policy_keys(written: str) -> Iterator[str]:
    """Yield what smtp_tls_policy_maps is asked for a next hop: parents of a bare domain, too."""
    name = written
    yield name
    if re.fullmatch(r"[\w.-]+", name):
        while "." in name[1:]:
            name = name[name.index(".", 1) :]
            yield name
