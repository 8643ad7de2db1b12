"""Which addresses a configuration of Postfix tells apart: by sender and by recipient.

How a class is written, and which address stands for it, is said in samples.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from relaygw.errors import InvalidAddress
from relaygw.mail.address import check_address
from relaygw_postfix.access import SENDER, access_fate, access_tables
from relaygw_postfix.maps import Table
from relaygw_postfix.report import Report
from relaygw_postfix.resolve import SENDER_MAPS, Fate, Resolver, hop_of
from relaygw_postfix.samples import REST, sample


def is_direct(host: str, address: str) -> bool:
    """Return whether a host is the recipient's own domain."""
    return host == address.rpartition("@")[2].lower()


def sender_classes(resolver: Resolver, report: Report) -> list[str]:
    """Return all classes of senders, addresses first, the rest last. Raises PostfixUnreadable."""
    configuration, found = resolver.configuration, list[str]()
    for name in SENDER_MAPS:
        for table in resolver.tables.of(name):
            found += _entries(resolver, report, table, name)
    services = [
        None,
        *(client for client in configuration.services if client.command in ("smtp", "relay")),
    ]
    for service in services:
        if configuration.is_on("smtp_sender_dependent_authentication", service):
            for table in resolver.tables.of("smtp_sasl_password_maps", service):
                keys = _entries(resolver, report, table, "")
                found += [key for key in keys if "@" in key]
    # most mail is of this host's own programs
    return ordered(filter(_is_usable, [*found, f"@{resolver.origin}"]))


def judged_senders(resolver: Resolver) -> list[str]:
    """Return the classes of senders that access tables tell apart, the rest first."""
    tables = access_tables(resolver, SENDER)
    found = (entry for table in tables for entry in _entries(resolver, Report(), table, _ACCESS))
    return list(dict.fromkeys((REST, *found)))


def copied_classes(resolver: Resolver, name: str) -> list[str]:
    """Return the classes whose mail a map of copies tells apart."""
    tables = resolver.tables.of(name)
    return [key for table in tables for key in _entries(resolver, Report(), table, "")]


def permitted_senders(resolver: Resolver) -> list[str]:
    """Return one class of senders from each access table that lets some in, the rest first."""
    found = [REST]
    for table in access_tables(resolver, SENDER):
        lines = [pattern.told_apart or [] for pattern in table.patterns if _lets_in(pattern.value)]
        permitted = (entry.key for entry in table.entries if _lets_in(entry.value))
        keys = (key for key in permitted if key != "<>" and key[-1:] != "@")
        lines += [[*_of_key(resolver, key, is_by_domain=True)] for key in islice(keys, 1)]
        found += [
            address_class for line in lines for address_class in line if _is_usable(address_class)
        ][:1]
    return found


def _lets_in(action: str) -> bool:
    return access_fate(action) is Fate.SEND


def recipient_classes(resolver: Resolver, report: Report) -> list[str]:
    """Return all classes of recipients, in the same order. Raises PostfixUnreadable."""
    configuration, found = resolver.configuration, list[str]()
    for table in resolver.tables.of("transport_maps"):
        found += _entries(resolver, report, table, "transport_maps")
    if "transport_maps" in configuration.values("parent_domain_matches_subdomains"):
        found += [
            f".{address_class[1:]}" for address_class in found if address_class.startswith("@")
        ]
    for table in access_tables(resolver):
        keys = list(_entries(resolver, report, table, _ACCESS))
        found += keys
        if "smtpd_access_maps" in configuration.values("parent_domain_matches_subdomains"):
            found += [f".{key[1:]}" for key in keys if key.startswith("@")]
    for table in resolver.tables.of("relocated_maps"):
        found += _entries(resolver, report, table, "relocated_maps")
    for name in ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains"):
        found += [f"@{domain}" for domain in resolver.domains_of(name)]
    if configuration.value("relay_transport").partition(":")[0] not in ("relay", "smtp"):
        words = configuration.values("relay_domains")
        found += [form for word in words if ":" not in word for form in (f"@{word}", f".{word}")]
    # relaygw's `.domain` is the domain, too: so that is told apart
    found += [f"@{address_class[1:]}" for address_class in found if address_class.startswith(".")]
    return ordered(filter(_is_usable, found))


def written_hops(resolver: Resolver) -> list[str]:
    """Return the next hops that relayhost and the tables name, as they are written."""
    values = [resolver.configuration.value("relayhost")]
    for name in (*SENDER_MAPS, "transport_maps"):
        for table in resolver.tables.of(name):
            values += [entry.value for entry in table.entries]
            values += [pattern.value for pattern in table.patterns]
    words = [word for value in values for word in re.split(r"[,\s]+", value) if word]
    # behind a transport, as in smtp:[host]:port
    return [*words, *(word.partition(":")[2] for word in words if word.partition(":")[2])]


def host_of(hop: str) -> str:
    """Return the host of a next hop as it is written, "" of what is none."""
    try:
        return "" if "@" in hop else hop_of(hop).host
    except ValueError:
        return ""


def ordered(classes: Iterable[str]) -> list[str]:
    """Return classes without repetitions: addresses, domains, longer suffixes, the rest."""
    unique = dict.fromkeys(pattern.lower() for pattern in classes if pattern)
    return [*sorted(unique, key=_rank), REST]


def _rank(address_class: str) -> tuple[int, int]:
    if address_class.startswith("."):
        return 2, -address_class.count(".")
    return (1 if address_class.startswith("@") else 0), 0


def _entries(resolver: Resolver, report: Report, table: Table, what: str) -> Iterator[str]:
    """Yield the classes that the keys of a table stand for; others are told, if `what` is given."""
    if table.problem:
        report.warn(table.problem)
        return
    for line in table.patterns:
        classes = line.told_apart
        if classes is None:
            report.warn(
                f"{line.place}: /{line.source}/ stands for no list of addresses and domains, so "
                f"it is not in relaygw.yaml; write its meaning into {what or 'a route'} by hand"
            )
        yield from (pattern for pattern in classes or () if pattern != "*")
    for entry in table.entries:
        key = entry.key
        if key in ("*", "<>") or table.is_static:
            continue
        classes = list(_of_key(resolver, key, is_by_domain=what in _BY_DOMAIN))
        yield from (pattern for pattern in classes if _is_usable(pattern))
        bad = next(
            (pattern for pattern in classes if not _is_usable(pattern)),
            key if not classes else None,
        )
        if bad is not None and what:
            report.warn(
                f"{entry.place}: {key} is not an address or a domain that relaygw can name, so it "
                "is not in relaygw.yaml; correct it, or write a route by hand"
            )


_ACCESS = "an access table"
_BY_DOMAIN = ("transport_maps", _ACCESS)


def _of_key(resolver: Resolver, key: str, *, is_by_domain: bool) -> Iterator[str]:
    if key.endswith("@"):
        return
    if "@" in key:
        yield key
    elif is_by_domain:
        yield key if key.startswith(".") else f"@{key}"
    else:  # a local part, of the domains of this host
        domains = (resolver.origin, *resolver.local_domains)
        yield from (f"{key}@{domain}" for domain in dict.fromkeys(map(str.lower, domains)))


def _is_usable(address_class: str) -> bool:
    try:
        check_address(sample(address_class))
    except InvalidAddress:
        return False
    local, at, domain = sample(address_class).rpartition("@")
    return bool(at and local and domain) and not domain.startswith("[") and '"' not in local
