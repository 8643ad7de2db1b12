"""The sender: posts what waits for each receiver, in order, one post at a time.

Each receiver has a duty of its own, which one instance has for all; so one that hangs holds up
nobody else. What is to be sent is read a post at a time, and no more is ever in memory.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from relaygw.errors import SettingsError, StoreUnavailable
from relaygw.mail.words import counted
from relaygw.settings.model import Settings
from relaygw.settings.webhooks import Webhook, named_webhooks
from relaygw.store.home import home_elsewhere
from relaygw.store.instances import Unchanged, running_s
from relaygw.store.outbox import WebhookPost
from relaygw.store.store import Store
from relaygw.webhooks.post import (
    LIMIT_S,
    MAX_EVENTS,
    NotTaken,
    Target,
    fits,
    read_target,
    send_events,
)

DUTY = "webhook"
_JITTER = 0.2
_DRAIN_S = 2.0
_TIDY_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often what is done, in seconds."""

    idle_s: float = 1.0  # between looks at what waits
    duty_s: float = 2.0  # between looks at a duty that another has, or at a store that is away
    ladder_s: Sequence[float] = (5, 30, 120, 300, 900)  # waits after failures, the last again
    pause_after_s: float = 86_400  # so long nothing but failures
    paused_s: float = 3_600  # then between tries
    most_s: float = 3_600  # the most that a receiver may ask for
    limit_s: float = LIMIT_S
    tidy_s: float = 60.0
    forget_after_s: float = 600.0  # a receiver that no instance has in its settings


@dataclass(kw_only=True)
class Sender:
    """All receivers of one instance; `note` writes a line of the log."""

    settings: Settings
    store: Store
    incarnation: str
    note: Callable[[str], None]
    pace: Pace = field(default_factory=Pace)
    _names: dict[str, str] = field(default_factory=dict)  # by the id of each receiver
    _labels: dict[str, str] = field(default_factory=dict)  # so, for who has no settings of it
    _targets: dict[str, Target] = field(default_factory=dict)  # as they were read, until one fails
    _duty_until_s: dict[str, float] = field(default_factory=dict)  # not asked again before
    _taken: dict[str, str] = field(default_factory=dict)  # the last post that each took
    _is_home: bool = False  # what the queue has may leave from here
    _seen: Unchanged = field(default_factory=Unchanged)

    async def run(self) -> None:
        """Send until cancelled."""
        webhooks = named_webhooks(self.settings)
        self._names = {receiver.endpoint: name for name, receiver in webhooks.items()}
        self._labels = {
            receiver.endpoint: f"{name} ({receiver.url})" for name, receiver in webhooks.items()
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._tidy))
            for name, webhook in webhooks.items():
                group.create_task(self._repeat(partial(self._send_waiting, name, webhook)))

    async def _repeat(self, step: Callable[[], Awaitable[float]]) -> None:
        """Take steps, each after the pause that the one before asks for."""
        is_away = False
        while True:
            try:
                pause_s = await step()
                is_away = False
            except StoreUnavailable as error:
                pause_s = self.pace.duty_s
                if not is_away:
                    self.note(f"warning: webhooks: {error}")
                is_away = True
            except Exception as error:  # a defect of one receiver's stops no other
                pause_s = self.pace.duty_s
                self.note(f"error: webhooks: {type(error).__name__}: {error}")
            await asyncio.sleep(pause_s)

    # --- one receiver ----------------------------------------------------------------------

    async def _send_waiting(self, name: str, webhook: Webhook) -> float:
        """Send what waits, if this instance has the duty; return the pause after it."""
        post = await asyncio.to_thread(self._next_post, webhook.endpoint)
        while post is not None:
            exchange = asyncio.ensure_future(self._exchange(name, webhook, post))
            try:
                post = await asyncio.shield(exchange)
            except asyncio.CancelledError:  # what is under way may end, or it is sent once more
                await asyncio.wait([exchange], timeout=_DRAIN_S)
                exchange.cancel()
                raise
        return self.pace.idle_s

    def _next_post(self, endpoint: str, taken: str | None = None) -> WebhookPost | None:
        """Return the next post, and note which post was `taken` before it."""
        if taken is not None:
            self.store.outbox.note_taken(endpoint, taken)
        # one instance sends, and looks whether it is that one now and then: it costs more than a
        # look for a post, and two that send the same post for a moment tell the receiver its id
        if time.monotonic() >= self._duty_until_s.get(endpoint, 0.0):
            if not self._may_send(endpoint):
                return None
            self._duty_until_s[endpoint] = time.monotonic() + self.pace.idle_s
        return self.store.outbox.next_post(endpoint, limit=MAX_EVENTS, fits=fits)

    def _may_send(self, endpoint: str) -> bool:
        """True with the duty for a receiver; a copy of a production host tells none."""
        self._is_home = self._is_home or home_elsewhere(self.store.homes, self.settings) is None
        return self._is_home and self._has_duty(endpoint)

    def _has_duty(self, endpoint: str) -> bool:
        return self.store.watch.duty(f"{DUTY} {endpoint}", self.incarnation)

    async def _exchange(self, name: str, webhook: Webhook, post: WebhookPost) -> WebhookPost | None:
        """Send a post and note what came of it; return the one that follows at once."""
        try:
            if self._taken.get(name) != post.post_id:  # else only its mark failed
                await self._post(name, webhook, post)
        except (NotTaken, SettingsError) as error:
            self._targets.pop(name, None)
            await self._note_refused(name, webhook, post, error)
            return None
        self._taken[name] = post.post_id
        following = None
        if post.is_full:
            following = await asyncio.to_thread(self._next_post, webhook.endpoint, post.post_id)
        else:  # what does not fill a post waits for more, so that a busy gateway makes few of them
            await asyncio.to_thread(self.store.outbox.note_taken, webhook.endpoint, post.post_id)
        if post.failures:
            self.note(f"webhook {name} works again, after {counted(post.failures, 'failure')}")
        return following

    async def _post(self, name: str, webhook: Webhook, post: WebhookPost) -> None:
        target = self._targets.get(name)
        if target is None:
            target = self._targets[name] = await asyncio.to_thread(read_target, webhook)
        limit_s = self.pace.limit_s
        await send_events(target, post.events, post.post_id, self.settings, limit_s=limit_s)

    async def _note_refused(
        self, name: str, webhook: Webhook, post: WebhookPost, error: NotTaken | SettingsError
    ) -> None:
        is_gone = isinstance(error, NotTaken) and error.is_gone
        has_paused = await asyncio.to_thread(
            self.store.outbox.note_refused,
            webhook.endpoint,
            str(error),
            wait_ms=int(self._wait_s(post, error) * 1000),
            pause_after_ms=int(self.pace.pause_after_s * 1000),
            is_gone=is_gone,
        )
        resume = f"relaygw webhooks resume {name} tries now"
        if is_gone:
            self.note(f"warning: webhook {name} is disabled: {error}; {resume}")
        elif has_paused:
            self.note(
                f"warning: webhook {name} is paused, hardly tried any more: {error}; {resume}"
            )
        elif not post.failures:
            self.note(f"warning: webhook {name} fails, and is tried again: {error}")

    def _wait_s(self, post: WebhookPost, error: NotTaken | SettingsError) -> float:
        """Return how long a receiver is left alone after an error."""
        pace = self.pace
        step = min(post.failures, len(pace.ladder_s) - 1)
        wait_s = pace.paused_s if post.is_paused else pace.ladder_s[step]
        wait_s *= random.uniform(1 - _JITTER, 1 + _JITTER)
        asked_s = error.retry_after_s if isinstance(error, NotTaken) else None
        return max(wait_s, min(asked_s or 0.0, pace.most_s))

    # --- all of them -----------------------------------------------------------------------

    async def _tidy(self) -> float:
        """Say whom this instance knows; remove whom none knows, and what was kept for long."""
        outbox, mine = self.store.outbox, self._labels
        seen = await asyncio.to_thread(outbox.see_endpoints, mine)
        self._seen.look(seen, running_s())
        for endpoint in self._seen.unchanged_for(self.pace.forget_after_s, running_s()):
            if endpoint not in mine:
                await self._forget_endpoint(endpoint, seen[endpoint])
        retention_ms = int(self.settings.queue.retention * 1000)
        has_more = await asyncio.to_thread(self._has_duty, "tidy")
        while has_more:
            has_more, dropped = await asyncio.to_thread(outbox.forget_told, retention_ms)
            for endpoint, number in dropped.items():
                name = self._names.get(endpoint) or await self._label(endpoint)
                events = counted(number, "event")
                self.note(f"warning: webhook {name}: {events} waited for longer than "
                          "queue.retention and will not be sent")  # fmt: skip
            await asyncio.sleep(_TIDY_PAUSE_S)
        return self.pace.tidy_s

    async def _forget_endpoint(self, endpoint: str, seen_at_ms: int) -> None:
        forget = partial(self.store.outbox.forget_endpoint, endpoint, seen_at_ms=seen_at_ms)
        label, number = await self._label(endpoint), 0
        while (step := await asyncio.to_thread(forget)) is not None:
            number += step
            await asyncio.sleep(_TIDY_PAUSE_S)
        self.note(f"warning: webhook {label} is in no configuration any more; "
                  f"{counted(number, 'event')} for it will not be sent")  # fmt: skip

    async def _label(self, endpoint: str) -> str:
        """Return the name of a receiver that this instance does not know."""
        known = await asyncio.to_thread(self.store.outbox.endpoints)
        return (
            next((receiver.label for receiver in known if receiver.endpoint == endpoint), None)
            or endpoint
        )
