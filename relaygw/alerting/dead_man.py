"""The dead-man's signal: a monitor elsewhere is called each minute, and alerts when no call comes.

Of several gateways on a queue the one with the duty of the watch calls, for all of them. The
address is a token: nothing of it is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path

from relaygw.alerting.facts import Finding, QueueFacts
from relaygw.alerting.history import totals
from relaygw.errors import SettingsError
from relaygw.http_request import Unanswered, ask
from relaygw.mail.state import DeliveryState
from relaygw.observe.observer import Series
from relaygw.reach import reason_of
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.settings.routes import Stream
from relaygw.settings.secrets import SecretUrl
from relaygw.store.home import home_elsewhere
from relaygw.store.instances import front_trouble
from relaygw.store.store import Store
from relaygw.volume import free_share

CALL_EACH_S = 60.0
LATE_MS = 5 * 60_000
CLAIMED_S = 30.0  # a worker looks for due mail once a second
_MOVING_MS = 10 * 60_000
_CLAIMABLE = (DeliveryState.INCOMING, DeliveryState.DEFERRED)


class DeadMansSignal:
    """Calls an address while all is well; for one event loop."""

    def __init__(
        self,
        url: SecretUrl,
        note: Callable[[str], None],
        *,
        each_s: float = CALL_EACH_S,
        limit_s: float = 10.0,
    ) -> None:
        self._url = url
        self._note = note
        self._each_s = each_s
        self._limit_s = limit_s
        self._due_s = self._well_s = time.monotonic()
        self._calling: asyncio.Task[None] | None = None
        self._told = ""

    def beat(self, trouble: str | None) -> None:
        """Begin a call if all is well and one is due; returns at once."""
        if trouble is not None:
            if time.monotonic() - self._well_s >= self._each_s / 4:  # a start takes a moment
                self._tell(f"warning: heartbeat_url is not called: {trouble}")
            return
        self._well_s = time.monotonic()
        is_busy = self._calling is not None and not self._calling.done()
        if is_busy or time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + self._each_s
        self._calling = asyncio.create_task(self._call())

    def stop(self) -> None:
        """End a call that is under way."""
        if self._calling is not None:
            self._calling.cancel()

    async def _call(self) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                url = await asyncio.to_thread(self._url.read)
                answer = await ask("GET", url, limit_s=None)
        except TimeoutError:
            problem = f"no answer within {self._limit_s:g} s"
        except SettingsError as error:
            problem = str(error)
        except Unanswered as error:
            problem = error.reason
        except Exception as error:  # whatever a receiver does: its own affair
            problem = reason_of(error)
        else:
            problem = "" if answer.is_success else f"the answer was {answer.status}"
        if problem:
            self._tell(f"warning: heartbeat_url was called in vain: {problem}")
        else:
            self._tell("heartbeat_url is called each minute")

    def _tell(self, line: str) -> None:
        """Write a line when it is another one than before."""
        if line != self._told:
            self._told = line
            self._note(line)


# --- whether all is well ----------------------------------------------------------------------


def mail_trouble(
    store: Store,
    settings: Settings,
    queue: QueueFacts,
    findings: Collection[Finding],
    *,
    state_dir: Path,
    claimed_s: float,
    now_ms: int,
) -> str | None:
    """Return why no call is made, None while mail is accepted, claimed and not late; blocks."""
    fronts = [one for one in store.instances.registered() if one.role == "front"]
    problem = front_trouble(fronts, now_ms=now_ms)
    if problem is not None:
        return problem
    if not _has_room(state_dir, settings) or any(
        one.rule is Rule.FRONT_REFUSING for one in findings
    ):
        return "the front refuses mail"
    if home_elsewhere(store.homes, settings) is not None:
        return "the queue belongs to another machine, so nothing is sent from this one"
    if claimed_s > CLAIMED_S:
        return f"the delivery worker has not looked for due mail for {CLAIMED_S:.0f} s"
    for route in _late_routes(store, settings, queue, now_ms):
        return f"mail of route {route} is due for more than five minutes"
    return None


def _has_room(state_dir: Path, settings: Settings) -> bool:
    try:
        return free_share(state_dir) >= settings.queue.min_free
    except OSError:
        return False


def _late_routes(store: Store, settings: Settings, queue: QueueFacts, now_ms: int) -> list[str]:
    """Return routes with late mail; promotional mail takes its time while some of it goes out."""
    old = {
        lane.route
        for lane in queue.lanes
        if lane.state in _CLAIMABLE and lane.oldest_accepted_at_ms <= now_ms - LATE_MS
    }
    delivered = totals(queue.points, Series.DELIVERED, since_ms=now_ms - _MOVING_MS)
    patient = {
        one.name
        for one in settings.routes
        if one.stream is Stream.PROMOTIONAL and any(map(delivered.get, one.providers))
    }
    late = []
    for route in sorted(old - patient):
        due_ms = store.leases.next_due_at_ms(route)
        if due_ms is not None and due_ms <= now_ms - LATE_MS:
            late.append(route)
    return late
