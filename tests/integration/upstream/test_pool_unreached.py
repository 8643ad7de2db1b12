"""Since when a pool has tried in vain: known while the first connection still waits."""

from __future__ import annotations

import asyncio
import time

import pytest

from relaygw.settings.provider import Provider
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.pool import Pool
from tests.e2e.ports import free_port
from tests.fakes.scripted_provider import Action, ScriptedProvider


def pool(provider: Provider) -> Pool:
    return Pool("main", provider, ehlo_name="gw.test")


async def test_it_is_known_while_the_first_connection_waits_and_over_with_an_answer() -> None:
    async with ScriptedProvider() as provider:
        provider.script("greeting", Action.HANG)
        one = pool(provider.settings())
        assert one.unreached_since_s is None
        begun_s = time.monotonic()
        waiting = asyncio.create_task(one.acquire_session())
        async with asyncio.timeout(30):
            while one.unreached_since_s is None:  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.01)
        assert begun_s <= one.unreached_since_s <= time.monotonic()
        one.release_session(await one.acquire_session())
        assert one.unreached_since_s is None
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await one.aclose()


async def test_failures_do_not_set_the_clock_back() -> None:
    one = pool(Provider(host="127.0.0.1", port=free_port(), tls="none"))
    with pytest.raises(UpstreamError):
        await one.acquire_session()
    first_s = one.unreached_since_s
    assert first_s is not None
    known = one.unreached()
    assert known is not None and "refused" in known.reason
    with pytest.raises(UpstreamError):
        await one.acquire_session()
    assert one.unreached_since_s == first_s


async def test_what_is_forgotten_begins_anew() -> None:
    one = pool(Provider(host="127.0.0.1", port=free_port(), tls="none"))
    with pytest.raises(UpstreamError):
        await one.acquire_session()
    one.forget_unreached()
    assert one.unreached() is None
    forgotten_s = time.monotonic()
    with pytest.raises(UpstreamError):
        await one.acquire_session()
    assert one.unreached_since_s is not None and one.unreached_since_s >= forgotten_s


async def test_a_refusal_is_an_answer() -> None:
    async with ScriptedProvider() as provider:
        provider.script("greeting", b"421 4.3.2 later\r\n")
        one = pool(provider.settings())
        with pytest.raises(UpstreamError):
            await one.acquire_session()
        assert one.unreached_since_s is None
