"""Windows on a real store: what is given back and claimed again at the same moment."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from relaygw.delivery.gate import Gate
from relaygw.delivery.in_hand import InHand
from relaygw.delivery.lanes import Lane
from relaygw.delivery.windows import Windows
from relaygw.settings.model import Stream
from relaygw.settings.provider import Provider
from relaygw.store import migrate
from relaygw.store.protocol import Instance, Key
from relaygw.store.sqlite import SqliteStore
from tests.builders import accepted
from tests.logs import text_log


class SlowAnswers(SqliteStore):
    """Answers a give-back, which is done by then, when `may_answer` is set."""

    may_answer: threading.Event

    def give_back(self, keys: Collection[Key], *, incarnation: str) -> Any:
        done = super().give_back(keys, incarnation=incarnation)
        self.may_answer.wait()
        return done


async def test_what_is_claimed_again_before_its_give_back_is_answered_is_at_hand(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    migrate.upgrade(url)
    store = SlowAnswers(url, keep_content=False)
    store.may_answer = threading.Event()
    store.register(
        Instance(incarnation="w", name="gw", role="delivery", pid=1, version="1", fingerprint="f")
    )
    message = accepted("b@cust.test")
    store.accept_batch([message])
    lane = Lane(
        route="default",
        stream=Stream.TRANSACTIONAL,
        gates=[Gate(provider="p", settings=Provider(host="smtp.test"))],
    )
    with ThreadPoolExecutor(max_workers=2) as threads:
        windows = Windows(
            store,
            text_log(io.StringIO()),
            incarnation="w",
            in_hand=InHand(),
            courier=cast(Any, None),
            holds=cast(Any, None),
            threads=threads,
            spawn=lambda work: work.close(),
            wake=lambda: None,
        )
        await windows.claim(lane)
        given = list(lane.window)
        assert [one.queue_id for one in given] == [message.queue_id]
        lane.window.clear()
        back = asyncio.create_task(windows.give_back_now(given))
        await asyncio.to_thread(_wait_until_incoming, store)
        again = asyncio.create_task(windows.claim(lane))
        await asyncio.sleep(0)
        # behind a claim that did not wait, on the one thread that is left
        await asyncio.get_running_loop().run_in_executor(threads, lambda: None)
        store.may_answer.set()
        await asyncio.gather(back, again)
    assert [one.queue_id for one in lane.window] == [message.queue_id]
    assert not windows.is_unsure(lane)
    store.close()


def _wait_until_incoming(store: SqliteStore) -> None:
    while store.next_due_at_ms("default") is None:
        pass
