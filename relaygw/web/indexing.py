"""Makes mail findable, some messages at a time, so that accepting and sending do not wait.

Captured mail is read once, for lists and searches; the unreadable keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from relaygw.errors import EndsReaders, StoreUnavailable, Unstorable
from relaygw.mail.content_facts import ContentFacts
from relaygw.observe.readings import ProcessReadings, Reader, unwatched
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store
from relaygw.web.mail.parts import load_tree
from relaygw.web.mail.text import PRODUCTION_TAG, hosts_linked, read_facts

PATIENCE_S = 1.0  # how long a request waits for the reading of what came in while nobody read
LOOK_S = 1.0
_FOR_EVER_S = 1e9
_AT_ONCE_S = 0.5  # a stop waits no longer than this
_REST_S = 0.25  # while there is more to read: the front has work to do as well
_BATCH_MESSAGES = 25
_BATCH_S = 0.25  # what was read so far is findable by then, even among large messages

_log = logging.getLogger("relaygw.web")


class Indexer:
    """Makes captured mail of one store findable; for many threads, one of which works."""

    def __init__(self, store: Store, readings: ProcessReadings | None = None) -> None:
        self._store = store
        self._readings = readings or unwatched()
        self._lock = threading.Lock()

    def catch_up(self, *, within_s: float | None = PATIENCE_S) -> bool:
        """Read what nobody has read yet, for about so long (None: all); True when all was read.

        Blocks. What was captured before the call is found when it has returned True.
        """
        until_s = time.monotonic() + (_FOR_EVER_S if within_s is None else within_s)
        while self._lock.acquire(timeout=max(0.0, until_s - time.monotonic())):
            try:
                entries = self._store.sandbox.unindexed(limit=_BATCH_MESSAGES)
                if not entries:
                    return True
                self._read_batch(entries)
            finally:
                self._lock.release()  # others who wait need a look only
            if time.monotonic() >= until_s:
                return False
        return False

    def _read_batch(self, entries: list[QueueEntry]) -> None:
        facts: dict[str, ContentFacts] = {}
        until_s = time.monotonic() + _BATCH_S
        for entry in entries:
            facts[entry.queue_id] = self._read(entry)
            if time.monotonic() >= until_s:
                break  # the others come with the next batch
        try:
            self._store.sandbox.index(facts)
            return
        except Unstorable as error:
            _log.warning("content is indexed one by one: %s", error)
        for queue_id, content_facts in facts.items():
            try:
                self._store.sandbox.index({queue_id: content_facts})
            except Unstorable as error:
                _log.warning("%s: content cannot be indexed: %s", queue_id, error)
                self._store.sandbox.index({queue_id: ContentFacts()})

    def _read(self, entry: QueueEntry) -> ContentFacts:
        try:
            with self._readings.reading(Reader.INDEX, f"message {entry.queue_id} for searches"):
                tree = load_tree(self._store, entry)
                is_live = hosts_linked(tree, self._store.sandbox.production_hosts).hosts
                return replace(read_facts(tree), tags=(PRODUCTION_TAG,) if is_live else ())
        except StoreUnavailable:
            raise
        except EndsReaders as error:
            remedy = f"look at it with relaygw sandbox show {entry.queue_id}"
            _log.error("%s: searches do not know what it says; %s", error, remedy)
            return ContentFacts()
        except Exception:  # a defect: the others are to be found all the same
            _log.exception("%s: the content cannot be read", entry.queue_id)
            return ContentFacts()


async def keep_indexed(indexer: Indexer, stop: asyncio.Event) -> None:
    """Read new captured mail each second until `stop` is set, before anybody asks for it."""
    while not stop.is_set():
        is_done = True
        try:
            is_done = await asyncio.to_thread(indexer.catch_up, within_s=_AT_ONCE_S)
        except StoreUnavailable as error:
            _log.warning("captured mail is not indexed for now: %s", error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S if is_done else _REST_S):
                await stop.wait()


_FINDABLE_LOOK_S = 2.0
_FINDABLE_BATCH = 100  # some milliseconds under the lock of the queue
_FINDABLE_REST = 5  # times what a batch took
_FINDABLE_LEAST_REST_S = 0.03


async def keep_findable(
    store: Store, link_header: str | None, stop: asyncio.Event, *, told: Callable[[], None]
) -> None:
    """Write the words of new mail, and of what was there before, until `stop` is set.

    `told` is called whenever there was any.
    """
    index_batch = partial(store.find.index_batch, limit=_FINDABLE_BATCH, link_header=link_header)
    while not stop.is_set():
        taken, began_s = 0, time.monotonic()
        try:
            taken = await asyncio.to_thread(index_batch)
        except StoreUnavailable as error:
            _log.warning("new mail is not made findable for now: %s", error)
        if taken:
            told()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest_s(taken, time.monotonic() - began_s)):
                await stop.wait()


def rest_s(taken: int, took_s: float) -> float:
    """Return how long to rest after a batch of so many messages: each takes the queue's lock.

    A batch that is not full has all that waited; what comes after it waits for the next look.
    """
    if taken < _FINDABLE_BATCH:
        return _FINDABLE_LOOK_S
    return max(took_s * _FINDABLE_REST, _FINDABLE_LEAST_REST_S)
