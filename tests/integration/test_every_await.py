"""A fault at each place where an attempt can be suspended: nothing is sent twice without a doubt.

The places are found, not listed: a delivery is run again and again, each time with the fault one
suspension later, until it ends before the fault. What was recorded by then is looked at; the rest
is delivered by a worker without faults. An `await` on the way of an attempt that no scenario is
ever suspended at fails the last test: give it a scenario.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import linecache
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Semaphore
from types import FrameType
from typing import Any, NamedTuple

import pytest

from relaygw.delivery import agent, attempt, outcome, recorder, sending_once
from relaygw.delivery.agent import DeliveryAgent
from relaygw.delivery.attempt import Attempt
from relaygw.delivery.leases import LeaseLost, Leases
from relaygw.delivery.waits import HEARTBEAT_S, USUAL, Waits
from relaygw.delivery.worker import Worker
from relaygw.errors import StoreUnavailable
from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.observe.observer import DeliveryObserver
from relaygw.settings.model import Settings
from relaygw.settings.routes import Route
from relaygw.store import batch_writer, instances
from relaygw.store.batch_writer import BatchWriter
from relaygw.store.database import Transaction, Write
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.sqlite import SqliteDatabase
from relaygw.store.store import Store, store_on
from relaygw.upstream import outgoing, protocol, session
from relaygw.upstream.protocol import WireProtocol
from tests.builders import accepted, instance
from tests.campaign import times
from tests.fakes.scripted_provider import Script, ScriptedProvider, Wait
from tests.integration.suspensions import Site, Stepped, Thrown, sites_of
from tests.logs import text_log
from tests.queues import make_queue

PATIENCE_S = 60.0
_LONG_PACE_S = 0.5  # so that an outcome waits for others, however slow the machine is
BODY = b"y" * 76 + b"\r\n"
CHUNK = BODY * 1000  # more than comes with a claim
NEVER_MS = 10**15
UNKNOWN = b"550 5.1.1 no such user\r\n"
NOT_VERIFIED = b"554 Message rejected: Email address is not verified. shop.test\r\n"


# --- faults


class Fault:
    """What goes wrong at one suspension; the worker is stopped then, with time to end its mail."""

    drain_s = 25.0
    is_harmless = False  # to what the attempt itself does: the provider's answer still arrives

    def strike(self, run: Run, *, in_delivery: bool) -> None:
        """Do the harm; may raise Thrown."""


class Cancelled(Fault):
    def strike(self, run: Run, *, in_delivery: bool) -> None:
        run.delivering[-1].cancel()


class Stopped(Fault):
    """A stop whose time is over: all that is under way is cancelled at once."""

    drain_s = 0.0


class Reloaded(Fault):
    """Another worker begins while this one ends."""

    is_harmless = True

    def strike(self, run: Run, *, in_delivery: bool) -> None:
        run.successor = asyncio.create_task(run.trial.deliver_rest(f"{run.incarnation}-next"))


class Defect(Fault):
    def strike(self, run: Run, *, in_delivery: bool) -> None:
        if in_delivery:
            raise Thrown(ValueError("a defect"))


class StoreAway(Fault):
    is_harmless = True

    def strike(self, run: Run, *, in_delivery: bool) -> None:
        run.trial.store.database.away = Semaphore(3)


class ReadFails(Fault):
    """What waits is told that the store could not do it."""

    def strike(self, run: Run, *, in_delivery: bool) -> None:
        if in_delivery:
            raise Thrown(StoreUnavailable("the server closed the connection"))


class AnswerLost(Fault):
    """The store has written and cannot say so."""

    is_harmless = True

    def strike(self, run: Run, *, in_delivery: bool) -> None:
        run.trial.store.database.unanswered = Semaphore(3)


class LeaseLostToOthers(Fault):
    """This worker overslept, and another gateway's janitor has taken its leases."""

    def strike(self, run: Run, *, in_delivery: bool) -> None:
        run.worker.leases.held_until_s = 0.0
        run.trial.store.instances.bury(run.incarnation, begun=None)


STRIDE = times(3, campaign=1)
"""A fault strikes at every third suspension, in a campaign at every one."""

FAULTS = {
    "cancelled": Cancelled(),
    "stopped": Stopped(),
    "reloaded": Reloaded(),
    "defect": Defect(),
    "store-away": StoreAway(),
    "read-fails": ReadFails(),
    "answer-lost": AnswerLost(),
    "lease-lost": LeaseLostToOthers(),
}


# --- what is delivered


class Released(NamedTuple):
    """What happens once the delivery, or the recorder, is suspended in a function."""

    function: str
    happens: Callable[[Run], None]


@dataclass
class Scenario:
    """Some mail, and a provider that does what it takes to be suspended everywhere."""

    name: str
    recipients: tuple[tuple[str, ...], ...] = (("a",),)  # of each message
    content: bytes = b"Subject: x\r\n\r\nhello\r\n"
    chunks: int = 0
    is_8bit: bool = False
    provider: dict[str, Any] = field(default_factory=dict)
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME")
    settings: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, Script] = field(default_factory=dict)  # replies to recipients
    script: Callable[[ScriptedProvider], list[Released]] = lambda _: []
    small_buffers: bool = False
    is_doubtful: bool = False  # from the start: somebody may have it
    is_stale: bool = False  # claimed long ago

    def messages(self, number: int, store: Store) -> list[AcceptedMessage]:
        """Put the mail of one run into the store."""
        made = []
        for place, names in enumerate(self.recipients):
            addresses = [f"{name}-{place}-{number}@cust.test" for name in names]
            message = accepted(*addresses, content=self.content, is_8bit=self.is_8bit)
            message = replace(message, accepted_at_ms=message.accepted_at_ms + place)
            if self.chunks:
                whole = [self.content, *[CHUNK] * self.chunks]
                store.intake.add_chunks(message.queue_id, 0, whole)
                size_bytes = sum(map(len, whole))
                message = replace(
                    message, content=(), stored_chunks=len(whole), size_bytes=size_bytes
                )
            made.append(message)
        store.intake.accept_batch(made)
        if self.is_doubtful:
            ids = ", ".join(f"'{one.queue_id}'" for one in made)
            with store.database.write() as tx:
                tx.connection.exec_driver_sql(
                    f"UPDATE delivery SET reclaims = 1, provider = 'p' WHERE queue_id IN ({ids})"
                )
        return made


def _taken_slowly(provider: ScriptedProvider) -> list[Released]:
    full = asyncio.Event()
    provider.script("DATA", (b"354 go\r\n", Wait(full)))
    return [Released("_drain", lambda _: full.set())]


def _refused_midway(provider: ScriptedProvider) -> list[Released]:
    full, begun = asyncio.Event(), asyncio.Event()
    provider.script("DATA", (b"354 go\r\n", Wait(full), b"552 5.3.4 ", Wait(begun), b"no\r\n"))
    return [
        Released("_drain", lambda _: full.set()),
        Released("_read_refusal", lambda _: begun.set()),
    ]


def _refused_at_once(provider: ScriptedProvider) -> list[Released]:
    begun = asyncio.Event()
    provider.script("DATA", (b"354 go\r\n552 5.3.4 ", Wait(begun), b"too large\r\n"))
    return [Released("_read_refusal", lambda _: begun.set())]


def _go_ahead_for_nobody(provider: ScriptedProvider) -> list[Released]:
    provider.script("DATA", b"354 go\r\n")
    return []


def _verified_meanwhile(_: ScriptedProvider) -> list[Released]:
    """Return what ends the hold of a sender while mail is being held for it."""

    def end_hold(run: Run) -> None:
        for gate in run.worker.gates.values():
            gate.held_senders.clear()

    return [Released("_write_next", end_hold)]


PARTS = {"max_recipients": 2}
CHAINED = {"chain_transactions": True, "max_connections": 1}
KEYED = {"idempotency": {"header": "X-Key", "life": "24h"}}
EIGHT_BIT = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nz\u00fcrich\r\n".encode()
SCENARIOS = [
    Scenario("small"),
    Scenario("large", chunks=2, provider={"headers": {"X-Shop": "1"}}),
    Scenario("parts", recipients=(("a", "b", "c"),), provider=PARTS),
    Scenario(
        "parts-some-refused",
        recipients=(("a", "no", "b"),),
        provider=PARTS,
        refused={"no": UNKNOWN},
        settings={"retry": {"lifetime": "1h"}},
    ),
    Scenario("parts-large", recipients=(("a", "b", "c"),), provider=PARTS, chunks=1),
    Scenario("chained", recipients=(("a",), ("b",), ("c",)), provider=CHAINED),
    Scenario("chained-parts", recipients=(("a", "b", "c"), ("d",)), provider={**CHAINED, **PARTS}),
    Scenario("chained-large", recipients=(("a",), ("b",)), provider=CHAINED, chunks=1),
    Scenario(
        "chained-converted",
        recipients=(("a",), ("b",)),
        provider=CHAINED,
        content=EIGHT_BIT,
        is_8bit=True,
        extensions=("PIPELINING",),
    ),
    Scenario(
        "converted-large", content=EIGHT_BIT, is_8bit=True, chunks=1, extensions=("PIPELINING",)
    ),
    Scenario(
        "unpiped-parts",
        recipients=(("no", "nor", "a"),),
        provider=PARTS,
        extensions=(),
        refused={"no": UNKNOWN, "nor": UNKNOWN},
    ),
    Scenario(
        "nobody-taken",
        recipients=(("no",),),
        refused={"no": UNKNOWN},
        script=_go_ahead_for_nobody,
    ),
    Scenario(
        "sender-refused",
        recipients=(("no",),),
        refused={"no": NOT_VERIFIED},
        provider={"preset": "ses"},
    ),
    Scenario(
        "sender-verified",
        recipients=(("no",),),
        refused={"no": NOT_VERIFIED},
        provider={"preset": "ses"},
        script=_verified_meanwhile,
    ),
    Scenario("keyed", recipients=(("a", "b"),), provider=KEYED, is_doubtful=True),
    Scenario("stale", is_stale=True),
    Scenario("keyed-large", provider=KEYED, chunks=1),
    Scenario("held-for-its-key", provider=KEYED, content=b"X-Key: a b\r\n\r\nhello\r\n"),
    Scenario("taken-slowly", chunks=2, script=_taken_slowly, small_buffers=True),
    Scenario("refused-midway", chunks=2, script=_refused_midway, small_buffers=True),
    Scenario("refused-at-once", script=_refused_at_once),
    Scenario("blocked", settings={"recipients": {"block": ["@cust.test"]}}),
    Scenario(
        "fields-left-out",
        content=b'X-SMTPAPI: {"to": ["c@other.test"]}\r\nSubject: x\r\n\r\nhello\r\n',
        chunks=1,
        settings={"mode": "staging", "recipients": {"allow": ["@cust.test"]}},
    ),
    Scenario(
        "held-for-a-field",
        content=b"X-SMTPAPI: {what is this\r\nSubject: x\r\n\r\nhello\r\n",
        settings={"recipients": {"block": ["@spam.test"]}},
    ),
]


# --- how it is delivered


class FragileDatabase(SqliteDatabase):
    """A database that is away for some calls, or cannot say what it did."""

    # of as many calls, by whatever threads
    away = Semaphore(0)
    unanswered = Semaphore(0)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        self._be_away()
        with super().read() as tx:
            yield tx

    @contextmanager
    def write(self, kind: Write = Write.SYNCED) -> Iterator[Transaction]:
        self._be_away()
        with super().write(kind) as tx:
            yield tx
        if self.unanswered.acquire(blocking=False):
            raise StoreUnavailable("no answer")

    def _be_away(self) -> None:
        if self.away.acquire(blocking=False):
            raise StoreUnavailable("away")


class Run:
    """One delivery, and the suspension at which the fault strikes."""

    current: Run | None = None  # what `suspended` looks at

    def __init__(self, trial: Trial, number: int, releases: list[Released]) -> None:
        self.trial = trial
        self.incarnation = f"w{number}"
        self.delivering: list[asyncio.Task[None]] = []
        self.attempts: list[Attempt] = []
        self.stop = asyncio.Event()
        self.successor: asyncio.Task[None] | None = None
        self.has_struck = False
        self.sent: frozenset[str] = frozenset()  # messages with a final dot when it struck
        self._left = number
        self._releases = releases
        self._has_begun = False
        self.worker = trial.worker(self.incarnation)

    def suspended(self, frames: list[FrameType], *, in_delivery: bool) -> None:
        """Look at where a delivery, or the recorder, stands; strike when it is time."""
        self.trial.seen.update((frame.f_code.co_filename, frame.f_lineno) for frame in frames)
        functions = {frame.f_code.co_name for frame in frames}
        for release in self._releases:
            if release.function in functions:
                asyncio.get_running_loop().call_soon(release.happens, self)
        self._has_begun = self._has_begun or "transact" in functions or "record" in functions
        if self.has_struck or not self._has_begun:
            return
        if self._left:
            self._left -= 1
            return
        self.has_struck = True
        self.sent = frozenset(
            one.claimed.queue_id
            for one in self.attempts
            if one.transaction.is_dot_sent or one.outcomes
        )
        self.stop.set()
        self.trial.fault.strike(self, in_delivery=in_delivery)


class Trial:
    """A scenario and a fault, with all the runs it takes."""

    def __init__(
        self,
        scenario: Scenario,
        fault: Fault,
        provider: ScriptedProvider,
        directory: Path,
        waits: Waits,
    ) -> None:
        self.scenario = scenario
        self.fault = fault
        self.provider = provider
        self.seen: set[tuple[str, int]] = set()
        self._directory, self._waits = directory, waits
        database = FragileDatabase(f"sqlite:///{directory}/queue.db")
        self.store = store_on(database)
        self.log = io.StringIO()
        self._settings = Settings.model_validate(
            {
                "mode": "production",
                "hostname": "gw.test",
                "providers": {"p": provider.settings(**scenario.provider)},
                "routes": [Route(name="default", providers=("p",))],
                "retry": {"first": "100ms", "max": "1s", "jitter": "0%"},
                **scenario.settings,
            }
        )

    def worker(self, incarnation: str) -> Worker:
        self.store.instances.register(
            instance(incarnation)
        )  # fmt: skip
        self.lifeline = instances.Lifeline(self._directory / "instances", incarnation)
        return Worker(
            self._settings,
            self.store,
            DeliveryObserver(text_log(self.log)),
            incarnation=incarnation,
            in_flight=self.lifeline,
            hints=None,
            waits=self._waits,
        )

    def entries(self, messages: list[AcceptedMessage]) -> list[QueueEntry]:
        ids = tuple(message.queue_id for message in messages)
        selection = Selection(queue_ids=ids, states=frozenset(DeliveryState))
        return self.store.queue.search(selection, limit=len(ids))

    def change(self, *statements: str) -> None:
        with self.store.database.write() as connection:
            for sql in statements:
                connection.connection.exec_driver_sql(sql)

    async def run(self, number: int) -> bool:
        """Strike at suspension `number`; False when everything was over before."""
        self.provider.clear()
        messages = self.scenario.messages(number, self.store)
        for place, names in enumerate(self.scenario.recipients):
            for name in names:
                if name in self.scenario.refused:
                    address = f"{name}-{place}-{number}@cust.test"
                    self.provider.recipients[address] = self.scenario.refused[name]
        run = Run(self, number, self.scenario.script(self.provider))
        lifeline = self.lifeline
        Run.current = run
        task = asyncio.create_task(run.worker.run(run.stop))
        await asyncio.sleep(0)
        run.worker.wake()
        async with asyncio.timeout(PATIENCE_S):
            while self._is_due():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(run.stop.wait(), 0.005)
                    break
            run.stop.set()
            with contextlib.suppress(LeaseLost):
                await task
        Run.current = None
        database = self.store.database
        database.away, database.unanswered = Semaphore(0), Semaphore(0)
        begun = instances.begun_by(self._directory / "instances", run.incarnation)
        self.store.instances.bury(run.incarnation, begun=begun)
        lifeline.release()
        if run.successor is not None:
            await run.successor
        self._check(run, messages)
        return run.has_struck

    def _check(self, run: Run, messages: list[AcceptedMessage]) -> None:
        """Look at what is recorded, and lay it aside until the end."""
        copies = self.copies()
        entries = self.entries(messages)
        for entry in entries:
            assert all(part.state is not DeliveryState.ACTIVE for part in entry.deliveries)
            doubted = self.doubted(entry)
            for one in entry.recipients:
                if one.state is RecipientState.PENDING and copies[one.address]:
                    assert one.address in doubted, f"{run.incarnation}: forgotten\n{self.shown()}"
                if one.address not in doubted:
                    assert copies[one.address] <= 1, f"{run.incarnation}\n{self.shown()}"
            if run.has_struck and entry.queue_id not in run.sent and not self.fault.is_harmless:
                assert max(copies[one.address] for one in entry.recipients) == 0 or (
                    self.is_delivered(entry)
                ), f"{run.incarnation}: sent all the same\n{self.shown()}"
                if not isinstance(self.fault, LeaseLostToOthers):
                    assert doubted == frozenset(), f"{run.incarnation}\n{self.shown()}"
        ids = ", ".join(f"'{entry.queue_id}'" for entry in entries)
        self.change(
            f"UPDATE delivery SET due_at_ms = {NEVER_MS}, held_at_ms = NULL, state = 'deferred' "
            f"WHERE state <> 'finished' AND queue_id IN ({ids})",
            *(f"DELETE FROM {table}" for table in ("hold", "account", "usage")),
        )

    def is_delivered(self, entry: QueueEntry) -> bool:
        return all(one.state is not RecipientState.PENDING for one in entry.recipients)

    def doubted(self, entry: QueueEntry) -> frozenset[str]:
        """Return the recipients of whom a doubt is written down."""
        told = (AttemptState.IN_DOUBT, AttemptState.INTERRUPTED)
        attempts = [one for one in self.store.queue.attempts(entry.queue_id) if one.state in told]
        return frozenset(
            one.address
            for one in entry.recipients
            if any(each.rcpt_no in (None, one.rcpt_no) for each in attempts)
        )

    def copies(self) -> Counter[str]:
        return Counter(
            address for message in self.provider.messages for address in message.recipients
        )

    def shown(self) -> str:
        return self.log.getvalue()[-3000:]

    async def deliver_rest(self, incarnation: str) -> None:
        """Deliver everything that may be, with a worker that nothing happens to."""
        stop = asyncio.Event()
        worker, lifeline = self.worker(incarnation), self.lifeline
        task = asyncio.create_task(worker.run(stop))
        async with asyncio.timeout(PATIENCE_S):
            while self._is_due():
                worker.wake()
                await asyncio.sleep(0.02)
            stop.set()
            await task
        self.store.instances.bury(incarnation)
        lifeline.release()

    def _is_due(self) -> bool:
        """True while a worker has something to do at once, or does it."""
        with super(FragileDatabase, self.store.database).read() as connection:
            return bool(
                connection.connection.exec_driver_sql(
                    "SELECT 1 FROM delivery WHERE state IN ('active', 'incoming') LIMIT 1"
                ).all()
            )

    async def finish(self) -> None:
        """Deliver what was laid aside and hold it against the promise."""
        self.provider.clear()
        self.change(
            "UPDATE delivery SET state = 'incoming', due_at_ms = 1, held_at_ms = NULL"
            " WHERE state IN ('incoming', 'deferred', 'held')"
        )
        await self.deliver_rest("last")
        copies = self.copies()
        entries = self.store.queue.search(Selection(states=frozenset(DeliveryState)), limit=1000)
        for entry in entries:
            doubted = self.doubted(entry)
            for one in entry.recipients:
                if one.state is RecipientState.DELIVERED:
                    assert copies[one.address] >= 1, f"{one.address} was never sent"
                assert copies[one.address] <= 1 or one.address in doubted, one.address


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `Run.current` look at each suspension of deliveries and of the recorder."""
    deliver, write, init = DeliveryAgent.deliver, BatchWriter._run, Attempt.__init__

    async def stepped_delivery(self: DeliveryAgent, *arguments: Any) -> None:
        run = Run.current
        if run is None or self is not run.worker.scheduler.agent:
            return await deliver(self, *arguments)
        task = asyncio.current_task()
        assert task is not None
        run.delivering.append(task)
        await Stepped(
            deliver(self, *arguments), lambda frames: run.suspended(frames, in_delivery=True)
        )

    async def stepped_writing(self: BatchWriter[Any, Any]) -> None:
        run = Run.current
        if run is None or self is not run.worker.recorder.writer:
            return await write(self)
        await Stepped(write(self), lambda frames: run.suspended(frames, in_delivery=False))

    def noted(self: Attempt, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        if Run.current is not None:
            Run.current.attempts.append(self)

    monkeypatch.setattr(DeliveryAgent, "deliver", stepped_delivery)
    monkeypatch.setattr(BatchWriter, "_run", stepped_writing)
    monkeypatch.setattr(Attempt, "__init__", noted)


async def no_heartbeat(*_: object) -> float:
    return HEARTBEAT_S


@asynccontextmanager
async def trial_of(
    scenario: Scenario,
    fault: Fault,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    record_s: float = USUAL.record_s,
) -> AsyncIterator[Trial]:
    # one that is under way when the lease is lost would be good for as long as a lease; without
    # any, a slow machine must not lose the lease by itself
    monkeypatch.setattr(Leases, "_beat_once", no_heartbeat)
    waits = Waits(
        drain_s=fault.drain_s,
        lease_s=3600.0,
        record_s=record_s,
        record_ladder_s=(0.001,),
        store_ladder_s=(0.001,),
        stale_s=-1.0 if scenario.is_stale else USUAL.stale_s,
    )
    async with ScriptedProvider(extensions=scenario.extensions) as provider:
        if scenario.small_buffers:
            _make_small(provider, monkeypatch)
        trial = Trial(scenario, fault, provider, directory, waits)
        try:
            yield trial
        finally:
            trial.store.close()


def _make_small(provider: ScriptedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel take little at a time."""
    for listening in provider._server.sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    init = WireProtocol.__init__

    def small(self: WireProtocol, transport: asyncio.Transport) -> None:
        init(self, transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    monkeypatch.setattr(WireProtocol, "__init__", small)


@pytest.fixture(scope="session")
def empty_queue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a queue that was just made."""
    path = tmp_path_factory.mktemp("empty") / "queue.db"
    make_queue(f"sqlite:///{path}")
    return path


@pytest.mark.campaign
@pytest.mark.usefixtures("looked_at")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
async def test_a_fault_at_any_await_sends_nothing_twice_without_a_doubt(
    scenario: Scenario,
    fault: str,
    tmp_path: Path,
    empty_queue: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(empty_queue, tmp_path)
    async with trial_of(scenario, FAULTS[fault], tmp_path, monkeypatch) as trial:
        # where one fault does not strike, its neighbours in the table do
        for number in itertools.count(list(FAULTS).index(fault) % STRIDE, STRIDE):
            if not await trial.run(number):
                break
        await trial.finish()
    is_sent = scenario.name not in ("blocked", "held-for-a-field", "held-for-its-key")
    assert number > STRIDE or not is_sent, "it was hardly suspended at all"


def on_the_way() -> list[Site]:
    """Return where an attempt may be suspended between MAIL and its recorded outcome."""
    return [
        *sites_of(attempt),
        *sites_of(agent),
        *sites_of(outcome),
        *sites_of(recorder, less=frozenset({"drain"})),  # no attempt is made
        *sites_of(sending_once),
        # what is written once in a while is of no attempt
        *sites_of(batch_writer, less=frozenset({"drain", "written_each", "keep_writing"})),
        *sites_of(outgoing, less=frozenset({"sift", "_look"})),  # before MAIL
        *sites_of(protocol),
        *sites_of(session, less=frozenset({"open_session", "close"})),  # before MAIL, after all
    ]


@pytest.mark.usefixtures("looked_at")
async def test_the_scenarios_are_suspended_at_every_await_on_the_way(
    tmp_path: Path, empty_queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = 10**9
    tries = [(scenario, "cancelled", never) for scenario in SCENARIOS]
    tries += [(SCENARIOS[0], "defect", 0), (SCENARIOS[0], "store-away", 1)]
    seen: set[tuple[str, int]] = set()
    for place, (scenario, fault, number) in enumerate(tries):
        directory = tmp_path / str(place)
        directory.mkdir()
        shutil.copy(empty_queue, directory)
        with monkeypatch.context() as patch:
            async with trial_of(
                scenario, FAULTS[fault], directory, patch, record_s=_LONG_PACE_S
            ) as trial:
                await trial.run(number)
        seen |= trial.seen
    unseen = [
        site for site in on_the_way() if not (is_seen(site, seen) or is_of_a_plan_at_once(site))
    ]
    assert not unseen, "no scenario waits at " + ", ".join(map(str, unseen))


def is_of_a_plan_at_once(site: Site) -> bool:
    """True for where a chained mail is planned: one that takes time for that is never chained."""
    line_there = linecache.getline(site.file, site.first)
    return site.function == "_begin_next" or "self._begin_next(" in line_there


def is_seen(site: Site, seen: set[tuple[str, int]]) -> bool:
    return any(file == site.file and site.first <= at <= site.last for file, at in seen)
