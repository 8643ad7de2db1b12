"""Mistakes about who sends, and who receives."""

from __future__ import annotations

from collections.abc import Iterator

from relaygw.postfix.classes import SENDER_MAPS
from relaygw.postfix.listeners import is_too_wide, networks_of
from relaygw.postfix.maps import Table
from relaygw.postfix.mistakes import Finding, Rule, Subject
from relaygw.postfix.rewriting import RESTRICTIONS, access_checks


def _single_senders(subject: Subject) -> Iterator[Finding]:
    for name in (*SENDER_MAPS, "smtp_sasl_password_maps"):
        for table in subject.resolver.tables.of(name):
            yield from _sender_keys(name, table)


def _sender_keys(name: str, table: Table) -> Iterator[Finding]:
    domains = {one.key.lower() for one in table.entries if one.key.startswith("@")}
    for entry in table.entries:
        local, at, domain = entry.key.partition("@")
        if at and local and f"@{domain}".lower() not in domains:
            yield Finding(
                str(entry.place), "one-sender",
                f"{entry.key} is this one sender only; others of {domain} go another way",
                f"@{domain}, where all of the domain are meant, and run postmap",
                f'the route has this address; write "@{domain}" for all of them',
            )  # fmt: skip
        elif not at and "." in entry.key and name in SENDER_MAPS:
            yield Finding(
                str(entry.place), "never-matches",
                f"{entry.key} matches no sender: a domain is looked up with an @",
                f"@{entry.key}, and run postmap", f'write "@{entry.key}" into a route',
            )  # fmt: skip


def _networks(subject: Subject) -> Iterator[Finding]:
    for network in networks_of(subject.configuration.values("mynetworks")):
        if is_too_wide(network):
            yield Finding(
                subject.place("mynetworks"), "open-relay",
                f"{network} may send to anybody: an open relay",
                "mynetworks = 127.0.0.0/8 and the networks of your own servers",
                "leaves this network out, and refuses to start as an open relay",
            )  # fmt: skip
    style = subject.configuration.value("mynetworks_style")
    if style == "class" and not subject.configuration.parameter("mynetworks"):
        yield Finding(
            subject.place("mynetworks_style"), "open-relay",
            "mynetworks_style = class trusts whole networks of a provider",
            "mynetworks_style = host, or mynetworks = ...", "trusts this host only",
        )  # fmt: skip


def _never_asked(subject: Subject) -> Iterator[Finding]:
    """Yield access tables behind a permission of this host's own mail."""
    configuration = subject.configuration
    door = configuration.service("smtp", "inet")
    for name in RESTRICTIONS:
        words = configuration.values(name, door)
        is_permitted = False
        for table, word in access_checks(
            subject.resolver, words, configuration.place(name, door), door
        ):
            is_permitted |= word in ("permit_mynetworks", "permit")
            if table is not None and is_permitted:
                yield Finding(
                    str(configuration.place(name, door)), "never-asked",
                    f"{table.spec} stands behind permit_mynetworks, so it is not asked about mail "
                    "of your own hosts",
                    "put check_recipient_access before permit_mynetworks",
                    "is imported as Postfix does it; its own lists hold for all mail",
                )  # fmt: skip


SENDER_RULES: tuple[Rule, ...] = (_single_senders, _networks, _never_asked)
