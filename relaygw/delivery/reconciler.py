"""The reconciler: brings mail that other settings left behind in line with those of now.

What waits on a route that is gone takes the one of now; what is in doubt stays. It is looked for
again and again: a front of the settings before ends its sessions first, and a worker may give mail
back. While others run other settings nothing is changed: they may know the route. What was held for
the mode is looked at when a worker starts, and when one with other settings has ended: until then
that may hold more.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

from relaygw.delivery.context import WorkerContext
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import read_header
from relaygw.mail.rerouting import Rerouting, RouteWay
from relaygw.mail.search import Field, make_term
from relaygw.mail.state import CLAIMABLE, DeliveryState, RecipientState
from relaygw.policy.recipients import BY_MODE, Screen
from relaygw.policy.router import Router
from relaygw.policy.untended import deliveries, gone_remedy, gone_words, known_routes
from relaygw.settings.section import Mode
from relaygw.store.audit import AuditEntry
from relaygw.store.instances import Instance
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry
from relaygw.store.queue_tables import Key
from relaygw.store.selection import Selection

_LEFT_S = 60.0  # what stays on a route is not looked at again before
_PAGE = 200
_ACTOR = "relaygw"


class Reconciler:
    """Runs beside one delivery worker; `wake` lets that look at the queue now.

    `others_ended` is called when a worker with other settings has ended.
    """

    def __init__(
        self,
        context: WorkerContext,
        wake: Callable[[], None],
        others_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._context = context
        self._store = context.store
        self._wake = wake
        self._others_ended = others_ended
        self._router = Router(context.settings.routes)
        self._screen = Screen(context.settings)
        self._known = known_routes(context.settings)
        self._strangers: frozenset[str] | None = None  # workers with other settings, at a look
        self._is_mode_due = True
        self._due_s: dict[str, float] = {}
        self._noted: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                with self._context.noting():
                    await self._look()
            except Exception as error:  # mail of known routes does not depend on it
                self._context.note(f"error: {type(error).__name__}: {error}")
            await asyncio.sleep(self._context.waits.routes_s)

    async def _look(self) -> None:
        registered, waiting = await self._context.call(self._instances_and_routes)
        self._mind_strangers(registered)
        if self._is_mode_due:
            await self._look_at_the_mode()
            self._is_mode_due = False
        gone = [route for route in waiting if route not in self._known]
        self._noted = {noted for noted in self._noted if noted[1] in gone}
        self._due_s = {route: due_s for route, due_s in self._due_s.items() if route in gone}
        if not gone:
            return
        others = await self._context.call(self._others)
        for route in gone:
            if others:
                what = "is not changed while other processes run other settings"
                text = f"mail of {gone_words(route)}, {what}: {', '.join(others)}"
                self._note_once("other settings", route, text)
                continue
            self._noted.discard(("other settings", route))
            if time.monotonic() >= self._due_s.get(route, 0.0):
                await self._route_anew(route)

    def _instances_and_routes(self) -> tuple[list[Instance], list[str]]:
        """Return who is registered, and the routes that mail waits on; in a thread."""
        with self._store.database.snapshot():
            return self._store.instances.registered(), self._store.leases.routes_waiting()

    def _mind_strangers(self, registered: Sequence[Instance]) -> None:
        """Notice when a worker with other settings has ended: it held mail by them until then."""
        mine = {
            instance.fingerprint
            for instance in registered
            if instance.incarnation == self._context.incarnation
        }
        before, self._strangers = (
            self._strangers,
            frozenset(
                instance.incarnation
                for instance in registered
                if instance.role == "delivery" and instance.fingerprint not in mine
            ),
        )
        if before is not None and before - self._strangers:
            self._is_mode_due = True
            self._others_ended()

    def _others(self) -> list[str]:
        """Return processes that may know the route: other workers, and whatever started later."""
        instances = self._store.instances.registered()
        me = next(
            (
                instance
                for instance in instances
                if instance.incarnation == self._context.incarnation
            ),
            None,
        )
        if me is None:  # others have buried it: it says nothing about mail any more
            return ["another worker"]
        return [
            f"{instance.role} {instance.pid} on {instance.name}"
            for instance in instances
            if instance.fingerprint != me.fingerprint
            and (
                (instance.role == "delivery" and instance.state != "draining")
                or instance.started_at_ms > me.started_at_ms
            )
        ]

    def _note_once(self, what: str, route: str, text: str) -> None:
        if (what, route) not in self._noted:
            self._noted.add((what, route))
            self._context.note(f"warning: {text}")

    # --- routes --------------------------------------------------------------------------

    async def _pages(self, selection: Selection) -> AsyncIterator[list[QueueEntry]]:
        search, after = self._store.queue.search, ""
        while page := await self._context.call(search, selection, limit=_PAGE, after=after):
            yield page
            after = page[-1].queue_id

    async def _route_anew(self, route: str) -> None:
        moved: Counter[str] = Counter()
        left = 0
        async for page in self._pages(
            Selection(states=CLAIMABLE, terms=(make_term(Field.ROUTE, route),))
        ):
            left += await self._context.call(self._reroute, route, page, moved)
        if moved:
            self._wake()
        for name, number in moved.items():
            verb = "goes" if number == 1 else "go"
            self._context.note(
                f"{deliveries(number)} of {gone_words(route)} any more, {verb} by route {name} now"
            )
        if left:
            self._due_s[route] = time.monotonic() + _LEFT_S
            why = "a provider may have taken it, or there are no routes"
            text = f"no worker sends {deliveries(left)} of {gone_words(route)}: {why}"
            self._note_once("left", route, f"{text}; {gone_remedy(route)}")

    def _reroute(self, route: str, page: Sequence[QueueEntry], moved: Counter[str]) -> int:
        """Give a page of mail its routes of now, in a thread; return how much has none."""
        found = [
            None if part.is_in_doubt else self._step(entry, part)
            for entry in page
            for part in entry.deliveries
            if part.route == route and part.state in CLAIMABLE
        ]
        steps = [step for step in found if step is not None]
        if steps:
            audited = AuditEntry(
                at_ms=clock_ms(),
                actor=_ACTOR,
                action="queue.reroute",
                target=" ".join(dict.fromkeys(step.queue_id for step in steps)),
                affected=len(steps),
                detail=f"from={route!r}",
            )
            if self._store.leases.reroute(steps, entry=audited):
                moved.update(way.route for step in steps for way in step.ways)
        return len(found) - len(steps)

    def _step(self, entry: QueueEntry, part: DeliveryEntry) -> Rerouting | None:
        """Return where the recipients of a delivery go now, None if there is no route for one."""
        headers = self._headers(entry)
        ways: dict[tuple[str, str], list[int]] = {}
        for recipient in entry.recipients:
            if (
                recipient.delivery_no != part.delivery_no
                or recipient.state is not RecipientState.PENDING
            ):
                continue
            route = self._router.route_for(
                sender=entry.sender,
                recipient=recipient.address,
                headers=headers,
                listener=entry.source.listener,
                user=entry.source.user,
            )
            if route is None:
                return None
            ways.setdefault((route.name, route.stream.value), []).append(recipient.rcpt_no)
        return Rerouting(
            queue_id=entry.queue_id,
            delivery_no=part.delivery_no,
            route=part.route,
            ways=tuple(
                RouteWay(route=name, stream=stream, rcpt_nos=tuple(numbers))
                for (name, stream), numbers in ways.items()
            ),
        )

    def _headers(self, entry: QueueEntry) -> Mapping[str, str]:
        if not self._router.header_names:
            return {}
        head = self._store.intake.read_chunk(entry.queue_id, 0) or b""
        return read_header(head, self._router.header_names).values

    # --- the mode ------------------------------------------------------------------------

    async def _look_at_the_mode(self) -> None:
        """Make due what was held for the mode and is permitted now."""
        if BY_MODE not in await self._context.call(self._store.holds.held_causes):
            return
        selection = Selection(
            states=frozenset({DeliveryState.HELD}),
            terms=(make_term(Field.WAIT_REASON, BY_MODE.sentence),),
        )
        number = 0
        async for page in self._pages(selection):
            number += await self._context.call(self._free_page, page)
        if number:
            self._wake()
            verb = "was" if number == 1 else "were"
            self._context.note(
                f"{deliveries(number)} that {verb} held because of the mode: now permitted and due"
            )

    def _free_page(self, page: Iterable[QueueEntry]) -> int:
        """Make due the deliveries of which somebody may receive now; return how many."""
        keys: list[Key] = []
        for entry in page:
            for part in entry.deliveries:
                if BY_MODE not in part.causes:
                    continue
                obstacle = self._screen.obstacle_of(entry.source, Mode(entry.mode), part.released)
                if any(
                    recipient.delivery_no == part.delivery_no
                    and recipient.state is RecipientState.PENDING
                    and obstacle(recipient.address) is None
                    for recipient in entry.recipients
                ):
                    keys.append((entry.queue_id, part.delivery_no))
        return self._store.holds.let_go(keys, BY_MODE).due if keys else 0
