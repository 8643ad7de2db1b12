"""Mistakes in a configuration of Postfix: on the way to providers, about who sends and receives.

Those of the files themselves are in mistakes.py.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from relaygw.settings.addresses import is_loopback_host
from relaygw_postfix.access import PERMITTING, RECIPIENT, lists, why_closed
from relaygw_postfix.classes import host_of, written_hops
from relaygw_postfix.failures import LEVELS
from relaygw_postfix.main_cf import Service
from relaygw_postfix.maps import Table
from relaygw_postfix.mistakes import FILE_RULES, Finding, Subject
from relaygw_postfix.providers import preset_of
from relaygw_postfix.resolve import SENDER_MAPS, Delivery, Hop, hop_of
from relaygw_postfix.rewriting import Rewriting
from relaygw_postfix.samples import REST, sample
from relaygw_postfix.sections import is_too_wide, networks_of


def findings(rewriting: Rewriting) -> list[Finding]:
    """Return all mistakes, by place. Raises PostfixUnreadable."""
    subject = Subject(rewriting)
    found = [finding for rule in (*_RULES, *FILE_RULES) for finding in rule(subject)]
    return sorted(dict.fromkeys(found), key=_in_order)


def _in_order(finding: Finding) -> tuple[str, int]:
    name, _, line = finding.place.rpartition(":")
    return (name, int(line)) if line.isdecimal() else (finding.place, 0)


# --- logins -----------------------------------------------------------------------------------


def _other_form(subject: Subject) -> Iterator[Finding]:
    used = {_written(subject, hop).lower() for hop, _ in subject.hops}
    for hop, transport in subject.hops:
        service = subject.service(transport)
        written = _written(subject, hop)
        if subject.resolver.login_entry("", hop, written, service) is not None:
            continue
        for entry in subject.passwords(service):
            if host_of(entry.key) == hop.host and entry.key.lower() not in used:
                yield Finding(
                    str(entry.place), "password-of-another-form",
                    f"the password is for {entry.key}, and mail goes to {written}, so Postfix does "
                    "not log in",
                    f"write the key as the next hop is written, {written}, and run postmap",
                    "is imported without a login, like Postfix; --mend uses this password",
                )  # fmt: skip


def _written(subject: Subject, hop: Hop) -> str:
    """Return a next hop as the configuration writes it."""
    for text in written_hops(subject.resolver):
        try:
            if hop_of(text) == hop:
                return text
        except ValueError:
            continue
    return str(hop)


def _no_login(subject: Subject) -> Iterator[Finding]:
    configuration = subject.configuration
    services = [None, *(service for service in configuration.services if service.command == "smtp")]
    is_on = any(configuration.is_on("smtp_sasl_auth_enable", service) for service in services)
    if configuration.value("smtp_sasl_password_maps") and not is_on:
        yield Finding(
            subject.place("smtp_sasl_password_maps"), "login-is-off",
            "there are passwords, and smtp_sasl_auth_enable is not yes, so Postfix never logs in",
            "smtp_sasl_auth_enable = yes",
            "is imported without logins, like Postfix; --mend uses the passwords",
        )  # fmt: skip
    has_map = any(configuration.value("smtp_sasl_password_maps", service) for service in services)
    if is_on and not has_map:
        yield Finding(
            subject.place("smtp_sasl_auth_enable"), "login-is-off",
            "smtp_sasl_auth_enable is yes, and there is no map of passwords",
            "smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd",
            "write username and password of the provider",
        )  # fmt: skip
    keys = [entry for entry in subject.passwords() if "@" in entry.key]
    if keys and not configuration.is_on("smtp_sender_dependent_authentication"):
        yield Finding(
            str(keys[0].place), "sender-login-is-off",
            f"{keys[0].key}: passwords by sender are used only with "
            "smtp_sender_dependent_authentication = yes",
            "smtp_sender_dependent_authentication = yes",
            "is imported without these passwords, like Postfix; --mend uses them",
        )  # fmt: skip
    for entry in subject.passwords():
        if ":" not in entry.value:
            yield Finding(
                str(entry.place), "no-password", f"{entry.key} has a user and no password",
                "write USER:PASSWORD", "write it to the provider's secret file",
            )  # fmt: skip


def _strange_hosts(subject: Subject) -> Iterator[Finding]:
    """Yield hosts that are shown a sender's password, as a recipient's mail goes there."""
    keys = [entry for entry in subject.passwords() if "@" in entry.key]
    if not keys or not subject.configuration.is_on("smtp_sender_dependent_authentication"):
        return
    own_place = subject.resolver.route(sample(REST), sample(REST)).places
    own = {hop for sender, way in subject.deliveries if sender for hop in _hops(way)}
    for sender, delivery in subject.deliveries:
        for hop in _hops(delivery):
            if not sender and hop not in own and delivery.places != own_place:
                yield Finding(
                    delivery.places[0].partition(": ")[0], "password-for-another-host",
                    f"the passwords by sender ({keys[0].key}) are also sent to {hop} if it offers "
                    "AUTH",
                    "a transport of its own for it, with -o smtp_sasl_auth_enable=no",
                    "is imported unchanged, and mail waits if that server offers no AUTH; --mend, "
                    "or a provider without username and password, sends it",
                )  # fmt: skip


def _hops(delivery: Delivery) -> list[Hop]:
    return [stop.hop for stop in delivery.stops]


def _mechanisms(subject: Subject) -> Iterator[Finding]:
    configuration = subject.configuration
    if not configuration.is_on("smtp_sasl_auth_enable"):
        return
    over_tls = "smtp_sasl_tls_security_options"  # by default what holds without TLS
    name = over_tls if configuration.parameter(over_tls) else "smtp_sasl_security_options"
    if "noplaintext" in configuration.values(name):
        yield Finding(
            subject.place(name), "no-mechanism",
            f"{name} is {configuration.value(name)}: PLAIN and LOGIN, the only ones that most "
            "providers offer, are not used, and mail is deferred",
            f"{name} = noanonymous", "nothing: it logs in by PLAIN or LOGIN, over TLS",
        )  # fmt: skip


# --- TLS --------------------------------------------------------------------------------------


def _clear_passwords(subject: Subject) -> Iterator[Finding]:
    has_server_level = bool(subject.configuration.value("smtpd_tls_security_level"))
    for (hop, transport), delivery in subject.hops.items():
        stop = next(candidate for candidate in delivery.stops if candidate.hop == hop)
        service = subject.service(transport)
        level, place = subject.resolver.tls_level(_written(subject, hop), service)
        known = preset_of(hop.host)
        if level in ("none", "may") and stop.is_wrapped:
            continue
        if level == "none" and has_server_level and known:
            yield Finding(
                subject.place("smtpd_tls_security_level"), "wrong-side",
                "smtpd_tls_security_level applies to the server; to providers Postfix sends "
                f"without TLS ({hop.host})",
                "smtp_tls_security_level = encrypt", _MENDS_TLS,
            )  # fmt: skip
        is_open = level in ("none", "may") and not is_loopback_host(hop.host)
        if stop.login is not None and is_open:
            how = (
                "in clear text"
                if level == "none"
                else "in clear text where STARTTLS is not offered"
            )
            yield Finding(
                str(place), "password-in-clear",
                f"the TLS level for {hop.host} is {level}: its password is sent {how}",
                "smtp_tls_security_level = encrypt, or verify with smtp_tls_CAfile", _MENDS_TLS,
            )  # fmt: skip
        yield from _wrapper(subject, hop, service)


_MENDS_TLS = "is imported unchanged; --mend, or tls: required, protects it"


def _wrapper(subject: Subject, hop: Hop, service: Service | None) -> Iterator[Finding]:
    is_wrapped = subject.configuration.is_on("smtp_tls_wrappermode", service)
    if hop.port in (465, 2465) and not is_wrapped:
        yield Finding(
            subject.place("relayhost"), "no-wrappermode",
            f"{hop} speaks implicit TLS; without smtp_tls_wrappermode Postfix waits for a "
            "greeting that never comes",
            "smtp_tls_wrappermode = yes and smtp_tls_security_level = encrypt, or port 587",
            "is imported unchanged; --mend, or tls: implicit, uses implicit TLS",
        )  # fmt: skip
    if hop.port in (25, 587, 2525, 2587) and is_wrapped:
        yield Finding(
            subject.place("smtp_tls_wrappermode"), "wrappermode",
            f"{hop} uses STARTTLS; with smtp_tls_wrappermode Postfix starts with TLS",
            "smtp_tls_wrappermode = no, or port 465", "write tls: required",
        )  # fmt: skip


def _authorities(subject: Subject) -> Iterator[Finding]:
    configuration = subject.configuration
    for name in ("smtp_tls_CAfile", "smtp_tls_CApath"):
        value = configuration.value(name)
        if value and not Path(value).exists():
            yield Finding(
                subject.place(name), "no-authorities",
                f"{value} is not there: Postfix cannot verify any server",
                f"{name} = /etc/ssl/certs/ca-certificates.crt (RHEL: /etc/pki/tls/certs/"
                "ca-bundle.crt)",
                "uses the system's CAs",
            )  # fmt: skip
    level = configuration.value("smtp_tls_security_level")
    has_any = configuration.value("smtp_tls_CAfile") or configuration.value("smtp_tls_CApath")
    if level in ("verify", "secure") and not has_any:
        yield Finding(
            subject.place("smtp_tls_security_level"), "no-authorities",
            f"level {level} without smtp_tls_CAfile: no certificate is accepted, mail is deferred",
            "smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt",
            "uses the system's CAs",
        )  # fmt: skip


def _levels(subject: Subject) -> Iterator[Finding]:
    """Yield levels of TLS that are none."""
    configuration, name = subject.configuration, "smtp_tls_security_level"
    for service in (None, *configuration.services):
        own = configuration.parameter(name, service)
        written = [(configuration.value(name, service), own.place)] if own else []
        for table in subject.resolver.tables.of("smtp_tls_policy_maps", service):
            written += [(entry.value, entry.place) for entry in table.entries]
            written += [(pattern.value, pattern.place) for pattern in table.patterns]
        for level, place in ((value.split()[0].lower(), at) for value, at in written if value):
            if level not in LEVELS:
                near = difflib.get_close_matches(level, LEVELS, n=1)
                yield Finding(
                    str(place), "unknown-level",
                    f"{level} is not a TLS level, so Postfix defers the mail",
                    f"is it {near[0]}?" if near else f"one of {', '.join(LEVELS)}",
                    "is imported as tls: required",
                )  # fmt: skip


# --- connections --------------------------------------------------------------------------------


def _pooling(subject: Subject) -> Iterator[Finding]:
    configuration = subject.configuration
    levels = {stop.tls for _, delivery in subject.deliveries for stop in delivery.stops}
    if levels - {"none"} and not configuration.is_on("smtp_tls_connection_reuse"):
        yield Finding(
            subject.place("smtp_tls_connection_reuse"), "no-reuse",
            "a new TLS connection is opened for each message: smtp_tls_connection_reuse is no",
            "smtp_tls_connection_reuse = yes", "keeps them open by default",
            is_hint=configuration.parameter("smtp_tls_connection_reuse") is None,
        )  # fmt: skip
    if configuration.is_on("smtp_sender_dependent_authentication"):
        yield Finding(
            subject.place("smtp_sender_dependent_authentication"), "no-reuse-by-sender",
            "with logins by sender a connection is never used for another sender's mail",
            "a transport of its own for each login, by sender_dependent_default_transport_maps",
            "keeps connections open for each provider and login",
        )  # fmt: skip


def _relayhosts(subject: Subject) -> Iterator[Finding]:
    configuration = subject.configuration
    written = [(configuration.value("relayhost"), subject.place("relayhost"), "relayhost")]
    for name in SENDER_MAPS[:1]:
        for table in subject.resolver.tables.of(name):
            written += [(entry.value, str(entry.place), entry.key) for entry in table.entries]
    for value, place, what in written:
        for word in re.split(r"[,\s]+", value):
            if word and "[" not in word and word.upper() != "DUNNO":
                yield Finding(
                    place, "no-brackets",
                    f"{what}: {word} has no brackets, so Postfix asks for the MX of that name",
                    f"[{word.partition(':')[0]}]" + (word[len(word.partition(':')[0]) :]),
                    "connects to the host itself",
                )  # fmt: skip


# --- who sends, and who receives ------------------------------------------------------------------


def _single_senders(subject: Subject) -> Iterator[Finding]:
    for name in (*SENDER_MAPS, "smtp_sasl_password_maps"):
        for table in subject.resolver.tables.of(name):
            yield from _sender_keys(name, table)


def _sender_keys(name: str, table: Table) -> Iterator[Finding]:
    domains = {line.key.lower() for line in table.entries if line.key.startswith("@")}
    for entry in table.entries:
        local, at, domain = entry.key.partition("@")
        if at and local and f"@{domain}".lower() not in domains:
            yield Finding(
                str(entry.place), "one-sender",
                f"{entry.key} is this one sender only; others at {domain} take another route",
                f"@{domain}, if the whole domain is meant, and run postmap",
                f'the route has this address; write "@{domain}" for all of them',
            )  # fmt: skip
        elif not at and "." in entry.key and name in SENDER_MAPS:
            yield Finding(
                str(entry.place), "never-matches",
                f"{entry.key} matches no sender: a domain is looked up with an @",
                f"@{entry.key}, and run postmap", f'write "@{entry.key}" into a route',
            )  # fmt: skip


def _closed(subject: Subject) -> Iterator[Finding]:
    why = why_closed(subject.resolver)
    if why:
        place, _, problem = why.partition(": ")
        yield Finding(
            place, "takes-no-mail", problem,
            "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination",
            "takes mail of your networks; nothing in the table is the same as at this Postfix",
        )  # fmt: skip


def _every_domain(subject: Subject) -> Iterator[Finding]:
    """Yield aliases of all addresses that make all domains those of virtual aliases, too."""
    if not subject.resolver.has_every_domain_aliased:
        return
    name = "virtual_alias_maps"
    for table in subject.resolver.tables.of(name):
        entry = table.find(sample(REST).partition("@")[2])
        if entry is not None:
            yield Finding(
                str(entry.place) if table.path is not None else subject.place(name), "every-domain",
                f"{table.spec} has domains as well as addresses, so that all of them are in "
                "virtual_alias_domains: Postfix returns mail to any address elsewhere as "
                "undeliverable (User unknown in virtual alias table)",
                "a pattern that needs an @, as /.+@.+/, or virtual_alias_domains without a value",
                "captures this mail; --mend imports the aliases",
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
            "mynetworks_style = class trusts whole provider networks",
            "mynetworks_style = host, or mynetworks = ...", "trusts this host only",
        )  # fmt: skip


def _never_asked(subject: Subject) -> Iterator[Finding]:
    """Yield access tables behind a permission of this host's own mail."""
    configuration, door = subject.configuration, subject.resolver.door
    for name, found in lists(subject.resolver):
        is_permitted = False
        for check in found:
            is_permitted |= check.word in PERMITTING
            if check.table is not None and check.word == RECIPIENT and is_permitted:
                table = check.table
                yield Finding(
                    str(configuration.place(name, door)), "never-asked",
                    f"{table.spec} comes after permit_mynetworks, so it does not apply to mail "
                    "from your own hosts",
                    "put check_recipient_access before permit_mynetworks",
                    "is imported unchanged; relaygw's lists apply to all mail",
                )  # fmt: skip


_RULES = (
    _other_form, _strange_hosts, _no_login, _mechanisms, _clear_passwords, _authorities, _levels,
    _pooling, _relayhosts, _single_senders, _networks, _never_asked,
    _closed, _every_domain,
)  # fmt: skip
