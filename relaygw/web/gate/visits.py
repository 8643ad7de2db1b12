"""What the gate notices of who comes: failed logins, and what tokens are used with.

Kept in memory until it is written; bounded, whatever a holder of a token sends.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from relaygw.mail.clock import clock_ms
from relaygw.mail.words import printable
from relaygw.observe.observer import History
from relaygw.reach import Address, client_key
from relaygw.store.visitors import TokenUse

_AGAIN_MS = 3_600_000  # a use that is known is written again after this
_MAX_KNOWN = 2000
_MAX_AGENT = 100
_VERSION = re.compile(r"/[^\s()]*")
_NUMBER = re.compile(r"\d[\d._]*")


class Visits:
    """Who came to one web role since the last write."""

    def __init__(self, history: History | None = None) -> None:
        self._history = history
        self._new: dict[tuple[str, str, str], TokenUse] = {}
        self._written_ms: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    def failed(self, client: Address | None) -> None:
        """Note a wrong password or token."""
        if self._history is not None:
            self._history.login_failed("web", _network(client))

    def used(self, token: str, connection: HTTPConnection, client: Address | None) -> None:
        """Note what a token is used with."""
        now_ms = clock_ms()
        agent = agent_of(connection.headers.get("user-agent", ""))
        for kind, value in (("agent", agent), ("network", _network(client))):
            key = (token, kind, value)
            is_known = now_ms - self._written_ms.get(key, -_AGAIN_MS) < _AGAIN_MS
            if is_known or len(self._new) >= _MAX_KNOWN:
                continue
            self._written_ms[key] = now_ms
            self._written_ms.move_to_end(key)
            if len(self._written_ms) > _MAX_KNOWN:
                self._written_ms.popitem(last=False)
            times = {"first_seen_ms": now_ms, "last_seen_ms": now_ms}
            self._new[key] = TokenUse(token=token, kind=kind, value=value, **times)

    def take(self) -> list[TokenUse]:
        """Return what was noted since the last time."""
        taken, self._new = self._new, {}
        return list(taken.values())

    def put_back(self, uses: Sequence[TokenUse]) -> None:
        """Take back what could not be written."""
        self._new = {**{(one.token, one.kind, one.value): one for one in uses}, **self._new}


def agent_of(header: str) -> str:
    """Return a user agent without its versions: an update is no stranger."""
    header = header[: 4 * _MAX_AGENT].encode("latin-1", "replace").decode("utf-8", "replace")
    told = _NUMBER.sub("#", _VERSION.sub("", header))
    return printable(" ".join(told.split()))[:_MAX_AGENT] or "(none)"


def _network(client: Address | None) -> str:
    return "unknown" if client is None else client_key(client)
