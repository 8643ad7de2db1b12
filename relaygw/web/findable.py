"""Makes all mail findable, a few messages at a time, so that accepting and sending do not wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial

from relaygw.errors import StoreUnavailable
from relaygw.store.store import Store

LOOK_S = 2.0
BATCH_MESSAGES = 100  # some milliseconds under the lock of the queue
_REST = 5  # times what a batch took
_LEAST_REST_S = 0.03

_log = logging.getLogger("relaygw.web")


async def keep_findable(store: Store, link_header: str | None, stop: asyncio.Event) -> None:
    """Write the words of new mail, and of what was there before, until `stop` is set."""
    index_batch = partial(store.find.index_batch, limit=BATCH_MESSAGES, link_header=link_header)
    while not stop.is_set():
        rest_s = LOOK_S
        try:
            began_s = time.monotonic()
            if await asyncio.to_thread(index_batch):
                rest_s = max((time.monotonic() - began_s) * _REST, _LEAST_REST_S)
        except StoreUnavailable as error:
            _log.warning("new mail is not made findable for now: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), rest_s)
