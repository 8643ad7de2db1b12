"""The delivery worker: keeps every lane's window filled and every gate's connections busy.

One event loop; store calls run in threads. What starts here ends in the recorder or is
given back. A worker whose incarnation was buried (it slept past its lease) sends nothing
more and ends with `LeaseLost`, so that a fresh incarnation takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from relaygw.delivery.courier import Courier
from relaygw.delivery.holds import HoldKeeper
from relaygw.delivery.lanes import Gate, Lane, window_size
from relaygw.delivery.leases import LeaseLost, Leases
from relaygw.delivery.recorder import Recorder
from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.observe.maillog import MailLog
from relaygw.settings.model import Settings
from relaygw.store.protocol import Hold, InFlight, Store
from relaygw.upstream.pool import Pool

POLL_S = 1.0
_DRAIN_S = 25.0

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Delivers the mail of all routes of a configuration."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        log: MailLog,
        *,
        incarnation: str,
        in_flight: InFlight,
        hints: socket.socket | None,
    ) -> None:
        self._store = store
        self._log = log
        self._hints = hints
        self._leases = Leases(store, log, incarnation=incarnation)
        self._recorder = Recorder(
            store, log, incarnation=incarnation, lost_leases=self._leases.lose
        )
        self._holds = HoldKeeper(store, log)
        self._gates = _build_gates(settings)
        self._pools = {
            name: Pool(name, settings.providers[name], ehlo_name=settings.hostname)
            for name in self._gates
        }
        self._courier = Courier(
            settings,
            store,
            log,
            leases=self._leases,
            recorder=self._recorder,
            holds=self._holds,
            pools=self._pools,
            in_flight=in_flight,
        )
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="store")
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    # --- life ----------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then finish what is under way and give back the rest.

        The incarnation must be registered. Raises LeaseLost.
        """
        loop = asyncio.get_running_loop()
        if self._hints is not None:
            loop.add_reader(self._hints, self._read_hints)
        try:
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._leases.beat())
                poll = group.create_task(self._poll())
                await stop.wait()
                self._is_stopping = self._leases.is_draining = True
                poll.cancel()
                await self._drain()
                beat.cancel()
        except* LeaseLost as lost:
            raise lost.exceptions[0] from None
        finally:
            if self._hints is not None:
                loop.remove_reader(self._hints)
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _drain(self) -> None:
        """Give back windows, let transactions end, record everything, close the pools."""
        self._give_back_windows()
        deadline_s = time.monotonic() + _DRAIN_S
        while self._tasks and (left_s := deadline_s - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._recorder.drain()
        await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))

    async def _poll(self) -> None:
        """Once a second: due retries, holds, idle connections."""
        while True:
            try:
                holds = await self._in_thread(self._look)
                await self._holds.obey(holds, self._gates.values())
            except StoreUnavailable as error:
                self._log.note("qmgr", f"warning: {error}")
            for name, gate in self._gates.items():
                self._pools[name].close_expired()
                await self._return_spare_permits(gate)
                self._pump(gate)
            await asyncio.sleep(POLL_S)

    def _look(self) -> list[Hold]:
        """Note which lanes have something due, and return the holds; in a thread, all at once."""
        for gate in self._gates.values():
            for lane in gate.lanes:
                if lane.may_have_more:
                    continue
                due_at_ms = self._store.next_due_at_ms(lane.route)
                if due_at_ms is not None and due_at_ms <= time.time() * 1000:
                    lane.may_have_more = True
        return self._store.holds()

    def _read_hints(self) -> None:
        assert self._hints is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                self._hints.recv(16)
        for gate in self._gates.values():
            for lane in gate.lanes:
                lane.may_have_more = True
            self._pump(gate)

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, partial(call, *args, **kwargs)
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.note("qmgr", f"error: {type(error).__name__}: {error}")

    # --- the pump ------------------------------------------------------------------------

    def _pump(self, gate: Gate) -> None:
        """Start whatever may start now at one provider."""
        now_s = time.monotonic()
        if not self._may_start(gate):
            if not self._is_stopping and any(lane.window for lane in gate.lanes):
                self._give_back(gate)
            return
        self._refill(gate)
        while (chosen := gate.next_lane(now_s)) is not None:
            if gate.permits <= gate.in_flight:
                self._ask_for_permits(gate)
                break
            gate.start(chosen.stream)
            self._spawn(self._deliver(gate, chosen, chosen.window.popleft()))

    def _refill(self, gate: Gate) -> None:
        for lane in gate.lanes:
            if lane.wants_claim and gate.limit() > gate.in_flight:
                lane.is_claiming = True
                self._spawn(self._claim(gate, lane))

    async def _claim(self, gate: Gate, lane: Lane) -> None:
        room = lane.room
        lane.may_have_more = False  # a hint that arrives meanwhile sets it again
        try:
            claimed = await self._in_thread(
                self._store.claim,
                lane.route,
                limit=room,
                incarnation=self._leases.incarnation,
                now_ms=time.time_ns() // 1_000_000,
            )
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: {error}")
            claimed = []
        finally:
            lane.is_claiming = False
        # fewer than asked for: nothing more is due until a hint or the next poll
        lane.may_have_more = lane.may_have_more or len(claimed) == room
        lane.window.extend(claimed)
        if self._is_stopping:
            self._give_back(gate)
        self._pump(gate)

    def _give_back_windows(self) -> None:
        for gate in self._gates.values():
            self._give_back(gate)

    def _give_back(self, gate: Gate) -> None:
        """Return claimed deliveries to the queue: others may be able to send them."""
        keys = []
        for lane in gate.lanes:
            keys += [(claimed.queue_id, claimed.delivery_no) for claimed in lane.window]
            lane.window.clear()
            lane.may_have_more = True
        if keys:
            self._spawn(self._give_back_now(keys))

    async def _give_back_now(self, keys: Sequence[tuple[str, int]]) -> None:
        try:
            await self._in_thread(
                self._store.give_back,
                keys,
                incarnation=self._leases.incarnation,
            )
        except StoreUnavailable as error:
            # they stay leased until this incarnation ends; nothing is lost
            self._log.note("qmgr", f"warning: could not give back leases: {error}")

    # --- permits -------------------------------------------------------------------------

    def _ask_for_permits(self, gate: Gate) -> None:
        if gate.is_asking:
            return
        gate.is_asking = True
        self._spawn(self._acquire_permits(gate))

    async def _acquire_permits(self, gate: Gate) -> None:
        wanted = min(sum(len(lane.window) for lane in gate.lanes), gate.limit() - gate.permits)
        try:
            gate.permits += await self._in_thread(
                self._store.acquire_permits,
                gate.provider,
                wanted=wanted,
                limit=gate.max_connections,
                incarnation=self._leases.incarnation,
            )
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: {error}")
        finally:
            gate.is_asking = False
        if gate.permits > gate.in_flight:
            self._pump(gate)

    async def _return_spare_permits(self, gate: Gate) -> None:
        """Give back permits that no connection uses, so that other workers may connect."""
        spare = gate.permits - max(gate.in_flight, self._pools[gate.provider].connection_count)
        if spare <= 0 or gate.is_asking or any(lane.window for lane in gate.lanes):
            return
        gate.permits -= spare
        try:
            await self._in_thread(
                self._store.release_permits,
                gate.provider,
                count=spare,
                incarnation=self._leases.incarnation,
            )
        except StoreUnavailable as error:
            gate.permits += spare
            self._log.note("qmgr", f"warning: {error}")

    # --- one delivery --------------------------------------------------------------------

    async def _deliver(self, gate: Gate, lane: Lane, claimed: ClaimedDelivery) -> None:
        """Carry one delivery, and those chained to it, on one line."""

        def take_next() -> ClaimedDelivery | None:
            nonlocal lane
            if not self._may_start(gate):
                return None
            chosen = gate.pass_on(lane.stream, time.monotonic())
            if chosen is None:
                return None
            lane = chosen
            following = chosen.window.popleft()
            self._refill(gate)
            return following

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
                self._spawn(self._give_back_now([(waiting.queue_id, waiting.delivery_no)]))
            line.close()
            gate.finish(lane.stream)
        self._pump(gate)

    def _may_start(self, gate: Gate) -> bool:
        return not self._is_stopping and self._leases.is_held() and gate.is_open(time.monotonic())


def _build_gates(settings: Settings) -> dict[str, Gate]:
    """Make one gate for each provider that a route leads to."""
    lanes: dict[str, list[Lane]] = {}
    for route in settings.routes:
        name = route.providers[0]
        size = window_size(settings.providers[name].max_connections)
        lanes.setdefault(name, []).append(
            Lane(route=route.name, stream=route.stream, window_size=size)
        )
    return {
        name: Gate(
            provider=name, max_connections=settings.providers[name].max_connections, lanes=members
        )
        for name, members in lanes.items()
    }
