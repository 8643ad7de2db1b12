"""What providers report: taken, read and counted by the web role."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from functools import partial

from relaygw.alerting.history import history_kept
from relaygw.feedback.reading import Reader, Seldom
from relaygw.feedback.receiving import PostBox
from relaygw.mail.verdict import BOUNCE_MAIL
from relaygw.observe.counters import FeedbackMetrics
from relaygw.observe.history import History
from relaygw.observe.metrics import open_metrics
from relaygw.observe.observer import FeedbackObserver
from relaygw.roles.process import RoleContext
from relaygw.store.feedback import MatchedEvent
from relaygw.store.store import Store
from relaygw.web.feedback import EventsApp
from relaygw.web.server import MOST_OF_ALL, MOST_OF_ONE, ConnectionLimit, serve_web

_WRITE_EACH_S = 1.0
_TELL_EACH_S = 600.0

_log = logging.getLogger("relaygw.feedback")


@contextlib.asynccontextmanager
async def feedback_kept(
    context: RoleContext, store: Store, listening: socket.socket | None, stop: asyncio.Event
) -> AsyncIterator[None]:
    """Take and read posts of providers, for the length of a with block that ends with `stop`.

    What one instance took any may read.
    """
    settings = context.loaded.settings
    providers = [
        name for name, provider in settings.providers.items() if provider.events is not None
    ]
    providers += [BOUNCE_MAIL] * (settings.bounces.inbound is not None)
    file = open_metrics(context.metrics, context.log)
    metrics = FeedbackMetrics(file, providers) if file is not None else None
    counts, history = _Counts(metrics), History()
    observer = FeedbackObserver(context.log, history, metrics)

    def told(new: Sequence[MatchedEvent]) -> None:
        counts.told(new)
        for event in new:
            for address in event.settled:
                what = f"{event.provider} has it: its event tells {event.event.kind}"
                context.log.note(
                    "qmgr", f"{event.queue_id}: {what}; {address} is not sent to again"
                )

    readings = context.readings
    reader = Reader(store, settings, told=told, judged=observer.tell, readings=readings)
    work = [asyncio.create_task(reader.run(stop)), asyncio.create_task(counts.run(stop))]
    if listening is not None:
        box = PostBox(store, settings, taken=reader.wake, counted=counts.refused, readings=readings)
        app = EventsApp(box, settings.web.proxies)
        told_closed = partial(counts.closed, str(settings.events.bind))
        limit = ConnectionLimit(settings.web.proxies, refused=told_closed)
        work.append(asyncio.create_task(_serve(app, box, listening, limit, stop)))
    for task in work:  # one that fails ends the role, which begins anew
        task.add_done_callback(lambda _: stop.set())
    try:
        async with history_kept(history, store):
            yield
            stop.set()
            await asyncio.gather(*work)
    finally:
        stop.set()
        await asyncio.gather(*work)


async def _serve(
    app: EventsApp,
    box: PostBox,
    listening: socket.socket,
    limit: ConnectionLimit,
    stop: asyncio.Event,
) -> None:
    try:
        await serve_web(app, listening, stop=stop, limit=limit)
    finally:
        await box.close()


class _Counts:
    """Counts what providers tell; without metrics nothing is counted."""

    def __init__(self, metrics: FeedbackMetrics | None) -> None:
        self._metrics = metrics
        self._often = Seldom(_TELL_EACH_S)
        self._closed = 0  # since it was told last

    def told(self, new: Sequence[MatchedEvent]) -> None:
        """Count what nobody told before."""
        if self._metrics is None:
            return
        for event in new:
            self._metrics.events.add(event.provider, event.event.kind.value)
            if event.queue_id is None:
                self._metrics.unmatched.add(event.provider)

    def refused(self, provider: str, reason: str) -> None:
        """Count a post that was not taken."""
        if self._metrics is not None:
            self._metrics.refused.add(provider, reason)

    def closed(self, bind: str, client: str, limit: str) -> None:
        """Count a connection to the listener that was closed at once; told now and then."""
        self._closed += 1
        if self._metrics is not None:
            self._metrics.closed.add(limit)
        if self._often.may("closed"):
            most = MOST_OF_ONE if limit == "of_one" else MOST_OF_ALL
            whose = "of this client" if limit == "of_one" else "of all clients"
            _log.warning(
                "connections to events.bind %s are closed at once (%d since this was told last), "
                "the last of %s: %d %s are open; put a proxy in front and list it in web.proxies, "
                "or shut the client out",
                *(bind, self._closed, client, most, whose),
            )
            self._closed = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Write what was counted each second, and at the end."""
        while self._metrics is not None:
            self._metrics.write()
            if stop.is_set():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_EACH_S):
                    await stop.wait()
