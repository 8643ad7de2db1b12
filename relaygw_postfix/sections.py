"""What a Postfix takes, as sections of relaygw.yaml: listeners, networks and recipients.

Of recipients those for whom it refuses, discards or keeps mail on its host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from relaygw.errors import SettingsError
from relaygw.settings.addresses import Address, Entry
from relaygw.settings.certificates import server_context
from relaygw.settings.listeners import ListenerTls
from relaygw.settings.section import fits
from relaygw_postfix.access import RESTRICTIONS, SENDER, access_fate, access_tables, lists
from relaygw_postfix.main_cf import Configuration, Service
from relaygw_postfix.report import Report, seconds
from relaygw_postfix.resolve import Fate, Resolver
from relaygw_postfix.rewriting import AddressCircle, is_end
from relaygw_postfix.routes import Routing, covering
from relaygw_postfix.samples import REST, sample

_PORTS = {"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465}
_LOOPBACK = ["127.0.0.0/8", "::1/128"]
_MAPPED = IPv6Network("::ffff:0:0/96")
_IPV6_IS_THERE = Path("/proc/net/if_inet6")
_MAX_PUBLIC_PREFIX = {4: 16, 6: 32}


def listeners(configuration: Configuration, report: Report) -> list[dict[str, Any]]:
    """Return a listener for each address that smtpd listens on. Raises PostfixUnreadable."""
    networks = own_networks(configuration, report)
    found = []
    for service in configuration.services:
        if service.kind != "inet" or service.command not in ("smtpd", "postscreen"):
            continue
        _tell_logins(configuration, service, networks, report)
        for bind in _binds(configuration, service, report):
            listener: dict[str, Any] = {"bind": bind}
            if networks != _LOOPBACK:
                listener["allow"] = networks
            listener |= dict(_limits(configuration, service))
            tls = _tls(configuration, service, report)
            if tls:
                listener["tls"] = tls
            found.append(listener)
    return list({entry["bind"]: entry for entry in found}.values())


def _tell_logins(
    configuration: Configuration, service: Service, networks: list[str], report: Report
) -> None:
    """Say what becomes of a port for users who log in."""
    own = [restriction for restriction in RESTRICTIONS if restriction in service.overrides]
    words = [word for name in own for word in configuration.values(name, service)]
    if "permit_sasl_authenticated" in words and "permit_mynetworks" not in words:
        report.warn(
            f"{service.place}: {service.name}: Postfix takes mail here only of users who log in; "
            f"its listener takes mail of {', '.join(networks)} without a login and of nobody else; "
            "write users (relaygw users hash), and auth: required into this listener"
        )


def _binds(configuration: Configuration, service: Service, report: Report) -> Iterator[str]:
    host, _, port = service.name.rpartition(":")
    number = int(port) if port.isdecimal() else _PORTS.get(port.lower())
    if number is None:
        report.warn(f"{service.place}: port {port} is unknown; add a listener by hand")
        return
    hosts = [host.strip("[]")] if host else configuration.values("inet_interfaces", service)
    for interface in hosts:
        yield from (
            _bind(each, number) for each in _addresses(configuration, service, interface, report)
        )


def _addresses(
    configuration: Configuration, service: Service, host: str, report: Report
) -> Iterator[str]:
    has_ipv6 = _speaks_ipv6(configuration)
    if host in ("all", "loopback-only", "localhost", "$myhostname"):
        yield "0.0.0.0" if host == "all" else "127.0.0.1"
        if has_ipv6:
            yield "::" if host == "all" else "::1"
        return
    try:
        yield str(ip_address(host))
    except ValueError:
        report.warn(
            f"{configuration.place('inet_interfaces', service)}: {host} is a name; add a listener "
            "with its IP address by hand"
        )


def _speaks_ipv6(configuration: Configuration) -> bool:
    words = configuration.values("inet_protocols") or ["all"]
    try:
        is_there = bool(_IPV6_IS_THERE.read_text())
    except OSError:
        is_there = False
    return is_there and ("all" in words or "ipv6" in words)


def _bind(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def own_networks(configuration: Configuration, report: Report) -> list[str]:
    """Return the networks that may send without a login; too wide ones are left out."""
    place = configuration.place("mynetworks")
    if configuration.parameter("mynetworks") is None:
        style = configuration.value("mynetworks_style")
        if style not in ("host", ""):
            report.warn(
                f"main.cf: mynetworks is not set and its style is {style}: Postfix trusts the "
                f"{style} networks of its interfaces; relaygw trusts this host only, write the "
                "networks of your application servers into listeners: allow"
            )
        return list(_LOOPBACK)
    found: list[IPv4Network | IPv6Network] = []
    words = configuration.values("mynetworks")
    excluded = [
        exclusion
        for exclusion in (_network(w[1:]) for w in words if w.startswith("!"))
        if exclusion
    ]
    for word in words:
        network = _network(word)
        if word.startswith("!"):
            report.warn(
                f"{place}: mynetworks: {word[:60]} excludes hosts, which `allow` cannot: networks "
                "that contain any of them are left out; write the rest by hand"
            )
        elif network is not None and any(network.overlaps(exclusion) for exclusion in excluded):
            report.warn(f"{place}: mynetworks: {network} contains excluded hosts; left out")
        elif network is None:
            report.warn(f"{place}: mynetworks: {word[:60]} is not a network; add it to listeners: "
                        "allow by hand")  # fmt: skip
        elif is_too_wide(network):
            report.warn(
                f"{place}: mynetworks: {network} covers much of the Internet: an open relay, "
                "which relaygw refuses, so it is left out; write your own networks"
            )
        else:
            found.append(network)
    return list(dict.fromkeys(map(str, found))) or list(_LOOPBACK)


def _network(word: str) -> IPv4Network | IPv6Network | None:
    try:
        network = ip_network(word.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        whole = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((whole, network.prefixlen - 96))
    return network


def is_too_wide(network: IPv4Network | IPv6Network) -> bool:
    """True for public networks that no site has to itself."""
    return not network.is_private and network.prefixlen < _MAX_PUBLIC_PREFIX[network.version]


def networks_of(text: list[str]) -> list[IPv4Network | IPv6Network]:
    """Return the networks among the words of mynetworks."""
    return [network for word in text if (network := _network(word)) is not None]


def _limits(configuration: Configuration, service: Service) -> Iterator[tuple[str, Any]]:
    def number(name: str) -> int | None:
        if configuration.parameter(name, service) is None:
            return None
        text = configuration.value(name, service)
        return int(text) if text.isdecimal() and int(text) else None

    size = number("message_size_limit")
    if size:
        yield "max_message_size", min(size, 2**40)
    for key, name in (
        ("max_recipients", "smtpd_recipient_limit"),
        ("max_connections_per_client", "smtpd_client_connection_count_limit"),
    ):
        value = number(name)
        if value:
            yield key, value
    rate = number("smtpd_client_message_rate_limit")
    unit_s = seconds(configuration.value("anvil_rate_time_unit", service))
    if rate and unit_s:
        yield "rate_per_client", f"{rate * 60 / unit_s:g}/m"
    if configuration.value("smtpd_upstream_proxy_protocol", service):
        yield "proxy_protocol", list(_LOOPBACK)


def _tls(configuration: Configuration, service: Service, report: Report) -> dict[str, str]:
    value = configuration.value
    level = value("smtpd_tls_security_level", service)
    if not level:
        is_used = any(configuration.is_on(f"smtpd_{n}_tls", service) for n in ("use", "enforce"))
        level = "may" if is_used else "none"
    is_wrapped = configuration.is_on("smtpd_tls_wrappermode", service)
    if level == "none" and not is_wrapped:
        return {}
    place = configuration.place("smtpd_tls_cert_file", service)
    chain = configuration.values("smtpd_tls_chain_files", service)
    cert = chain[0] if chain else value("smtpd_tls_cert_file", service)
    key = "" if chain else value("smtpd_tls_key_file", service)
    tls = {"mode": "implicit" if is_wrapped else "starttls", "cert": cert}
    if key and key not in (cert, "$smtpd_tls_cert_file"):
        tls["key"] = key
    if not cert or cert == "none":
        return {}
    try:
        server_context(ListenerTls.model_validate(tls))
    except SettingsError as error:
        report.warn(
            f"{place}: the listener of {service.name} gets no TLS: {error}; then write tls: "
            f"{{mode: {tls['mode']}, cert: FILE, key: FILE}}"
        )
        return {}
    return tls


# --- recipients ----------------------------------------------------------------------------

_DISCARDS = (Fate.DISCARD, Fate.DISCARD_ALL)


def recipients(routing: Routing, report: Report) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the section; what differs is told."""
    refused, dropped = routing.of_fate(Fate.REFUSE), routing.of_fate(*_DISCARDS)
    kept = routing.of_fate(Fate.LOCAL, Fate.OTHER, Fate.LATER, Fate.HOLD, Fate.REDIRECT)
    if routing.is_allow_list:
        yield from _allow_list(routing, report)
        # the others are not on the list anyway
        refused, dropped, kept = (
            [pattern for pattern in classes if _is_exception(pattern, routing)]
            for classes in (refused, dropped, kept)
        )
    blocked = [*refused, *dropped, *kept]
    if not blocked:
        return
    # one answer for all that is blocked: the one that loses least
    used = "capture" if kept else "reject" if refused else "drop"
    _say_kept(kept, routing, report)
    for does, classes, own in (("discards", dropped, "drop"), ("refuses", refused, "reject")):
        if classes and used != own:
            report.warn(
                f"{_named(classes)}: Postfix {does} this mail; recipients.blocked is {used}, "
                "because it applies to all blocked mail"
            )
    _say_of_entries(blocked, routing, report)
    yield "block", list(_entries(blocked, "recipients.block", report))
    yield "blocked", used


def _say_kept(kept: list[str], routing: Routing, report: Report) -> None:
    """Tell of mail that relaygw captures, and Postfix defers, or keeps on its host."""
    later = [
        address_class for address_class in kept if routing.fates[address_class].fate is Fate.LATER
    ]
    if later:
        report.warn(
            f"{_named(later)}: Postfix defers this mail as long as it is configured so; relaygw "
            "captures it. To have it wait instead, take it out of recipients.block and run relaygw "
            "hold add --recipient-domain DOMAIN"
        )
    captured = [
        address_class for address_class in kept
        if address_class not in later and not _is_led_elsewhere(address_class, routing)
    ]  # fmt: skip
    if captured:
        report.warn(
            f"{_named(captured)}: Postfix keeps this mail on this host, or sends it to somebody "
            "else; relaygw has no mailboxes: it is captured and never sent. Name a reader: "
            "rewrite.recipients: {root: ADDRESS}"
        )


def _say_of_entries(blocked: list[str], routing: Routing, report: Report) -> None:
    """Tell what entries of recipients.block mean otherwise than the classes of Postfix."""
    for address_class in routing.of_fate(Fate.SEND):
        wider = next((each for each in covering(address_class) if each in blocked), None)
        if wider is not None and not routing.is_allow_list:
            report.warn(
                f"{address_class}: Postfix sends this mail, though {wider} is blocked; relaygw's "
                f"lists have no exceptions: remove {wider} from recipients.block, or this mail is "
                "not sent"
            )
    signs = routing.rewriting.resolver.configuration.values("recipient_delimiter")
    if signs and any("@" in address_class[1:] for address_class in blocked):
        report.warn(
            f"recipients.block: Postfix means addresses with what follows {signs[0]}, too, such as "
            f"user{signs[0][0]}text@domain; relaygw blocks an address as it is written: add those "
            "that are used"
        )


def _allow_list(routing: Routing, report: Report) -> Iterator[tuple[str, Any]]:
    rest = routing.fates[REST]
    allowed = list(_entries(routing.of_fate(Fate.SEND), "recipients.allow", report))
    does = "refuses is captured, with 250 to the client: shops would retry forever"
    refused = ""
    if rest.fate in _DISCARDS:
        refused, does = "drop", "discards is dropped"
    elif rest.fate is Fate.HOLD:
        does = "holds is captured, and released by hand"
    elif rest.fate is Fate.REDIRECT and fits(Address, rest.reason):
        refused, does = f"redirect:{rest.reason}", "sends to another address is also sent there"
        allowed = list(dict.fromkeys((*allowed, rest.reason)))
    elif rest.fate is not Fate.REFUSE:
        does = f"does with the others ({rest.fate}) is not done: they are captured"
    yield "allow", allowed
    if refused:
        yield "refused", refused
    report.warn(
        f"{rest.places[0] if rest.places else 'main.cf'}: only listed recipients receive, so the "
        f"mode is staging; what Postfix {does}"
    )


def _is_exception(address_class: str, routing: Routing) -> bool:
    """True for a class within one that receives."""
    wider = (each for each in covering(address_class) if each and each in routing.fates)
    return any(routing.fates[each].fate is Fate.SEND for each in wider)


def _is_led_elsewhere(address_class: str, routing: Routing) -> bool:
    """Return whether aliases lead a class of this host's own recipients to other hosts."""
    if routing.fates[address_class].fate is not Fate.LOCAL:
        return False
    try:
        finals = routing.rewriting.final_recipients(sample(address_class))
    except AddressCircle:
        return False
    is_local = routing.rewriting.resolver.is_local
    return not any(is_end(final) or is_local(final.rpartition("@")[2]) for final in finals)


def _named(classes: list[str]) -> str:
    return ", ".join(classes[:4]) + (" ..." if len(classes) > 4 else "")


def _entries(classes: list[str], where: str, report: Report) -> Iterator[str]:
    for pattern in classes:
        if fits(Entry, pattern):
            yield pattern
        elif f"@{pattern[1:]}" in classes:
            report.warn(
                f"{where}: Postfix means the domains below {pattern[1:]}, too, and relaygw's lists "
                f'have whole domains only; add those that are used, as "@sub.{pattern[1:]}"'
            )
        else:
            report.warn(
                f"{where}: {pattern} is not an entry of that list; write the domains themselves"
            )


_JUDGED = re.compile(
    r"permit_(mynetworks|sasl_authenticated)|permit|reject|defer(_if_(permit|reject))?|"
    r"(reject|defer)_unauth_destination|reject_(non_fqdn|unknown|invalid|unlisted|unverified)_\w+|"
    r"reject_unauth_pipelining|reject_multi_recipient_bounce|warn_if_reject|check_recipient_access"
)
"""Restrictions that are imported, or that only strangers meet, who never come in here."""
_PASSED = re.compile(
    r"(DUNNO|OK|RELAY|PERMIT|REJECT|DEFER(_IF_PERMIT)?|DISCARD|[1-9][\d.]*)\b", re.I
)
_OF_A_PORT = (*RESTRICTIONS, "receive_override_options", "content_filter", "smtpd_milters")


def tell_restrictions(resolver: Resolver, report: Report) -> None:
    """Say which restrictions and actions are not imported; nothing is passed over."""
    configuration, door = resolver.configuration, resolver.door
    classes = configuration.values("smtpd_restriction_classes", door)
    for name, found in lists(resolver):
        for word in (check.word for check in found):
            if not _JUDGED.fullmatch(word) and word not in classes:
                report.warn(
                    f"{configuration.place(name, door)}: {name}: {word} is not imported; relaygw "
                    "takes mail of the networks and users in listeners and users, and applies no "
                    "other restriction"
                )
    for service in (candidate for candidate in configuration.services if candidate.kind == "inet"):
        names = [override for override in service.overrides if override in _OF_A_PORT]
        if names and door is not None and service is not door and service.command == "smtpd":
            report.warn(
                f"{service.place}: {service.name}: its own {', '.join(names)}: not imported; the "
                f"lists, and the table of sameness, are those of {door.name}"
            )
    _tell_actions(resolver, classes, report)


def _tell_actions(resolver: Resolver, classes: list[str], report: Report) -> None:
    tables = list(access_tables(resolver))
    for entry in (entry for table in tables for entry in table.entries):
        if not _PASSED.match(entry.value) and entry.value not in classes:
            report.warn(
                f"{entry.place}: {entry.key}: "
                f"{entry.value.partition(' ')[0] or 'an empty action'} is not imported; relaygw's "
                "lists allow or block"
            )
    for table in access_tables(resolver, SENDER):
        bad = [line for line in table.entries if access_fate(line.value) not in (None, Fate.SEND)]
        if bad:
            more = f" (and {len(bad) - 1} more lines)" if len(bad) > 1 else ""
            report.warn(
                f"{bad[0].place}: {bad[0].key}: {bad[0].value.split()[0]} is for a sender{more}, "
                "and relaygw restricts only the senders of users (users.senders)"
            )
    if tables:
        report.warn(
            "recipients: Postfix applies its access tables to SMTP mail only; relaygw's lists "
            "also apply to mail from the sendmail command"
        )
