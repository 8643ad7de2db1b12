"""How many connections a listener holds, of one client and of all: others are closed at once.

Those get no answer. Who sees a connection end posts again, but an answer may be the last word: one
service discards for good what is answered with 503.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from relaygw.reach import guesser, is_trusted, parse_client

MOST_OF_ALL = 500
MOST_OF_ONE = 50
_THIS_MACHINE = (ip_network("127.0.0.1/32"), ip_network("::1/128"))


class ConnectionLimit:
    """At most so many connections, and of one client; a proxy may have all of them."""

    def __init__(
        self,
        proxies: Iterable[IPv4Network | IPv6Network] = (),
        *,
        of_all: int = MOST_OF_ALL,
        of_one: int = MOST_OF_ONE,
        refused: Callable[[str, str], None] = lambda _client, _reason: None,
    ) -> None:
        """`refused` hears of each connection that is closed: the client, and what it is beyond."""
        self._proxies = (*proxies, *_THIS_MACHINE)
        self._of_all, self._of_one = of_all, of_one
        self._refused = refused
        self._held: Counter[str] = Counter()

    def enter(self, host: str) -> str | None:
        """Let a connection in and return its client, of IPv6 the /64; None: close it."""
        client, is_proxy = self._client(host)
        if not is_proxy and self._held[client] >= self._of_one:
            self._refused(client, "of_one")
        elif self._held.total() >= self._of_all:
            self._refused(client, "of_all")
        else:
            self._held[client] += 1
            return client
        return None

    def leave(self, who: str) -> None:
        """Forget a connection that was let in."""
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]

    def _client(self, host: str) -> tuple[str, bool]:
        try:
            address = parse_client(host)
        except ValueError:
            return host, False
        return guesser(address), is_trusted(address, self._proxies)
