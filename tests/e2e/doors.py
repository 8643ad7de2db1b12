"""A gateway with users and a certificate, and clients that turn to TLS or log in."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import argon2
import trustme

from tests.e2e.gateway import PATIENCE_S, Gateway, RawClient, gateway_to
from tests.fakes.scripted_provider import ThreadedProvider

PASSWORD = "CanaryPa55word"
OTHER_PASSWORD = "CanaryOth3r"
NOBODY = ["192.0.2.0/24"]
"""An allow list that does not cover this machine."""


def password_hash(password: str) -> str:
    """Return a cheap hash."""
    return argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(password)


def user(name: str = "shop1", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    """Return a user of the configuration."""
    return {"name": name, "password_hash": password_hash(password), **more}


@dataclass(frozen=True)
class Pair:
    """A certificate for gw.test and 127.0.0.1 in two files, and who vouches for it."""

    cert: Path
    key: Path
    ca: Path

    def tls(self, mode: str) -> dict[str, str]:
        """Return a listener's `tls:`."""
        return {"mode": mode, "cert": str(self.cert), "key": str(self.key)}

    @property
    def client_context(self) -> ssl.SSLContext:
        """A context that trusts this one only."""
        return ssl.create_default_context(cafile=str(self.ca))


def make_pair(directory: Path, *names: str, ca: trustme.CA | None = None) -> Pair:
    """Write a certificate, its key and its authority into `directory`."""
    authority = ca or trustme.CA()
    made = authority.issue_cert(*(names or ("gw.test", "127.0.0.1")))
    pair = Pair(directory / "cert.pem", directory / "key.pem", directory / "ca.pem")
    made.private_key_pem.write_to_path(str(pair.key))
    pair.key.chmod(0o600)
    pair.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    authority.cert_pem.write_to_path(str(pair.ca))
    return pair


@contextmanager
def open_door(
    directory: Path, *listeners: dict[str, Any], **sections: Any
) -> Iterator[tuple[Gateway, ThreadedProvider]]:
    """Start a gateway with these listeners (on any port) and a provider behind it."""
    with (
        ThreadedProvider() as provider,
        gateway_to(
            provider,
            directory,
            listeners=[{"bind": "127.0.0.1:0", **listener} for listener in listeners],
            **sections,
        ) as gateway,
    ):
        yield gateway, provider


class Behind(RawClient):
    """A client that sends something before the greeting."""

    def __init__(self, port: int, first: bytes, *more: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._buffer = b""
        for piece in (first, *more):
            self.send(piece)
        self.greeting = self.read_reply()


def connect_behind(gateway: Gateway, header: bytes) -> RawClient:
    """Connect to the first listener as a balancer does."""
    return Behind(gateway.smtp_port, header)


def turn_to_tls(client: RawClient, context: ssl.SSLContext) -> None:
    """Do the handshake on the client's connection."""
    client.socket = context.wrap_socket(client.socket, server_hostname="gw.test")


def starttls(client: RawClient, context: ssl.SSLContext) -> str:
    """EHLO, STARTTLS, handshake, EHLO; return the second answer."""
    assert "STARTTLS" in client.command(b"EHLO c.test")
    assert client.command(b"STARTTLS").startswith("220 ")
    turn_to_tls(client, context)
    return client.command(b"EHLO c.test")


def plain(name: str, password: str, identity: str = "") -> bytes:
    """Return an AUTH PLAIN command."""
    return b"AUTH PLAIN " + base64.b64encode(f"{identity}\0{name}\0{password}".encode())


def login(client: RawClient, name: str, password: str) -> str:
    """Log in by AUTH LOGIN; return the last reply."""
    assert client.command(b"AUTH LOGIN") == "334 VXNlcm5hbWU6"
    assert client.command(base64.b64encode(name.encode())) == "334 UGFzc3dvcmQ6"
    return client.command(base64.b64encode(password.encode()))


def send(client: RawClient, sender: str = "a@shop1.test", recipient: str = "b@cust.test") -> str:
    """Send a short message; return the last reply, or the first that refuses."""
    for command in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA"):
        reply = client.command(command.encode())
        if reply[0] not in "23":
            return reply
    return client.command(b"Subject: x\r\n\r\nhello\r\n.")


def queue_id(reply: str) -> str:
    """Return the id out of a 250."""
    assert reply.startswith("250 2.0.0 Ok: queued as "), reply
    return reply.rpartition(" ")[2]


def assert_no_password(directory: Path, gateway: Gateway) -> None:
    """No password, raw or encoded, stands in the log or in a file of the state directory."""
    secrets = [text.encode() for text in (PASSWORD, OTHER_PASSWORD)]
    needles = [*secrets]
    for shift in range(3):  # base64 of the word, wherever it stands in what was encoded
        needles += [base64.b64encode(b"x" * shift + secret)[4:-4] for secret in secrets]
    haystacks = {"the log": "\n".join(gateway.lines).encode()}
    for path in directory.rglob("*"):
        if path.is_file():
            haystacks[str(path)] = path.read_bytes()
    for place, text in haystacks.items():
        for needle in needles:
            assert needle not in text, (needle, place)
