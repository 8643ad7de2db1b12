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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from relaygw.delivery.clock import ClockWatch
from relaygw.delivery.courier import Courier
from relaygw.delivery.gate import Gate
from relaygw.delivery.holds import HoldKeeper
from relaygw.delivery.in_hand import InHand
from relaygw.delivery.lanes import build_lanes
from relaygw.delivery.learning import Learning
from relaygw.delivery.leases import LeaseLost, Leases
from relaygw.delivery.outages import Outages
from relaygw.delivery.probes import Prober
from relaygw.delivery.pump import Pump
from relaygw.delivery.recorder import Recorder
from relaygw.delivery.second_look import SecondLook
from relaygw.delivery.senders import SenderLedger
from relaygw.errors import StoreUnavailable
from relaygw.observe.maillog import MailLog
from relaygw.observe.metrics.meters import SILENT, DeliveryMeter
from relaygw.settings.model import Settings
from relaygw.store.protocol import Account, Hold, InFlight, Store
from relaygw.upstream.classify import Classifier
from relaygw.upstream.pool import Pool

POLL_S = 1.0
_DRAIN_S = 25.0
_LAST_RECORDS_S = 10.0  # for the outcomes of a worker that does not end as it should
_SENDERS_EACH_S = 5.0
_WAITS_AT_ONCE = 500
_NEWS_S = 900.0


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
        meter: DeliveryMeter = SILENT,
    ) -> None:
        self._store = store
        self._log = log
        self._meter = meter
        self._hints = hints
        self._leases = Leases(store, log, incarnation=incarnation)
        self._recorder = Recorder(
            store, log, incarnation=incarnation, lost_leases=self._leases.lose, meter=meter
        )
        self._holds = HoldKeeper(store, log)
        self._outages = Outages(store, log)
        self._senders = SenderLedger()
        self._lanes, self._gates = build_lanes(settings)
        self._pools = {
            name: Pool(name, settings.providers[name], ehlo_name=settings.hostname)
            for name in self._gates
        }
        classifiers = {name: Classifier(settings.providers[name]) for name in self._gates}
        learning = Learning(
            store,
            log,
            incarnation=incarnation,
            holds=self._holds,
            outages=self._outages,
            senders=self._senders,
            lanes=self._lanes,
        )
        in_hand = InHand()
        courier = Courier(
            settings,
            store,
            log,
            leases=self._leases,
            recorder=self._recorder,
            learning=learning,
            pools=self._pools,
            classifiers=classifiers,
            in_flight=in_flight,
            in_hand=in_hand,
            meter=meter,
        )
        self._second_look = SecondLook(
            settings, store, log, incarnation=incarnation, wake=self.wake
        )
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="store")
        self._pump = Pump(
            store,
            log,
            lanes=self._lanes,
            gates=self._gates,
            leases=self._leases,
            in_hand=in_hand,
            holds=self._holds,
            courier=courier,
            prober=Prober(learning, self._pools, classifiers),
            threads=self._threads,
        )
        self._senders_due_s = 0.0
        self._clock = ClockWatch()

    # --- life ----------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then finish what is under way and give back the rest.

        The incarnation must be registered. Raises LeaseLost.
        """
        loop = asyncio.get_running_loop()
        if self._hints is not None:
            loop.add_reader(self._hints, self._read_hints)
        try:
            with contextlib.suppress(StoreUnavailable):  # before anybody hears of this worker
                await asyncio.to_thread(self._clock.look, self._store.clock_ms)
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self._leases.beat())
                poll = group.create_task(self._poll())
                second_look = group.create_task(self._second_look.run())
                await stop.wait()
                self._leases.is_draining = True
                poll.cancel()
                second_look.cancel()
                await self._drain()
                beat.cancel()
        except* LeaseLost as lost:
            raise lost.exceptions[0] from None
        finally:
            if self._hints is not None:
                loop.remove_reader(self._hints)
            await self._cut_short()
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _cut_short(self) -> None:
        """End what is still under way, whatever ends the worker: every attempt has an outcome."""
        self._pump.stop()
        await self._pump.drain(0)
        await self._recorder.drain(_LAST_RECORDS_S)

    async def _drain(self) -> None:
        """Give back windows, let transactions end, record everything, close the pools."""
        self._pump.stop()
        await self._pump.drain(_DRAIN_S)
        await self._recorder.drain()
        for gate in self._gates.values():
            await self._pump.supplies.return_quota(gate)
        await self._write_senders()
        self._meter.sample(self._connections())
        await asyncio.gather(*(pool.aclose() for pool in self._pools.values()))

    async def _poll(self) -> None:
        """Once a second: due retries, holds, limits, probes, idle connections."""
        while True:
            try:
                await self._mind_clock()
                await self._obey_others()
            except StoreUnavailable as error:
                self._log.note("qmgr", f"warning: {error}")
            for name, gate in self._gates.items():
                self._pools[name].close_expired()
                if gate.is_wanted():
                    self._pools[name].close_idle()
                await self._pump.tend(gate, self._pools[name].connection_count)
            self._pump.hurry_reopened()
            self._meter.sample(self._connections())
            if time.monotonic() >= self._senders_due_s:
                self._senders_due_s = time.monotonic() + _SENDERS_EACH_S
                await self._write_senders()
            await asyncio.sleep(POLL_S)

    def _connections(self) -> dict[str, tuple[int, int]]:
        """Return how many connections to each provider are busy, and how many idle."""
        return {
            name: (gate.in_flight, max(0, self._pools[name].connection_count - gate.in_flight))
            for name, gate in self._gates.items()
        }

    async def _obey_others(self) -> None:
        """Let the gates know what others found out; what this worker learns meanwhile is newer."""
        before = {
            gate: gate.teachings for gate in self._gates.values() if not gate.teachings_under_way
        }
        holds, accounts = await asyncio.to_thread(self._look)

        def untaught() -> Iterator[Gate]:
            return (gate for gate, teachings in before.items() if gate.teachings == teachings)

        for gate in untaught():
            gate.account = accounts.get(gate.limit_group, gate.account)
        self._outages.obey(holds, untaught())
        await self._holds.obey(holds, untaught())

    async def _mind_clock(self) -> None:
        """Notice when the clock is set; what was put off before it was set back waits anew."""
        step = await asyncio.to_thread(self._clock.look, self._store.clock_ms)
        if step is not None:
            self._log.note("qmgr", f"warning: the clock of the queue was {step.words}")
            if step.by_s < 0:
                self._holds.begin_anew()
        number = _WAITS_AT_ONCE if self._clock.is_unsure() else 0
        while number == _WAITS_AT_ONCE:
            number = await asyncio.to_thread(self._store.restart_waits, limit=_WAITS_AT_ONCE)

    def clock_step(self) -> str | None:
        """Return how the clock of the queue was set within the last quarter of an hour.

        For any thread.
        """
        step = self._clock.last_step
        is_news = step is not None and time.monotonic() - step.noticed_s < _NEWS_S
        return step.words if step is not None and is_news else None

    async def _write_senders(self) -> None:
        notes = self._senders.take_unwritten()
        if not notes:
            return
        try:
            await asyncio.to_thread(self._store.note_senders, notes)
        except StoreUnavailable as error:
            self._senders.put_back(notes)
            self._log.note("qmgr", f"warning: {error}")

    def _look(self) -> tuple[list[Hold], dict[str, Account]]:
        """Note which lanes have something due; return holds and accounts; in a thread."""
        for lane in self._lanes:
            if lane.may_have_more:
                continue
            due_at_ms = self._store.next_due_at_ms(lane.route)
            if due_at_ms is not None and due_at_ms <= time.time() * 1000:
                lane.may_have_more = True
        return self._store.holds(), self._store.accounts()

    def _read_hints(self) -> None:
        assert self._hints is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                self._hints.recv(16)
        self.wake()

    def unreached(self) -> dict[str, float]:
        """Return for how many seconds connecting to providers has been in vain; for any thread.

        Known long before a provider counts as down that answers nothing at all.
        """
        now_s = time.monotonic()
        since = {name: pool.unreached_since_s for name, pool in self._pools.items()}
        return {name: now_s - begun_s for name, begun_s in since.items() if begun_s is not None}

    def wake(self) -> None:
        """Look at the queue now: something new may be there."""
        self._pump.run_all(has_more=True)
