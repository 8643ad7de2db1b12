"""What a provider with limits allows, and how it counts its rate. Pure."""

from __future__ import annotations

from dataclasses import dataclass

USER = "shop"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the provider allows; None: anything."""

    rate_per_s: float | None = None
    burst_s: float = 0.15  # so much of the rate at once
    connections: int | None = None
    password: str | None = None  # of USER, by AUTH PLAIN
    reply_delay_s: float = 0.01  # from the final dot to its answer
    slow_prefix: str = ""  # of bench ids whose answer takes longer; empty: of none
    slow_reply_delay_s: float = 0.0

    def delay_s(self, bench_id: str) -> float:
        """Return the time from a message's final dot to its answer."""
        is_slow = self.slow_prefix and bench_id.startswith(self.slow_prefix)
        return self.slow_reply_delay_s if is_slow else self.reply_delay_s


class Bucket:
    """Tokens that grow by the rate up to a burst; one is a message."""

    def __init__(self, rate_per_s: float, burst_s: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._most = max(1.0, rate_per_s * burst_s)
        self._tokens = self._most
        self._filled_at_s = now_s

    def may_take(self, now_s: float) -> bool:
        """Take a token if there is one."""
        grown = (now_s - self._filled_at_s) * self._rate_per_s
        self._tokens = min(self._most, self._tokens + grown)
        self._filled_at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
