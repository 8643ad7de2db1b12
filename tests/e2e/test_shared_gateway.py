"""Staging and production shops on one gateway: by listener, by user, and routes for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail.state import RecipientState
from tests.campaign import on_a_database
from tests.e2e.doors import OTHER_PASSWORD, PASSWORD, open_door, plain, queue_id, send, user
from tests.e2e.gateway import Gateway, gateway_to
from tests.e2e.ports import free_port
from tests.fakes.scripted_provider import ThreadedProvider

CUSTOMER, DEVELOPER = "b@cust.test", "dev@agency.test"


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[Gateway, ThreadedProvider]]:
    with open_door(
        tmp_path,
        # ports of their own: listeners are told apart by their `bind`
        {"bind": f"127.0.0.1:{free_port()}"},
        {"bind": f"127.0.0.1:{free_port()}", "mode": "staging"},
        {"bind": f"127.0.0.1:{free_port()}", "mode": "sandbox"},
        users=[user("live"), user("test", OTHER_PASSWORD, mode="staging")],
        recipients={"allow": [DEVELOPER]},
    ) as opened:
        yield opened


def state_of(gateway: Gateway, found: str) -> RecipientState:
    (recipient,) = gateway.entry(found).recipients
    return recipient.state


def test_a_listener_may_be_stricter(shared: tuple[Gateway, ThreadedProvider]) -> None:
    gateway, provider = shared
    for listener, recipient, mode, is_sent in (
        (0, CUSTOMER, "production", True),
        (1, CUSTOMER, "staging", False),
        (1, DEVELOPER, "staging", True),
        (2, DEVELOPER, "sandbox", False),
    ):
        seen = len(provider.messages)
        with gateway.connect(gateway.smtp_ports[listener]) as client:
            client.command(b"EHLO c.test")
            found = queue_id(send(client, recipient=recipient))
        gateway.wait_until_empty()
        assert gateway.entry(found).mode == mode
        wanted = RecipientState.DELIVERED if is_sent else RecipientState.CAPTURED
        assert state_of(gateway, found) is wanted
        assert len(provider.messages) - seen == is_sent


@on_a_database
def test_a_user_may_be_stricter(shared: tuple[Gateway, ThreadedProvider]) -> None:
    gateway, provider = shared
    for name, password, wanted in (
        ("live", PASSWORD, RecipientState.DELIVERED),
        ("test", OTHER_PASSWORD, RecipientState.CAPTURED),
    ):
        with gateway.connect() as client:
            client.command(b"EHLO c.test")
            assert client.command(plain(name, password)).startswith("235 ")
            found = queue_id(send(client))
        gateway.wait_until_empty()
        assert state_of(gateway, found) is wanted
    assert len(provider.messages) == 1


@on_a_database
def test_routes_by_listener_and_user(tmp_path: Path) -> None:
    bind = f"127.0.0.1:{free_port()}"
    with ThreadedProvider() as provider:
        routes = [
            {"name": "by-user", "user": ["shop1"], "providers": ["main"]},
            {"name": "by-listener", "listener": [bind], "providers": ["main"]},
            {"name": "default", "providers": ["main"]},
        ]
        with gateway_to(
            provider,
            tmp_path,
            routes=routes,
            users=[user()],
            listeners=[{"bind": f"127.0.0.1:{free_port()}"}, {"bind": bind}],
        ) as gateway:
            found = {}
            with gateway.connect() as client:
                client.command(b"EHLO c.test")
                found["default"] = queue_id(send(client))
                client.command(plain("shop1", PASSWORD))
                found["by-user"] = queue_id(send(client))
            with gateway.connect(gateway.smtp_ports[1]) as client:
                client.command(b"EHLO c.test")
                found["by-listener"] = queue_id(send(client))
            gateway.wait_until_empty()
            for route, one in found.items():
                assert [part.route for part in gateway.entry(one).deliveries] == [route]
