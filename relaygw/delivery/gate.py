"""Gates: how much may go to one provider now. Pure bookkeeping, no I/O."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.outcome import Meaning
from relaygw.policy.pacing import (
    GUARD_S,
    Throughput,
    allowed_per_s,
    connections,
    ladder_step,
    new_ceiling,
)
from relaygw.policy.recipients import AddressPatterns
from relaygw.settings.provider import Counted, Provider
from relaygw.settings.routes import Stream
from relaygw.store.limits import Account, Tokens
from relaygw.upstream.brake import Brake

UNREACHABLE_LADDER_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # after a failure, the last again
THROTTLE_LADDER_S = (5.0, 10.0, 30.0)  # where nothing was taken since, the last again
PAUSE_FROM_S = 10.0  # so long a wait is a pause: a hold that all see, and that an operator can end
PAUSE_LONGEST_S = 55.0  # whatever a row says: with a look and the sending it is less than a minute
THROTTLED_WAIT_S = 2.0  # wait of a message that was refused for the rate while others go through
DOWN_AFTER_FAILURES = 3
DOWN_AFTER_S = 3.0  # failed so often in a row, over so long: the next one takes over
_STALLED_AFTER_S = 2.0
_WANTED_FOR_S = 3.0
_TIMER_SLACK_S = 0.05  # a timer of the loop may fire a moment early
_FEW = 8
_SOON_S = 0.02  # tokens of a rate are taken for what begins in this time, and kept for as long
_LATE_S = 0.1  # after the turn of the last one those that are left are no more
_QUOTA_SHARE, _QUOTA_MOST = 100, 50  # how much of a quota is taken ahead


class Allowance:
    """What this worker has leased of a provider's rate and daily quota, and not spent yet."""

    def __init__(self, provider: Provider) -> None:
        self.quota = provider.daily_quota
        self._at_once = provider.recipients_at_once
        self._rate_counts: Counted = provider.rate_is_of
        self._quota_counts: Counted = provider.quota_is_of
        self._tokens = 0
        self._next_s = 0.0  # when the first token may be used
        self._spacing_s = 0.0
        self._kept_until_s = 0.0
        self._ask_again_s = 0.0
        self.quota_left = 0
        self.is_short = False  # what is left did not cover the delivery that was asked for

    def ready_at_s(self, claimed: ClaimedDelivery, now_s: float) -> float | None:
        """Return when the rate lets a delivery go, or None when tokens have to be taken first."""
        cost = self.rate_cost(len(claimed.recipients))
        if self._tokens > cost and now_s > self._kept_until_s:
            self._tokens = cost
        if self._tokens >= cost:
            return self._next_s + (cost - 1) * self._spacing_s
        return self._ask_again_s if self._ask_again_s > now_s else None

    def wanted_tokens(self, claimed: ClaimedDelivery, waiting: int) -> int:
        """Return how many tokens to ask for, with so many more deliveries waiting."""
        return self.rate_cost(len(claimed.recipients)) - self._tokens + waiting

    def add_tokens(self, tokens: Tokens, *, per_s: float, asked_s: float) -> None:
        """Take what the store granted at `asked_s` by the clock of this process."""
        self._spacing_s = 1 / per_s
        starts_s = asked_s + tokens.starts_in_s
        if tokens.granted:
            self._next_s = max(self._next_s, starts_s - self._tokens * self._spacing_s)
            self._tokens += tokens.granted
            last_s = self._next_s + self._tokens * self._spacing_s
            self._kept_until_s = max(asked_s + _SOON_S, last_s + _LATE_S)
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
            cost = self.rate_cost(len(claimed.recipients))
            self._tokens -= cost
            self._next_s += cost * self._spacing_s
        if self.quota is not None:
            self.quota_left -= self._quota_cost(claimed)

    def take_back(self, claimed: ClaimedDelivery, *, recipients: int, transactions: int) -> None:
        """Get back what a delivery cost beyond what was, or may be, taken: so many of each."""
        if self.quota is not None:
            used = recipients if self._quota_counts == "recipients" else transactions
            self.quota_left += max(0, self._quota_cost(claimed) - used)

    def fits_quota(self, claimed: ClaimedDelivery) -> bool:
        """True unless a delivery takes more than a whole day's quota."""
        return self.quota is None or self._quota_cost(claimed) <= self.quota

    def rate_cost(self, recipients: int) -> int:
        """Return how much of the rate so many recipients of one message take."""
        return self._cost(recipients, self._rate_counts)

    def _quota_cost(self, claimed: ClaimedDelivery) -> int:
        return self._cost(len(claimed.recipients), self._quota_counts)

    def _cost(self, recipients: int, counts: Counted) -> int:
        """Return the messages that a provider counts: each transaction is a message there."""
        return recipients if counts == "recipients" else -(-recipients // self._at_once)

    def forget_tokens(self) -> None:
        """Drop tokens of a rate that is not the rate any more."""
        self._tokens = 0
        self._next_s = self._ask_again_s = 0.0


@dataclass(slots=True, eq=False)
class Gate:
    """One provider: what is under way, its limits, its health, and whom it may send as."""

    provider: str
    settings: Provider
    is_shared: bool = False  # by both streams: one connection is kept for transactional mail
    has_alternative: bool = False  # some route leads to another provider as well
    in_flight: int = 0
    promotional_in_flight: int = 0
    permits: int = 0
    failures: int = 0  # in a row; resets with the first success
    failing_since_s: float = 0.0
    silences: int = 0  # in a row: no answer to what was begun
    is_reached: bool = True  # False after a failure, until a connection is made: then one may try
    throttles: int = 0  # in a row, nothing having gone through in between
    throttled_at_s: float = float("-inf")
    is_proving: bool = False  # after a ladder's wait: one at a time until one goes through
    blocked_until_s: float = 0.0
    progress_at_s: float = 0.0  # when something last ended, or began on an idle provider
    is_asking: bool = False  # for permits or tokens
    is_probing: bool = False
    is_outage_known: bool = False  # to all workers
    is_held: bool = False
    is_paused: bool = False  # held, for its pace or its connections: one worker at a time probes it
    probing_until_s: float = 0.0  # of a pause: it is this one
    probe_at_s: float | None = None  # of a hold; None: only an operator ends it
    is_probed_by_mail: bool = True  # a hold that only a message can end
    hold_step: int = 0
    held_senders: dict[str, float] = field(default_factory=dict)  # domain: probe time
    brake: Brake = field(default_factory=Brake)
    account: Account = field(default_factory=Account)
    teachings: int = 0  # begun and ended, see `teaching`
    teachings_under_way: int = 0
    offered: Throughput = field(default_factory=Throughput)
    accepted: Throughput = field(default_factory=Throughput)
    limit_group: str = field(init=False)  # the account whose limits hold for this provider
    allowance: Allowance = field(init=False)
    _senders: AddressPatterns | None = field(init=False)

    def __post_init__(self) -> None:
        self.limit_group = self.settings.account or self.provider
        self.allowance = Allowance(self.settings)
        self._senders = AddressPatterns(self.settings.senders) if self.settings.senders else None

    @property
    def is_choosy(self) -> bool:
        """True when the provider does not take every mail."""
        has_quota = self.settings.daily_quota is not None
        return self._senders is not None or has_quota or bool(self.held_senders)

    # --- what may start

    def is_open(self, now_s: float) -> bool:
        """True when mail may be tried now."""
        if self.is_held and not (self.is_probed_by_mail and self._is_probe_due(now_s)):
            return False
        return self.is_reached and now_s >= self.blocked_until_s

    def _is_probe_due(self, now_s: float) -> bool:
        if self.probe_at_s is None:
            return False
        return now_s < self.probing_until_s if self.is_paused else now_s >= self.probe_at_s

    def lacks_prober(self, now_s: float) -> bool:
        """True when a pause is to be probed, and a worker has to be chosen for that."""
        if not self.is_paused or self.probe_at_s is None:
            return False
        return now_s >= max(self.probe_at_s, self.probing_until_s)

    def is_down(self, now_s: float) -> bool:
        """True while another provider should take over."""
        return self.is_held or self.has_failed(now_s)

    def has_failed(self, now_s: float) -> bool:
        """True while it could not be reached so often in a row that this is an outage."""
        is_often = self.failures >= DOWN_AFTER_FAILURES
        return is_often and now_s - self.failing_since_s >= DOWN_AFTER_S - _TIMER_SLACK_S

    def limit(self) -> int:
        """How many transactions may run at once: one while the provider must prove itself."""
        if self.failures or self.is_proving or self.is_held:
            return 1
        return self.max_connections()

    def max_connections(self) -> int:
        """How many connections may be open: as configured, or as few as the provider bears."""
        ceiling = self.account.ceiling_connections
        if ceiling is None:
            return self.settings.max_connections
        since_s = time.time() - self.account.connections_at_ms / 1000
        return connections(ceiling, since_s, self.settings.max_connections)

    def is_wanted(self) -> bool:
        """True when another worker waits for a permit."""
        return abs(time.time() - self.account.wanted_at_ms / 1000) < _WANTED_FOR_S

    def rate_per_s(self) -> float | None:
        """Return how much may be sent a second: as configured, or less if the provider says so."""
        configured_per_s = self.settings.rate.per_s if self.settings.rate else None
        if self.account.ceiling_per_s is None:
            return configured_per_s
        since_s = time.time() - self.account.ceiling_at_ms / 1000
        return allowed_per_s(configured_per_s, self.account.ceiling_per_s, since_s)

    def soon(self, now_s: float) -> int:
        """Return how much of the rate is used in a moment, if it goes on as it did lately."""
        return int(self.offered.per_s(now_s) * _SOON_S)

    def has_room(self, stream: Stream, now_s: float) -> bool:
        """True when a transaction of a stream may start, as far as the provider is concerned."""
        if not self.is_open(now_s) or self.in_flight >= self.limit():
            return False
        if stream is Stream.TRANSACTIONAL:
            return True
        most = self.max_connections()
        # one place is for transactional mail: of this provider, or of others on its account
        reserved = most > 1 and (self.is_shared or self.is_wanted())
        return self.promotional_in_flight < most - reserved

    def may_send_as(self, sender: str) -> bool:
        """True if the account may send as `sender`; the null sender is nobody's."""
        return self._senders is None or not sender or self._senders.matches(sender)

    def held_domain(self, claimed: ClaimedDelivery) -> str | None:
        """Return for which domain of its sender it refuses a mail, None if it does not.

        A probe is not refused.
        """
        if not self.held_senders or claimed.probes == self.provider:
            return None
        return next(
            (
                sender_domain
                for sender_domain in claimed.sender_domains
                if sender_domain in self.held_senders
            ),
            None,
        )

    # --- what runs

    def start(self, stream: Stream, now_s: float, claimed: ClaimedDelivery) -> None:
        """Count a transaction that begins."""
        if not self.in_flight:
            self.progress_at_s = now_s
        self.offered.note(self.allowance.rate_cost(len(claimed.recipients)), now_s)
        self.reserve_place(stream)

    def reserve_place(self, stream: Stream) -> None:
        """Count a place that is kept for a transaction."""
        self.in_flight += 1
        self.promotional_in_flight += stream is Stream.PROMOTIONAL

    def finish(self, stream: Stream, now_s: float) -> None:
        """Count a transaction that ended."""
        self.progress_at_s = now_s
        self.in_flight -= 1
        self.promotional_in_flight -= stream is Stream.PROMOTIONAL

    def wants_probe(self, now_s: float) -> bool:
        """True when a connection should be tried, to see whether the provider is back."""
        if self.is_probing:
            return False
        if self.is_held and not (self._is_probe_due(now_s) and self.is_probed_by_mail):
            return self._is_probe_due(now_s)
        if not self.is_reached:  # of a held one, too: no mail can try it before
            return now_s >= self.blocked_until_s
        # another provider could help and this one has not answered for a while
        is_waiting = self.has_alternative and self.in_flight > 0
        return is_waiting and now_s - self.progress_at_s >= _STALLED_AFTER_S

    # --- what it learns

    @contextmanager
    def teaching(self) -> Iterator[None]:
        """While others are told what was learnt: what was read before the end does not know it."""
        self.teachings += 1
        self.teachings_under_way += 1
        try:
            yield
        finally:
            self.teachings_under_way -= 1
            self.teachings += 1

    def note_success(self, count: int, now_s: float) -> None:
        """Learn that the provider took mail that used so much of its rate."""
        if (self.failures or self.is_held) and self.is_down(now_s):
            self.blocked_until_s = now_s  # the rest of the ladder is void
        self.failures = self.throttles = self.silences = 0
        self.is_proving = False
        self.is_reached = True
        self.accepted.note(count, now_s)

    def note_silence(self, now_s: float) -> bool:
        """Learn that it gave no answer; True when several in a row make that its own trouble."""
        self.silences += 1
        if self.silences < DOWN_AFTER_FAILURES and not self.failures:
            return False
        self.note_failure(now_s)
        return True

    def suspect(self, now_s: float) -> None:
        """Take over what another worker found out, unless mail went through just now."""
        if self.failures or self.accepted.count(now_s):
            return
        self.failures = DOWN_AFTER_FAILURES
        self.failing_since_s = now_s - DOWN_AFTER_S
        self.blocked_until_s = now_s
        self.is_reached = False

    def note_failure(self, now_s: float) -> None:
        """Learn that it could not be reached or closed the service: leave it alone for a time."""
        if now_s < self.blocked_until_s and not self.is_reached:
            return  # several in flight met the same trouble
        if not self.failures:
            self.failing_since_s = now_s
        self.blocked_until_s = now_s + ladder_step(UNREACHABLE_LADDER_S, self.failures)
        self.failures += 1
        self.is_reached = False

    def note_too_many(self, meaning: Meaning, now_s: float, *, others: int) -> float:
        """Learn that it bears only the `others` connections; return the wait of the message."""
        most, now_ms = max(1, others), clock_ms()
        self.account = replace(self.account, ceiling_connections=most, connections_at_ms=now_ms)
        return THROTTLED_WAIT_S if others else self.note_throttle(meaning, now_s)

    def note_throttle(self, meaning: Meaning, now_s: float) -> float:
        """Learn that it asked to slow down; return the wait of the message in seconds.

        While others get through it is only sent to more slowly, else left alone by the ladder: for
        a moment by this worker, from PAUSE_FROM_S on by all.
        """
        if now_s < self.blocked_until_s:
            return self.blocked_until_s - now_s
        if now_s - self.throttled_at_s < GUARD_S:
            return THROTTLED_WAIT_S
        self.throttled_at_s = now_s
        self.throttles += 1
        if self.throttles == 1 and self.accepted.per_s(now_s) > 0:
            return THROTTLED_WAIT_S
        ladder_s = meaning.wait_s or THROTTLE_LADDER_S
        step = len(ladder_s) if self.is_paused else self.throttles - 1
        wait_s = min(ladder_step(ladder_s, step), PAUSE_LONGEST_S)
        self.blocked_until_s = now_s + wait_s
        self.is_proving = True
        return wait_s

    def note_connection(self) -> None:
        """Learn that it can be reached: a connection was made."""
        self.is_reached = True

    def note_progress(self, now_s: float) -> None:
        """Learn that it answered just now, so that it has not stalled."""
        self.progress_at_s = now_s

    def note_ceiling(self, per_s: float, now_ms: int) -> None:
        """Learn at which rate it takes mail."""
        self.account = replace(self.account, ceiling_per_s=per_s, ceiling_at_ms=now_ms)

    def obey_account(self, account: Account) -> None:
        """Take over what all workers know of the account: its ceilings, who waits for a permit."""
        self.account = account

    def begin_outage(self) -> None:
        """Note that all workers know of its outage."""
        self.is_outage_known = True

    def end_outage(self) -> None:
        """Note that no worker is to take it for down any more."""
        self.is_outage_known = False

    def obey_outage(self, now_s: float, *, is_down: bool) -> None:
        """Take over which outage all workers know of."""
        if is_down:
            self.suspect(now_s)
        elif self.is_outage_known and not self.is_reached:  # by this worker: it probes at once
            self.blocked_until_s = now_s
        self.is_outage_known = is_down

    # --- leases of its limits

    def place(self, *, is_shared: bool, has_alternative: bool) -> None:
        """Set where it stands among the routes."""
        self.is_shared, self.has_alternative = is_shared, has_alternative

    def begin_asking(self) -> None:
        """Note that permits or tokens are being asked for: one request at a time."""
        self.is_asking = True

    def end_asking(self) -> None:
        """Note that the request has its answer."""
        self.is_asking = False

    def add_permits(self, number: int) -> None:
        """Count permits that were leased, or given back where negative."""
        self.permits += number

    # --- holds and probes

    def hold_sender(self, domain: str, probe_at_s: float) -> None:
        """Send no mail of a sender's domain until the probe at this time."""
        self.held_senders[domain] = probe_at_s

    def release_sender(self, domain: str) -> bool:
        """End the hold of a sender's domain; False where there was none."""
        return self.held_senders.pop(domain, None) is not None

    def obey_senders(self, held: dict[str, float]) -> set[str]:
        """Take over the held domains that all workers know of; return those no longer held."""
        ended = self.held_senders.keys() - held
        self.held_senders = held
        return ended

    def hold(self, probe_at_s: float | None, *, by_mail: bool) -> None:
        """Send nothing but a probe from then on; None: an operator ends it."""
        self.is_held, self.probe_at_s, self.is_probed_by_mail = True, probe_at_s, by_mail

    def climb(self, ladder_s: tuple[float, ...]) -> float:
        """Return the wait until the next probe of a hold, longer each time in a row."""
        wait_s = ladder_step(ladder_s, self.hold_step)
        self.hold_step += 1
        return wait_s

    def pause(self, probe_at_s: float) -> None:
        """Hold it for its pace: one worker at a time probes it, by a message."""
        self.hold(probe_at_s, by_mail=True)
        self.is_paused, self.probing_until_s = True, 0.0

    def obey_hold(self, probe_at_s: float | None, *, by_mail: bool, is_paused: bool) -> None:
        """Take over a hold that all workers know of; how it is probed stays with who set it."""
        self.hold(probe_at_s, by_mail=self.is_probed_by_mail if self.is_held else by_mail)
        self.is_paused = is_paused

    def choose_prober(self, until_s: float) -> None:
        """Let this worker be the one that probes a pause, for so long."""
        self.probing_until_s = self.probe_at_s = until_s

    def end_hold(self) -> None:
        """End a hold that others ended: what it learnt of its ladder stays."""
        self.is_held, self.probe_at_s = False, None

    def work_again(self, now_s: float) -> None:
        """End a hold: a probe went through."""
        self.end_hold()
        self.hold_step, self.is_reached = 0, True
        self.end_pause(now_s)

    def end_pause(self, now_s: float) -> None:
        """Learn that its pause is over: it may be sent to, and its ladder begins again."""
        if self.is_paused:
            self.is_paused, self.probing_until_s, self.throttles = False, 0.0, 0
            self.blocked_until_s = now_s

    def begin_probe(self) -> None:
        """Note that a connection is being tried: one at a time."""
        self.is_probing = True

    def end_probe(self) -> None:
        """Note that the probe has its result."""
        self.is_probing = False

    def shown_ceiling(self, now_s: float) -> float:
        """Return the rate at which it said "slower" just now."""
        offered_per_s, limit_per_s = self.offered.per_s(now_s), self.rate_per_s()
        if limit_per_s is not None:
            if self.offered.count(now_s) < _FEW:
                return limit_per_s  # too few to tell more than that it was the limit
            offered_per_s = min(offered_per_s, limit_per_s)
        return new_ceiling(offered_per_s, self.accepted.per_s(now_s))
