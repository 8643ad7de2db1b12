"""Address patterns of the configuration: `address`, `@domain`, `.domain`."""

from __future__ import annotations

from collections.abc import Iterable

from relaygw.mail.address import canonical, split


class AddressPatterns:
    """A set of patterns; no entry matches more than it says.

    `dev@a.test` matches that address, `@a.test` that domain only, `.a.test` the domain and
    its subdomains. Domains without regard to case; local parts exactly, unless they are
    ASCII and differ only in case.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._addresses: set[str] = set()
        self._domains: set[str] = set()
        self._suffixes: tuple[str, ...] = ()
        for entry in entries:
            lowered = entry.lower() if entry.isascii() else entry
            if entry.startswith("@"):
                self._domains.add(lowered[1:])
            elif entry.startswith("."):
                self._domains.add(lowered[1:])
                self._suffixes += (lowered,)
            else:
                self._addresses.add(canonical(entry))

    def matches_address(self, address: str) -> bool:
        """True if the whole address is an entry."""
        return canonical(address) in self._addresses

    def matches_domain(self, address: str) -> bool:
        """True if the domain of the address is covered by an entry."""
        _, domain = split(address)
        if domain is None:
            return False
        domain = domain.lower() if domain.isascii() else domain
        return domain in self._domains or domain.endswith(self._suffixes)

    def matches(self, address: str) -> bool:
        """True if any entry matches."""
        return self.matches_address(address) or self.matches_domain(address)
