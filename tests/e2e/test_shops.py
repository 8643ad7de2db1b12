"""One shop queues thousands at a provider that takes them slowly; another's order goes out.

Within a stream clients take turns: a client is its user, or else its network.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.campaign import times
from tests.e2e.doors import PASSWORD, plain, user
from tests.e2e.fleet import CONTENT, arrived, begin, send_all
from tests.e2e.gateway import Gateway, RawClient, provider_settings
from tests.fakes.scripted_provider import ReceivedMessage, ThreadedProvider

BURST = times(400, campaign=2000)
SENDERS = 4
RATE = "20/s"
FEW = 20  # what is on its way, and what a worker has at hand of this client


def of_another_network(gateway: Gateway) -> RawClient:
    client = gateway.connect(source="127.0.1.1")
    assert client.command(b"EHLO shop2.test").startswith("250")
    return client


def of_a_user(gateway: Gateway) -> RawClient:
    client = gateway.connect()
    assert client.command(b"EHLO shop3.test").startswith("250")
    assert client.command(plain("shop3", PASSWORD)).startswith("235")
    return client


def others_first(
    gateway: Gateway,
    provider: ThreadedProvider,
    shop: Callable[[Gateway], RawClient],
    number: int,
) -> int:
    """Send an order of a shop; return how much mail of others went out before it."""
    with shop(gateway) as client:
        assert begin(client).startswith("354")
        assert client.command(CONTENT % number + b".").startswith("250")
    seen = len(provider.messages)

    def place() -> int | None:
        fresh: list[ReceivedMessage] = provider.messages[seen:]
        is_it = (CONTENT % number in message.content for message in fresh)
        return next((place for place, found in enumerate(is_it) if found), None)

    provider.wait_until(lambda: place() is not None)
    found = place()
    assert found is not None
    return found


@pytest.mark.campaign
@pytest.mark.usefixtures("each_database")
def test_an_order_does_not_wait_for_another_shops_burst(tmp_path: Path) -> None:
    with ThreadedProvider() as provider:
        settings = provider_settings(provider.port, rate=RATE)
        with Gateway(tmp_path, providers={"p": settings}, users=[user("shop3")]) as gateway:
            part = BURST // SENDERS
            with ThreadPoolExecutor(SENDERS) as pool:
                list(pool.map(lambda n: send_all(gateway, part, first=n * part), range(SENDERS)))
            waits = {
                number: others_first(gateway, provider, shop, number)
                for number, shop in enumerate((of_another_network, of_a_user), BURST)
            }
            sent = arrived(provider)
    print(f"before each order: {list(waits.values())} of {BURST}; {len(sent)} went out")
    assert len(sent) < BURST // 2, "the burst was still waiting"
    assert sent.total() == len(sent)
    assert max(waits.values()) <= FEW
