"""Limits of a session and of a client: too many recipients, too many connections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.corpus.rig import EHLO, MAIL, START, Rig, running_rig


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(tmp_path_factory.mktemp("limits")) as rig:
        yield rig


def test_recipients_over_the_limit(rig: Rig) -> None:
    """L1: the 1,001st waits for another transaction; the first thousand are served."""
    start = len(rig.provider.messages)
    with rig.gateway.connect() as client:
        rig.do(client, EHLO)
        rig.do(client, MAIL)
        for number in range(1000):
            assert client.command(b"RCPT TO:<r%d@rd.test>" % number).startswith("250")
        assert client.command(b"RCPT TO:<r1000@rd.test>").startswith("452 4.5.3")
        rig.do(client, START[-1])
        rig.do(client, (b"Subject: t\r\n\r\n.\r\n", "250"))
    messages = rig.settle(start)
    named = [recipient for message in messages for recipient in message.recipients]
    assert sorted(named) == sorted(f"r{number}@rd.test" for number in range(1000))


def test_recipients_without_end(rig: Rig) -> None:
    """L2: 421 and a close by the 2,021st."""
    start = len(rig.provider.messages)
    with rig.gateway.connect() as client:
        rig.do(client, EHLO)
        rig.do(client, MAIL)
        codes = []
        for number in range(2100):
            codes.append(client.command(b"RCPT TO:<r%d@rd.test>" % number)[:9])
            if codes[-1].startswith("421"):
                break
        assert codes[-1] == "421 4.7.0"
        assert len(codes) <= 2021
        assert client.is_closed()
    assert rig.settle(start) == []


def test_connections_of_one_client(tmp_path_factory: pytest.TempPathFactory) -> None:
    """L3: the 51st connection of a client that is not in `allow`; one that left makes room."""
    listeners = [{"bind": "127.0.0.1:0", "allow": ["192.0.2.0/24"]}]
    directory = tmp_path_factory.mktemp("untrusted")
    with running_rig(directory, is_open=False, listeners=listeners) as rig, ExitStack() as held:
        clients = [held.enter_context(rig.gateway.connect()) for _ in range(50)]
        assert all(client.greeting.startswith("220") for client in clients)
        with rig.gateway.connect() as surplus:
            assert surplus.greeting.startswith("421 4.7.0")
            assert surplus.is_closed()
        assert clients[0].command(b"QUIT").startswith("221")
        assert clients[0].is_closed()
        with rig.gateway.connect() as client:
            assert client.greeting.startswith("220")


def test_trusted_clients_are_exempt(rig: Rig) -> None:
    with ExitStack() as held:
        for _ in range(60):
            assert held.enter_context(rig.gateway.connect()).greeting.startswith("220")
