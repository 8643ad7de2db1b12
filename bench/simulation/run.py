"""One run of a seed: mail comes, things go wrong, they end, and all of it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.history import Event
from bench.simulation import marks, seams
from bench.simulation.checks import judge
from bench.simulation.loop import Process
from bench.simulation.operator import Operator
from bench.simulation.processes import Front, Gateway
from bench.simulation.provider import BY_NAME, WELL
from bench.simulation.scenario import Fault, Mail, Scenario, Spell, draw
from bench.simulation.settings import BULK, settings_of
from bench.simulation.store import Queue, Trouble
from bench.simulation.world import StoreMood, World
from relaygw.mail.hold import SEVERAL
from relaygw.settings.model import Settings

DRAINED_WITHIN_S = 400.0
QUOTA_WITHIN_S = 60.0
TOLD_WITHIN_S = 70.0  # what stays on a route is looked at once a minute
LOOK_S = 2.0
_SOON_S = 0.03
_AFTER = frozenset(
    {"kill", "stall", "stop", "reload", "rename", "mode", "store away", "answers lost"}
)
_STEP_S = 3600.0
_LEFT = f"""
    SELECT 1 FROM delivery WHERE state IN ('incoming', 'deferred')
    AND route NOT IN (?, '{BULK}') AND route NOT LIKE 'provider:%' LIMIT 1
"""
_WAITING = f"""
    SELECT 1 FROM delivery WHERE state IN ('incoming', 'active', 'deferred')
    AND (route IN (?, '{BULK}') OR route LIKE 'provider:%' OR doubts + reclaims = 0
        OR state = 'active')
    OR state = 'deleted' OR state = 'held' AND hold_code = 'operator'
    OR state = 'held' AND reason LIKE '{SEVERAL}%'
    OR state = 'held' AND hold_code = 'mode' AND ? = 'production'
    OR state = 'held' AND hold_code = 'sender_refused' LIMIT 1
"""


@dataclass
class Result:
    """What a run came to."""

    seed: int
    violations: list[str]
    events: tuple[Event, ...]
    lines: tuple[tuple[int, str, str], ...]
    scenario: Scenario
    took_s: float = 0.0  # of virtual time
    steps: int = 0
    marks: set[str] = field(default_factory=set)


class Run:
    """A seed at work."""

    def __init__(self, seed: int, queue: Queue, scenario: Scenario | None = None) -> None:
        self.scenario = scenario or draw(seed)
        queue.empty()
        self.world = world = World(seed, queue, is_shared=self.scenario.is_shared)
        self._mode, self._route = "production", "default"
        world.route = self._route
        self._connections = self.scenario.options["max_connections"]
        self._ended_s = 0.0
        self._is_over = False
        self._armed: list[Fault] = []
        self.gateways: list[Gateway] = []
        world.on_event.append(self._happened)
        world.worker_died = self._died
        for name in self.scenario.providers:
            made = world.provider(
                name, pipelines=self.scenario.pipelines, latency_s=self.scenario.latency_s
            )
            rate = self.scenario.options.get("rate")
            made.rate_per_s = {None: 0.0, "1/s": 1.0, "4/s": 4.0, "30/m": 0.5}[rate]
            made.connections = self._connections
            at_once = self.scenario.options.get("max_recipients", 100)
            if self.scenario.options.get("has_keys"):
                at_once = 1  # each recipient has a key
            made.parts = max(-(-len(one.recipients) // at_once) for one in self.scenario.mail)
            made.quota = self.scenario.options.get("daily_quota", 0)

    def result(self) -> Result:
        """Run it to its end."""
        world = self.world
        seams.begin(world.loop, self.scenario.seed)
        try:
            self._begin()
            world.loop.run_until(lambda: self._is_over)
            judge(world, self.gateways, is_over=self._is_over)
            lines, events = tuple(world.lines), tuple(world.events)
            errors = tuple(world.loop.errors)
            _let_go(world)
        finally:
            seams.end()
        world.violations += errors
        return Result(
            self.scenario.seed,
            world.violations,
            events,
            lines,
            self.scenario,
            took_s=world.loop.now_s - 1000,
            steps=world.loop.steps,
            marks=marks.take(lines),
        )

    # --- what happens

    def _begin(self) -> None:
        world, scenario = self.world, self.scenario
        count = scenario.workers if scenario.is_shared else 1
        settings = self._settings()
        for number in range(count):
            machine = world.machine(f"gw{number + 1}")
            gateway = Gateway(world, machine, settings, hinted=scenario.is_hinted)
            self.gateways.append(gateway)
            world.loop.at(world.here, 0.01 * number, gateway.start)
        if not scenario.is_shared and scenario.workers > 1:
            world.loop.at(world.here, 0.05, self.gateways[0].start)
        front_machine = world.machine("gw1")
        self.operator = Operator(world, settings)
        self.front = Front(world, front_machine, settings, self.gateways)
        for mail in scenario.mail:
            world.loop.at(world.here, mail.at_s, self._send, mail)
        for spell in scenario.spells:
            world.loop.at(world.here, spell.at_s, self._mood, spell)
        for fault in scenario.faults:
            world.loop.at(world.here, fault.at_s, self._fault, fault)
        world.loop.at(world.here, scenario.ends_s(), self._end_faults)

    def _settings(self) -> Settings:
        options = {**self.scenario.options, "max_connections": self._connections}
        return settings_of(
            is_shared=self.scenario.is_shared,
            mode=self._mode,
            route=self._route,
            providers=self.scenario.providers,
            options=tuple(sorted(options.items())),
        )

    def _send(self, mail: Mail) -> None:
        self.front.send(f"client-{mail.name}", mail)

    def _mood(self, spell: Spell) -> None:
        provider = self.world.providers[spell.provider]
        provider.mood = BY_NAME[spell.mood]
        self.world.history.info(spell.provider, "mood", mood=provider.mood.name)
        if provider.mood.silent:
            for link in provider.open_links.values():
                link.is_cut = True
        self.world.loop.at(self.world.here, spell.lasts_s, self._mood_ends, spell)

    def _mood_ends(self, spell: Spell) -> None:
        self.world.providers[spell.provider].mood = WELL
        self.world.history.info(spell.provider, "mood", mood="well")

    # --- faults

    def _happened(self, what: str, process: Process) -> None:
        for fault in [one for one in self._armed if one.after == what]:
            self._armed.remove(fault)
            wait_s = self.world.chance.random() ** 2 * _SOON_S
            self.world.loop.at(self.world.here, wait_s, self._strike, fault, process)

    def _fault(self, fault: Fault) -> None:
        if fault.after and fault.kind in _AFTER:
            self._armed.append(fault)
        else:
            self._strike(fault, None)

    def _strike(self, fault: Fault, process: Process | None) -> None:
        world = self.world
        world.history.info("world", "fault", kind=fault.kind, lasts_s=fault.lasts_s)
        strike: dict[str, Callable[[Fault, Process | None], None]] = {
            "kill": self._kill,
            "kill at write": self._kill_at_write,
            "kill front": lambda *_: self.front.kill(),
            "stall": self._stall,
            "store away": self._store,
            "store slow": self._store,
            "clock": self._clock,
            "reload": self._reload,
            "mode": self._flip,
            "stop": self._stop,
            "rename": self._rename,
            "failover": self._fail_over,
            "answers lost": self._store,
            "operator": lambda fault, _: self.operator.act(fault.lasts_s),
        }
        strike[fault.kind](fault, process)

    def _a_worker(self) -> Process | None:
        workers = [one[0] for gateway in self.gateways for one in gateway.workers.values()]
        return self.world.chance.choice(workers) if workers else None

    def _kill(self, _: Fault, process: Process | None) -> None:
        process = process or self._a_worker()
        if process is not None:
            self.world.kill(process)

    def _kill_at_write(self, _: Fault, process: Process | None) -> None:
        process = process or self._a_worker()
        if process is not None:
            chance = self.world.chance
            when = chance.choice((Trouble.KILLED_BEFORE, Trouble.KILLED_AFTER))
            self.world.kill_at_write[process.name] = (chance.randrange(8), when)

    def _stall(self, fault: Fault, process: Process | None) -> None:
        process = process or self._a_worker()
        if process is not None and not process.is_dead:
            self.world.loop.stop_process(process)
            self.world.loop.at(self.world.here, fault.lasts_s, self.world.loop.resume, process)

    def _store(self, fault: Fault, _: Process | None) -> None:
        mood = StoreMood(away=0.7, unanswered=0.5)
        if fault.kind == "store slow":
            mood = StoreMood(wait_s=fault.lasts_s)
        elif fault.kind == "answers lost":
            mood = StoreMood(unanswered=0.6)
        elif fault.lasts_s > 5:
            mood = StoreMood(away=0.15, unanswered=0.15, wait_s=0.5)
        self.world.store_mood = mood
        self.world.loop.at(self.world.here, min(fault.lasts_s, 25.0), self._store_ends)

    def _store_ends(self) -> None:
        self.world.store_mood = StoreMood()

    def _fail_over(self, fault: Fault, _: Process | None) -> None:
        """Let a standby take over that has nothing of what is committed from here on."""
        self.world.loop.at(self.world.here, fault.lasts_s, self._take_over, self.world.queue.copy())

    def _take_over(self, standby: Any) -> None:
        self.world.fail_over(standby)
        self._store(Fault(0.0, "store away", 1.0), None)

    def _clock(self, _: Fault, __: Process | None) -> None:
        world = self.world
        clocks = list(world.machines.values())
        if world.is_shared:
            clocks.append(world.server)
        machine = world.chance.choice(clocks)
        machine.ahead_s += world.chance.choice((-_STEP_S, _STEP_S, -20.0, 20.0))
        world.history.info(machine.name, "clock", ahead_s=machine.ahead_s)

    def _reload(self, _: Fault, __: Process | None) -> None:
        self._connections = self.world.chance.choice((1, 2, 3))
        for provider in self.world.providers.values():
            provider.connections = max(provider.connections, self._connections)
        self._take_settings()

    def _flip(self, fault: Fault, _: Process | None) -> None:
        self._mode = "staging" if self._mode == "production" else "production"
        self.world.history.invoke("gateway", "mode", mode=self._mode)
        self._take_settings()
        if self._mode == "staging" and self.world.draw(0.7):  # a mistake, which is mended
            self.world.loop.at(self.world.here, fault.lasts_s + 1, self._flip, fault, None)

    def _rename(self, _: Fault, __: Process | None) -> None:
        self._route = "main" if self._route == "default" else "default"
        self.world.route = self._route
        self._take_settings()

    def _take_settings(self) -> None:
        settings = self._settings()
        self.front.use(settings)
        for gateway in self.gateways:
            gateway.reload(settings)

    def _stop(self, fault: Fault, _: Process | None) -> None:
        gateway = self.world.chance.choice(self.gateways)
        if not gateway.is_stopped:
            gateway.stop()
            self.world.loop.at(self.world.here, fault.lasts_s, gateway.resume)

    def _died(self, process: Process) -> None:
        for gateway in self.gateways:
            gateway.died(process)

    # --- the end

    def _end_faults(self) -> None:
        """From here on nothing goes wrong: all mail has to come to its end."""
        world = self.world
        self._armed.clear()
        world.kill_at_write.clear()
        world.store_mood = StoreMood()
        for provider in world.providers.values():
            provider.mood = WELL
        for gateway in self.gateways:
            if gateway.is_stopped:
                gateway.resume()
        world.history.info("world", "faults-end")
        if any(one.kind == "operator" for one in self.scenario.faults):
            self.operator.let_go()
        self._ended_s = world.loop.now_s
        world.loop.at(world.here, LOOK_S, self._look)

    def _look(self) -> None:
        waiting: Any = self.world.queue.rows(_WAITING, self._route, self._mode)
        late_s = DRAINED_WITHIN_S
        is_held = self.world.queue.rows("SELECT 1 FROM hold WHERE reason LIKE 'daily_quota%'")
        lost = self.world.lost_shares
        if is_held or any(one.is_short(lost) for one in self.world.providers.values()):
            late_s = QUOTA_WITHIN_S  # until tomorrow nothing more comes
        quiet_s = self.world.loop.now_s - self._ended_s
        if not waiting and self.world.queue.rows(_LEFT, self._route):
            doubts = (event.time / 1e9 for event in self.world.events if event.f == "doubt")
            since_s = max((self._ended_s, *doubts))
            # somebody is to be told of it
            waiting = self.world.loop.now_s - since_s < TOLD_WITHIN_S
        if quiet_s > late_s or not waiting:
            self._is_over = True
        else:
            self.world.loop.at(self.world.here, LOOK_S, self._look)


def _let_go(world: World) -> None:
    """End what still runs, without letting it do anything."""
    world.loop.let_go()
