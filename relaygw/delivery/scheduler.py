"""The scheduler: keeps every lane's window filled and every gate's connections busy.

What starts here ends in the recorder or is given back. What cannot be sent leaves its window: held
alone, put off, or given back to the queue for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from relaygw.delivery.agent import DeliveryAgent
from relaygw.delivery.attempt import Attempt, Line, Upstream
from relaygw.delivery.context import WorkerContext
from relaygw.delivery.gate import Gate
from relaygw.delivery.holds import Holds
from relaygw.delivery.lanes import Lane, clogging, next_lane
from relaygw.delivery.leases import Leases
from relaygw.delivery.outcome import Outcomes
from relaygw.delivery.shares import QUOTA_SLICE_S, Shares
from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.hold import HoldCause
from relaygw.policy.recipients import Screen

PERMITS_AT_FIRST = 2
_PUT_OFF_S = 30.0
_CLOGGED_S = 5.0
_PACE_S = 0.02  # after a claim that took all there was: what comes meanwhile is claimed together


class Scheduler:
    """Starts whatever may start now, at all gates of a worker."""

    def __init__(
        self,
        context: WorkerContext,
        *,
        lanes: Sequence[Lane],
        gates: Mapping[str, Gate],
        leases: Leases,
        holds: Holds,
        outcomes: Outcomes,
        screen: Screen,
        agent: DeliveryAgent,
        upstreams: Mapping[str, Upstream],
    ) -> None:
        self._context = context
        self._lanes = lanes
        self._gates = gates
        self._leases = leases
        self._holds = holds
        self._outcomes = outcomes
        self._screen = screen
        self.agent = agent
        self._upstreams = upstreams
        self.shares = Shares(context, gates.values(), holds, self.run)
        self._lanes_of = {
            name: [lane for lane in lanes if gate in lane.gates] for name, gate in gates.items()
        }
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._turns = itertools.count(1)
        self._is_stopping = False
        self._is_open = False
        self._shut: set[str] = set()  # providers that were down at the last look
        self._reopened: set[str] = set()  # and not any more at the one before

    # --- life

    def stop(self) -> None:
        """Start nothing new, and give back what was not begun."""
        self._is_stopping = True
        for timer in self._timers.values():
            timer.cancel()
        for lane in self._lanes:
            self._give_back(lane)

    def open(self) -> None:
        """Start what may start from now on: until then nothing does, whatever is hinted."""
        self._is_open = True
        self.run_all(has_more=True)

    @property
    def is_open(self) -> bool:
        """False as long as nobody knows that mail may leave from here."""
        return self._is_open

    def run_all(self, *, has_more: bool = False) -> None:
        """Start what may start at all gates; `has_more`: the store has something new."""
        for lane in self._lanes:
            lane.may_have_more = lane.may_have_more or (has_more and lane.is_hinted)
        for gate in self._gates.values():
            self.run(gate)

    def hurry_reopened(self) -> None:
        """Make due what was put off for a provider that has come back since the last look.

        Once more at the next look: what was being put off then is written by that time.
        """
        now_s = time.monotonic()
        shut = {name for name, gate in self._gates.items() if gate.is_down(now_s)}
        reopened = self._shut - shut
        for name in reopened | (self._reopened - shut):
            self._context.spawn(self._hurry(name))
        self._shut, self._reopened = shut, reopened

    async def _hurry(self, provider: str) -> None:
        if await self._holds.release_put_off(provider):
            self.run_all(has_more=True)

    async def tend(self, gate: Gate, connections: int) -> None:
        """Do what a gate with so many connections needs once a second."""
        if not self._is_open:
            return
        if gate.is_held and gate.probe_at_s is not None and not gate.is_probed_by_mail:
            self._context.spawn(self._try_new_key(gate))
        lanes = self._lanes_of[gate.provider]
        is_idle = not any(lane.window for lane in lanes)
        is_sharing = is_idle or gate.is_wanted()
        await self.shares.permits.return_spare(gate, connections, is_sharing=is_sharing)
        if is_idle and not gate.in_flight:
            await self.shares.return_quota(gate)
        self._probe_if_wanted(gate)
        has_mail = any(lane.window or lane.may_have_more for lane in lanes)
        if has_mail and gate.lacks_prober(time.monotonic()):
            await self._holds.choose_prober(gate)
        for lane in lanes:
            if self._leases.is_unsure(lane.route) and not (lane.is_claiming or self._is_stopping):
                self._fill(lane, self._free_unknown)
            self._sweep(lane)
            is_stuck = not (gate.permits or gate.in_flight or gate.is_asking or lane.has_choice)
            if lane.window and is_stuck:
                self._give_back(lane)  # whoever has a permit can send it
        self.run(gate)

    # --- what may start

    def run(self, gate: Gate) -> None:
        """Start whatever may start now at one provider."""
        lanes = self._lanes_of[gate.provider]
        if not self._may_start(gate):
            for lane in lanes:
                # others may be able to send it; where this worker is, it waits
                if lane.window and not self._is_stopping and not lane.has_choice:
                    self._give_back(lane)
            self._wake_probe(gate)
            return
        self._refill(gate)
        while (turn := self._next_turn(gate)) is not None:
            lane, claimed = turn
            gate.start(lane.stream, time.monotonic(), claimed)
            self._context.spawn(self._deliver(gate, lane, claimed))

    def _may_start(self, gate: Gate) -> bool:
        may_start = self._is_open and not self._is_stopping and self._leases.is_held()
        return may_start and gate.is_open(time.monotonic())

    def _next_turn(self, gate: Gate) -> tuple[Lane, ClaimedDelivery] | None:
        """Take the delivery whose turn it is, if permits, rate and quota allow it now."""
        now_s = time.monotonic()
        chosen = next_lane(gate, self._lanes_of[gate.provider], now_s)
        if chosen is None:
            return None
        lane, place = chosen
        claimed = lane.window[place]
        if gate.permits <= gate.in_flight:
            waiting = sum(len(candidate.window) for candidate in self._lanes_of[gate.provider])
            more = min(waiting, gate.limit() - gate.permits)
            self.shares.ask(gate, self.shares.more_permits(gate, more))
            return None
        if gate.allowance.lacks_quota(claimed):
            if gate.allowance.is_short:  # others may fit into what is left
                gate.allowance.is_short = False
                del lane.window[place]
                self._outcomes.put_off(claimed, gate.provider, QUOTA_SLICE_S)
                return self._next_turn(gate)
            self.shares.ask(gate, self.shares.more_quota(gate, claimed))
            return None
        is_paced = gate.rate_per_s() is not None
        if is_paced:
            ready_at_s = gate.allowance.ready_at_s(claimed, now_s)
            if ready_at_s is None:
                # more than is begun soon would be used late, or be kept from others
                waiting = min(len(lane.window), gate.permits - gate.in_flight)
                waiting = max(waiting, gate.soon(now_s)) - 1
                self.shares.ask(gate, self.shares.more_tokens(gate, claimed, waiting))
                return None
            if ready_at_s > now_s:
                self._call_later(gate, ready_at_s - now_s, self.run)
                return None
        gate.allowance.spend(claimed, is_paced=is_paced)
        del lane.window[place]
        lane.turn = next(self._turns)
        return lane, claimed

    def _call_later(self, gate: Gate, wait_s: float, look: Callable[[Gate], None]) -> None:
        """Look at a gate in a moment: the one look that is planned for it."""
        if (timer := self._timers.get(gate.provider)) is not None:
            timer.cancel()
        timer = asyncio.get_running_loop().call_later(wait_s, look, gate)
        self._timers[gate.provider] = timer

    # --- windows

    def _refill(self, gate: Gate) -> None:
        """Claim what the gate can send; without a permit that is left to others."""
        for lane in self._lanes_of[gate.provider]:
            if not (lane.may_have_more and lane.wants_claim and gate.limit() > gate.in_flight):
                continue
            if not lane.leads_to(gate, time.monotonic()):
                continue
            if not gate.permits:
                more = min(gate.limit(), PERMITS_AT_FIRST)
                self.shares.ask(gate, self.shares.more_permits(gate, more))
            else:
                self._fill(lane, self._claim)

    def _fill(self, lane: Lane, step: Callable[[Lane], Awaitable[None]]) -> None:
        """Take a step that only one task at a time takes for a lane; start what it brought."""

        async def fill() -> None:
            try:
                await step(lane)
            finally:
                lane.is_claiming = False
            self._sweep(lane)
            if self._is_stopping:
                self._give_back(lane)
            for gate in lane.gates:
                self.run(gate)

        lane.is_claiming = True
        self._context.spawn(fill())

    async def _claim(self, lane: Lane) -> None:
        wait_s = lane.emptied_at_s + _PACE_S - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        room = lane.window_size - len(lane.window)
        lane.may_have_more = False  # a hint that arrives meanwhile sets it again
        claimed = await self._leases.claim(lane.route, room)
        # fewer than asked for: nothing more is due until a hint or the next poll
        if len(claimed) == room:
            lane.may_have_more = True
        else:
            lane.emptied_at_s = time.monotonic()
        try:
            await self._holds.learn_standing(claimed)
        except StoreUnavailable as error:  # nobody knows what may go
            self._context.note(f"warning: {error}")
            await self._leases.give_back(claimed)
            return
        lane.take(
            claimed
            if self._screen.standing is None
            else [delivery for delivery in claimed if not self._park(delivery)]
        )

    def _park(self, claimed: ClaimedDelivery) -> bool:
        """Hold what standing holds keep of all its recipients; False where they do not.

        It takes no turn, and nothing of a rate. Where only some are kept, the agent sets these
        apart.
        """
        holds = self._screen.holds_of(claimed)
        if len(holds) < len(claimed.recipients) or not holds:
            return False
        cause = holds[claimed.recipients[0].rcpt_no].cause
        self._outcomes.record_held(Attempt(claimed, "", due_at_ms=claimed.due_at_ms), cause)
        return True

    async def _free_unknown(self, lane: Lane) -> None:
        freed = await self._leases.free_unknown(lane.route)
        if freed:
            lane.may_have_more = True
            what = f"{freed} deliveries of route {lane.route}, leased but not in memory"
            self._context.note(f"{what}, are queued again")

    def _sweep(self, lane: Lane) -> None:
        """Take out of a window what no provider may take, or only one that is in trouble."""
        if lane.is_plain:
            return
        now_s = time.monotonic()
        kept = []
        for claimed in lane.window:
            cause = lane.obstacle(claimed)
            gate = lane.gate_for(claimed, now_s)
            if cause is not None:
                self._context.spawn(self._hold(lane, claimed, cause))
            elif gate and lane.has_choice and gate.is_down(now_s) and not gate.is_open(now_s):
                until_s = gate.blocked_until_s
                if gate.is_held:
                    until_s = math.inf if gate.probe_at_s is None else gate.probe_at_s
                wait_s = min(_PUT_OFF_S, max(1.0, until_s - now_s + 1.0))
                self._outcomes.put_off(claimed, gate.provider, wait_s)
            else:
                kept.append(claimed)
        lane.window.clear()
        lane.window.extend(kept)
        for claimed in clogging(lane, now_s):
            lane.window.remove(claimed)
            lane.may_have_more = True
            self._outcomes.put_off(claimed, "of its sender", _CLOGGED_S)

    async def _hold(self, lane: Lane, claimed: ClaimedDelivery, cause: HoldCause) -> None:
        await self._outcomes.record_held(Attempt(claimed, "", due_at_ms=claimed.due_at_ms), cause)
        if lane.obstacle(claimed) is None:  # its hold ended while that was written
            with contextlib.suppress(StoreUnavailable):  # a later look at the holds releases it
                for gate in lane.gates:
                    await self._holds.release_sender(gate.provider, cause.domain)

    def _give_back(self, lane: Lane) -> None:
        """Return claimed deliveries to the queue: others may be able to send them."""
        claimed = list(lane.window)
        lane.window.clear()
        lane.may_have_more = True
        if claimed:
            self._context.spawn(self._leases.give_back(claimed))

    # --- probes

    def _wake_probe(self, gate: Gate) -> None:
        """Probe an unreachable provider the moment its wait is over."""
        wait_s = gate.blocked_until_s - time.monotonic()
        if wait_s > 0 and not gate.is_reached and not self._is_stopping:
            self._call_later(gate, wait_s, self._probe_if_wanted)

    def _probe_if_wanted(self, gate: Gate) -> None:
        if not self._is_stopping and gate.wants_probe(time.monotonic()):
            gate.begin_probe()  # already: the next timer may come before the probe begins
            self._context.spawn(self._probe(gate))

    async def _try_new_key(self, gate: Gate) -> None:
        if not gate.is_probing and await self._holds.has_new_key(gate):
            await self._probe(gate)

    async def _probe(self, gate: Gate) -> None:
        await self._holds.probe(gate)
        self.run_all()  # this one may work again, or another take over

    # --- one delivery

    async def _deliver(self, gate: Gate, lane: Lane, claimed: ClaimedDelivery) -> None:
        """Carry one delivery, and those chained to it, on one line."""
        stream = lane.stream

        def take_next() -> ClaimedDelivery | None:
            """Hand the place of the transaction that is about to end to whose turn it is."""
            nonlocal stream
            if not self._may_start(gate):
                return None
            now_s = time.monotonic()
            gate.finish(stream, now_s)
            turn = self._next_turn(gate)
            if turn is None:
                gate.reserve_place(stream)
                return None
            stream, following = turn[0].stream, turn[1]
            gate.start(stream, now_s, following)
            self._refill(gate)
            return following

        line = Line(self._upstreams[gate.provider], take_next)
        waiting: ClaimedDelivery | None = claimed
        try:
            while waiting is not None and self._may_start(gate):
                carried, waiting = waiting, None
                await self.agent.deliver(gate, carried, line)
                waiting = line.take_following()
        finally:
            # what was not carried, for whatever reason, goes back to the queue
            waiting = line.take_following() or waiting
            if waiting is not None:
                gate.allowance.take_back(waiting, recipients=0, transactions=0)
                self._outcomes.give_back(waiting)
            gate.finish(stream, time.monotonic())
            line.close()
        self.run(gate)
        if gate.has_alternative and not gate.is_open(time.monotonic()):
            for other in lane.gates:
                self.run(other)
