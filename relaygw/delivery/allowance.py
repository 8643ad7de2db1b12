"""What a gate may send now under its rate and quota: tokens leased from the store, then spent.

Bookkeeping of one worker, no I/O. A gate without limits has none of it to do.
"""

from __future__ import annotations

from relaygw.mail.envelope import ClaimedDelivery
from relaygw.settings.provider import Counted, Provider
from relaygw.store.protocol import Tokens

_QUOTA_SHARE, _QUOTA_MOST = 100, 50  # how much of a quota is taken ahead


class Allowance:
    """Tokens of the rate and of the daily quota that this worker holds for a provider."""

    def __init__(self, provider: Provider) -> None:
        self.quota = provider.daily_quota
        self._rate_counts: Counted = provider.rate_counts
        self._quota_counts: Counted = provider.quota_counts
        self._tokens = 0
        self._next_s = 0.0  # when the first token may be used
        self._spacing_s = 0.0
        self._ask_again_s = 0.0
        self.quota_left = 0
        self.is_short = False  # what is left did not cover the delivery that was asked for

    def ready_at_s(self, claimed: ClaimedDelivery, now_s: float) -> float | None:
        """Return when the rate lets a delivery go, or None when tokens have to be taken first."""
        cost = _cost(claimed, self._rate_counts)
        if self._tokens >= cost:
            return self._next_s + (cost - 1) * self._spacing_s
        return self._ask_again_s if self._ask_again_s > now_s else None

    def wanted_tokens(self, claimed: ClaimedDelivery, waiting: int) -> int:
        """Return how many tokens to ask for, with so many more deliveries waiting."""
        return _cost(claimed, self._rate_counts) - self._tokens + waiting

    def add_tokens(self, tokens: Tokens, *, per_s: float, asked_s: float) -> None:
        """Take what the store granted at `asked_s` by the clock of this process."""
        self._spacing_s = 1 / per_s
        starts_s = asked_s + tokens.starts_in_s
        if tokens.granted:
            self._next_s = max(self._next_s, starts_s - self._tokens * self._spacing_s)
            self._tokens += tokens.granted
        else:
            self._ask_again_s = starts_s

    def lacks_quota(self, claimed: ClaimedDelivery) -> bool:
        """True when some of the daily quota has to be taken first."""
        return self.quota is not None and self.quota_left < self._quota_cost(claimed)

    def wanted_quota(self, claimed: ClaimedDelivery) -> int:
        """Return how much of the quota to take."""
        ahead = min(_QUOTA_MOST, (self.quota or 0) // _QUOTA_SHARE)
        return max(self._quota_cost(claimed), ahead) - self.quota_left

    def spend(self, claimed: ClaimedDelivery, *, is_paced: bool) -> None:
        """Count a delivery that begins."""
        if is_paced:
            cost = _cost(claimed, self._rate_counts)
            self._tokens -= cost
            self._next_s += cost * self._spacing_s
        if self.quota is not None:
            self.quota_left -= self._quota_cost(claimed)

    def take_back(self, claimed: ClaimedDelivery, *, taken: int) -> None:
        """Get back what a delivery was counted for and the provider did not take.

        `taken` are the recipients whom it took it for, or may have.
        """
        if self.quota is not None:
            used = taken if self._quota_counts == "recipients" else min(taken, 1)
            self.quota_left += max(0, self._quota_cost(claimed) - used)

    def covers(self, claimed: ClaimedDelivery) -> bool:
        """True unless a delivery takes more than a whole day's quota."""
        return self.quota is None or self._quota_cost(claimed) <= self.quota

    def _quota_cost(self, claimed: ClaimedDelivery) -> int:
        return _cost(claimed, self._quota_counts)

    def rate_cost(self, recipients: int) -> int:
        """Return how much of the rate a transaction with so many recipients takes."""
        return recipients if self._rate_counts == "recipients" else 1

    def forget_tokens(self) -> None:
        """Drop tokens of a rate that is not the rate any more."""
        self._tokens = 0
        self._next_s = self._ask_again_s = 0.0


def _cost(claimed: ClaimedDelivery, counts: Counted) -> int:
    return len(claimed.recipients) if counts == "recipients" else 1
