"""A Postfix without the mistakes whose mend is sure: what `--mend` imports."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from relaygw.postfix.classes import REST, host_of, sample, written_hops
from relaygw.postfix.deliveries import Hop, Stop, hop_of
from relaygw.postfix.main_cf import Configuration, Parameter, Service
from relaygw.postfix.maps import Entry
from relaygw.postfix.resolve import Resolver
from relaygw.settings.addresses import is_loopback_host
from relaygw.settings.tree import Place

_WRAPPED_PORTS = (465, 2465)


def mended(configuration: Configuration) -> Configuration:
    """Return the configuration with logins where there are passwords."""
    found = replace(configuration, parameters=dict(configuration.parameters))
    names = ("smtp_sasl_auth_enable", "smtp_sender_dependent_authentication")
    if not configuration.value("smtp_sasl_password_maps"):
        return found
    for name in names:
        place = configuration.place(name)
        found.parameters[name] = Parameter(name, "yes", Place("--mend", place.line, place.file))
    return found


class MendedResolver(Resolver):
    """Finds a password in whatever form it is written, and never sends one in clear."""

    @cached_property
    def _written(self) -> set[str]:
        return {one.lower() for one in written_hops(self)}

    def login_entry(
        self, sender: str, hop: Hop, written: str, service: Service | None = None
    ) -> Entry | None:
        """Return the line that was meant; see Resolver."""
        found = super().login_entry(sender, hop, written, service)
        if found is not None and "@" in found.key and not self._is_own_hop(sender, hop):
            found = super().login_entry("", hop, written, service)  # his password is for others
        if found is not None or not self.configuration.is_on("smtp_sasl_auth_enable", service):
            return found
        for table in self.tables.of("smtp_sasl_password_maps", service):
            for entry in table.entries:
                is_of_host = host_of(entry.key) == hop.host
                if is_of_host and entry.key.lower() not in self._written:
                    return entry
        return None

    def _is_own_hop(self, sender: str, hop: Hop) -> bool:
        """Return whether a sender's mail goes there but for single recipients."""
        _, nexthop, _ = self._by_class(sender, sample(REST).partition("@")[2])
        return host_of(nexthop) == hop.host and hop_of(nexthop).port == hop.port

    def _stop(self, sender: str, hop: Hop, written: str, service: Service | None) -> Stop:
        stop = super()._stop(sender, hop, written, service)
        if hop.port in _WRAPPED_PORTS:
            stop = replace(stop, is_wrapped=True)
        is_open = stop.login is not None and stop.tls in ("none", "may")
        if is_open and not is_loopback_host(hop.host):
            stop = replace(stop, tls="verify")
        return stop
