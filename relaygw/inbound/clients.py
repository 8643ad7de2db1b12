"""Clients of a listener: who is trusted, what each may hold at once and begin in a time."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace

from relaygw.policy.admission import client_key, guesser, is_trusted, parse_client
from relaygw.settings.listener import Listener
from relaygw.settings.units import Rate

_MAX_REMEMBERED = 4096
_MAX_RATED = 10_000


@dataclass(frozen=True, slots=True)
class Client:
    """An SMTP client by its address."""

    address: str
    key: str  # whose turn it is, see policy.admission
    is_trusted: bool  # may send without a login
    is_local: bool = False  # nothing it says crosses a network
    guesser: str = ""  # who is behind its wrong passwords


class ClientTable:
    """Open connections of one listener by client, and what is known of each client.

    `max_connections` is what is possible, and at most what the listener's setting says.
    """

    def __init__(self, listener: Listener, max_connections: int) -> None:
        self._listener = listener
        self._max_connections = max_connections
        self._open: Counter[str] = Counter()
        self._known: dict[str, Client] = {}
        self.total = 0

    def arrive(self, address: str) -> tuple[Client, bool]:
        """Count a new connection; False when it is over a limit (it still must leave)."""
        client = self._known.get(address)
        if client is None:
            client = self._learn(address)
        self._open[client.address] += 1
        self.total += 1
        is_within = self.total <= self._max_connections and (
            client.is_trusted
            or self._open[client.address] <= self._listener.max_connections_per_client
        )
        return client, is_within

    def is_balancer(self, address: str) -> bool:
        """True if connections from `address` begin with a PROXY header."""
        networks = self._listener.proxy_protocol
        return bool(networks) and is_trusted(parse_client(address), networks)

    def arrive_behind(self, balancer: Client, address: str | None) -> tuple[Client, bool]:
        """Count a connection of `balancer` as its client's instead, as `arrive` does.

        Whoever a balancer does not name has no rights. Nobody is local behind a balancer.
        """
        self.leave(balancer)
        client, is_within = self.arrive(address or balancer.address)
        is_trusted = client.is_trusted and address is not None
        return replace(client, is_trusted=is_trusted, is_local=False), is_within

    def leave(self, client: Client) -> None:
        """Count a connection as closed."""
        self.total -= 1
        self._open[client.address] -= 1
        if not self._open[client.address]:
            del self._open[client.address]

    def _learn(self, address: str) -> Client:
        parsed = parse_client(address)
        client = Client(
            str(parsed),
            client_key(parsed),
            is_trusted(parsed, self._listener.allow),
            parsed.is_loopback,
            guesser(parsed),
        )
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        self._known[address] = client
        return client


class ClientRates:
    """How many messages each client of a listener may begin in a time: a bucket of tokens each."""

    def __init__(self, rate: Rate) -> None:
        self._capacity = max(1.0, rate.amount)
        self._per_s = rate.per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Count a message of `client`; False, and not counted, when it is over the rate."""
        now_s = time.monotonic()
        left, at_s = self._buckets.get(client, (self._capacity, now_s))
        left = min(self._capacity, left + (now_s - at_s) * self._per_s)
        is_within = left >= 1.0
        self._buckets[client] = (left - 1.0 if is_within else left, now_s)
        self._buckets.move_to_end(client)
        while len(self._buckets) > _MAX_RATED:  # the one that was quiet longest
            self._buckets.popitem(last=False)
        return is_within
