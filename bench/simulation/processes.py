"""The processes of a run: a front, and delivery workers with what their role keeps beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from bench.simulation.loop import Machine, Process, Task
from bench.simulation.scenario import Mail
from bench.simulation.world import Lifeline, Log, World, state_directory
from relaygw.delivery.janitor import STEP_S, Janitor
from relaygw.delivery.leases import LeaseLost
from relaygw.delivery.waits import USUAL
from relaygw.delivery.worker import Worker
from relaygw.errors import StoreUnavailable
from relaygw.inbound.committer import GroupCommitter
from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.intake import Intake, Origin
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.observe.observer import DeliveryObserver
from relaygw.roles import store_rules
from relaygw.settings.model import Settings, fingerprint
from relaygw.store.instances import Begun, Instance

WAITS = USUAL  # of each worker
_RESTART_S = 1.0
_PLACE = state_directory()


class Gateway:
    """What a supervisor does on one machine: keeps a worker, and replaces it."""

    def __init__(self, world: World, machine: Machine, settings: Settings, *, hinted: bool) -> None:
        self.world, self.machine, self.settings = world, machine, settings
        self._hinted = hinted
        self._number = 0
        self.workers: dict[str, tuple[Process, Worker | None, asyncio.Event | None]] = {}
        self.is_stopped = False

    def start(self) -> None:
        """Start a worker with the settings of now."""
        self._number += 1
        process = Process(f"{self.machine.name}-{self._number}", self.machine)
        self.workers[process.name] = (process, None, None)
        self.world.modes[process.name] = self.settings
        self.world.history.info(process.name, "start", mode=str(self.settings.mode))
        self.world.loop.spawn(process, self._work(process, self.settings))

    def reload(self, settings: Settings) -> None:
        """Start a new generation with other settings; the old one ends what it has in hand."""
        old = list(self.workers)
        self.settings = settings
        if not self.is_stopped:
            self.start()
        self._stop(old)

    def stop(self) -> None:
        self.is_stopped = True
        self._stop(list(self.workers))

    def resume(self) -> None:
        self.is_stopped = False
        self.start()

    def _stop(self, names: Sequence[str]) -> None:
        for name in names:
            process, _, stop = self.workers[name]
            self.world.history.info(name, "stop")
            if stop is not None:
                self.world.loop.at(process, 0.001, stop.set)
            else:  # it had hardly begun
                self.world.kill(process)

    def died(self, process: Process) -> None:
        """Replace a worker that was killed."""
        if self.workers.pop(process.name, None) is None:
            return
        wait_s = _RESTART_S * (0.2 + self.world.chance.random())
        self.world.loop.at(self.world.here, wait_s, self._replace)

    def _replace(self) -> None:
        if not self.is_stopped and not self.workers:
            self.start()

    def hint(self) -> None:
        """Tell the workers that something new is there, unless the hint is lost."""
        for process, worker, _ in self.workers.values():
            if worker is not None and self._hinted and self.world.draw(0.9):
                self.world.loop.at(process, 0.001, worker.wake)

    # --- one worker, as roles/delivery has it

    async def _work(self, process: Process, settings: Settings) -> None:
        world = self.world
        store = world.store(process, store_rules(settings))
        lifeline = Lifeline(world.lifelines[self.machine.name], process)
        log = cast(Any, Log(world, process))
        try:
            await asyncio.sleep(0.01 + world.chance.random() * 0.3)  # until it is loaded
            store.instances.register(
                Instance(
                    incarnation=process.name,
                    name=self.machine.name,
                    role="delivery",
                    pid=self._number,
                    version="1",
                    fingerprint=fingerprint(settings),
                )
            )
            stop = asyncio.Event()
            worker = Worker(
                settings,
                store,
                DeliveryObserver(log),
                incarnation=process.name,
                in_flight=cast(Any, lifeline),
                hints=None,
                waits=WAITS,
            )
            self.workers[process.name] = (process, worker, stop)
            tending = asyncio.create_task(self._tend(process, settings, store, log))
            try:
                await worker.run(stop)
            finally:
                tending.cancel()
        except (LeaseLost, StoreUnavailable) as error:
            world.lost_shares += 1  # it gives nothing back
            log.note("qmgr", f"{type(error).__name__}: {error}")
        try:
            begun = [*world.lifelines[self.machine.name].slots[process.name].values()]
            store.instances.bury(process.name, begun=begun)
            lifeline.release()
        except StoreUnavailable:
            pass
        world.history.info(process.name, "end")
        world.loop.kill(process)
        self.died(process)

    async def _tend(self, process: Process, settings: Settings, store: Any, log: Any) -> None:
        lines = self.world.lifelines[self.machine.name]

        def bury_dead() -> list[tuple[str, int, list[Begun]]]:
            buried = []
            for name, owner in tuple(lines.owners.items()):
                if owner.is_dead:
                    begun = list(lines.slots[name].values())
                    buried.append((name, store.instances.bury(name, begun=begun), begun))
                    lines.owners.pop(name, None)
                    lines.slots.pop(name, None)
            return buried

        janitor = Janitor(
            settings,
            store,
            log,
            incarnation=process.name,
            bury_dead_of_this_host=bury_dead,
            wake_workers=self.hint,
            has_lock_file=lambda name: not self.world.is_shared and name in lines.owners,
        )
        while True:
            try:
                await asyncio.to_thread(janitor.bury_stale)
            except StoreUnavailable as error:
                log.note("qmgr", f"warning: housekeeping: {error}")
            await asyncio.sleep(STEP_S)


class Front:
    """What takes mail: the committer of a front, and the intake of its settings."""

    def __init__(self, world: World, machine: Machine, settings: Settings, gateways: list[Gateway]):
        self._world, self._machine = world, machine
        self._gateways = gateways
        self._number = 0
        self.settings = settings
        self.process: Process
        self._committer: GroupCommitter
        self.start()

    def start(self) -> None:
        self._number += 1
        self.process = Process(f"front-{self._number}", self._machine)
        self.process.context.copy().run(self._start)

    def _start(self) -> None:
        store = self._world.store(self.process, store_rules(self.settings))
        self._committer = GroupCommitter(store, committed=self._committed)
        self._intake = Intake(self.settings, state_dir=_PLACE)

    def use(self, settings: Settings) -> None:
        """Take mail by other settings from now on."""
        self.settings = settings
        self._intake = Intake(settings, state_dir=_PLACE)

    def kill(self) -> None:
        """Kill it; another one takes its place at once."""
        self._world.history.invoke("world", "kill", role="front", worker=self.process.name)
        self._world.loop.kill(self.process)
        self.start()

    def send(self, client: str, mail: Mail) -> Task:
        """Take one message in a session of its own."""
        return self._world.loop.spawn(self.process, self._session(client, mail))

    async def _session(self, client: str, mail: Mail) -> None:
        history, message = self._world.history, mail.name
        history.invoke(client, "send", message=message, recipients=mail.recipients)
        content = ReceivedContent(_PLACE)
        lines = b"y" * 70 + b"\r\n" * (mail.size // 2)
        content.add(f"Subject: {message}\r\n\r\n".encode() + lines)
        content.read_head()
        origin = Origin(
            source=Source(client="127.0.0.1", helo="c"), client_key=client, protocol="ESMTP"
        )
        people = [to for one in mail.recipients for to in self._intake.resolve_recipients(one)]
        composed, _ = self._intake.compose(
            sender=mail.sender,
            recipients=people,
            content=content,
            header=self._intake.header_of(content),
            origin=origin,
        )
        self._world.people[composed.queue_id] = tuple(
            one.address for part in composed.deliveries for one in part.recipients
        )
        try:
            await self._committer.submit(composed)
        except StoreUnavailable:
            history.info(client, "send", message=message, step="content", code=451)
        else:
            history.ok(client, "send", message=message, queue_id=composed.queue_id)

    def _committed(self, _: Sequence[AcceptedMessage]) -> None:
        for gateway in self._gateways:
            gateway.hint()
