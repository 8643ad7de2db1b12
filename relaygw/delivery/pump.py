"""The pump: keeps every lane's window filled and every gate's connections busy.

What starts here ends in the recorder or is given back.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from relaygw.delivery.courier import Courier
from relaygw.delivery.gate import Gate
from relaygw.delivery.holds import HoldKeeper
from relaygw.delivery.in_hand import InHand
from relaygw.delivery.lanes import Lane, next_lane
from relaygw.delivery.leases import Leases
from relaygw.delivery.permits import Permits
from relaygw.delivery.probes import Prober
from relaygw.delivery.supplies import QUOTA_SLICE_S, Supplies
from relaygw.delivery.windows import Windows
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.observe.maillog import MailLog
from relaygw.settings.model import Stream
from relaygw.store.protocol import Store

PERMITS_AT_FIRST = 2


class Pump:
    """Starts whatever may start now, at all gates of a worker."""

    def __init__(
        self,
        store: Store,
        log: MailLog,
        *,
        lanes: Sequence[Lane],
        gates: Mapping[str, Gate],
        leases: Leases,
        in_hand: InHand,
        holds: HoldKeeper,
        courier: Courier,
        prober: Prober,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._log = log
        self._lanes = lanes
        self._gates = gates
        self._leases = leases
        self._courier = courier
        self._prober = prober
        self._windows = Windows(
            store,
            log,
            incarnation=leases.incarnation,
            in_hand=in_hand,
            courier=courier,
            holds=holds,
            threads=threads,
            spawn=self.spawn,
            wake=lambda: self.run_all(has_more=True),
        )
        self._permits = Permits(
            store, log, incarnation=leases.incarnation, gates=gates.values(), threads=threads
        )
        self.supplies = Supplies(
            store,
            log,
            incarnation=leases.incarnation,
            permits=self._permits,
            holds=holds,
            threads=threads,
            spawn=self.spawn,
            pump=self.run,
        )
        self._lanes_of = {
            name: [lane for lane in lanes if gate in lane.gates] for name, gate in gates.items()
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._turns = itertools.count(1)
        self._is_stopping = False
        self._shut: set[str] = set()  # providers that were down at the last look
        self._reopened: set[str] = set()  # and not any more at the one before

    # --- life

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` in the background; `drain` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.note("qmgr", f"error: {type(error).__name__}: {error}")

    def stop(self) -> None:
        """Start nothing new, and give back what was not begun."""
        self._is_stopping = True
        for timer in self._timers.values():
            timer.cancel()
        for lane in self._lanes:
            self._windows.give_back(lane)

    async def drain(self, limit_s: float) -> None:
        """Return when what was begun has ended; what takes longer than `limit_s` is cancelled.

        What that comes to is with the recorder on return.
        """
        deadline_s = time.monotonic() + limit_s
        while self._tasks and (left_s := deadline_s - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)
        while self._tasks:  # what is cancelled may begin something else
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

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
            self.spawn(self._windows.hurry(name))
        self._shut, self._reopened = shut, reopened

    async def tend(self, gate: Gate, connections: int) -> None:
        """Do what a gate with so many connections needs once a second."""
        if gate.is_held and gate.probe_at_s is not None and not gate.is_probed_by_mail:
            self.spawn(self._try_new_key(gate))
        lanes = self._lanes_of[gate.provider]
        is_idle = not any(lane.window for lane in lanes)
        is_sharing = is_idle or gate.is_wanted()
        await self._permits.return_spare(gate, connections, is_sharing=is_sharing)
        if is_idle and not gate.in_flight:
            await self.supplies.return_quota(gate)
        self._probe_if_wanted(gate)
        for lane in lanes:
            self._settle_if_unsure(lane)
            self._windows.sweep(lane)
            is_stuck = not (gate.permits or gate.in_flight or gate.is_asking or lane.has_choice)
            if lane.window and is_stuck:
                self._windows.give_back(lane)  # whoever has a permit can send it
        self.run(gate)

    # --- what may start

    def run(self, gate: Gate) -> None:
        """Start whatever may start now at one provider."""
        lanes = self._lanes_of[gate.provider]
        if not self._may_start(gate):
            for lane in lanes:
                # others may be able to send it; where this worker is, it waits
                if lane.window and not self._is_stopping and not lane.has_choice:
                    self._windows.give_back(lane)
            self._wake_probe(gate)
            return
        self._refill(gate)
        while (turn := self._next_turn(gate)) is not None:
            lane, claimed = turn
            gate.start(lane.stream, time.monotonic(), claimed)
            self.spawn(self._deliver(gate, lane, claimed))

    def _next_turn(self, gate: Gate) -> tuple[Lane, ClaimedDelivery] | None:
        """Take the delivery whose turn it is, if permits, rate and quota allow it now."""
        now_s = time.monotonic()
        chosen = next_lane(gate, self._lanes_of[gate.provider], now_s)
        if chosen is None:
            return None
        lane, place = chosen
        claimed = lane.window[place]
        if gate.permits <= gate.in_flight:
            waiting = sum(len(one.window) for one in self._lanes_of[gate.provider])
            self.supplies.ask_for_permits(gate, min(waiting, gate.limit() - gate.permits))
            return None
        if gate.allowance.lacks_quota(claimed):
            if gate.allowance.is_short:  # others may fit into what is left
                gate.allowance.is_short = False
                del lane.window[place]
                self.spawn(self._courier.put_off(claimed, gate.provider, QUOTA_SLICE_S))
                return self._next_turn(gate)
            self.supplies.ask_for_quota(gate, claimed)
            return None
        is_paced = gate.rate_per_s() is not None
        if is_paced:
            ready_at_s = gate.allowance.ready_at_s(claimed, now_s)
            if ready_at_s is None:
                # more than connections are free for would be used late, above the rate
                soon = min(len(lane.window), gate.permits - gate.in_flight)
                self.supplies.ask_for_tokens(gate, claimed, soon - 1)
                return None
            if ready_at_s > now_s:
                self._wake(gate, ready_at_s - now_s)
                return None
        gate.allowance.spend(claimed, is_paced=is_paced)
        del lane.window[place]
        lane.turn = next(self._turns)
        return lane, claimed

    def _wake(self, gate: Gate, wait_s: float) -> None:
        """Pump again in a moment."""
        timer = self._timers.pop(gate.provider, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[gate.provider] = loop.call_later(wait_s, self.run, gate)

    def _wake_probe(self, gate: Gate) -> None:
        """Probe an unreachable provider the moment its wait is over."""
        wait_s = gate.blocked_until_s - time.monotonic()
        if gate.is_reached or self._is_stopping:
            return
        if wait_s > 0:
            timer = self._timers.pop(gate.provider, None)
            if timer is not None:
                timer.cancel()
            loop = asyncio.get_running_loop()
            self._timers[gate.provider] = loop.call_later(wait_s, self._probe_if_wanted, gate)

    def _refill(self, gate: Gate) -> None:
        """Claim what the gate can send; without a permit that is left to others."""
        for lane in self._lanes_of[gate.provider]:
            if not (lane.wants_claim and gate.limit() > gate.in_flight):
                continue
            if not lane.leads_to(gate, time.monotonic()):
                continue
            if not gate.permits:
                self.supplies.ask_for_permits(gate, min(gate.limit(), PERMITS_AT_FIRST))
            else:
                lane.is_claiming = True
                self.spawn(self._fill(lane, self._windows.claim))

    def _settle_if_unsure(self, lane: Lane) -> None:
        if self._windows.is_unsure(lane) and not (lane.is_claiming or self._is_stopping):
            lane.is_claiming = True
            self.spawn(self._fill(lane, self._windows.settle))

    async def _fill(self, lane: Lane, step: Callable[[Lane], Awaitable[None]]) -> None:
        """Take a step that only one task at a time takes for a lane; start what it brought."""
        await step(lane)
        if self._is_stopping:
            self._windows.give_back(lane)
        for gate in lane.gates:
            self.run(gate)

    # --- probes

    def _probe_if_wanted(self, gate: Gate) -> None:
        if not self._is_stopping and gate.wants_probe(time.monotonic()):
            gate.is_probing = True  # already: the next timer may come before the probe begins
            self.spawn(self._probe(gate))

    async def _try_new_key(self, gate: Gate) -> None:
        if not gate.is_probing and await self._prober.has_new_key(gate):
            await self._probe(gate)

    async def _probe(self, gate: Gate) -> None:
        await self._prober.probe(gate)
        self.run_all()  # this one may work again, or another take over

    # --- one delivery

    async def _deliver(self, gate: Gate, lane: Lane, claimed: ClaimedDelivery) -> None:
        """Carry one delivery, and those chained to it, on one line."""
        stream = lane.stream

        def take_next() -> ClaimedDelivery | None:
            nonlocal stream
            if not self._may_start(gate):
                return None
            following = self._pass_on(gate, stream)
            if following is None:
                return None
            stream, carried = following
            self._refill(gate)
            return carried

        line = self._courier.open_line(gate, take_next)
        waiting: ClaimedDelivery | None = claimed
        try:
            while waiting is not None and self._may_start(gate):
                carried, waiting = waiting, None
                await self._courier.deliver(gate, carried, line)
                waiting = line.take_following()
        finally:
            # what was not carried, for whatever reason, goes back to the queue
            waiting = line.take_following() or waiting
            if waiting is not None:
                gate.allowance.take_back(waiting, taken=0)
                self._courier.give_back(waiting)
            gate.finish(stream, time.monotonic())
            line.close()
        self.run(gate)
        if gate.has_alternative and not gate.is_open(time.monotonic()):
            for other in lane.gates:
                self.run(other)

    def _pass_on(self, gate: Gate, stream: Stream) -> tuple[Stream, ClaimedDelivery] | None:
        """Hand the place of a transaction that is about to end to the delivery whose turn it is."""
        now_s = time.monotonic()
        gate.finish(stream, now_s)
        turn = self._next_turn(gate)
        if turn is None:
            gate.keep(stream)
            return None
        lane, claimed = turn
        gate.start(lane.stream, now_s, claimed)
        return lane.stream, claimed

    def _may_start(self, gate: Gate) -> bool:
        return not self._is_stopping and self._leases.is_held() and gate.is_open(time.monotonic())
