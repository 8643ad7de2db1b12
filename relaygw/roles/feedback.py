"""What providers report: taken, read and counted by the web role."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

from relaygw.alerting.history import history_kept
from relaygw.feedback.reading import Reader
from relaygw.feedback.receiving import PostBox
from relaygw.mail.verdict import BOUNCE_MAIL
from relaygw.observe.counters import FeedbackMetrics
from relaygw.observe.metrics import can_count
from relaygw.observe.observer import FeedbackObserver, History
from relaygw.roles.process import RoleContext
from relaygw.store.feedback import MatchedEvent
from relaygw.store.store import Store
from relaygw.web.feedback import EventsApp
from relaygw.web.server import serve_web

_WRITE_EACH_S = 1.0


@contextlib.asynccontextmanager
async def feedback_kept(
    context: RoleContext, store: Store, listening: socket.socket | None, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Take and read posts of providers, for the length of a with block that ends with `stop`.

    What one instance took any may read. Where no provider reports anything there is nothing to do.
    """
    settings = context.loaded.settings
    providers = [name for name, one in settings.providers.items() if one.events is not None]
    providers += [BOUNCE_MAIL] * (settings.bounces.inbound is not None)
    if not providers:
        yield
        return
    metrics = FeedbackMetrics(providers) if can_count(context.metrics, context.log) else None
    counts, history = _Counts(metrics), History()
    observer = FeedbackObserver(context.log, history, metrics)

    def told(new: Sequence[MatchedEvent]) -> None:
        counts.told(new)
        for one in new:
            for address in one.settled:
                what = f"{one.provider} has it: its event tells {one.event.kind}"
                context.log.note("qmgr", f"{one.queue_id}: {what}; {address} is not sent to again")

    reader = Reader(store, settings, told=told, judged=observer.tell)
    work = [asyncio.create_task(reader.run(stop)), asyncio.create_task(counts.run(stop))]
    if listening is not None:
        box = PostBox(store, settings, taken=reader.wake, counted=counts.refused)
        app = EventsApp(box, settings.web.proxies)
        work.append(asyncio.create_task(_serve(app, box, listening, stop)))
    for one in work:  # one that fails ends the role, which begins anew
        one.add_done_callback(lambda _: stop.set())
    try:
        async with history_kept(history, store):
            yield
            stop.set()
            await asyncio.gather(*work)
    finally:
        stop.set()
        await asyncio.gather(*work)


async def _serve(
    app: EventsApp, box: PostBox, listening: socket.socket, stop: asyncio.Event
) -> None:
    try:
        await serve_web(app, listening, stop=stop)
    finally:
        await box.close()


class _Counts:
    """Counts what providers tell; without metrics nothing is counted."""

    def __init__(self, metrics: FeedbackMetrics | None) -> None:
        self._metrics = metrics

    def told(self, new: Sequence[MatchedEvent]) -> None:
        """Count what nobody told before."""
        if self._metrics is None:
            return
        for one in new:
            self._metrics.events.add(one.provider, one.event.kind.value)
            if one.queue_id is None:
                self._metrics.unmatched.add(one.provider)

    def refused(self, provider: str, reason: str) -> None:
        """Count a post that was not taken."""
        if self._metrics is not None:
            self._metrics.refused.add(provider, reason)

    async def run(self, stop: asyncio.Event) -> None:
        """Write what was counted each second, and at the end."""
        while self._metrics is not None:
            self._metrics.write()
            if stop.is_set():
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _WRITE_EACH_S)
