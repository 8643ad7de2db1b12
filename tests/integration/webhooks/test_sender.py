"""The sender on real stores, with real receivers that are dead, lie, or take what nobody notes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from relaygw.errors import StoreUnavailable
from relaygw.mail.verdict import Kind, Told
from relaygw.settings.model import Settings
from relaygw.settings.webhooks import named_webhooks
from relaygw.store.reports import NewVerdict
from relaygw.store.rules import StoreRules, WebhookRule
from relaygw.store.store import Store, open_store
from relaygw.store.webhooks import add_verdicts
from relaygw.webhooks.sender import Pace, Sender
from tests.builders import instance
from tests.campaign import times
from tests.fakes.event_receiver import SECRET, EventReceiver

FAST = Pace(
    idle_s=0.02,
    duty_s=0.05,
    ladder_s=(0.05, 0.1),
    paused_s=0.1,
    tidy_s=0.1,
    forget_after_s=1e9,
    limit_s=5.0,
)
KINDS = (Kind.HARD, Kind.COMPLAINED, Kind.UNSUBSCRIBED, Kind.SOFT)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    for name in ("one", "two"):
        store.instances.register(instance(name, "web"))
    yield store
    store.close()


def settings_for(*receivers: EventReceiver | str, **more: Any) -> Settings:
    urls = [one if isinstance(one, str) else one.url for one in receivers]
    return Settings.model_validate(
        {
            "mode": "sandbox",
            "hostname": "gw.test",
            "webhooks": [{"url": one, "secret": f"plain:{SECRET}"} | more for one in urls],
        }
    )


def rules_of(settings: Settings) -> StoreRules:
    everything = frozenset(kind.value for kind in Told)
    ids = [one.endpoint for one in settings.webhooks]
    return StoreRules(webhooks=tuple(WebhookRule(one, everything) for one in ids))


def happen(store: Store, settings: Settings, *what: tuple[str, Kind]) -> None:
    """Have something become of messages, in one transaction."""
    verdicts = [
        NewVerdict(
            queue_id=queue_id,
            rcpt_no=0,
            address="b@cust.test",
            kind=kind,
            at_ms=number,
            provider="main",
            dsn=None,
            detail="",
            others=0,
            is_last_word=True,
        )
        for number, (queue_id, kind) in enumerate(what, 1)
    ]
    with store.database.write() as tx:
        add_verdicts(tx, verdicts, rules_of(settings))


def sender(store: Store, settings: Settings, name: str = "one", **more: Any) -> Sender:
    notes: list[str] = []
    values: dict[str, Any] = {"note": notes.append, "pace": FAST}
    found = Sender(settings=settings, store=store, incarnation=name, **values | more)
    found.notes = notes  # type: ignore[attr-defined]
    return found


@contextlib.asynccontextmanager
async def running(*senders: Sender) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in senders]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(is_so: Any, patience_s: float = 30.0) -> None:
    async with asyncio.timeout(patience_s):
        while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - of the store, no event
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def looks_at(store: Store) -> Iterator[list[int]]:
    """Return a list that grows by a number, that of the events, with each look for a post."""
    real, found = store.outbox.next_post, list[int]()

    def next_post(*given: Any, **more: Any) -> Any:
        post = real(*given, **more)
        found.append(len(post.events) if post else 0)
        return post

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.outbox, "next_post", next_post)
        yield found


def by_message(receiver: EventReceiver) -> dict[str, list[str]]:
    found = defaultdict(list)
    for one in receiver.events:
        found[one["queue_id"]].append(one["verdict"])
    return found


async def test_what_happened_arrives_in_order_in_few_posts(store: Store) -> None:
    with EventReceiver() as receiver:
        settings = settings_for(receiver)
        for kind in KINDS:
            happen(store, settings, *((f"Q{number}", kind) for number in range(60)))
        async with running(sender(store, settings)):
            await asyncio.to_thread(receiver.wait_for, 240)
        receiver.check()
    assert by_message(receiver) == {f"Q{number}": list(KINDS) for number in range(60)}
    assert [len(events) for _, events in receiver.posts] == [200, 40]
    assert len({one["id"] for one in receiver.events}) == 240


def close(handler: Any) -> None:
    handler.close_connection = True


PAINS = (200, 500, 429, 302, close, 404)


async def dead_then_back(store: Store, *, messages: int, seed: int) -> None:
    """Have a receiver do whatever there is, in any order, one after another, while events come."""
    events = [(f"Q{number:03}", kind) for kind in KINDS for number in range(messages // 4)]
    pains = random.Random(seed).sample(PAINS, len(PAINS)) * times(1, campaign=3)
    share = -(-messages // len(pains))
    with EventReceiver(503) as receiver:
        receiver.headers = {"Retry-After": "0", "Location": receiver.url}
        settings = settings_for(receiver)
        two = sender(store, settings), sender(store, settings, "two")
        async with running(*two):
            for number, receiver.answer in enumerate(pains):
                asked = receiver.asked
                happen(store, settings, *events[number * share :][:share])
                await asyncio.to_thread(receiver.wait_for_asked, asked + 1)
            receiver.answer = 200
            await asyncio.to_thread(receiver.wait_for, messages)
            await until(lambda: not waiting(store))
        receiver.check()
    assert len(receiver.events) == messages, "each once: no mark was lost"
    assert set(map(tuple, by_message(receiver).values())) == {KINDS}


@pytest.mark.campaign
async def test_a_dead_receiver_that_comes_back_misses_nothing_and_gets_all_in_order(
    store: Store,
) -> None:
    for seed in range(times(1, campaign=20)):
        await dead_then_back(store, messages=times(80, campaign=400), seed=seed)


async def test_of_two_instances_one_sends_and_the_other_goes_on(store: Store) -> None:
    with EventReceiver() as receiver:
        settings = settings_for(receiver)
        one, two = sender(store, settings), sender(store, settings, "two")
        async with running(two):
            async with running(one):
                for number in range(50):
                    happen(store, settings, (f"Q{number}", Kind.HARD))
                await asyncio.to_thread(receiver.wait_for, 50)
            store.instances.bury("one")
            store.instances.bury("two")  # and neither has the duty for ever
            store.instances.register(instance("two", "web"))
            happen(store, settings, ("LAST", Kind.HARD))
            await asyncio.to_thread(receiver.wait_for, 51)
        receiver.check()
    assert sorted(one["queue_id"] for one in receiver.events) == sorted(
        ["LAST", *(f"Q{number}" for number in range(50))]
    )


async def test_what_was_taken_and_not_noted_goes_again_with_the_same_id(store: Store) -> None:
    """As of a sender that is killed between the answer and its mark."""
    with EventReceiver() as receiver:
        settings = settings_for(receiver)
        happen(store, settings, ("Q1", Kind.HARD), ("Q2", Kind.HARD))
        killed = sender(store, settings)

        def no_mark(*_: object) -> None:
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.outbox, "note_taken", no_mark)
            async with running(killed):
                await asyncio.to_thread(receiver.wait_for, 2)
        happen(store, settings, ("Q3", Kind.HARD))
        async with running(sender(store, settings)):
            await asyncio.to_thread(receiver.wait_for, 5)
            await until(lambda: store.outbox.endpoints()[0].waiting == 0)
    ids = [post_id for post_id, _ in receiver.posts]
    assert ids[0] == ids[1] != ids[2]
    assert [one["queue_id"] for one in receiver.events] == ["Q1", "Q2", "Q1", "Q2", "Q3"]


async def test_a_mark_that_the_store_refuses_is_written_later_and_nothing_goes_twice(
    store: Store,
) -> None:
    with EventReceiver() as receiver:
        settings = settings_for(receiver)
        happen(store, settings, ("Q1", Kind.HARD))
        real, refused = store.outbox.note_taken, []

        def note_taken(*given: Any) -> None:
            if len(refused) < 3:
                refused.append(given)
                raise StoreUnavailable("the disk is full")
            real(*given)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store.outbox, "note_taken", note_taken)
            async with running(sender(store, settings)):
                await until(lambda: store.outbox.endpoints()[:1] and not waiting(store))
    assert (len(refused), receiver.asked) == (3, 1)


def waiting(store: Store) -> int:
    return sum(one.waiting for one in store.outbox.endpoints())


# --- receivers that are in trouble ------------------------------------------------------------


async def test_one_that_hangs_holds_up_no_other(store: Store) -> None:
    def hang(handler: Any) -> None:
        stuck.is_over.wait()

    with EventReceiver(hang) as stuck, EventReceiver() as well:
        settings = settings_for(stuck, well)
        async with running(sender(store, settings)):
            for number in range(20):
                happen(store, settings, (f"Q{number}", Kind.HARD))
            await asyncio.to_thread(well.wait_for, 20)
            assert stuck.events == []


async def test_it_is_paused_after_long_and_told_once_and_works_again(store: Store) -> None:
    pace = Pace(**{**vars_of(FAST), "pause_after_s": 0.3})
    with EventReceiver(500) as receiver:
        settings = settings_for(receiver)
        happen(store, settings, ("Q1", Kind.HARD))
        mine = sender(store, settings, pace=pace)
        async with running(mine):
            await until(lambda: store.outbox.endpoints()[:1] and paused(store))
            receiver.answer = 200
            await asyncio.to_thread(receiver.wait_for, 1)
            await until(lambda: not waiting(store))
        assert not paused(store)
    notes: list[str] = mine.notes  # type: ignore[attr-defined]
    place = f"127.0.0.1:{receiver.port} answered 500"
    assert notes[0] == f"warning: webhook webhook-1 fails, and is tried again: {place}"
    assert notes[1].startswith("warning: webhook webhook-1 is paused, hardly tried any more: ")
    assert notes[2].startswith("webhook webhook-1 works again, after ")
    assert len(notes) == 3
    assert not any("token-of-the-url" in note or "hidden" in note for note in notes)


def paused(store: Store) -> bool:
    return store.outbox.endpoints()[0].paused_at_ms is not None


def vars_of(pace: Pace) -> dict[str, Any]:
    return {name: getattr(pace, name) for name in Pace.__slots__}


async def test_one_that_is_gone_is_left_alone(store: Store) -> None:
    with EventReceiver(410) as receiver:
        settings = settings_for(receiver)
        happen(store, settings, ("Q1", Kind.HARD))
        mine = sender(store, settings)
        with looks_at(store) as looks:
            async with running(mine):
                await until(lambda: mine.notes)  # type: ignore[attr-defined]
                happen(store, settings, ("Q2", Kind.HARD))
                looked = len(looks)
                await until(lambda: len(looks) > looked + 2)
    assert receiver.asked == 1
    (note,) = mine.notes  # type: ignore[attr-defined]
    assert "webhook-1 is disabled" in note
    assert "relaygw webhooks resume webhook-1" in note


async def test_a_receiver_may_ask_for_time_and_not_for_a_year(store: Store) -> None:
    with EventReceiver(429) as receiver:
        receiver.headers = {"Retry-After": "31536000"}
        settings = settings_for(receiver)
        happen(store, settings, ("Q1", Kind.HARD))
        pace = Pace(**{**vars_of(FAST), "most_s": 40.0})
        async with running(sender(store, settings, pace=pace)):
            await until(lambda: store.outbox.endpoints()[:1] and failures(store))
        (one,) = store.outbox.endpoints()
        assert one.failing_since_ms is not None
        assert 39_000 <= one.next_at_ms - one.failing_since_ms <= 45_000


def failures(store: Store) -> int:
    return store.outbox.endpoints()[0].failures


async def test_a_secret_that_is_none_is_told_by_its_name(store: Store) -> None:
    settings = settings_for("http://127.0.0.1:9/", secret="plain:too-short")
    happen(store, settings, ("Q1", Kind.HARD))
    mine = sender(store, settings)
    async with running(mine):
        await until(lambda: store.outbox.endpoints()[:1] and failures(store))
    (one,) = store.outbox.endpoints()
    assert one.last_error is not None
    assert one.last_error.startswith("plain:***: is not whsec_ with 24 to 64 bytes as base64")


async def test_a_receiver_of_no_settings_is_removed_with_what_waited(store: Store) -> None:
    old, new = settings_for("http://127.0.0.1:9/old"), settings_for("http://127.0.0.1:9/new")
    async with running(sender(store, old)):
        await until(store.outbox.endpoints)
    happen(store, old, ("Q1", Kind.HARD), ("Q2", Kind.HARD))
    mine = sender(store, new, pace=Pace(**{**vars_of(FAST), "forget_after_s": 0.3}))
    async with running(mine):
        await until(lambda: len(store.outbox.endpoints()) == 1 and mine.notes)  # type: ignore[attr-defined]
    assert [one.endpoint for one in store.outbox.endpoints()] == [new.webhooks[0].endpoint]
    (note,) = mine.notes  # type: ignore[attr-defined]
    assert note == (
        "warning: webhook webhook-1 (http://127.0.0.1:9/***) is in no configuration any more; "
        "2 events for it will not be sent"
    )


async def test_what_waited_for_longer_than_the_retention_is_dropped_and_told(store: Store) -> None:
    settings = settings_for("http://127.0.0.1:9/")
    happen(store, settings, ("Q1", Kind.HARD))
    brief = settings.model_copy(
        update={"queue": settings.queue.model_copy(update={"retention": 0.2})}
    )
    mine = sender(store, brief)
    async with running(mine):
        await until(lambda: store.outbox.endpoints()[:1] and store.outbox.endpoints()[0].dropped)
        await until(lambda: any("1 event waited" in one for one in mine.notes))  # type: ignore[attr-defined]
    assert waiting(store) == 0


async def test_memory_stays_flat_while_a_receiver_says_nothing(store: Store) -> None:
    """However much waits: one post is read, and no more."""

    def hang(handler: Any) -> None:
        receiver.is_over.wait()

    with EventReceiver(hang) as receiver:
        settings = settings_for(receiver)
        many = [(f"Q{number:05}", Kind.HARD) for number in range(5_000)]
        happen(store, settings, *many)
        with looks_at(store) as read:
            pace = Pace(**{**vars_of(FAST), "limit_s": 0.3})
            async with running(sender(store, settings, pace=pace)):
                await asyncio.to_thread(receiver.wait_for_asked, 2)
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                await asyncio.to_thread(receiver.wait_for_asked, 6)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert max(read) == 200
        assert grown_kib < 8 * 1024, f"{grown_kib} KiB more, process {os.getpid()}"


def test_receivers_have_names_and_ids_that_tell_nothing() -> None:
    settings = settings_for("https://shop.test/hidden?key=hidden", "https://shop.test/other")
    named = named_webhooks(settings)
    assert list(named) == ["webhook-1", "webhook-2"]
    assert "hidden" not in repr(named) + str(settings.model_dump(mode="json"))
    assert len({one.endpoint for one in named.values()}) == 2
