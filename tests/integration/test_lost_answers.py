"""A worker whose store does what it is told and fails to say so: nothing stays behind."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from relaygw.delivery.janitor import Janitor
from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.state import DeliveryState
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.store.outcomes import Recorded
from relaygw.store.queue_tables import Key
from relaygw.store.rules import NO_RULES
from relaygw.store.store import open_store
from tests.altered_store import AlteredStore
from tests.builders import NOW_MS, accepted, instance
from tests.contract.cutting_proxy import CuttingProxy
from tests.fakes.scripted_provider import Action, ScriptedProvider, Wait
from tests.integration.delivery_rig import Rig, running
from tests.logs import text_log
from tests.queues import make_queue

CLAIM = "SET state = 'active'"
GIVE_BACK = "CASE WHEN attempts > 0 THEN 'deferred'"
RECORD = "reclaims = 0"
TAKE_PERMITS = "INSERT INTO permit"
RELEASE_PERMITS = "DELETE FROM permit"


@pytest.fixture
def proxy(queue_url: str) -> Iterator[CuttingProxy]:
    with CuttingProxy(queue_url) as proxy:
        yield proxy


def through(proxy: CuttingProxy):
    """Return what opens the worker's store through a proxy."""
    return lambda _url, rules=NO_RULES: open_store(proxy.url, rules=rules)


def sent(provider: ScriptedProvider) -> Counter[bytes]:
    """Return how often each content was taken."""
    return Counter(message.content for message in provider.messages)


def numbered(count: int, first: int = 0):
    return [accepted(content=b"Subject: %d\r\n\r\n" % (first + n)) for n in range(count)]


async def test_a_claim_whose_answer_was_lost_keeps_no_mail(
    tmp_path: Path, proxy: CuttingProxy
) -> None:
    cut = proxy.lose_answer(CLAIM)
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, store_class=through(proxy)) as rig,
    ):
        messages = numbered(30)
        rig.accept(*messages)
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)
        assert cut.happened.is_set()
        assert set(sent(provider).values()) == {1}
    assert "leased but not in memory, are queued again" in rig.log.getvalue()


async def test_what_is_under_way_is_not_freed(tmp_path: Path, proxy: CuttingProxy) -> None:
    is_over = asyncio.Event()
    async with (
        ScriptedProvider() as provider,
        running(
            tmp_path, {"p": provider.settings(max_connections=3)}, store_class=through(proxy)
        ) as rig,
    ):
        provider.script("CONTENT", *[(Wait(is_over), Action.DEFAULT)] * 2)
        first = numbered(5)
        rig.accept(*first)
        await provider.wait_for_messages(3)  # two are under way
        cut = proxy.lose_answer(CLAIM)
        second = numbered(10, first=100)
        rig.accept(*second)
        await rig.wait_until(cut.happened.is_set)
        await rig.wait_until(lambda: "queued again" in rig.log.getvalue())
        assert "10 deliveries of route default" in rig.log.getvalue()
        is_over.set()
        for message in first + second:
            await rig.wait_for(message, DeliveryState.FINISHED)
        assert set(sent(provider).values()) == {1}


async def test_an_outcome_whose_answer_was_lost_is_no_lost_lease(
    tmp_path: Path, proxy: CuttingProxy
) -> None:
    cut = proxy.lose_answer(RECORD)
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, store_class=through(proxy)) as rig,
    ):
        messages = numbered(10)
        rig.accept(*messages)
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)
        await rig.wait_until(lambda: rig.log.getvalue().count("status=sent") == 10)
        assert cut.happened.is_set()
    assert "lease was lost" not in rig.log.getvalue()


class Forgetful(AlteredStore):
    """A store that has recorded a first outcome and fails for a while to say so."""

    failures = 4

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> Recorded:
        if not self.failures:
            return super().record_batch(updates, incarnation=incarnation, now_ms=now_ms)
        if self.failures == 4:
            super().record_batch(updates, incarnation=incarnation, now_ms=now_ms)
        self.failures -= 1
        raise StoreUnavailable("no answer")


async def test_mail_that_is_due_again_while_its_outcome_waits_is_sent_once(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, store_class=Forgetful) as rig,
    ):
        is_recorded = asyncio.Event()
        provider.script("MAIL", b"451 4.3.0 later\r\n")  # due again in 100 ms
        provider.script("CONTENT", (Wait(is_recorded), Action.DEFAULT))
        message = accepted()
        rig.accept(message)
        await rig.wait_until(lambda: "status=deferred" in rig.log.getvalue())
        is_recorded.set()
        entry = await rig.wait_for(message, DeliveryState.FINISHED)
        assert len(provider.messages) == 1
        assert entry.recipients[0].attempts >= 2
    assert "lease was lost" not in rig.log.getvalue()


class Grudging(AlteredStore):
    """A store that refuses to take leases back at first."""

    refusals = 2

    def give_back(self, deliveries: Sequence[Key], *, incarnation: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable("not now")
        super().give_back(deliveries, incarnation=incarnation)


async def test_leases_that_could_not_be_given_back_are_no_loss(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(max_connections=1)}, store_class=Grudging) as rig,
    ):
        provider.script("MAIL", b"421 4.3.2 stopping\r\n")
        messages = numbered(15)
        rig.accept(*messages)
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)
        assert set(sent(provider).values()) == {1}
    assert "could not give back leases" in rig.log.getvalue()


# --- permits ------------------------------------------------------------------------------


def held(rig: Rig) -> int:
    return rig.store.limits.permits_held("p", incarnation="w")


def counted(rig: Rig) -> int:
    return rig.worker.gates["p"].permits


@pytest.mark.parametrize("lost", [TAKE_PERMITS, RELEASE_PERMITS], ids=["taken", "returned"])
async def test_permits_are_right_again_after_an_answer_was_lost(
    tmp_path: Path, proxy: CuttingProxy, lost: str
) -> None:
    cut = proxy.lose_answer(lost)
    async with (
        ScriptedProvider() as provider,
        running(
            tmp_path, {"p": provider.settings(max_connections=6)}, store_class=through(proxy)
        ) as rig,
    ):
        messages = numbered(30)
        rig.accept(*messages)
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)
        rig.worker.pools["p"].close_idle()
        await rig.wait_until(cut.happened.is_set)
        await rig.wait_until(lambda: held(rig) == 0)
        await rig.wait_until(lambda: counted(rig) == 0)
        is_over = asyncio.Event()
        provider.script("CONTENT", *[(Wait(is_over), Action.DEFAULT)] * 6)
        rig.accept(*numbered(20, first=100))
        await provider.wait_until(lambda: provider.pending("CONTENT") == 0)
        assert held(rig) == counted(rig) == 6
        is_over.set()
        await provider.wait_for_messages(50)
    assert set(sent(provider).values()) == {1}


async def test_leases_of_a_worker_that_nobody_knows_are_freed_and_told(tmp_path: Path) -> None:
    make_queue(f"sqlite:///{tmp_path}/queue.db")
    store = open_store(f"sqlite:///{tmp_path}/queue.db")
    message = accepted()
    store.intake.accept_batch([message])
    store.instances.register(instance("nobody"))
    assert store.leases.claim("default", limit=1, incarnation="nobody", now_ms=NOW_MS)
    with store.database.write() as connection:  # as a hand in the database would
        connection.connection.exec_driver_sql("DELETE FROM instance")
    output = io.StringIO()
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}) as rig,
    ):
        janitor = Janitor(
            Settings(mode=Mode.SANDBOX),
            store,
            text_log(output),
            incarnation="w",
            bury_dead_of_this_host=list,
            wake_workers=lambda: None,  # it looks by itself, a second later
        )
        task = asyncio.create_task(janitor.run())
        await rig.wait_for(message, DeliveryState.FINISHED)
        task.cancel()
    store.close()
    assert "1 deliveries of nobody, which died, are queued again" in output.getvalue()
    assert "what it was sending may be sent more than once" in output.getvalue()
