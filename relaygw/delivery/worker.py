"""The delivery worker: makes its parts, and has them look around once a second.

One event loop; store calls run in threads. A worker whose incarnation was buried ends with
`LeaseLost`, so that a fresh incarnation takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from relaygw.background_tasks import BackgroundTasks
from relaygw.delivery.agent import DeliveryAgent
from relaygw.delivery.attempt import Upstream
from relaygw.delivery.context import WorkerContext, marks_of
from relaygw.delivery.gate import Gate
from relaygw.delivery.holds import Holds, obey_outages
from relaygw.delivery.lanes import build_lanes
from relaygw.delivery.learning import Learning
from relaygw.delivery.leases import LeaseLost, Leases
from relaygw.delivery.outcome import Outcomes
from relaygw.delivery.reconciler import Reconciler
from relaygw.delivery.recorder import Recorder
from relaygw.delivery.scheduler import Scheduler
from relaygw.delivery.waits import USUAL, Waits
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import awake_s
from relaygw.observe.observer import DeliveryObserver
from relaygw.policy.recipients import Screen
from relaygw.policy.untended import AWAY_REMEDY, away_words
from relaygw.settings.model import Settings
from relaygw.store.holds import Hold, HoldsInForce
from relaygw.store.home import home_elsewhere
from relaygw.store.instances import Lifeline
from relaygw.store.limits import Account
from relaygw.store.store import Store
from relaygw.upstream.failure import Unreached

POLL_S = 1.0
_NAMING_LOOK_S = 0.02
_LAST_RECORDS_S = 10.0  # for the outcomes of a worker that does not end as it should
_SENDERS_EACH_S = 5.0
_WAITS_AT_ONCE = 500
_THREADS = 8
STEP_S = 5.0  # a clock that was moved by less, all in all, is only being corrected
_DRIFT = 0.0005  # by so much two clocks that are not set may differ in speed
UNSURE_S = 60.0  # how long after a start or a step there may be times that are still to come
EACH_S = 10.0  # how often they are looked for meanwhile; else once in UNSURE_S, for a step unseen
_SHARP_S = 1.0
_NEWS_S = 900.0


def _upstreams(
    context: WorkerContext, gates: Mapping[str, Gate], screen: Screen
) -> dict[str, Upstream]:
    upstreams = {name: Upstream(context, name, screen) for name in gates}
    for name, gate in gates.items():
        upstreams[name].pool.permitted = partial(getattr, gate, "permits")
    return upstreams


class Worker:
    """Delivers the mail of all routes of a configuration."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        observer: DeliveryObserver,
        *,
        incarnation: str,
        in_flight: Lifeline,
        hints: socket.socket | None,
        waits: Waits = USUAL,
    ) -> None:
        self._tasks = BackgroundTasks(lambda text: observer.log.note("qmgr", f"error: {text}"))
        self._context = context = WorkerContext(
            settings=settings,
            store=store,
            observer=observer,
            incarnation=incarnation,
            threads=ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="store"),
            spawn=self._tasks.spawn,
            waits=waits,
            marks=marks_of(settings, store),
        )
        self._hints = hints
        self.lanes, self.gates = build_lanes(settings)
        screen = Screen(settings)
        upstreams = _upstreams(context, self.gates, screen)
        self.pools = {name: upstream.pool for name, upstream in upstreams.items()}
        self.leases = Leases(context)
        self.claim_trouble = self.leases.claim_trouble
        self.recorder = Recorder(context, self.leases.lose, self._expected)
        self._holds = Holds(context, upstreams, screen)
        self._learning = Learning(context, self._holds, self.lanes, upstreams)
        outcomes = Outcomes(context, self.leases, self.recorder, in_flight)
        self.scheduler = Scheduler(
            context,
            lanes=self.lanes,
            gates=self.gates,
            leases=self.leases,
            holds=self._holds,
            outcomes=outcomes,
            screen=screen,
            agent=DeliveryAgent(context, self.leases, outcomes, self._learning),
            upstreams=upstreams,
        )
        self._reconciler = Reconciler(context, self.wake, self._holds.look_anew)
        self.clock = ClockWatch()
        self._looked_s = time.monotonic()
        self._rest: tuple[int | None, float] | None = None  # the queue's mark, and since when
        self._is_away = False  # from the home of the queue, and the log says so

    # --- life ----------------------------------------------------------------------------

    async def run(
        self, stop: asyncio.Event, begins_nothing: Callable[[], None] = lambda: None
    ) -> None:
        """Deliver until `stop`, finish what is under way, give back the rest; raises LeaseLost.

        `begins_nothing` is called once no provider hears of any recipient any more.
        """
        loop = asyncio.get_running_loop()
        if self._hints is not None:
            loop.add_reader(self._hints, self._read_hints)
        try:
            with contextlib.suppress(StoreUnavailable):  # before anybody hears of this worker
                await self._context.call(self.clock.look, self._context.store.clock_ms)
            async with asyncio.TaskGroup() as group:
                beat = group.create_task(self.leases.renew_until_cancelled())
                poll = group.create_task(self._poll())
                reconciling = group.create_task(self._reconciler.run())
                await stop.wait()
                self.leases.is_draining = True
                poll.cancel()
                reconciling.cancel()
                naming = group.create_task(self._end_naming(begins_nothing))
                await self.drain()
                await naming
                beat.cancel()
        except* LeaseLost as lost:
            raise lost.exceptions[0] from None
        finally:
            if self._hints is not None:
                loop.remove_reader(self._hints)
            # whatever ends the worker: every attempt has an outcome
            self.scheduler.stop()
            await self._tasks.drain(0)
            await self.recorder.drain(_LAST_RECORDS_S)
            self._context.threads.shutdown(wait=False, cancel_futures=True)

    async def _end_naming(self, begins_nothing: Callable[[], None]) -> None:
        while any(pool.is_naming for pool in self.pools.values()):  # noqa: ASYNC110 - once
            await asyncio.sleep(_NAMING_LOOK_S)
        begins_nothing()

    async def drain(self) -> None:
        """Give back windows, let transactions end, record everything, close the pools."""
        self.scheduler.stop()
        await self._tasks.drain(self._context.waits.drain_s)
        await self.recorder.drain()
        for gate in self.gates.values():
            await self.scheduler.shares.return_quota(gate)
        await self._learning.write_senders()
        self._context.observer.sample(self.connections())
        await asyncio.gather(*(pool.aclose() for pool in self.pools.values()))

    async def _poll(self) -> None:
        """Once a second: due retries, holds, limits, probes, idle connections."""
        senders_due_s = 0.0
        while True:
            with self._context.noting():
                await self.look_around()
                await self._open_at_home()
            for name, gate in self.gates.items():
                self.pools[name].close_expired()
                if gate.is_wanted():
                    self.pools[name].close_idle()
                await self.scheduler.tend(gate, self.pools[name].connection_count)
            self.scheduler.hurry_reopened()
            self._context.observer.sample(self.connections())
            if time.monotonic() >= senders_due_s:
                senders_due_s = time.monotonic() + _SENDERS_EACH_S
                await self._learning.write_senders()
            await asyncio.sleep(POLL_S)

    def _expected(self) -> int:
        """Return how many outcomes may come before anything waits for what is recorded."""
        gates = self.gates.values()
        if any(lane.window for lane in self.lanes):  # for the lines that are in use
            return sum(gate.in_flight for gate in gates)
        return sum(gate.permits for gate in gates)

    def connections(self) -> dict[str, tuple[int, int]]:
        """Return how many connections to each provider are busy, and how many idle."""
        return {
            name: (gate.in_flight, max(0, self.pools[name].connection_count - gate.in_flight))
            for name, gate in self.gates.items()
        }

    async def look_around(self) -> None:
        """Let the gates know what others found out; what this worker learns meanwhile is newer.

        One call, since what a rest costs is waking threads; none where nobody has written since
        one that found nothing to do.
        """
        mark = self._context.store.database.change_mark()
        if self._rests(mark):
            self._looked_s = time.monotonic()
            return
        gates = self.gates.values()
        before = {gate: gate.teachings for gate in gates if not gate.teachings_under_way}
        steps: list[ClockStep] = []
        try:
            holds, accounts, waiting = await self._context.call(self._look, steps)
        finally:
            self._mind_clock(steps)
        self._looked_s = time.monotonic()
        stops = holds.stops
        self._rest = None if any(holds) or waiting else (mark, self._looked_s)
        self._forget_unwanted(stops, waiting)
        await self._restart_waits()

        def untaught() -> Iterator[Gate]:
            return (gate for gate, teachings in before.items() if gate.teachings == teachings)

        for gate in untaught():
            gate.obey_account(accounts.get(gate.limit_group, gate.account))
        obey_outages(stops, untaught())
        await self._holds.obey(holds, untaught())

    def _rests(self, mark: int | None) -> bool:
        """Return whether a look would find nothing, as the last one did; not believed for long."""
        if mark is None or self._rest is None:
            return False
        found, looked_s = self._rest
        is_idle = not any(lane.window or lane.may_have_more for lane in self.lanes)
        is_idle = is_idle and not any(gate.in_flight for gate in self.gates.values())
        rest_s = self._context.waits.rest_s
        return is_idle and mark == found and time.monotonic() - looked_s < rest_s

    async def _open_at_home(self) -> None:
        """Begin to send once the holds are known, and that mail may leave from this machine."""
        if self.scheduler.is_open:
            return
        homes, settings = self._context.store.homes, self._context.settings
        home = await self._context.call(home_elsewhere, homes, settings)
        if home is None:
            self.scheduler.open()
        elif not self._is_away:
            self._is_away = True
            self._context.note(f"warning: {away_words(home.owner)}; {AWAY_REMEDY}")

    def _mind_clock(self, steps: Sequence[ClockStep]) -> None:
        """Tell when the clock was set."""
        for step in steps:
            self._context.note(f"warning: the clock of the queue was {step.words}")
            if step.by_s < 0:
                self._holds.is_fresh = True  # probe times may be far ahead

    async def _restart_waits(self) -> None:
        """Let what was put off before the clock was set back wait anew."""
        if self.clock.is_unsure():
            self._holds.looks_closer = True
            restart, most = self._context.store.janitor.restart_waits, _WAITS_AT_ONCE
            while await self._context.call(restart, limit=most) == most:
                pass

    def _forget_unwanted(self, holds: Sequence[Hold], waiting: Collection[str]) -> None:
        """Forget that providers could not be reached which nothing waits for, by now."""
        wanted = {hold.key for hold in holds}
        for lane in self.lanes:
            if lane.window or lane.route in waiting:
                wanted.update(gate.provider for gate in lane.gates)
        for name, gate in self.gates.items():
            if name not in wanted and not gate.in_flight:
                self.pools[name].forget_unreached()

    def _look(
        self, steps: list[ClockStep]
    ) -> tuple[HoldsInForce, dict[str, Account], Collection[str]]:
        """Note which lanes have something due; in a thread. Return holds, accounts, routes.

        `steps` gets how the clock was set, whatever comes of the rest.
        """
        store = self._context.store
        if (step := self.clock.look(store.clock_ms)) is not None:
            steps.append(step)
        with store.database.snapshot():
            waiting = store.leases.routes_waiting()  # of most there is nothing
            for lane in self.lanes:
                if lane.may_have_more or lane.route not in waiting:
                    continue
                due_at_ms = store.leases.next_due_at_ms(lane.route)
                if due_at_ms is not None and due_at_ms <= time.time() * 1000:
                    lane.may_have_more = True
            return store.holds.all_in_force(), store.limits.accounts(), waiting

    # --- what others ask and tell --------------------------------------------------------

    def unreached(self) -> dict[str, Unreached]:
        """Return since when connecting to providers that are wanted is in vain; for any thread."""
        since = {name: pool.unreached() for name, pool in self.pools.items()}
        return {name: outage for name, outage in since.items() if outage is not None}

    def claimed_s(self) -> float:
        """Return for how many seconds it has not looked for due mail; for any thread."""
        return time.monotonic() - self._looked_s

    def _read_hints(self) -> None:
        assert self._hints is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                self._hints.recv(16)
        self.wake()

    def wake(self) -> None:
        """Look at the queue now: something new may be there."""
        self.scheduler.run_all(has_more=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """The clock was set: by how much, negative when back, and when that was noticed."""

    by_s: float
    noticed_s: float  # time.monotonic

    @property
    def words(self) -> str:
        """In which direction, and by how many seconds."""
        return f"set {'back' if self.by_s < 0 else 'forward'} by {abs(self.by_s):.0f} s"


class ClockWatch:
    """Notices when the queue's clock is set: set back, it leaves due times far ahead."""

    def __init__(self) -> None:
        self.last_step: ClockStep | None = None
        self._beyond_s: float | None = None  # the machine's own, when it was not set
        self._looked_at_s = 0.0
        self._due_s = time.monotonic()
        self._unsure_until_s = self._due_s + UNSURE_S

    def look(self, clock_ms: Callable[[], int]) -> ClockStep | None:
        """Return by how much the clock was set since the last look, None if it was not."""
        asked_s = awake_s()
        at_s = clock_ms() / 1000
        answered_s = awake_s()
        if answered_s - asked_s > _SHARP_S:  # this process was stopped, or the answer took long
            return None
        beyond_s, passed_s = at_s - answered_s, answered_s - self._looked_at_s
        self._looked_at_s = answered_s
        by_s = 0.0 if self._beyond_s is None else beyond_s - self._beyond_s
        if self._beyond_s is None or abs(by_s) < STEP_S:
            # small steps add up; two clocks that only run at different speeds do not
            most_s = _DRIFT * passed_s
            self._beyond_s = beyond_s - by_s + min(max(by_s, -most_s), most_s)
            return None
        self._beyond_s, now_s = beyond_s, time.monotonic()
        self.last_step = ClockStep(by_s=by_s, noticed_s=now_s)
        self._due_s, self._unsure_until_s = now_s, now_s + UNSURE_S
        return self.last_step

    def recent_step(self) -> str | None:
        """Return how the clock was set within the last quarter of an hour; for any thread."""
        step = self.last_step
        return step.words if step and time.monotonic() - step.noticed_s < _NEWS_S else None

    def is_unsure(self) -> bool:
        """True when it is time to look for what was written at a time still to come."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return False
        self._due_s = now_s + (EACH_S if now_s < self._unsure_until_s else UNSURE_S)
        return True
