"""The watch: looks each few seconds, opens and ends incidents, has them told.

Of all delivery workers on a queue one has the duty for it, and one on each host the duty for
what only that host knows. Incidents are rows of the store: whoever has the duty next tells nothing
twice. While the store is out of reach nobody knows who has the duty: then each watch tells of its
own host that it is.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from relaygw.alerting.dead_man import CALL_EACH_S, DeadMansSignal
from relaygw.alerting.facts import Finding, FleetFacts, QueueFacts, QueueFactsReader, host_facts
from relaygw.alerting.guard import GuardWatch
from relaygw.alerting.hysteresis import Hysteresis
from relaygw.alerting.mail_trouble import mail_trouble
from relaygw.alerting.notifier import FORGET_MS, Notifier
from relaygw.alerting.rules import HOST_RULES, QUEUE_RULES, fleet_findings, host_findings
from relaygw.alerting.silence import SilenceWatch
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.keys import unpacked
from relaygw.policy.lost_gateways import LOST_MS
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.store.watch import Incident
from relaygw.upstream.failure import Unreached

DUTY = "watch"
_LOAD = 20
"""A look at the queue that takes some time is not made again within so many times that."""
_DRAIN_S = 2.0


@dataclass(kw_only=True)
class Watch:
    """The watch of one delivery worker; runs in an event loop of its own.

    `unreached` tells since when connecting to providers has been in vain, and why; `clock_step`
    how the clock of the queue was set lately, if it was; `claimed_s` for how many seconds its
    worker has not looked for due mail; `claim_trouble` why that can take none.
    """

    settings: Settings
    store: Store
    incarnation: str
    state_dir: Path
    notifier: Notifier
    note: Callable[[str], None]
    unreached: Callable[[], Mapping[str, Unreached]] = dict
    clock_step: Callable[[], str | None] = lambda: None
    claimed_s: Callable[[], float] = lambda: 0.0
    claim_trouble: Callable[[], str | None] = lambda: None
    look_s: float = 5.0  # how often it looks
    queue_look_s: float = 30.0  # at the whole queue, if nothing there begins or ends meanwhile
    call_s: float = CALL_EACH_S  # to the monitor elsewhere
    _own: list[Incident] = field(default_factory=list)  # of the store itself: nowhere but here
    _queue: QueueFacts | None = None
    _queue_due_s: float = 0.0
    _queue_rest_s: float = 0.0  # after the last look, which took a part of that
    _is_on_duty: bool = False
    _has_opened: bool = False
    _looking: asyncio.Future[list[Incident]] | None = None

    def __post_init__(self) -> None:
        lasting_s = self.settings.alert_rules.lasting
        self._facts = QueueFactsReader(self.store, self.settings)
        self._guard = GuardWatch(self.store, self.settings)
        self._silence = SilenceWatch(self.store, self.settings)
        url = self.settings.heartbeat_url
        self.signal = DeadMansSignal(url, self.note, each_s=self.call_s) if url else None
        self.trouble: str | None = None
        self._fleet, self._of_queue, self._host, self._away = (
            Hysteresis(lasting_s) for _ in range(4)
        )

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                begun_s = time.monotonic()
                await self._look()
                await asyncio.sleep(max(0.0, begun_s + self.look_s - time.monotonic()))
        finally:
            if self._looking is not None:  # its thread goes on when nobody waits for it
                await asyncio.wait([self._looking], timeout=_DRAIN_S)
            if self.signal is not None:
                self.signal.stop()
            await self.notifier.drain(_DRAIN_S)

    async def _look(self) -> None:
        trouble: str | None = None
        incidents: list[Incident] = []
        try:
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._look_at_all))
            incidents = await asyncio.shield(self._looking)
            trouble = self.claim_trouble()
            if self.signal is not None and self.is_on_duty:
                self.signal.beat(self.trouble or trouble)
        except StoreUnavailable as error:
            trouble = str(error)
        except Exception as error:  # a defect here stops neither mail nor the next look
            self.note(f"error: alerts: {type(error).__name__}: {error}")
        self._judge_store(trouble)
        self.notifier.notify([*incidents, *self._own], now_ms=clock_ms())

    # --- in a thread -----------------------------------------------------------------------

    def _look_at_all(self) -> list[Incident]:
        """Open and end incidents; return those to tell, none to who has no duty."""
        now_ms, of_host = clock_ms(), f"{DUTY} {self.settings.hostname}"
        duties = self.store.watch.duties([of_host, DUTY], self.incarnation)
        self.is_on_duty = DUTY in duties
        recent = self.store.watch.incidents(now_ms - FORGET_MS) if duties else []
        known = [incident for incident in recent if (incident.recovered_at_ms or now_ms) >= now_ms]
        self._has_opened = False
        if of_host in duties:
            self._look_at_host(known, now_ms)
        if not self.is_on_duty:
            self._queue = None
            self._guard = GuardWatch(self.store, self.settings)
            self._silence = SilenceWatch(self.store, self.settings)
            return []
        self.notifier.write()
        self._look_at_fleet(known, now_ms)
        if not (recent or self._has_opened):
            return []
        return self.store.watch.incidents(now_ms - FORGET_MS)

    def _look_at_host(self, known: Sequence[Incident], now_ms: int) -> None:
        findings = host_findings(host_facts(self.settings, self.state_dir), self.settings)
        host = self.settings.hostname
        mine = [incident for incident in known if _host_of(incident) == host]
        self._settle(self._host, findings, mine, now_ms)

    def _look_at_fleet(self, known: Sequence[Incident], now_ms: int) -> None:
        shared = [incident for incident in known if incident.rule not in HOST_RULES]
        begun_s, queue = time.monotonic(), self._queue
        is_new = queue is None or begun_s >= self._queue_due_s
        if queue is None or is_new:
            queue = self._queue = self._facts.queue_facts(shared, now_ms=now_ms)
            hosts = {None, *(instance.name for instance in self.store.instances.registered())}
            for incident in known:
                if _host_of(incident) not in hosts:  # nobody of that host is there to look any more
                    self._end_incident(incident, now_ms)
            self._queue_rest_s = _LOAD * (time.monotonic() - begun_s)
            self._queue_due_s = begun_s + max(self.queue_look_s, self._queue_rest_s)
        with self.store.database.snapshot():
            holds = self.store.holds.in_force()
            lost = self.store.watch.lost_instances(now_ms - LOST_MS)
        facts = FleetFacts(
            now_ms=now_ms,
            holds=holds,
            unreached=self.unreached(),
            lost=lost,
            queue=queue,
            clock_step=self.clock_step(),
        )
        findings = fleet_findings(facts, self.settings)
        findings += self._guard.look(shared, now_ms=now_ms)
        findings += self._silence.look(shared, now_ms=now_ms)
        if self.signal is not None:
            self.trouble = mail_trouble(
                self.store,
                self.settings,
                queue,
                findings,
                state_dir=self.state_dir,
                claimed_s=self.claimed_s(),
                now_ms=now_ms,
            )
        now, of_queue = _apart(findings)
        known_now, known_of_queue = _apart(shared)
        self._settle(self._fleet, now, known_now, now_ms, is_over=self._guard.is_let_go)
        if is_new:  # an old look shows neither that something lasts nor that it stays away
            self._settle(self._of_queue, of_queue, known_of_queue, now_ms)
            left_s = self._of_queue.left_s(known_of_queue, now_ms=now_ms)
            soon_s = begun_s + max(left_s, self._queue_rest_s)
            self._queue_due_s = min(self._queue_due_s, soon_s)

    def _settle(
        self,
        hysteresis: Hysteresis,
        findings: Sequence[Finding],
        known: Sequence[Incident],
        now_ms: int,
        is_over: Callable[[Incident], bool] = lambda _: False,
    ) -> None:
        is_open = [
            known_incident for known_incident in known if known_incident.recovered_at_ms is None
        ]
        for finding, since_ms in hysteresis.begun(findings, is_open, now_ms=now_ms):
            self._has_opened = True  # or another instance has
            if self.store.watch.open_incident(incident_of(finding, since_ms)):
                self.note(f"warning: alert: {finding.summary}; {finding.remedy}")
        for incident in hysteresis.ended(findings, is_open, now_ms=now_ms, is_over=is_over):
            self._end_incident(incident, now_ms)
        if changed := reworded(is_open, findings):  # nobody is told again
            self.store.watch.reword_incidents(changed)

    def _end_incident(self, incident: Incident, now_ms: int) -> None:
        if incident.recovered_at_ms is None:
            self.store.watch.end_incident(incident.incident_id, at_ms=now_ms)
            self.note(f"alert is over: {incident.summary}")

    # --- the store itself ------------------------------------------------------------------

    def _judge_store(self, trouble: str | None) -> None:
        now_ms = clock_ms()
        self._own = [
            incident
            for incident in self._own
            if incident.recovered_at_ms is None or now_ms - incident.recovered_at_ms < FORGET_MS
        ]
        is_open = [incident for incident in self._own if incident.recovered_at_ms is None]
        host = self.settings.hostname
        what = (
            f"the delivery worker of {host} cannot use its queue, and sends nothing; where the "
            f"front cannot either, clients get 451 and retry: {trouble}"
        )
        remedy = "check the database, or the disk that holds a SQLite queue"
        away = Finding(Rule.FRONT_REFUSING, host, what, remedy)
        findings = [away] if trouble is not None else []
        for finding, since_ms in self._away.begun(findings, is_open, now_ms=now_ms):
            self._own.append(incident_of(finding, since_ms))
            self.note(f"warning: alert: {finding.summary}; {finding.remedy}")
        over = self._away.ended(findings, is_open, now_ms=now_ms)
        self._own = [
            replace(incident, recovered_at_ms=now_ms) if incident in over else incident
            for incident in self._own
        ]


def reworded(incidents: Sequence[Incident], findings: Sequence[Finding]) -> list[Incident]:
    """Return the incidents whose summary or remedy is another one by now, with these."""
    found = {finding.kind: finding for finding in findings}
    now = [
        (incident, found[kind])
        for incident in incidents
        if (kind := (incident.rule, incident.key)) in found
    ]
    return [
        replace(incident, summary=finding.summary, remedy=finding.remedy)
        for incident, finding in now
        if (incident.summary, incident.remedy) != (finding.summary, finding.remedy)
    ]


_Told = TypeVar("_Told", Finding, Incident)


def _apart(told: Sequence[_Told]) -> tuple[list[_Told], list[_Told]]:
    """Return those that each look sees anew, and those that rest on a look at the queue."""
    of_queue = [trouble for trouble in told if trouble.rule in QUEUE_RULES]
    return [trouble for trouble in told if trouble.rule not in QUEUE_RULES], of_queue


def _host_of(incident: Incident) -> str | None:
    """Return the host that an incident is about, None where it is about the queue."""
    return unpacked(incident.key)[0] if incident.rule in HOST_RULES else None


def incident_of(finding: Finding, since_ms: int) -> Incident:
    """Return the incident that a finding becomes."""
    return Incident(
        incident_id=secrets.token_hex(8),
        rule=finding.rule.value,
        key=finding.key,
        summary=finding.summary,
        remedy=finding.remedy,
        since_ms=since_ms,
    )


# --- its patience and its thread ------------------------------------------------------------
