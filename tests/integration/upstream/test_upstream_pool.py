"""The pool: reuse, wear, expiry and cancellation, seen through its repr."""

from __future__ import annotations

import asyncio

import pytest

from relaygw.mail.outcome import Stage
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.outgoing import OutgoingMail
from relaygw.upstream.pool import Pool
from relaygw.upstream.session import UpstreamSession, open_session
from tests.fakes.scripted_provider import Action, ScriptedProvider, Wait

MAIL = OutgoingMail(
    sender="a@x.test",
    recipients=("b@y.test",),
    content=b"Subject: x\r\n\r\nhi\r\n",
    size_bytes=18,
    is_8bit=False,
    has_long_line=False,
    smtputf8=False,
)


def pool_for(provider: ScriptedProvider, **changes: object) -> Pool:
    return Pool("ses", provider.settings(**changes), ehlo_name="gw.test")


async def test_reuses_the_newest_session() -> None:
    async with ScriptedProvider() as provider:
        pool = pool_for(provider)
        first, second = await pool.acquire_session(), await pool.acquire_session()
        assert repr(pool) == "<Pool ses: 2 busy, 0 idle, 2 opened>"
        pool.release_session(first)
        pool.release_session(second)
        assert repr(pool) == "<Pool ses: 0 busy, 2 idle, 2 opened>"
        assert await pool.acquire_session() is second
        assert repr(pool) == "<Pool ses: 1 busy, 1 idle, 2 opened>"
        pool.release_session(second)
        await pool.aclose()
        assert repr(pool) == "<Pool ses: 0 busy, 0 idle, 2 opened>"
        assert [one.verbs() for one in provider.connections] == [["EHLO", "QUIT"]] * 2


@pytest.mark.parametrize("most", [1, 5], ids=["of-one-worker", "shared-by-several"])
async def test_a_worn_out_session_is_replaced_without_a_connection_too_many(most: int) -> None:
    may_close = asyncio.Event()
    async with ScriptedProvider() as provider:
        pool = pool_for(provider, max_connections=most, max_messages_per_connection=2)
        pool.permitted = lambda: 1
        provider.script("QUIT", (Wait(may_close), Action.DEFAULT))
        for _ in range(2):
            session = await pool.acquire_session()
            await session.transact(MAIL)
            pool.release_session(session)
        assert repr(pool) == "<Pool ses: 0 busy, 0 idle, 1 opened>"
        waiting = asyncio.create_task(pool.acquire_session())
        await provider.wait_until(lambda: "QUIT" in provider.connections[0].verbs())
        # by the time that another session came and went, one opened too early would show
        await (await open_session(provider.settings(), ehlo_name="other.test")).close()
        assert [one.commands[0] for one in provider.connections] == [
            b"EHLO gw.test",
            b"EHLO other.test",
        ]
        may_close.set()
        pool.release_session(await waiting)
        assert repr(pool) == "<Pool ses: 0 busy, 1 idle, 2 opened>"
        await pool.aclose()


async def test_a_session_that_comes_back_while_another_closes_is_no_connection_too_many() -> None:
    may_close = asyncio.Event()
    async with ScriptedProvider() as provider:
        pool = pool_for(provider, max_messages_per_connection=1)
        worn, fresh = await pool.acquire_session(), await pool.acquire_session()
        await worn.transact(MAIL)
        provider.script("QUIT", (Wait(may_close), Action.DEFAULT))
        pool.release_session(worn)
        pool.permitted = lambda: 1
        waiting = asyncio.create_task(pool.acquire_session())
        await provider.wait_until(lambda: "QUIT" in provider.connections[0].verbs())
        pool.release_session(fresh)
        may_close.set()
        last = await waiting
        assert repr(pool) == "<Pool ses: 1 busy, 0 idle, 3 opened>"
        pool.release_session(last)
        await pool.aclose()


async def test_an_idle_session_that_the_provider_closed_is_not_handed_out() -> None:
    async with ScriptedProvider() as provider:
        pool = pool_for(provider)
        session = await pool.acquire_session()
        provider.script("CONTENT", (b"250 ok\r\n", Action.DROP))
        await session.transact(MAIL)
        pool.release_session(session)
        await session.wire.closed
        other = await pool.acquire_session()
        assert other is not session
        assert repr(pool) == "<Pool ses: 1 busy, 0 idle, 2 opened>"
        pool.release_session(other)
        await pool.aclose()


async def test_a_broken_session_is_not_kept() -> None:
    async with ScriptedProvider() as provider:
        pool = pool_for(provider)
        session = await pool.acquire_session()
        provider.script("CONTENT", b"421 4.3.2 bye\r\n")
        await session.transact(MAIL)
        pool.release_session(session)
        assert repr(pool) == "<Pool ses: 0 busy, 0 idle, 1 opened>"
        await pool.aclose()
        assert "QUIT" not in provider.connections[0].verbs()


@pytest.mark.parametrize(("idle_close_s", "idle"), [(0.0, 0), (3600.0, 1)])
async def test_idle_sessions_expire(idle_close_s: float, idle: int) -> None:
    async with ScriptedProvider() as provider:
        settings = provider.settings().model_copy(update={"idle_close": idle_close_s})
        pool = Pool("ses", settings, ehlo_name="gw.test")
        pool.release_session(await pool.acquire_session())
        pool.close_expired()
        assert repr(pool) == f"<Pool ses: 0 busy, {idle} idle, 1 opened>"
        await pool.aclose()
        assert provider.connections[0].verbs() == ["EHLO", "QUIT"]


async def test_a_failure_to_open_frees_the_place() -> None:
    async with ScriptedProvider() as provider:
        pool = pool_for(provider, max_connections=1)
        provider.script("greeting", b"554 no\r\n")
        with pytest.raises(UpstreamError):
            await pool.acquire_session()
        assert repr(pool) == "<Pool ses: 0 busy, 0 idle, 0 opened>"
        pool.release_session(await pool.acquire_session())
        await pool.aclose()


@pytest.mark.parametrize("verb", ["greeting", "EHLO", "STARTTLS", "AUTH"])
async def test_cancelled_while_opening_frees_the_place(verb: str) -> None:
    async with ScriptedProvider(tls="starttls", users={"shop": "s3cret"}) as provider:
        settings = {"username": "shop", "password": "plain:s3cret", "max_connections": 1}
        pool = pool_for(provider, **settings)
        provider.script(verb, Wait(asyncio.Event()))
        opening = asyncio.create_task(pool.acquire_session())
        await provider.wait_until(lambda: not provider.pending(verb))
        assert repr(pool) == "<Pool ses: 1 busy, 0 idle, 0 opened>"
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert repr(pool) == "<Pool ses: 0 busy, 0 idle, 0 opened>"
        pool.release_session(await pool.acquire_session())
        assert repr(pool) == "<Pool ses: 0 busy, 1 idle, 1 opened>"
        await pool.aclose()


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "CONTENT"])
async def test_cancelled_in_a_transaction_frees_the_place(verb: str) -> None:
    async def deliver(pool: Pool) -> None:
        session = await pool.acquire_session()
        try:
            await session.transact(MAIL)
        finally:
            pool.release_session(session)

    async with ScriptedProvider() as provider:
        pool = pool_for(provider, max_connections=1)
        provider.script(verb, Wait(asyncio.Event()))
        delivery = asyncio.create_task(deliver(pool))
        await provider.wait_until(lambda: not provider.pending(verb))
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        await deliver(pool)
        assert repr(pool) == "<Pool ses: 0 busy, 1 idle, 2 opened>"
        assert provider.messages[-1].connection_no == 1
        await pool.aclose()


async def test_a_closed_pool_opens_nothing_and_keeps_nothing() -> None:
    async with ScriptedProvider() as provider:
        pool = pool_for(provider)
        session = await pool.acquire_session()
        await pool.aclose()
        with pytest.raises(UpstreamError) as caught:
            await pool.acquire_session()
        assert caught.value.stage is Stage.CONNECT
        await session.transact(MAIL)  # what is under way ends well
        pool.release_session(session)
        await pool.aclose()
        assert repr(pool) == "<Pool ses: 0 busy, 0 idle, 1 opened>"
        assert provider.connections[0].verbs()[-1] == "QUIT"


async def test_more_callers_than_connections_is_a_defect() -> None:
    async with ScriptedProvider() as provider:
        pool = pool_for(provider, max_connections=1)
        session = await pool.acquire_session()
        with pytest.raises(AssertionError):
            await pool.acquire_session()
        pool.release_session(session)
        with pytest.raises(AssertionError):
            pool.release_session(session)
        await pool.aclose()


async def test_an_aborted_session_makes_room_at_once() -> None:
    async with ScriptedProvider() as provider:
        pool = pool_for(provider, max_connections=1)
        session: UpstreamSession = await pool.acquire_session()
        session.abort()
        pool.release_session(session)
        other = await pool.acquire_session()
        assert other is not session
        assert repr(pool) == "<Pool ses: 1 busy, 0 idle, 2 opened>"
        pool.release_session(other)
        await pool.aclose()
