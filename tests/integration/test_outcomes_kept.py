"""Whatever ends an attempt: what the provider was given is recorded, the rest goes back."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from relaygw.delivery.leases import LeaseLost, Leases
from relaygw.delivery.waits import HEARTBEAT_S, Waits
from relaygw.errors import StoreUnavailable
from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.roles.process import RoleContext, registered
from relaygw.settings.load import load_settings
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.rules import NO_RULES, StoreRules
from relaygw.store.store import Store
from relaygw.upstream import classifier
from tests.altered_store import AlteredStore
from tests.builders import NOW_MS, accepted
from tests.fakes.scripted_provider import Action, ScriptedProvider, Wait
from tests.integration import delivery_rig
from tests.integration.delivery_rig import Rig
from tests.logs import text_log
from tests.queues import make_queue

LINE = b"y" * 76 + b"\r\n"
LARGE = b"Subject: x\r\n\r\n" + LINE * 1000  # more than comes with a claim
SIX = tuple(f"c{number}@cust.test" for number in range(6))
running = partial(delivery_rig.running, waits=Waits(drain_s=0.05))


def copies(*providers: ScriptedProvider) -> Counter[str]:
    return Counter(
        address
        for provider in providers
        for message in provider.messages
        for address in message.recipients
    )


def states(entry: QueueEntry) -> list[RecipientState]:
    return [recipient.state for recipient in entry.recipients]


class Kept(AlteredStore):
    """A store that is looked at once the worker is gone."""

    def close(self) -> None:
        pass


async def stopped(
    directory: Path,
    provider: ScriptedProvider,
    message: AcceptedMessage,
    when: Callable[[], bool],
    **settings: Any,
) -> tuple[Rig, QueueEntry]:
    """Deliver until `when` says so, stop the worker; return what is recorded then."""
    async with running(directory, {"p": provider.settings(**settings)}, store_class=Kept) as rig:
        rig.accept(message)
        rig.worker.wake()
        await provider.wait_until(when)
    return rig, rig.entry(message)


# --- a stop, or a reload, which stops the old worker


async def test_a_stop_after_the_final_dot_is_a_recorded_doubt(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", (Action.RECORD, Action.HANG))
        message = accepted()
        rig, entry = await stopped(tmp_path, provider, message, lambda: len(provider.messages) == 1)
    (delivery,) = entry.deliveries
    assert (delivery.state, delivery.attempts) == (DeliveryState.DEFERRED, 1)
    assert delivery.is_in_doubt
    assert delivery.provider == "p"
    assert delivery.due_at_ms > time.time() * 1000 + 200_000, "it is not sent again at once"
    (attempt,) = rig.store.queue.attempts(message.queue_id)
    assert attempt.state is AttemptState.IN_DOUBT
    assert attempt.reply.startswith("stopped before 127.0.0.1")
    assert "may be sent more than once" in rig.log.getvalue()


@pytest.mark.parametrize("verb", ["greeting", "EHLO", "MAIL", "RCPT", "DATA"])
async def test_a_stop_before_the_final_dot_gives_the_delivery_back(
    tmp_path: Path, verb: str
) -> None:
    async with ScriptedProvider() as provider:
        provider.script(verb, Action.HANG)
        message = accepted()
        rig, entry = await stopped(tmp_path, provider, message, lambda: not provider.pending(verb))
    (delivery,) = entry.deliveries
    assert (delivery.state, delivery.attempts) == (DeliveryState.INCOMING, 0)
    assert not delivery.is_in_doubt
    assert rig.store.queue.attempts(message.queue_id) == []
    assert "status=" not in rig.log.getvalue()


async def test_a_stop_gives_back_the_mail_whose_envelope_was_chained(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", (Action.RECORD, Action.HANG))
        first, second = accepted(at_ms=NOW_MS), accepted(at_ms=NOW_MS + 1)
        settings = provider.settings(max_connections=1, chain_transactions=True)
        async with running(tmp_path, {"p": settings}, store_class=Kept) as rig:
            rig.accept(first, second)
            rig.worker.wake()
            await provider.wait_for_messages(1)
        entries = [rig.entry(first).deliveries[0], rig.entry(second).deliveries[0]]
    assert [entry.state for entry in entries] == [DeliveryState.DEFERRED, DeliveryState.INCOMING]
    assert [entry.is_in_doubt for entry in entries] == [True, False]


# --- mail with more recipients than a transaction takes


async def test_a_stop_in_a_later_part_is_an_outcome_of_that_part(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", Action.DEFAULT, Action.DEFAULT, (Action.RECORD, Action.HANG))
        message = accepted(*SIX)
        rig, entry = await stopped(
            tmp_path, provider, message, lambda: len(provider.messages) == 3, max_recipients=2
        )
    taken, waits = RecipientState.DELIVERED, RecipientState.PENDING
    assert states(entry) == [taken] * 4 + [waits] * 2
    assert (entry.deliveries[0].state, entry.deliveries[0].attempts) == (DeliveryState.DEFERRED, 1)
    assert entry.deliveries[0].is_in_doubt
    assert [one.attempts for one in entry.recipients] == [1] * 6
    assert rig.log.getvalue().count("status=sent") == 4
    assert rig.log.getvalue().count("may be sent more than once") == 2


async def test_a_part_is_durable_before_the_next_begins(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        provider.recipients["c1@cust.test"] = b"550 5.1.1 no such user\r\n"
        second = asyncio.Event()
        provider.script("MAIL", Action.DEFAULT, (Wait(second), Action.DEFAULT))
        async with running(tmp_path, {"p": provider.settings(max_recipients=2)}) as rig:
            message = accepted(*SIX[:3])
            rig.accept(message)
            rig.worker.wake()
            await provider.wait_until(lambda: not provider.pending("MAIL"))
            entry = rig.entry(message)
            assert entry.deliveries[0].state is DeliveryState.ACTIVE
            assert states(entry) == [
                RecipientState.DELIVERED,
                RecipientState.BOUNCED,
                RecipientState.PENDING,
            ]
            second.set()
            entry = await rig.wait_for(message, DeliveryState.FINISHED)
    assert entry.deliveries[0].attempts == 1
    assert [one.attempts for one in entry.recipients] == [1, 1, 1]
    assert copies(provider) == {"c0@cust.test": 1, "c2@cust.test": 1}


class Forgetful(AlteredStore):
    """Each batch of outcomes is written and the answer lost."""

    lost = 0

    def record_batch(self, *args: Any, **more: Any) -> Any:
        recorded = super().record_batch(*args, **more)
        if Forgetful.lost % 2 == 0:
            Forgetful.lost += 1
            raise StoreUnavailable("no answer")
        Forgetful.lost += 1
        return recorded


async def test_a_part_whose_answer_was_lost_is_counted_once(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        provider.recipients["c1@cust.test"] = b"550 5.1.1 no such user\r\n"
        settings = {"p": provider.settings(max_recipients=2)}
        async with running(tmp_path, settings, store_class=Forgetful) as rig:
            message = accepted(*SIX)
            rig.accept(message)
            rig.worker.wake()
            entry = await rig.wait_for(message, DeliveryState.FINISHED)
            told = rig.store.queue.attempts(message.queue_id)
        assert (entry.deliveries[0].attempts, len(told)) == (1, 1)
        assert [one.attempts for one in entry.recipients] == [1] * 6
        assert "lease was lost" not in rig.log.getvalue()
        assert set(copies(provider).values()) == {1}


class Failing(AlteredStore):
    """Cannot read content for a while."""

    reads = 0

    def read_chunk(self, queue_id: str, chunk_no: int) -> bytes | None:
        self.reads += 1
        if self.reads in (3, 4, 5, 6):
            raise StoreUnavailable("the server closed the connection")
        return super().read_chunk(queue_id, chunk_no)


async def test_trouble_of_the_store_is_never_the_messages(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        settings = {"p": provider.settings(max_recipients=2)}
        waits = Waits(store_ladder_s=(0.01,))
        async with running(tmp_path, settings, store_class=Failing, waits=waits) as rig:
            message = accepted(*SIX, content=LARGE)
            rig.accept(message)
            rig.worker.wake()
            entry = await rig.wait_for(message, DeliveryState.FINISHED)
            told = rig.store.queue.attempts(message.queue_id)
    assert copies(provider) == dict.fromkeys(SIX, 1)
    assert [one.attempts for one in entry.recipients] == [1] * 6
    assert AttemptState.HELD not in [one.state for one in told]
    assert "then it is held" not in rig.log.getvalue()
    assert "unsent mail is tried again" in rig.log.getvalue()


# --- the lease


@pytest.fixture
def no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let none renew a lease that is over: not even one that was under way by then."""

    async def wait(*_: object) -> float:
        return HEARTBEAT_S

    monkeypatch.setattr(Leases, "_beat_once", wait)


def overslept(rig: Rig) -> None:
    """Let the lease be over, as after a sleep."""
    rig.worker.leases.held_until_s = 0.0


class Slow(AlteredStore):
    """Something happens each time that content was read."""

    when_read: Callable[[], None] = staticmethod(lambda: None)

    def read_chunk(self, queue_id: str, chunk_no: int) -> bytes | None:
        body = super().read_chunk(queue_id, chunk_no)
        self.when_read()
        return body


@pytest.mark.usefixtures("no_heartbeat")
async def test_no_dot_is_sent_with_a_lease_that_was_lost_during_the_content(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider() as provider:
        async with running(tmp_path, {"p": provider.settings()}, store_class=Slow) as rig:
            rig.store.when_read = lambda: overslept(rig)  # type: ignore[attr-defined]
            message = accepted(content=LARGE)
            rig.accept(message)
            rig.worker.wake()
            await rig.wait_until(lambda: "lease was lost" in rig.log.getvalue())
        assert LINE in provider.connections[0].transcript
        assert b"\r\n.\r\n" not in provider.connections[0].transcript
    log = rig.log.getvalue()
    assert "the lease was lost before the final dot; nothing was sent" in log
    assert "more than once" not in log


@pytest.mark.usefixtures("no_heartbeat")
async def test_no_dot_is_sent_with_a_lease_that_was_lost_while_the_provider_took_its_time(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider() as provider:
        go_on = asyncio.Event()
        provider.script("DATA", (Wait(go_on), Action.DEFAULT))
        async with running(tmp_path, {"p": provider.settings()}) as rig:
            message = accepted()
            rig.accept(message)
            rig.worker.wake()
            await provider.wait_until(lambda: not provider.pending("DATA"))
            overslept(rig)
            go_on.set()
            await rig.wait_until(lambda: "nothing was sent" in rig.log.getvalue())
        assert b"\r\n.\r\n" not in provider.connections[0].transcript


async def test_what_was_sent_with_a_lease_that_others_took_over_is_told(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        go_on = asyncio.Event()
        provider.script("CONTENT", (Wait(go_on), Action.DEFAULT))
        async with running(tmp_path, {"p": provider.settings()}, store_class=Kept) as rig:
            message = accepted()
            rig.accept(message)
            rig.worker.wake()
            await provider.wait_until(lambda: not provider.pending("CONTENT"))
            rig.store.instances.bury("w", begun=None)  # by the janitor of another host
            (vanished,) = rig.store.queue.attempts(message.queue_id)
            go_on.set()
            await rig.wait_until(lambda: "more than once" in rig.log.getvalue())
        _, late = rig.store.queue.attempts(message.queue_id)
    assert vanished.state is AttemptState.INTERRUPTED
    assert "may have been sending it" in vanished.reply
    assert late.state is AttemptState.IN_DOUBT
    assert late.reply == "told after its lease was lost: 250 2.0.0 Ok: queued"


# --- a worker that does not end as it should


async def sent_and_not_answered(rig: Rig, provider: ScriptedProvider) -> AcceptedMessage:
    provider.script("CONTENT", (Action.RECORD, Action.HANG))
    message = accepted()
    rig.accept(message)
    rig.worker.wake()
    await provider.wait_for_messages(1)
    return message


async def test_a_worker_that_was_taken_over_tells_of_what_it_had_sent(tmp_path: Path) -> None:
    waits = Waits(drain_s=0.05, heartbeat_s=0.05)
    async with ScriptedProvider() as provider:
        settings = {"p": provider.settings()}
        with pytest.raises(LeaseLost):
            async with running(tmp_path, settings, store_class=Kept, waits=waits) as rig:
                message = await sent_and_not_answered(rig, provider)
                rig.store.instances.bury("w", begun=None)
                await rig.wait_until(lambda: "lease was lost" in rig.log.getvalue())
        states = [one.state for one in rig.store.queue.attempts(message.queue_id)]
    assert states == [AttemptState.INTERRUPTED, AttemptState.IN_DOUBT]
    assert f"{message.queue_id}: warning: the lease was lost before this outcome" in (
        rig.log.getvalue()
    )


async def test_a_worker_that_breaks_down_records_what_it_had_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider() as provider:
        with pytest.raises(ExceptionGroup):
            async with running(tmp_path, {"p": provider.settings()}, store_class=Kept) as rig:
                message = await sent_and_not_answered(rig, provider)

                def fail(*_: object) -> None:
                    raise ValueError("a defect")

                monkeypatch.setattr(rig.worker, "connections", fail)
                await rig.wait_until(lambda: "more than once" in rig.log.getvalue())
        (attempt,) = rig.store.queue.attempts(message.queue_id)
        (delivery,) = rig.entry(message).deliveries
    assert attempt.state is AttemptState.IN_DOUBT
    assert (delivery.state, delivery.is_in_doubt) == (DeliveryState.DEFERRED, True)


def test_what_a_process_leaves_without_an_outcome_is_told_at_its_end(tmp_path: Path) -> None:
    config = tmp_path / "relaygw.yaml"
    config.write_text(f"mode: sandbox\nqueue: {{url: 'sqlite:///{tmp_path}/queue.db'}}\n")
    loaded = load_settings(config=config, environ={})
    make_queue(loaded.settings.queue.url)
    store = Kept(loaded.settings.queue.url)
    context = RoleContext(loaded=loaded, lifeline=0, log=text_log(io.StringIO()))
    message, waiting = accepted(), accepted()
    store.intake.accept_batch([message, waiting])
    with registered(context, "delivery", store) as lifeline:
        store.leases.claim("default", limit=9, incarnation=context.incarnation, now_ms=NOW_MS)
        lifeline.begin(message.queue_id, 0, "p")
    (attempt,) = store.queue.attempts(message.queue_id)
    assert (attempt.state, attempt.provider) == (AttemptState.INTERRUPTED, "p")
    assert store.queue.attempts(waiting.queue_id) == []
    Store.close(store)


# --- content


@pytest.mark.parametrize("content", [b"Subject: x\r\n\r\nhello\r\n", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("extensions", [("PIPELINING", "8BITMIME"), ("PIPELINING",)])
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE chunk SET body = substr(body, 1, length(body) - 5)",
        "UPDATE message SET chunk_count = 0",
        "DELETE FROM chunk",
    ],
)
async def test_content_that_is_not_what_was_accepted_is_never_ended_by_a_dot(
    tmp_path: Path, content: bytes, extensions: tuple[str, ...], damage: str
) -> None:
    async with ScriptedProvider(extensions=extensions) as provider:
        async with running(tmp_path, {"p": provider.settings()}) as rig:
            message = replace(accepted(content=content), is_8bit=True)
            rig.accept(message)
            with rig.store.database.write() as connection:
                connection.connection.exec_driver_sql(damage)
            rig.worker.wake()
            entry = await rig.wait_for(message, DeliveryState.DEFERRED)
        assert provider.messages == []
        assert entry.deliveries[0].reason == "internal error, try 1"
    assert "ContentDamaged: " in rig.log.getvalue()


# --- defects


async def test_a_defect_after_the_providers_answer_is_no_reason_to_send_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(classifier.Classifier, "meaning", fail)
    async with ScriptedProvider() as provider:
        async with running(tmp_path, {"p": provider.settings()}, store_class=Kept) as rig:
            message = accepted()
            rig.accept(message)
            rig.worker.wake()
            entry = await rig.wait_for(message, DeliveryState.DEFERRED)
        (attempt,) = rig.store.queue.attempts(message.queue_id)
        assert attempt.state is AttemptState.IN_DOUBT
        assert entry.deliveries[0].is_in_doubt
        assert len(provider.messages) == 1


class Watched(AlteredStore):
    """Notes in which threads it was called."""

    def __init__(self, url: str, *, rules: StoreRules = NO_RULES) -> None:
        super().__init__(url, rules=rules)
        self.reading = threading.Event()
        self.beaten = threading.Event()
        self.readers: list[str] = []

    def read_chunk(self, queue_id: str, chunk_no: int) -> bytes | None:
        self.reading.set()
        assert self.beaten.wait(60), "no heartbeat while content was read"
        return super().read_chunk(queue_id, chunk_no)

    def heartbeat(self, incarnation: str, *, state: str = "running") -> bool:
        if self.reading.is_set():
            self.beaten.set()
        return super().heartbeat(incarnation, state=state)


async def test_heartbeats_go_on_while_a_silent_store_keeps_all_content(tmp_path: Path) -> None:
    waits = Waits(drain_s=0.05, heartbeat_s=0.2)
    # chunks are read by the loop's own threads: here one, which the read takes
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, store_class=Watched, waits=waits) as rig,
    ):
        rig.accept(accepted(content=LARGE))
        rig.worker.wake()
        await provider.wait_for_messages(1)
