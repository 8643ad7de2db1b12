"""More clients than the system allows open files: who is connected is served all the same (F28)."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.campaign import on_a_database
from tests.e2e.gateway import PATIENCE_S, Gateway, RawClient, provider_settings
from tests.e2e.test_maildrop import leave, wait_until_serving
from tests.fakes.scripted_provider import ThreadedProvider

FILES = 256
CLIENTS = 500
WATCHED_S = 2.0
LARGE = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 20_000


def used_s(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def send(client: RawClient, content: bytes) -> str:
    for command in (b"MAIL FROM:<a@shop.test>", b"RCPT TO:<b@cust.test>", b"DATA"):
        assert client.command(command)[0] in "23"
    return client.command(content + b".")


def is_greeted(gateway: Gateway) -> bool:
    with gateway.connect() as client:
        return client.greeting.startswith("220")


@on_a_database
def test_more_clients_than_files(tmp_path: Path) -> None:
    limit = ("prlimit", f"--nofile={FILES}:{FILES}")
    with (
        ThreadedProvider() as provider,
        Gateway(
            tmp_path, providers={"p": provider_settings(provider.port)}, before=limit
        ) as gateway,
        gateway.connect() as client,
    ):
        maildrop = wait_until_serving(gateway)
        client.command(b"EHLO shop.test")
        (front,) = gateway.pids("front")
        with ExitStack() as crowd:
            address = ("127.0.0.1", gateway.smtp_port)
            others = [
                crowd.enter_context(socket.create_connection(address, timeout=PATIENCE_S))
                for _ in range(CLIENTS)
            ]
            greetings = Counter(other.recv(3) for other in others)
            print(greetings)
            assert 0 < greetings[b"220"] < FILES
            assert greetings.keys() <= {b"220", b"421", b""}

            before_s, began_s = used_s(front), time.monotonic()
            time.sleep(WATCHED_S)
            share = (used_s(front) - before_s) / (time.monotonic() - began_s)
            assert share < 0.5, "a busy loop"

            for content in (LARGE, b"Subject: small\r\n\r\nx\r\n"):
                assert send(client, content).startswith("250 ")
            leave(maildrop)
            provider.wait_for_messages(3)
        gateway.wait_until(lambda: is_greeted(gateway), "a new client is served again")
        assert send(client, b"Subject: small\r\n\r\nx\r\n").startswith("250 ")
        provider.wait_for_messages(4)
        gateway.wait_until_empty()
        assert gateway.pids("front") == [front]
    assert len(provider.messages) == 4
