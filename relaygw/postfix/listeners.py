"""Listeners and lists of networks for what a Postfix listens on."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from relaygw.errors import SettingsError
from relaygw.postfix.access import RESTRICTIONS
from relaygw.postfix.main_cf import Configuration, Service
from relaygw.postfix.report import Report, seconds
from relaygw.settings.certificates import server_context
from relaygw.settings.listener import ListenerTls

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
    return list({one["bind"]: one for one in found}.values())


def _tell_logins(
    configuration: Configuration, service: Service, networks: list[str], report: Report
) -> None:
    """Say what becomes of a port for users who log in."""
    own = [one for one in RESTRICTIONS if one in service.overrides]
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
    for one in hosts:
        yield from (_bind(each, number) for each in _addresses(configuration, service, one, report))


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
    excluded = [one for one in (_network(w[1:]) for w in words if w.startswith("!")) if one]
    for word in words:
        network = _network(word)
        if word.startswith("!"):
            report.warn(
                f"{place}: mynetworks: {word[:60]} excludes hosts, which `allow` cannot: networks "
                "that contain any of them are left out; write the rest by hand"
            )
        elif network is not None and any(network.overlaps(one) for one in excluded):
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
