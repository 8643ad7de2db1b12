"""Providers of relaygw.yaml for the next hops of a Postfix; a known host becomes its preset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from relaygw.settings.addresses import is_loopback_host
from relaygw.settings.presets import Preset, presets
from relaygw.settings.provider import TlsPolicy
from relaygw.settings.section import Rate, format_duration
from relaygw_postfix.failures import MECHANISMS
from relaygw_postfix.main_cf import Configuration, Service
from relaygw_postfix.report import Report, seconds
from relaygw_postfix.resolve import Stop

SYSTEM_CAS = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)  # fmt: skip
"""Bundles of authorities that systems bring along; relaygw knows its own system's."""
_HAS_ENCRYPT = "encrypt" in list(TlsPolicy)
_POLICIES = {
    "none": "none", "may": "opportunistic", "encrypt": "encrypt" if _HAS_ENCRYPT else "required",
    "verify": "required", "secure": "required",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Known:
    """A host that a preset has."""

    name: str
    preset: Preset
    region: str | None = None
    variant: str | None = None

    @property
    def keys(self) -> dict[str, Any]:
        """What the preset fills in."""
        return self.preset.keys_for(self.region, self.variant)

    def written(self) -> dict[str, Any]:
        """Return the keys that name it; defaults are left out."""
        found = {"preset": self.name, "region": self.region, "variant": self.variant}
        defaults = (None, self.preset.default_region, self.preset.default_variant)
        return {
            key: value for key, value in found.items() if key == "preset" or value not in defaults
        }


def preset_of(host: str) -> Known | None:
    """Return the preset that a host belongs to."""
    found = _hosts().get(host.lower())
    if found is not None:
        return found
    for name, preset in presets().items():
        pattern = re.escape(preset.keys.get("host", "")).replace(r"\{region\}", "(.+)")
        match = re.fullmatch(pattern, host.lower()) if preset.region_pattern else None
        if match is not None and preset.has_region(match[1]):
            return Known(name, preset, match[1])
    return None


@cache
def _hosts() -> dict[str, Known]:
    found: dict[str, Known] = {}
    for name, preset in presets().items():
        for region in (preset.default_region, *preset.regions):
            for variant in (preset.default_variant, *preset.variants):
                host = preset.keys_for(region, variant)["host"]
                if host and "{" not in host:
                    found.setdefault(host, Known(name, preset, region, variant))
    return found


def policy_of(stop: Stop) -> str:
    """Return the nearest policy of relaygw that protects no less."""
    return "implicit" if stop.is_wrapped else _POLICIES.get(stop.tls, "required")


@dataclass
class Providers:
    """The providers that are made, each once."""

    configuration: Configuration
    report: Report
    secrets_directory: Path
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)  # by file name
    comments: dict[str, str] = field(default_factory=dict)
    stops: dict[str, Stop] = field(default_factory=dict)
    _names: dict[tuple[Stop, str], str] = field(default_factory=dict)

    def name_for(self, stop: Stop, transport: str, hint: str = "") -> str:
        """Return the name of the provider for a stop; `hint` is a sender domain it is for."""
        key = (stop, transport if self._limits(transport) != self._limits("smtp") else "smtp")
        if key not in self._names:
            self._names[key] = self._make(stop, transport, hint)
        return self._names[key]

    def _make(self, stop: Stop, transport: str, hint: str) -> str:
        known = preset_of(stop.hop.host)
        if known is not None and not _can_log_in(known, stop):
            known = None
        name = self._free_name(known.name if known else stop.hop.host, stop, hint)
        written = dict(known.written()) if known else {"host": stop.hop.host}
        self._transport_keys(written, known, stop)
        self._login_keys(written, known, stop, name)
        for key, value in self._limits(transport).items():
            if known is None or _is_less(value, known.keys.get(key)):
                written[key] = value
        self.values[name] = written
        self.stops[name] = stop
        return name

    def _free_name(self, base: str, stop: Stop, hint: str) -> str:
        plain = _as_name(base)
        for name in (plain, _as_name(f"{plain}-{hint}") if hint else plain):
            if name not in self.values:
                return name
        return next(f"{plain}-{n}" for n in range(2, 10_000) if f"{plain}-{n}" not in self.values)

    def _transport_keys(self, written: dict[str, Any], known: Known | None, stop: Stop) -> None:
        policy = policy_of(stop)
        usual = known.keys["port"] if known else None
        if known is None or stop.hop.port != usual:
            written["port"] = stop.hop.port
        is_told = known and policy == (
            "implicit" if stop.hop.port in known.preset.implicit_ports else "required"
        )
        if not is_told:
            written["tls"] = policy
        if stop.login and policy == "none" and not is_loopback_host(stop.hop.host):
            written["auth_without_tls"] = True
        ca_file = self.configuration.value("smtp_tls_CAfile")
        if ca_file and ca_file not in SYSTEM_CAS and policy in ("required", "implicit"):
            if Path(ca_file).is_file():
                written["tls_ca"] = ca_file
            else:
                place = self.configuration.place("smtp_tls_CAfile")
                self.report.warn(
                    f"{place}: {ca_file} is not there; the system's authorities are used instead"
                )

    def _login_keys(
        self, written: dict[str, Any], known: Known | None, stop: Stop, name: str
    ) -> None:
        if stop.login is None:
            return
        user, password = stop.login
        is_twice = known is not None and known.preset.is_token_twice and user == password
        if not is_twice and (known is None or known.keys.get("username") != user):
            # a name such as env:X would be read as a reference
            kind = user.partition(":")[0]
            written["username"] = f"plain:{user}" if kind != user and kind in _KINDS else user
        written["password"] = f"file:{self.secrets_directory / name}"
        self.secrets[name] = password
        if not password:
            place = self.configuration.place("smtp_sasl_password_maps")
            self.report.warn(
                f"{place}: {user} has no password, and relaygw refuses an empty one: write it into "
                f"{self.secrets_directory / name} before the start"
            )
        words = self.configuration.values("smtp_sasl_mechanism_filter")
        mechanisms = [word.lower() for word in words]
        if len(mechanisms) == 1 and mechanisms[0] in MECHANISMS:
            written["auth"] = mechanisms[0]
        elif mechanisms and not {*MECHANISMS} & set(mechanisms):
            place = self.configuration.place("smtp_sasl_mechanism_filter")
            self.report.warn(
                f"{place}: {', '.join(mechanisms)} is not a password login; write "
                f"providers.{name}.oauth for XOAUTH2 (docs/providers.md)"
            )

    def _limits(self, transport: str) -> dict[str, Any]:
        return dict(_limits(self.configuration, transport))

    def tell(self) -> None:
        """Say where relaygw is not what Postfix was."""
        place = self.configuration.place("smtp_tls_security_level")
        groups: dict[str, list[str]] = {}
        for name, stop in self.stops.items():
            for text in _what_differs(stop):
                groups.setdefault(text, []).append(name)
        for text, names in groups.items():
            shown = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
            self.report.warn(f"providers {shown}: {place}: {text}")


def _what_differs(stop: Stop) -> Iterator[str]:
    policy, host = policy_of(stop), stop.hop.host
    if stop.hop.is_mx:
        yield (
            f"{host} has no brackets, so Postfix asks the DNS for its MX; relaygw connects to "
            f"{host} itself. Both are the same if `host -t MX {host}` finds none"
        )
    if policy in ("required", "implicit") and stop.tls not in ("verify", "secure"):
        yield (
            f"Postfix verifies no certificate at level {stop.tls}; relaygw does with tls: {policy} "
            "(`relaygw check --online` shows if it can)"
        )
    if stop.login and policy in ("none", "opportunistic") and not is_loopback_host(host):
        how = "always" if policy == "none" else "if an attacker removes STARTTLS"
        yield (
            f"the password is sent in clear text {how}, as by this Postfix; write tls: required "
            "and no auth_without_tls, or import with --mend"
        )


_KINDS = ("env", "file", "credential", "command", "plain")


def _can_log_in(known: Known, stop: Stop) -> bool:
    return stop.login is not None or known.preset.may_lack_auth


def _as_name(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63] or "provider"


def _is_less(value: object, preset: object) -> bool:
    """True for a limit that the preset does not keep already."""
    if isinstance(value, str) and isinstance(preset, str):
        return Rate.parse(value).per_s < Rate.parse(preset).per_s
    return not (isinstance(value, int) and isinstance(preset, int) and value >= preset)


def _limits(configuration: Configuration, transport: str) -> Iterator[tuple[str, Any]]:
    """Yield limits that are written down for a transport, or for all."""
    service = configuration.service(transport)
    connections = _number(configuration, transport, "destination_concurrency_limit", service)
    processes = service.max_processes if service is not None else "-"
    if processes.isdecimal() and int(processes):
        connections = min(connections or int(processes), int(processes))
    delay_s = _rate_delay_s(configuration, transport, service)
    if delay_s:
        yield "rate", f"{60 / delay_s:g}/m" if delay_s <= 60 else f"{3600 / delay_s:g}/h"
        connections = 1
    if connections:
        yield "max_connections", connections
    recipients = _number(configuration, transport, "destination_recipient_limit", service)
    if recipients:
        yield "max_recipients", recipients


def _number(
    configuration: Configuration, transport: str, what: str, service: Service | None
) -> int | None:
    for name in (f"{transport}_{what}", f"default_{what}"):
        if configuration.parameter(name, service) is not None:
            text = configuration.value(name, service)
            return int(text) if text.isdecimal() and int(text) else None
    return None


def _rate_delay_s(configuration: Configuration, transport: str, service: Service | None) -> float:
    for what in ("destination_rate_delay", "transport_rate_delay"):
        for name in (f"{transport}_{what}", f"default_{what}"):
            if configuration.parameter(name, service) is not None:
                return seconds(configuration.value(name, service)) or 0.0
    return 0.0


def timeouts(configuration: Configuration) -> dict[str, str]:
    """Return the section timeouts of all providers, as far as it is written down."""
    found = {}
    for key, name in (
        ("connect", "smtp_connect_timeout"),
        ("final_reply", "smtp_data_done_timeout"),
    ):
        value = seconds(configuration.value(name)) if configuration.parameter(name) else None
        if value:
            found[key] = format_duration(value)
    return found
