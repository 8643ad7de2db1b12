"""Reads new captured mail each second, so that it is findable before anybody asks."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from relaygw.errors import StoreUnavailable
from relaygw.web.sandbox.index import Indexer

LOOK_S = 1.0
_AT_ONCE_S = 0.5  # a stop waits no longer than this
_REST_S = 0.25  # while there is more to read: the front has work to do as well
_log = logging.getLogger("relaygw.web")


async def keep_indexed(indexer: Indexer, stop: asyncio.Event) -> None:
    """Go on until `stop` is set; a store that does not answer is asked again."""
    while not stop.is_set():
        is_done = True
        try:
            is_done = await asyncio.to_thread(indexer.catch_up, within_s=_AT_ONCE_S)
        except StoreUnavailable as error:
            _log.warning("captured mail is not indexed for now: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S if is_done else _REST_S)
