"""By what mistakes Postfix's smtp client defers mail instead of sending it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from relaygw.postfix.access import SENDER, access_tables
from relaygw.postfix.deliveries import Delivery, Stop
from relaygw.postfix.main_cf import Configuration, Service
from relaygw.postfix.maps import Table
from relaygw.postfix.resolve import SENDER_MAPS, Resolver

LEVELS = ("none", "may", "encrypt", "fingerprint", "verify", "secure", "dane", "dane-only")
MECHANISMS = ("plain", "login", "cram-md5")
"""The ways to log in by a password that Postfix and relaygw share."""
_AUTHORITIES = ("smtp_tls_CAfile", "smtp_tls_CApath")
_PASSWORDS = "smtp_sasl_password_maps"
DECISIVE = (
    *SENDER_MAPS, "transport_maps", _PASSWORDS, "smtp_tls_policy_maps",
    "sender_canonical_maps", "recipient_canonical_maps", "canonical_maps", "smtp_generic_maps",
    "virtual_alias_maps", "relocated_maps",
)  # fmt: skip
"""Tables that are asked about any mail."""


class Failures:
    """The mistakes of a configuration, each with its place."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._configuration: Configuration = resolver.configuration
        self._tables: dict[str, list[Table]] = {}

    def of(self, delivery: Delivery) -> Iterator[str]:
        """Yield why mail that has a way stays deferred for certain."""
        configuration = self._configuration
        service = configuration.service(delivery.transport)
        yield from dict.fromkeys(one.failure for one in self._asked(service) if one.failure)
        if not delivery.stops:
            return
        if service is None and configuration.services:
            yield f"master.cf: there is no service {delivery.transport}, so Postfix cannot send"
        yield from self._of_logins(delivery, service)
        for stop in delivery.stops:
            yield from self._of_family(stop, service)
            yield from self._of_level(stop, service)

    def doubted(self, delivery: Delivery) -> Iterator[str]:
        """Yield why it may stay deferred."""
        service = self._configuration.service(delivery.transport)
        yield from dict.fromkeys(one.missing_index for one in self._asked(service))
        for stop in delivery.stops:
            words = self._configuration.values("smtp_sasl_mechanism_filter", service)
            if stop.login and any(":" in one or "!" in one for one in words):
                yield self._said("smtp_sasl_mechanism_filter", "its result is unknown", service)
            if stop.tls == "none":
                continue
            for name in _AUTHORITIES:
                path = self._configuration.value(name, service)
                if path and not Path(path).exists():
                    yield self._said(name, f"{path} is not there, so TLS may not work", service)

    def _asked(self, service: Service | None) -> list[Table]:
        key = service.name if service is not None else ""
        if key not in self._tables:
            resolver = self._resolver
            found = [*access_tables(resolver), *access_tables(resolver, SENDER)]
            for name in (*DECISIVE, "sender_bcc_maps", "recipient_bcc_maps"):
                if self._is_used(name, service):
                    found += resolver.tables.of(name, service)
            self._tables[key] = found
        return self._tables[key]

    def _is_used(self, name: str, service: Service | None) -> bool:
        return name != _PASSWORDS or self._configuration.is_on("smtp_sasl_auth_enable", service)

    def _said(self, name: str, why: str, service: Service | None) -> str:
        return f"{self._configuration.place(name, service)}: {name}: {why}"

    def _of_logins(self, delivery: Delivery, service: Service | None) -> Iterator[str]:
        configuration = self._configuration
        if not configuration.is_on("smtp_sasl_auth_enable", service):
            return
        if not configuration.value(_PASSWORDS, service):
            why = "Postfix refuses to run without smtp_sasl_password_maps"
            yield self._said("smtp_sasl_auth_enable", why, service)
        if configuration.value("smtp_sasl_type", service) not in ("", "cyrus"):
            yield self._said("smtp_sasl_type", "Postfix logs in by cyrus only", service)
        if not any(stop.login for stop in delivery.stops):
            return
        words = [one.lower() for one in configuration.values("smtp_sasl_mechanism_filter", service)]
        if words and not any(one in MECHANISMS or ":" in one or "!" in one for one in words):
            why = f"{', '.join(words)} leaves no way to log in by a password"
            yield self._said("smtp_sasl_mechanism_filter", why, service)
        for stop in delivery.stops:
            if stop.login and not stop.login[1]:
                yield self._said(
                    _PASSWORDS, f"{stop.login[0]} has no password; relaygw refuses an empty one",
                    service,
                )  # fmt: skip

    def _of_family(self, stop: Stop, service: Service | None) -> Iterator[str]:
        words = self._configuration.values("inet_protocols", service)
        try:
            family = f"ipv{ip_address(stop.hop.host).version}"
        except ValueError:
            return
        if words and not {"all", family} & {*words}:
            yield self._said("inet_protocols", f"{', '.join(words)} reaches no {stop.hop}", service)

    def _of_level(self, stop: Stop, service: Service | None) -> Iterator[str]:
        value = self._configuration.value
        place = self._resolver.tls_level(stop.written, service)[1]
        policy = self._resolver.tls_policy(stop.written, service)
        if stop.tls not in LEVELS:
            yield f"{place}: {stop.tls} is not a TLS level, so Postfix cannot send"
        has_any = any(value(one, service) for one in (*_AUTHORITIES, "smtp_tls_trust_anchor_file"))
        has_any |= self._configuration.is_on("tls_append_default_CA", service)
        has_any |= policy is not None and "tafile=" in policy.value
        if stop.tls in ("verify", "secure") and not has_any:
            yield (
                f"{place}: TLS level {stop.tls} without smtp_tls_CAfile: Postfix accepts no "
                "certificate"
            )
