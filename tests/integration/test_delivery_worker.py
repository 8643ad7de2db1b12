"""The worker against a provider that misbehaves: what becomes of the mail."""

from __future__ import annotations

import asyncio
import base64
import errno
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, text

from relaygw.errors import StoreFull, StoreUnavailable
from relaygw.mail.envelope import DeliveryUpdate, NewDelivery, NewRecipient
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.routes import Route, Stream
from relaygw.store.holds import Hold
from relaygw.store.instances import Lifeline
from relaygw.store.intake import insert_messages
from relaygw.store.queue_tables import chunk
from relaygw.store.selection import Selection
from relaygw.store.store import open_store
from tests.altered_store import AlteredStore
from tests.builders import NOW_MS, accepted
from tests.fakes.scripted_provider import Action, ScriptedProvider, Wait
from tests.integration.delivery_rig import running


async def test_each_recipient_ends_its_own_way(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider, running(tmp_path, {"p": provider.settings()}) as rig:
        provider.recipients["bad@x.test"] = b"550 5.1.1 no such user\r\n"
        provider.script("RCPT", b"450 4.2.1 later\r\n")
        message = accepted("slow@x.test", "bad@x.test", "good@x.test")
        rig.accept(message)
        entry = await rig.wait_for(message, DeliveryState.FINISHED)
        states = {recipient.address: recipient.state for recipient in entry.recipients}
        assert states == {
            "slow@x.test": RecipientState.DELIVERED,
            "bad@x.test": RecipientState.BOUNCED,
            "good@x.test": RecipientState.DELIVERED,
        }
        assert [m.recipients for m in provider.messages] == [("good@x.test",), ("slow@x.test",)]


async def test_an_address_that_stands_twice_is_sent_once(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider, running(tmp_path, {"p": provider.settings()}) as rig:
        twice = [NewRecipient(address="qa@x.test", original=f"c{n}@y.test") for n in range(2)]
        message = accepted(*twice)
        rig.accept(message)
        entry = await rig.wait_for(message, DeliveryState.FINISHED)
        assert {r.state for r in entry.recipients} == {RecipientState.DELIVERED}
        assert [m.recipients for m in provider.messages] == [("qa@x.test",)]


async def test_a_mailbox_in_two_spellings_is_sent_to_once(tmp_path: Path) -> None:
    alone = {"max_recipients": 1}  # else the provider itself might merge them
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(**alone)}) as rig,
    ):
        message = accepted("b@X.test", "c@x.test", "b@x.test")
        rig.accept(message)
        entry = await rig.wait_for(message, DeliveryState.FINISHED)
        assert {r.state for r in entry.recipients} == {RecipientState.DELIVERED}
        assert [m.recipients for m in provider.messages] == [("b@X.test",), ("c@x.test",)]


async def test_more_recipients_than_a_transaction_takes(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(max_recipients=2)}) as rig,
    ):
        message = accepted(*(f"r{n}@x.test" for n in range(5)))
        rig.accept(message)
        await rig.wait_for(message, DeliveryState.FINISHED)
        assert [len(m.recipients) for m in provider.messages] == [2, 2, 1]


async def test_a_lost_reply_to_the_final_dot_is_doubt_and_waits(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider, running(tmp_path, {"p": provider.settings()}) as rig:
        provider.script("CONTENT", (Action.RECORD, Action.RESET))
        message = accepted()
        rig.accept(message)
        entry = await rig.wait_for(message, DeliveryState.DEFERRED)
        (delivery,) = entry.deliveries
        waits_ms = delivery.due_at_ms - entry.recipients[0].changed_at_ms
        assert 290_000 <= waits_ms <= 300_000  # the first step of the slow ladder
        assert len(provider.messages) == 1
    assert "may be sent more than once" in rig.log.getvalue()


async def test_a_refused_key_holds_the_provider_and_bounces_nothing(tmp_path: Path) -> None:
    async with (
        ScriptedProvider(users={"u": "right"}, tls="starttls") as provider,
        running(tmp_path, {"p": provider.settings(username="u", password="plain:wrong")}) as rig,
    ):
        messages = [accepted() for _ in range(5)]
        rig.accept(*messages)
        holds = await rig.wait_for_holds()
        assert [(hold.scope, hold.key) for hold in holds] == [("credential", "p")]
        assert all(
            r.state is RecipientState.PENDING for m in messages for r in rig.entry(m).recipients
        )
        assert provider.messages == []
    assert "wrong" not in rig.log.getvalue()


async def test_a_password_that_the_provider_echoes_is_shown_nowhere(tmp_path: Path) -> None:
    echoed = base64.b64encode(b"\0u\0canary-7f3a")
    async with (
        ScriptedProvider(users={"u": "right"}, tls="starttls") as provider,
        running(
            tmp_path, {"p": provider.settings(username="u", password="plain:canary-7f3a")}
        ) as rig,
    ):
        provider.script("AUTH", b"535 5.7.8 bad AUTH PLAIN " + echoed + b" for canary-7f3a\r\n")
        message = accepted()
        rig.accept(message)
        entry = await rig.wait_for(message, DeliveryState.DEFERRED)
        shown = f"{await rig.wait_for_holds()} {entry} {rig.log.getvalue()}"
    assert "bad AUTH PLAIN ***" in shown
    assert "canary-7f3a" not in shown
    assert echoed.decode() not in shown


@pytest.mark.parametrize(
    ("verb", "said", "state", "shown_as"),
    [
        (
            "CONTENT",
            b"550 5.6.0 token canary-7f3a is bad\r\n",
            DeliveryState.FINISHED,
            "token *** is",
        ),
        ("CONTENT", b"token canary-7f3a is bad\r\n", DeliveryState.DEFERRED, "'token *** is"),
        ("MAIL", b"token canary-7f3a is bad\r\n", DeliveryState.FINISHED, "'token *** is"),
    ],
)
async def test_a_password_that_is_echoed_for_a_message_is_shown_nowhere(
    tmp_path: Path, verb: str, said: bytes, state: DeliveryState, shown_as: str
) -> None:
    async with (
        ScriptedProvider(users={"u": "canary-7f3a"}, tls="starttls") as provider,
        running(
            tmp_path, {"p": provider.settings(username="u", password="plain:canary-7f3a")}
        ) as rig,
    ):
        provider.script(verb, said)
        message = accepted()
        rig.accept(message)
        entry = await rig.wait_for(message, state)
        attempts = rig.store.queue.attempts(message.queue_id)
    shown = f"{entry} {attempts} {rig.log.getvalue()}"
    assert shown_as in shown
    assert "canary-7f3a" not in shown


LIMIT = "5.4.5 Daily user sending limit exceeded"


@pytest.mark.parametrize("password", ["x", "e", "limit", "exceeded", "Daily user", LIMIT])
@pytest.mark.parametrize("verb", ["AUTH", "MAIL", "CONTENT"])
async def test_what_a_reply_means_does_not_depend_on_the_password(
    tmp_path: Path, password: str, verb: str
) -> None:
    """Words of a reply that are the password, too, are masked where it is shown at most."""
    async with (
        ScriptedProvider(users={"u": password}, tls="starttls") as provider,
        running(
            tmp_path, {"p": provider.settings(username="u", password=f"plain:{password}")}
        ) as rig,
    ):
        provider.script(verb, f"550 {LIMIT}\r\n".encode())
        message = accepted()
        rig.accept(message)
        (hold,) = await rig.wait_for_holds()
        entry = await rig.wait_for(message, DeliveryState.DEFERRED)
    assert hold.scope == ("credential" if verb == "AUTH" else "provider")
    assert entry.recipients[0].state is RecipientState.PENDING
    if len(password) < 6:
        assert f"550 {LIMIT}" in f"{hold} {entry}"
        assert f"550 {LIMIT}" in rig.log.getvalue()
    else:
        assert password not in f"{hold} {entry} {rig.log.getvalue()}"


async def test_a_greylisted_recipient_holds_back_nobody_else(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}) as rig,
    ):
        provider.recipients["g@x.test"] = b"450 4.7.1 <g@x.test>: Greylisted\r\n"
        rig.accept(*(accepted("g@x.test") for _ in range(5)))
        orders = [accepted() for _ in range(20)]
        rig.accept(*orders)
        for order in orders:
            await rig.wait_for(order, DeliveryState.FINISHED)


async def test_a_throttled_provider_is_probed_by_another_message(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(max_connections=1)}) as rig,
    ):
        provider.script("MAIL", b"451 4.7.0 slow down\r\n")
        culprit, other = accepted(at_ms=NOW_MS), accepted(at_ms=NOW_MS + 1)
        rig.accept(culprit, other)
        await rig.wait_for(culprit, DeliveryState.DEFERRED)
        await rig.wait_for(other, DeliveryState.FINISHED)
        assert rig.entry(culprit).deliveries[0].state is DeliveryState.DEFERRED


async def test_a_full_account_holds_the_provider(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider, running(tmp_path, {"p": provider.settings()}) as rig:
        provider.script("MAIL", b"550 5.4.5 Daily user sending limit exceeded\r\n")
        message = accepted()
        rig.accept(message)
        entry = await rig.wait_for(message, DeliveryState.DEFERRED)
        assert entry.deliveries[0].attempts == 0
        (hold,) = await rig.wait_for_holds()
        assert (hold.scope, hold.key) == ("provider", "p")


async def test_a_long_hold_does_not_cost_a_mail(tmp_path: Path) -> None:
    day_ms = 86_400_000
    now_ms = time.time_ns() // 1_000_000
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}) as rig,
    ):
        rig.store.holds.put_hold(
            Hold(
                scope="provider",
                key="p",
                reason="quota",
                remedy="",
                since_ms=now_ms - 6 * day_ms,
                probe_at_ms=now_ms + day_ms,
            )
        )
        rig.store.holds.drop_hold("provider", "p")
        provider.script("MAIL", b"451 4.3.0 later\r\n")
        old = accepted(at_ms=now_ms - 6 * day_ms)
        rig.accept(old)
        entry = await rig.wait_for(old, DeliveryState.FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED


GREYLISTED = b"450 4.2.0 come back in a minute\r\n"


async def test_mail_that_nobody_tried_for_days_does_not_expire_at_its_first_tries(
    tmp_path: Path,
) -> None:
    """No worker ran for a week; that is not the mail's fault."""
    week_ago_ms = time.time_ns() // 1_000_000 - 7 * 86_400_000
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}) as rig,
    ):
        provider.script("RCPT", *[GREYLISTED] * 4)
        old = accepted(at_ms=week_ago_ms)
        rig.accept(old)
        entry = await rig.wait_for(old, DeliveryState.FINISHED)
    (recipient,) = entry.recipients
    assert (recipient.state, recipient.attempts) == (RecipientState.DELIVERED, 5)


async def test_old_mail_that_was_tried_for_an_hour_expires(tmp_path: Path) -> None:
    week_ago_ms = time.time_ns() // 1_000_000 - 7 * 86_400_000
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}) as rig,
    ):
        provider.script("RCPT", *[GREYLISTED] * 500)
        old = accepted(at_ms=week_ago_ms)
        rig.accept(old)
        await rig.wait_until(lambda: rig.entry(old).recipients[0].attempts >= 2)
        # by the store: another SQLite library in this process would drop its locks
        with rig.store.database.write() as connection:
            connection.execute(text("UPDATE attempt SET since_ms = since_ms - 3600000"))
            # and as often: the clock alone may have been set
            connection.execute(text("UPDATE delivery SET attempts = 4000"))
        entry = await rig.wait_for(old, DeliveryState.FINISHED)
    (recipient,) = entry.recipients
    assert recipient.state is RecipientState.EXPIRED
    assert recipient.attempts >= 3


class ForgetfulStore(AlteredStore):
    """A store that cannot say how long a provider was held."""

    def held_ms(self, key: str, *, since_ms: int) -> int:
        raise StoreUnavailable("busy")


async def test_old_mail_is_sent_once_while_the_store_is_in_trouble(tmp_path: Path) -> None:
    week_ago_ms = time.time_ns() // 1_000_000 - 7 * 86_400_000
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, store_class=ForgetfulStore) as rig,
    ):
        provider.script("MAIL", b"451 4.3.0 later\r\n")
        old = accepted(at_ms=week_ago_ms)
        rig.accept(old)
        entry = await rig.wait_for(old, DeliveryState.FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED
        assert entry.recipients[0].attempts == 2
        assert len(provider.messages) == 1


async def test_a_dead_provider_holds_back_nobody_else(tmp_path: Path) -> None:
    async with ScriptedProvider() as dead, ScriptedProvider() as living:
        providers = {"dead": dead.settings(), "living": living.settings()}
        await dead.stop_listening()
        routes = [
            Route(
                name="promo", stream=Stream.PROMOTIONAL, sender=("@p.test",), providers=("dead",)
            ),
            Route(name="default", providers=("living",)),
        ]
        async with running(tmp_path, providers, routes=routes) as rig:
            rig.accept(*(accepted(route="promo") for _ in range(50)))
            orders = [accepted() for _ in range(20)]
            rig.accept(*orders)
            for order in orders:
                await rig.wait_for(order, DeliveryState.FINISHED)
            assert len(living.messages) == 20


async def test_content_that_is_gone_is_poison_and_held_alone(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider, running(tmp_path, {"p": provider.settings()}) as rig:
        lost = accepted(content=b"", stored_chunks=1, size_bytes=2_000_000)
        lost = replace(lost, content=())
        fine = accepted()
        rig.store.intake.add_chunks(lost.queue_id, 0, [b"x"])
        with rig.store.database.write() as connection:
            insert_messages(connection, [lost, fine])
            connection.execute(delete(chunk).where(chunk.c.queue_id == lost.queue_id))
        await rig.wait_for(fine, DeliveryState.FINISHED)
        entry = await rig.wait_for(lost, DeliveryState.DEFERRED)
        assert entry.deliveries[0].reason == "internal error, try 1"
        assert len(provider.messages) == 1


class FullStore(AlteredStore):
    """A store whose first three outcome batches meet a full disk."""

    refusals = 3

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> bool:
        if self.refusals:
            self.refusals -= 1
            raise StoreFull("disk full")
        return super().record_batch(updates, incarnation=incarnation, now_ms=now_ms)


async def test_outcomes_wait_for_a_full_disk_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, store_class=FullStore) as rig,
    ):
        messages = [accepted() for _ in range(10)]
        rig.accept(*messages)
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)
        assert len(provider.messages) == 10


async def test_a_stopped_worker_gives_everything_back(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", b"451 4.3.0 later\r\n")
        async with running(tmp_path, {"p": provider.settings(max_connections=1)}) as rig:
            rig.accept(*(accepted() for _ in range(100)))
            await provider.wait_for_messages(1)
    url = f"sqlite:///{tmp_path}/queue.db"
    store = open_store(url)
    states = {
        part.state
        for entry in store.queue.search(Selection(), limit=200)
        for part in entry.deliveries
    }
    store.close()
    assert DeliveryState.ACTIVE not in states


async def test_two_routes_of_a_message_do_not_share_a_timer(tmp_path: Path) -> None:
    async with ScriptedProvider() as slow, ScriptedProvider() as fast:
        slow.script("MAIL", *[b"451 4.3.0 later\r\n"] * 50)
        routes = [
            Route(name="one", recipient=("@slow.test",), providers=("slow",)),
            Route(name="two", providers=("fast",)),
        ]
        providers = {"slow": slow.settings(), "fast": fast.settings()}
        async with running(tmp_path, providers, routes=routes) as rig:
            parts = tuple(
                NewDelivery(
                    route=name,
                    stream="transactional",
                    recipients=(NewRecipient(address=f"x@{name}.test"),),
                )
                for name in ("one", "two")
            )
            base = accepted()
            message = replace(base, deliveries=parts)
            rig.accept(message)
            await fast.wait_for_messages(1)
            entry = await rig.wait_for(message, DeliveryState.DEFERRED, DeliveryState.FINISHED)
            assert entry.chunk_count == 1


@pytest.mark.parametrize("extensions", [("SIZE 1000000",), ("8BITMIME",), ()])
async def test_a_provider_without_extensions_never_gets_broken_mail(
    tmp_path: Path, extensions: tuple[str, ...]
) -> None:
    content = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n".encode()
    async with (
        ScriptedProvider(extensions=extensions) as provider,
        running(tmp_path, {"p": provider.settings()}) as rig,
    ):
        message = accepted(content=content, is_8bit=True)
        rig.accept(message)
        await rig.wait_for(message, DeliveryState.FINISHED)
        (received,) = provider.messages
        assert received.content.isascii() != ("8BITMIME" in extensions)


async def test_a_reused_connection_that_does_not_understand_mail_is_replaced(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider() as provider:
        provider.script("MAIL", Action.DEFAULT, b"500 5.5.2 what\r\n")
        settings = provider.settings(max_connections=1)
        async with running(tmp_path, {"p": settings}) as rig:
            messages = [accepted(f"r{n}@x.test", at_ms=NOW_MS + n) for n in range(3)]
            rig.accept(*messages)
            for message in messages:
                await rig.wait_for(message, DeliveryState.FINISHED)
        assert len(provider.messages) == 3
    assert "status=bounced" not in rig.log.getvalue()


async def test_a_slot_that_cannot_be_written_costs_no_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Lifeline, "begin", full)
    async with ScriptedProvider() as provider, running(tmp_path, {"p": provider.settings()}) as rig:
        message = accepted("a@x.test")
        rig.accept(message)
        await rig.wait_for(message, DeliveryState.FINISHED)
        assert len(provider.messages) == 1
    assert "no slot: No space left on device" in rig.log.getvalue()


async def test_a_stopping_worker_begins_no_further_part(tmp_path: Path) -> None:
    held = asyncio.Event()
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", (Wait(held), Action.DEFAULT))
        message = accepted(*(f"r{n}@x.test" for n in range(4)))
        async with running(tmp_path, {"p": provider.settings(max_recipients=1)}) as rig:
            rig.accept(message)
            await provider.wait_until(
                lambda: any(b"\r\n.\r\n" in c.transcript for c in provider.connections)
            )
            asyncio.get_running_loop().call_later(0.2, held.set)
            await rig.stop()
            states = [recipient.state for recipient in rig.entry(message).recipients]
        assert len(provider.messages) == 1
    assert sorted(states) == [RecipientState.DELIVERED] + [RecipientState.PENDING] * 3


async def test_a_sender_that_a_fresh_connection_refuses_too_is_refused(tmp_path: Path) -> None:
    held = asyncio.Event()
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", *[(Wait(held), Action.DEFAULT)] * 3)
        settings = provider.settings(max_connections=3)
        async with running(tmp_path, {"p": settings}) as rig:
            good = [accepted(f"r{n}@x.test") for n in range(3)]
            rig.accept(*good)
            await provider.wait_until(lambda: len(provider.connections) == 3)
            held.set()
            for message in good:
                await rig.wait_for(message, DeliveryState.FINISHED)
            provider.script("MAIL", *[b"501 5.1.7 refused\r\n"] * 2)
            bad = accepted("b@x.test")
            rig.accept(bad)
            entry = await rig.wait_for(bad, DeliveryState.FINISHED)
        assert len(provider.connections) == 4  # the second word was that of a new one
    assert [(one.state, one.attempts) for one in entry.recipients] == [
        (RecipientState.DELIVERED, 2)
    ]
