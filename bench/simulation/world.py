"""A run: its loop, its queue, its machines and providers, and what was seen of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.history import Event, History
from bench.simulation.loop import Machine, Process, VirtualLoop
from bench.simulation.provider import Provider, message_of
from bench.simulation.settings import ADDRESSES
from bench.simulation.store import Queue, SimulatedDatabase, Trouble
from bench.simulation.wire import Link
from relaygw.settings.model import Settings
from relaygw.store.store import Store, store_on

_KNOWN = """
    SELECT address, recipient.state, recipient.attempts, delivery.state, lease, delivery.attempts,
        doubts, reclaims, hold_code
    FROM recipient JOIN delivery USING (queue_id, delivery_no)
"""


@dataclass(slots=True)
class StoreMood:
    """How the way to the queue is for a while."""

    away: float = 0.0  # chances of each transaction
    unanswered: float = 0.0
    wait_s: float = 0.002  # at most, before a call and before its answer


@dataclass
class Lifelines:
    """The lock files of one machine: which deliveries each incarnation is sending."""

    slots: dict[str, dict[int, tuple[str, int, str]]] = field(default_factory=dict)
    owners: dict[str, Process] = field(default_factory=dict)


class Lifeline:
    """Stands for relaygw.store.instances.Lifeline."""

    def __init__(self, lines: Lifelines, process: Process) -> None:
        self._lines, self._name = lines, process.name
        lines.slots[process.name] = {}
        lines.owners[process.name] = process

    def begin(self, queue_id: str, delivery_no: int, provider: str) -> int:
        slots = self._lines.slots[self._name]
        number = next(number for number in range(len(slots) + 1) if number not in slots)
        slots[number] = (queue_id, delivery_no, provider)
        return number

    def end(self, slot: int) -> None:
        self._lines.slots[self._name].pop(slot, None)

    def release(self) -> None:
        self._lines.slots.pop(self._name, None)
        self._lines.owners.pop(self._name, None)


class Log:
    """Stands for the mail log: keeps lines, and tells of outcomes."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process

    def note(self, daemon: str, text: str) -> None:
        self._world.log(self._process.name, text)

    def write(self, events: Any) -> None:
        for event in events:
            update = getattr(event, "update", None)
            if update is not None:
                self._world.recorded(self._process, update)


class World:
    """Everything of one run."""

    def __init__(self, seed: int, queue: Queue, *, is_shared: bool) -> None:
        self.seed = seed
        self.queue = queue
        self.is_shared = is_shared
        self.loop = VirtualLoop(seed)
        self.chance = random.Random(f"fate {seed}")
        self.events: list[Event] = []
        self.history = History(self.events.append, self.now_ns)
        self.lines: list[tuple[int, str, str]] = []  # of the mail log
        self.violations: list[str] = []
        self.here = Process("world", Machine("world"))
        self.server = Machine("database")
        self.machines: dict[str, Machine] = {}
        self.lifelines: dict[str, Lifelines] = {}
        self.providers: dict[str, Provider] = {}
        self.store_mood = StoreMood()
        self.on_event: list[Callable[[str, Process], None]] = []  # told of dots and takes
        self.kill_at_write: dict[str, tuple[int, Trouble]] = {}
        self.people: dict[str, tuple[str, ...]] = {}  # whom each accepted message is for
        self.route = ""  # of the settings of now
        self.lost_shares = 0  # kills and lost answers: what they had taken of limits is lost
        self.modes: dict[str, Settings] = {}  # of each process
        self.expired: set[str] = set()  # addresses of mail that the operator ended
        self.forgotten: set[str] = set()  # addresses of mail that a failover put back or lost
        self.loop.thread_wait = self._thread_wait
        self.loop.connecting = self._connect
        self.worker_died: Callable[[Process], None] = lambda _: None

    # --- what was seen

    def now_ns(self) -> int:
        return round(self.loop.now_s * 1e9)

    def log(self, process: str, text: str) -> None:
        self.lines.append((self.now_ns(), process, text))
        if "not given back" in text:  # of a quota
            self.lost_shares += 1

    def broken(self, what: str) -> None:
        """Note that a promise was broken."""
        self.violations.append(f"{self.loop.now_s - 1000:.3f} s: {what}")
        self.log("world", f"BROKEN: {what}")

    def recorded(self, process: Process, update: Any) -> None:
        people = self.people.get(update.queue_id, ())
        what = {
            "message": message_of(people[0]) if people else update.queue_id,
            "recipients": tuple(people[one.rcpt_no] for one in update.recipients if people),
            "state": str(update.state),
        }
        if update.doubted:
            self.history.info(process.name, "doubt", **what)
        else:
            self.history.ok(process.name, "record", **what)

    def tell(self, what: str, process: Process) -> None:
        for listener in self.on_event:
            listener(what, process)

    # --- machines and processes

    def machine(self, name: str) -> Machine:
        if name not in self.machines:
            self.machines[name] = Machine(name)
            self.lifelines[name] = Lifelines()
        return self.machines[name]

    def provider(self, name: str, *, pipelines: bool, latency_s: tuple[float, float]) -> Provider:
        process = Process(name, Machine(name))
        made = Provider(
            name,
            self.loop,
            process,
            random.Random(f"{name} {self.seed}"),
            self.history,
            pipelines=pipelines,
            latency_s=latency_s,
        )
        made.taken = lambda _address, process: self.tell("take", process)
        self.providers[name] = made
        return made

    def store(self, process: Process, rules: Any) -> Store:
        database = SimulatedDatabase(
            self.queue,
            self.loop,
            process,
            self.server if self.is_shared else None,
            self._trouble,
            self.kill,
        )
        return store_on(database, rules)

    def kill(self, process: Process) -> None:
        """End a process as SIGKILL does: its kernel closes what it had open."""
        if process.is_dead:
            return
        self.history.invoke("world", "kill", role="delivery", worker=process.name, open=())
        self.lost_shares += 1
        self.loop.kill(process)
        for provider in self.providers.values():
            for link in tuple(provider.open_links.values()):
                if link.client is process:
                    link.client_closes()
        self.worker_died(process)

    def fail_over(self, standby: Any) -> None:
        """Go on with what an asynchronous standby had; note whose mail the primary knew more of."""
        primary = set(self.queue.rows(_KNOWN))
        self.queue.become(standby)
        other = primary.symmetric_difference(self.queue.rows(_KNOWN))
        self.forgotten.update(row[0] for row in other)
        self.lost_shares += 1  # and what was given back of them meanwhile

    # --- chance

    def draw(self, share: float) -> bool:
        return self.chance.random() < share

    def _thread_wait(self, process: Process) -> tuple[float, float]:
        most_s = self.store_mood.wait_s
        before_s = self.chance.random() ** 3 * most_s
        return before_s, self.chance.random() ** 3 * most_s

    def _trouble(self, process: Process, is_writing: bool) -> Trouble | None:
        planned = self.kill_at_write.get(process.name)
        if planned is not None and is_writing:
            left, trouble = planned
            if left:
                self.kill_at_write[process.name] = (left - 1, trouble)
            else:
                del self.kill_at_write[process.name]
                return trouble
        mood = self.store_mood
        if not (mood.away or mood.unanswered):
            return None
        if self.draw(mood.away):
            return Trouble.AWAY
        may_be_lost = self.is_shared or not process.name.startswith("front")
        if is_writing and may_be_lost and self.draw(mood.unanswered):
            self.lost_shares += 1
            return Trouble.UNANSWERED
        return None

    # --- the wire

    async def _connect(self, process: Process, address: str) -> Link:
        provider = next(one for name, one in self.providers.items() if ADDRESSES[name] == address)
        link = await provider.connect(process)
        link.wrote = ClientWatch(self, provider, link).wrote
        return link


class ClientWatch:
    """Looks at what a worker writes to a provider: its recipients, its dots and its leases."""

    def __init__(self, world: World, provider: Provider, link: Link) -> None:
        self._world, self._provider, self._link = world, provider, link
        self._rest = b""
        self._people: list[str] = []

    def wrote(self, data: bytes) -> None:
        self._rest += data
        while self._rest:
            if self._link.awaits_content:
                content, end, rest = (b"\r\n" + self._rest).partition(b"\r\n.\r\n")
                if not end:
                    return
                self._rest, self._link.awaits_content = rest, False
                self._dot(is_empty=not content)
            else:
                line, _, self._rest = self._rest.partition(b"\r\n")
                self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4]
        if verb == b"MAIL":
            self._people = []
            self._world.tell("mail", self._link.client)
        elif verb == b"RCPT":
            self._people.append(line[line.index(b"<") + 1 : line.index(b">")].decode())

    def _dot(self, *, is_empty: bool) -> None:
        world, process = self._world, self._link.client
        if is_empty:
            return
        name = process.name
        self._provider.dots.append(world.loop.now_s)
        world.history.info(
            name, "dot-sent", recipients=tuple(self._people), provider=self._provider.name
        )
        found = world.queue.rows(
            "SELECT DISTINCT lease FROM delivery JOIN recipient USING (queue_id, delivery_no)"
            " WHERE address = ?",
            self._people[0],
        )
        if (name,) not in found and self._people[0] not in world.forgotten:
            world.broken(f"{name} sends the final dot to {self._people}, whose lease has {found}")
        settings = world.modes.get(name)
        if settings is not None and settings.mode == "staging":
            strangers = [one for one in self._people if not one.endswith("@allowed.test")]
            if strangers:
                world.broken(f"{name} of staging sends to {strangers}")
        world.tell("dot", process)


def state_directory() -> Path:
    """Return what stands for the state directory: nothing is written there."""
    return Path("/nonexistent")
