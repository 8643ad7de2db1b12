"""Mail in doubt where a key, or an event, tells of the first try: nobody gets it twice."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from relaygw.delivery.waits import Waits
from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate, Source
from relaygw.mail.hold import HoldCode
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Event, Kind
from relaygw.operations.story.facts import held_advice
from relaygw.policy import retry
from relaygw.settings.routes import Route
from relaygw.store.audit import AuditEntry
from relaygw.store.feedback import MatchedEvent
from relaygw.store.outcomes import Recorded
from relaygw.store.rules import StoreRules
from relaygw.store.store import open_store
from tests.altered_store import AlteredStore
from tests.builders import accepted
from tests.fakes.keyed_provider import HEADER, KEYED, LOST, KeyedProvider, keys_of
from tests.fakes.scripted_provider import Action, ScriptedProvider, Wait
from tests.integration.delivery_rig import Rig, running

FINISHED, HELD, DEFERRED = DeliveryState.FINISHED, DeliveryState.HELD, DeliveryState.DEFERRED
LARGE = b"Subject: x\r\n\r\n" + (b"y" * 76 + b"\r\n") * 1000  # more than comes with a claim
RULES = StoreRules(doubt_waits={"p": 0.0})
RESEND = {"preset": "resend", "username": None, "password": None, "rate": None}


def ruled(url: str):
    """Open a store that knows that a doubt at `p` is settled."""
    return open_store(url, rules=RULES)


NextTryIn = Callable[[float], None]


@pytest.fixture(autouse=True)
def next_try_in(monkeypatch: pytest.MonkeyPatch) -> NextTryIn:
    """Return what says how long mail in doubt with a key waits, at first a moment."""

    def wait(wait_s: float) -> None:
        monkeypatch.setattr(retry, "KEYED_LADDER_S", (wait_s,))

    wait(0.01)
    return wait


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def fresh(*recipients: str, **more: Any) -> AcceptedMessage:
    """Return a message that was accepted just now."""
    return accepted(*recipients, at_ms=now_ms(), **more)


def told(message: AcceptedMessage, kind: Kind = Kind.DELIVERED) -> MatchedEvent:
    event = Event(key=f"{message.queue_id} {kind}", kind=kind, at_ms=now_ms())
    return MatchedEvent(provider="p", event=event, queue_id=message.queue_id, rcpt_no=0)


def release(rig: Rig, message: AcceptedMessage) -> None:
    """Let go of held mail as an operator does."""
    entry = AuditEntry(
        at_ms=now_ms(), actor="x", action="queue.release", target="", detail="", affected=0
    )
    rig.store.queue.change_state(
        [message.queue_id], from_states=frozenset({HELD}), to=DEFERRED, entry=entry
    )
    rig.worker.wake()


def make_due(rig: Rig) -> None:
    """Have what waits be tried now."""
    with rig.store.database.write() as tx:
        tx.connection.exec_driver_sql("UPDATE delivery SET due_at_ms = 1")
    rig.worker.wake()


# --- a retry is the same -----------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"Subject: x\r\n\r\nhello\r\n", LARGE], ids=["small", "large"])
async def test_a_lost_answer_is_asked_for_again_by_the_same_provider(
    tmp_path: Path, content: bytes
) -> None:
    async with (
        KeyedProvider() as provider,
        ScriptedProvider() as other,
        running(
            tmp_path,
            {"p": provider.settings(**KEYED), "q": other.settings()},
            routes=[Route(name="default", providers=("p", "q"))],
        ) as rig,
    ):
        provider.script("CONTENT", *[LOST] * 4)
        message = fresh(content=content)
        rig.accept(message)
        entry = await rig.wait_for(message, FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED
        first, *again = provider.messages
        assert len(again) == 4
        assert all(one.content == first.content for one in again)
        assert len(keys_of(first)) == 1
        assert (len(provider.mailbox), len(other.messages)) == (1, 0)
        states = [one.state for one in rig.store.queue.attempts(message.queue_id)]
        assert states == [*[AttemptState.IN_DOUBT] * 4, AttemptState.DELIVERED]
        assert rig.log.getvalue().count("its provider knows a second try by its idempotency") == 4
        assert "more than once" not in rig.log.getvalue()


def test_the_first_retry_comes_within_seconds_and_there_are_not_many() -> None:
    ladder_s = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
    assert sum(itertools.islice(itertools.chain(ladder_s, itertools.repeat(3600.0)), 30)) > 77_000


EIGHT_BIT = (
    'Subject: z\u00fcrich\r\nX-SMTPAPI: {"to": ["b@cust.test"]}\r\n'
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n\r\nz\u00fcrich\r\n--b--\r\n"
).encode()
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str], dict[str, Any]]] = {
    # of the mail, of the provider, what it offers, of the gateway
    "rewritten": ({"content": EIGHT_BIT, "is_8bit": True}, {}, ["PIPELINING"], {}),
    "folded": (
        {"content": b"Subject: x\r\n\r\n" + b"y" * 3000 + b"\r\n", "has_long_line": True},
        {}, ["PIPELINING"], {},
    ),
    "headers": ({}, {"headers": {"X-Shop": "z\u00fcrich"}}, ["PIPELINING"], {}),
    "staging": (
        {"content": EIGHT_BIT, "is_8bit": True, "mode": "staging"},
        {}, ["PIPELINING", "8BITMIME"],
        {"mode": "staging", "recipients": {"allow": ["@cust.test"]}},
    ),
    "marked": (
        {"content": EIGHT_BIT},
        {"preset": "sendgrid", "events": {"secret": "plain:x"}},
        ["PIPELINING", "8BITMIME"], {},
    ),
    "large": ({"content": LARGE}, {"headers": {"X-Shop": "1"}}, [], {}),
    "tls": ({}, {}, ["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 50000000"], {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_two_tries_are_the_same_to_the_byte_by_another_instance(
    tmp_path: Path, kind: str, next_try_in: NextTryIn
) -> None:
    mail, settings, extensions, gateway = KINDS[kind]
    async with KeyedProvider(extensions=extensions) as provider:
        message = fresh(source=Source(client="10.0.0.9", uid=33, script="60:a.php"), **mail)
        providers = {"p": provider.settings(**KEYED, **settings)}
        provider.script("CONTENT", LOST)
        next_try_in(3600.0)  # the other one makes the second try
        async with running(tmp_path, providers, **gateway) as rig:
            rig.accept(message)
            await rig.wait_for(message, DEFERRED)
        async with running(tmp_path, providers, hostname="gw2.test", **gateway) as rig:
            make_due(rig)
            await rig.wait_for(message, FINISHED)
        first, second = provider.messages
        assert first.content == second.content
        assert (kind == "marked") == (b'"relaygw"' in first.content)
        assert (first.sender, first.recipients) == (second.sender, second.recipients)
        assert len(provider.mailbox) == 1


async def test_each_recipient_has_a_transaction_and_a_key_of_its_own(tmp_path: Path) -> None:
    names = [f"{name}@cust.test" for name in "abcd"]
    async with (
        KeyedProvider() as provider,
        running(tmp_path, {"p": provider.settings(**KEYED)}) as rig,
    ):
        provider.recipients["b@cust.test"] = b"451 4.2.1 later\r\n"
        provider.script("CONTENT", Action.DEFAULT, LOST, LOST)
        message = fresh(*names)
        rig.accept(message)
        await provider.wait_until(lambda: len(provider.messages) >= 4)
        del provider.recipients["b@cust.test"]
        await rig.wait_for(message, FINISHED)
        assert {len(one.recipients) for one in provider.messages} == {1}
        assert Counter(one.recipients[0] for one in provider.mailbox) == dict.fromkeys(names, 1)
        assert len({keys_of(one)[0] for one in provider.mailbox}) == 4


@pytest.mark.parametrize(
    "more", [{}, {"preset": "sendgrid", "events": {"secret": "plain:x"}}], ids=["key", "key, mark"]
)
async def test_chained_mail_has_its_key_too(tmp_path: Path, more: dict[str, Any]) -> None:
    settings = {"chain_transactions": True, "max_connections": 1} | more
    async with (
        KeyedProvider(loses_first=True) as provider,
        running(tmp_path, {"p": provider.settings(**KEYED, **settings)}) as rig,
    ):
        messages = [fresh(content=b"Subject: %d\r\n\r\n" % number) for number in range(6)]
        rig.accept(*messages)
        for message in messages:
            await rig.wait_for(message, FINISHED)
        assert provider.lost == 6
        assert (len(provider.mailbox), provider.extras()) == (6, 0)
        assert all(bool(more) == (b"relaygw" in one.content) for one in provider.mailbox)


# --- what the provider says of keys --------------------------------------------------------------


def with_key(key: str, name: str = HEADER) -> bytes:
    return f"{name}: {key}\r\nSubject: x\r\n\r\nhello\r\n".encode()


@pytest.mark.parametrize("name", [HEADER, HEADER.upper(), HEADER.lower()])
async def test_a_key_that_the_sender_set_stays(tmp_path: Path, name: str) -> None:
    async with (
        KeyedProvider() as provider,
        running(tmp_path, {"p": provider.settings(**KEYED)}) as rig,
    ):
        provider.script("CONTENT", LOST)
        message = fresh(content=with_key("order-1", name))
        rig.accept(message)
        await rig.wait_for(message, FINISHED)
        assert {tuple(keys_of(one)) for one in provider.messages} == {(b"order-1",)}
        assert len(provider.mailbox) == 1


async def test_mail_with_a_key_of_its_own_is_one_transaction(tmp_path: Path) -> None:
    async with (
        KeyedProvider() as provider,
        running(tmp_path, {"p": provider.settings(**KEYED)}) as rig,
    ):
        message = fresh("a@cust.test", "b@cust.test", content=with_key("order-1"))
        rig.accept(message)
        await rig.wait_for(message, FINISHED)
        (one,) = provider.mailbox
        assert one.recipients == ("a@cust.test", "b@cust.test")


TWICE = "one\r\n" + HEADER.lower() + ": "


@pytest.mark.parametrize(
    "key", ["", "x" * 257, "a b", "z\u00fcrich", f"{TWICE}two", f"{TWICE}one", f"{TWICE}"]
)
async def test_a_key_that_no_provider_takes_holds_its_own_mail_alone(
    tmp_path: Path, key: str
) -> None:
    async with (
        KeyedProvider() as provider,
        running(tmp_path, {"p": provider.settings(**KEYED)}) as rig,
    ):
        wrong, right = fresh(content=with_key(key)), fresh()
        rig.accept(wrong, right)
        entry = await rig.wait_for(wrong, HELD)
        await rig.wait_for(right, FINISHED)
        cause = entry.deliveries[0].hold
        assert cause is not None
        assert cause.code is HoldCode.HEADER
        assert HEADER in cause.sentence
        (advice,) = held_advice(cause, wrong.queue_id, "", "p")
        assert advice.command == f"relaygw queue delete --id {wrong.queue_id}"
        assert len(provider.messages) == 1


async def test_a_conflict_is_held_in_doubt_and_a_release_has_another_key(
    tmp_path: Path, next_try_in: NextTryIn
) -> None:
    """The bytes are others, as the configuration changed between two tries."""
    async with KeyedProvider() as provider:
        message = fresh()
        provider.script("CONTENT", LOST)
        next_try_in(3600.0)  # the second try has the other configuration
        async with running(tmp_path, {"p": provider.settings(**RESEND)}) as rig:
            rig.accept(message)
            await rig.wait_for(message, DEFERRED)
        changed = provider.settings(**RESEND, headers={"X-New": "1"})
        async with running(tmp_path, {"p": changed}) as rig:
            make_due(rig)
            entry = await rig.wait_for(message, HELD)
            assert entry.deliveries[0].hold.code is HoldCode.IN_DOUBT
            assert "invalid_idempotent_request" in (entry.recipients[0].reply or "")
            assert len(provider.mailbox) == 1
            release(rig, message)
            await rig.wait_for(message, FINISHED)
        first, last = provider.mailbox
        assert keys_of(first) != keys_of(last)


async def test_a_first_try_that_is_still_running_is_waited_for(tmp_path: Path) -> None:
    running_still = b"409 4.0.0 concurrent_idempotent_requests\r\n"
    async with (
        KeyedProvider() as provider,
        ScriptedProvider() as other,
        running(
            tmp_path,
            {"p": provider.settings(**RESEND), "q": other.settings()},
            routes=[Route(name="default", providers=("p", "q"))],
        ) as rig,
    ):
        provider.script("CONTENT", LOST, running_still.replace(b"409", b"450"))
        message = fresh()
        rig.accept(message)
        await rig.wait_until(lambda: len(rig.store.queue.attempts(message.queue_id)) == 2)
        last = rig.store.queue.attempts(message.queue_id)[-1]
        assert last.state is AttemptState.IN_DOUBT
        assert 0 < last.next_at_ms - last.at_ms <= 15_000
        make_due(rig)
        await rig.wait_for(message, FINISHED)
        assert (len(provider.mailbox), other.messages) == (1, [])


@pytest.mark.parametrize(("hours", "doubts", "tries"), [(23, 3, 1), (23, 1, 2), (12, 3, 2)])
async def test_once_the_key_is_nearly_over_a_doubt_is_an_ordinary_one(
    tmp_path: Path, hours: int, doubts: int, tries: int, next_try_in: NextTryIn
) -> None:
    async with KeyedProvider() as provider:
        message = fresh()
        provider.script("CONTENT", LOST)
        next_try_in(3600.0)
        async with running(tmp_path, {"p": provider.settings(**KEYED)}) as rig:
            rig.accept(message)
            await rig.wait_for(message, DEFERRED)
            with rig.store.database.write() as tx:
                for sql in (
                    f"UPDATE attempt SET since_ms = since_ms - {hours * 3_600_000}",
                    f"UPDATE delivery SET due_at_ms = 1, doubts = {doubts}",
                ):
                    tx.connection.exec_driver_sql(sql)
            rig.worker.wake()
            await rig.wait_for(message, HELD if tries == 1 else FINISHED)
            assert len(provider.messages) == tries


# --- whatever leaves mail in doubt -------------------------------------------------------------


async def test_a_stop_after_the_dot_is_asked_again_by_the_next_worker(tmp_path: Path) -> None:
    async with KeyedProvider() as provider:
        provider.script("CONTENT", (Action.RECORD, Action.HANG))
        message, settings = fresh(), {"p": provider.settings(**KEYED)}
        async with running(tmp_path, settings, waits=Waits(drain_s=0.05)) as rig:
            rig.accept(message)
            await provider.wait_for_messages(1)
        async with running(tmp_path, {"p": provider.settings(**KEYED)}) as rig:
            await rig.wait_for(message, FINISHED)
        assert (len(provider.messages), len(provider.mailbox)) == (2, 1)


class Refusing(AlteredStore):
    """A store that does not take the first outcome that was delivered."""

    refusals = 1

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> Recorded:
        if self.refusals and any(one.recipients for one in updates):
            type(self).refusals -= 1
            raise ValueError("no")
        return super().record_batch(updates, incarnation=incarnation, now_ms=now_ms)


async def test_an_outcome_that_the_store_refuses_is_asked_for_again(tmp_path: Path) -> None:
    async with (
        KeyedProvider() as provider,
        running(tmp_path, {"p": provider.settings(**KEYED)}, store_class=Refusing) as rig,
    ):
        Refusing.refusals = 1
        message = fresh()
        rig.accept(message)
        await rig.wait_for(message, FINISHED)
        assert (len(provider.messages), len(provider.mailbox)) == (2, 1)
        assert "its provider knows it by its key" in rig.log.getvalue()


# --- events ------------------------------------------------------------------------------------


async def test_a_doubt_that_an_event_settles_is_never_sent_again(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, store_class=ruled) as rig,
    ):
        provider.script("CONTENT", LOST)
        message = fresh()
        rig.accept(message)
        entry = await rig.wait_for(message, DEFERRED)
        assert entry.deliveries[0].due_at_ms > now_ms() + 200_000, "its event has time to come"
        await asyncio.to_thread(rig.store.feedback.take, [told(message, Kind.HARD)])
        entry = await rig.wait_for(message, FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED
        assert len(provider.messages) == 1


async def test_an_event_during_the_retry_stops_it_before_the_dot(tmp_path: Path) -> None:
    async with (
        KeyedProvider() as provider,
        running(tmp_path, {"p": provider.settings(**KEYED)}, store_class=ruled) as rig,
    ):
        may_go_on = asyncio.Event()
        provider.script("CONTENT", LOST)
        provider.script("DATA", Action.DEFAULT, (Wait(may_go_on), b"354 go\r\n"))
        message = fresh()
        rig.accept(message)
        await provider.wait_until(lambda: provider.pending("DATA") == 0)
        await asyncio.to_thread(rig.store.feedback.take, [told(message)])
        may_go_on.set()
        await rig.wait_for(message, FINISHED)
        assert len(provider.messages) == 1
        assert "it was not sent again" in rig.log.getvalue()


async def test_an_event_before_the_doubt_settles_it_and_is_told(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, store_class=ruled) as rig,
    ):
        may_go_on = asyncio.Event()
        provider.script("CONTENT", (Action.RECORD, Wait(may_go_on), Action.RESET))
        message = fresh()
        rig.accept(message)
        await provider.wait_for_messages(1)
        await asyncio.to_thread(rig.store.feedback.take, [told(message, Kind.ACCEPTED)])
        may_go_on.set()
        await rig.wait_for(message, FINISHED)
        assert len(provider.messages) == 1
        log = rig.log.getvalue()
        assert "p has it: its event tells accepted; b@cust.test is not sent to again" in log
