"""Which mail standing holds keep. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from relaygw.errors import InvalidAddress
from relaygw.mail.address import folded
from relaygw.mail.standing_hold import HoldScope, StandingHold

_S = HoldScope


class StandingHolds:
    """The standing holds in force, compiled once."""

    def __init__(self, holds: Iterable[StandingHold]) -> None:
        self._holds = {(hold.scope, hold.value): hold for hold in holds}
        self._subjects = [
            (value.casefold(), hold)
            for (scope, value), hold in self._holds.items()
            if scope is _S.SUBJECT
        ]
        self._networks: list[tuple[IPv4Network | IPv6Network, StandingHold]] = [
            (ip_network(value), hold)
            for (scope, value), hold in self._holds.items()
            if scope is _S.CLIENT
        ]

    def of_each(
        self,
        addresses: Iterable[str],
        *,
        route: str,
        sender: str,
        subject: str,
        client: str | None,
    ) -> list[StandingHold | None]:
        """Return the hold that keeps a message on a route from each recipient, None: nothing does.

        `client` is the address that it came from; None: a program on this machine.
        """
        whole = self._holds.get((_S.ROUTE, route))
        whole = whole or self._of_address(sender, _S.SENDER, _S.SENDER_DOMAIN)
        whole = whole or self._of_subject(subject) or self._of_client(client)
        return [
            whole or self._of_address(address, _S.RECIPIENT, _S.RECIPIENT_DOMAIN)
            for address in addresses
        ]

    def _of_address(
        self, address: str, scope: HoldScope, of_domain: HoldScope
    ) -> StandingHold | None:
        try:
            alike = folded(address)
        except InvalidAddress:
            return None  # it is captured, and never sent
        keys = ((scope, alike), (of_domain, alike.rpartition("@")[2]))
        return next((self._holds[key] for key in keys if key in self._holds), None)

    def _of_subject(self, subject: str) -> StandingHold | None:
        alike = subject.casefold() if self._subjects else ""
        return next((hold for part, hold in self._subjects if part in alike), None)

    def _of_client(self, client: str | None) -> StandingHold | None:
        if not (self._networks and client):
            return None
        try:
            address = ip_address(client)
        except ValueError:
            return None
        address = getattr(address, "ipv4_mapped", None) or address
        return next((hold for network, hold in self._networks if address in network), None)
