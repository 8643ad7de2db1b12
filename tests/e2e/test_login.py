"""Logging in: who may send what afterwards, what a wrong password costs, and what nobody sees."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from relaygw.store.queue_tables import message
from tests.campaign import on_a_database
from tests.e2e.doors import (
    NOBODY,
    OTHER_PASSWORD,
    PASSWORD,
    assert_no_password,
    connect_behind,
    login,
    make_pair,
    open_door,
    plain,
    queue_id,
    send,
    starttls,
    user,
)
from tests.e2e.gateway import PATIENCE_S, Gateway
from tests.fakes.scripted_provider import ThreadedProvider

DELAY_S = 1.4  # less than a wrong password waits
USERS = [user(senders=["@shop1.test"]), user("shop2", OTHER_PASSWORD)]


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[Gateway, ThreadedProvider]]:
    with open_door(tmp_path, {"allow": NOBODY}, users=USERS) as opened:
        yield opened
        assert_no_password(tmp_path, opened[0])


@on_a_database
def test_plain_and_login_let_a_user_send(door: tuple[Gateway, ThreadedProvider]) -> None:
    gateway, provider = door
    with gateway.connect() as client:
        assert "250-AUTH PLAIN LOGIN" in client.command(b"EHLO c.test")
        assert client.command(plain("shop1", PASSWORD)).startswith("235 2.7.0")
        first = queue_id(send(client))
    with gateway.connect() as client:
        client.command(b"EHLO c.test")
        assert login(client, "shop2", OTHER_PASSWORD).startswith("235 2.7.0")
        second = queue_id(send(client))
    provider.wait_for_messages(2)
    gateway.wait_until_empty()
    for name, found in (("shop1", first), ("shop2", second)):
        entry = gateway.entry(found)
        assert entry.source.user == name
        assert b" with ESMTPA id " in provider.messages[name == "shop2"].content
    gateway.stop()  # at the end, else once a minute, it writes who logged in
    used = {one.name: one.used_at_ms for one in gateway.store.sessions.known()}
    assert used.keys() == {"shop1", "shop2"}
    assert None not in used.values()


@on_a_database
def test_a_user_takes_turns_as_itself(door: tuple[Gateway, ThreadedProvider]) -> None:
    gateway, _ = door
    with gateway.connect() as client:
        client.command(b"EHLO c.test")
        client.command(plain("shop1", PASSWORD))
        found = queue_id(send(client))
    with gateway.store.database.read() as connection:
        key = select(message.c.client_key).where(message.c.queue_id == found)
        assert connection.execute(key).scalar_one() == "shop1"


def test_without_a_login_nothing_is_relayed(door: tuple[Gateway, ThreadedProvider]) -> None:
    gateway, _ = door
    with gateway.connect() as client:
        client.command(b"EHLO c.test")
        assert send(client).startswith("554 5.7.1")


def test_a_user_sends_as_who_it_is(door: tuple[Gateway, ThreadedProvider]) -> None:
    gateway, _ = door
    with gateway.connect() as client:
        client.command(b"EHLO c.test")
        client.command(plain("shop1", PASSWORD))
        for sender in ("a@shop2.test", "a@sub.shop1.test", "shop1.test@evil.test"):
            assert send(client, sender).startswith("553 5.7.1"), sender
        queue_id(send(client, "A@SHOP1.test"))
        queue_id(send(client, ""))


def test_wrong_passwords_and_unknown_users_look_the_same(
    door: tuple[Gateway, ThreadedProvider],
) -> None:
    gateway, _ = door
    told: list[tuple[str, float]] = []
    for name in ("shop1", "nobody"):
        with gateway.connect() as client:
            client.command(b"EHLO c.test")
            began_s = time.monotonic()
            told.append((client.command(plain(name, "wrong")), time.monotonic() - began_s))
            assert send(client).startswith("554 5.7.1")
    assert told[0][0] == told[1][0] == "535 5.7.8 Error: authentication failed"
    assert all(took_s > DELAY_S for _, took_s in told)
    gateway.wait_for_log(r"SASL PLAIN authentication failed: sasl_username=shop1$")
    gateway.wait_for_log(r"SASL PLAIN authentication failed: sasl_username=\(unknown\)$")


def test_another_identity_is_refused(door: tuple[Gateway, ThreadedProvider]) -> None:
    gateway, _ = door
    with gateway.connect() as client:
        client.command(b"EHLO c.test")
        assert client.command(plain("shop1", PASSWORD, "shop2")).startswith("535 5.7.8")
        assert client.command(plain("shop1", PASSWORD, "shop1")).startswith("235 ")


def test_many_failures_lock_an_address_for_every_password(
    door: tuple[Gateway, ThreadedProvider],
) -> None:
    """T8, brute force: 421 after five on one connection, 454 from then on after ten."""
    gateway, _ = door
    for _ in range(2):
        with gateway.connect() as client:
            client.command(b"EHLO c.test")
            answers = [client.command(plain("shop1", f"wrong{n}"))[:9] for n in range(5)]
            assert answers == ["535 5.7.8"] * 4 + ["421 4.7.0"]
            assert client.is_closed()
    with gateway.connect() as client:
        client.command(b"EHLO c.test")
        began_s = time.monotonic()
        assert client.command(plain("shop1", PASSWORD)).startswith("454 4.7.0")
        assert time.monotonic() - began_s < DELAY_S


def test_a_bare_line_feed_in_a_login_ends_the_session(
    door: tuple[Gateway, ThreadedProvider],
) -> None:
    gateway, _ = door
    with gateway.connect() as client:
        client.command(b"EHLO c.test")
        assert client.command(b"AUTH LOGIN").startswith("334 ")
        client.send(base64.b64encode(b"shop1") + b"\n")
        assert client.read_reply().startswith("501 5.5.2")
        assert client.is_closed()


def test_an_exhausted_connection_does_not_hold_others_up(
    door: tuple[Gateway, ThreadedProvider],
) -> None:
    gateway, _ = door
    with gateway.connect() as guesser, gateway.connect() as client:
        guesser.command(b"EHLO c.test")
        guesser.send(plain("shop1", "wrong") + b"\r\n")
        client.command(b"EHLO c.test")
        began_s = time.monotonic()
        assert client.command(plain("shop1", PASSWORD)).startswith("235 ")
        queue_id(send(client))
        assert time.monotonic() - began_s < DELAY_S
        assert guesser.read_reply().startswith("535 ")


def test_lines_behind_a_refused_auth_are_not_logged(door: tuple[Gateway, ThreadedProvider]) -> None:
    """A client that does not wait sends its password as a command."""
    gateway, _ = door
    with gateway.connect() as client:
        client.command(b"HELO c.test")
        secret = plain("shop1", PASSWORD).split()[2]
        client.send(b"AUTH LOGIN\r\n" + secret + b"\r\n" + secret + b"\r\n")
        assert client.read_reply().startswith("503 ")
        for _ in range(2):
            assert client.read_reply().startswith("500 ")
        assert client.command(b"auth\tplain " + secret).startswith("500 ")
        assert client.command(b"FROB x").startswith("500 ")
    gateway.wait_for_log(r"NOQUEUE: reject: AUTH .* command=\(hidden\)$", count=3)


def test_a_login_may_be_required_of_everyone(tmp_path: Path) -> None:
    with (
        open_door(tmp_path, {"auth": "required"}, users=USERS) as (gateway, _),
        gateway.connect() as client,
    ):
        client.command(b"EHLO c.test")
        assert client.command(b"MAIL FROM:<a@shop1.test>").startswith("530 5.7.0")
        client.command(plain("shop1", PASSWORD))
        queue_id(send(client))


def test_auth_off_knows_no_auth(tmp_path: Path) -> None:
    listeners = ({"auth": "off"}, {})
    with open_door(tmp_path, *listeners, users=USERS) as (gateway, _):
        with gateway.connect() as client:
            assert "AUTH" not in client.command(b"EHLO c.test")
            assert client.command(plain("shop1", PASSWORD)).startswith("502 5.5.1")
        assert_no_password(tmp_path, gateway)


def test_a_network_gets_no_auth_in_clear(tmp_path: Path) -> None:
    """T4: not offered and refused before TLS, unless nothing crosses a network."""
    pair = make_pair(tmp_path)
    listener = {"allow": NOBODY, "tls": pair.tls("starttls"), "proxy_protocol": ["127.0.0.1/32"]}
    with open_door(tmp_path, {**listener, "auth": "required"}, users=USERS) as (gateway, _):
        with connect_behind(gateway, b"PROXY TCP4 198.51.100.7 10.0.0.1 5000 25\r\n") as client:
            offered = client.command(b"EHLO c.test")
            assert "STARTTLS" in offered
            assert "AUTH" not in offered
            assert client.command(plain("shop1", PASSWORD)).startswith("538 5.7.11")
            assert client.command(b"MAIL FROM:<a@shop1.test>").startswith("530 5.7.0 Must issue")
            assert "250-AUTH PLAIN LOGIN" in starttls(client, pair.client_context)
            assert client.command(plain("shop1", PASSWORD)).startswith("235 ")
            queue_id(send(client))
        assert_no_password(tmp_path, gateway)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_logs_in_over_tls(tmp_path: Path, mechanism: str) -> None:
    pair = make_pair(tmp_path)
    listener = {"allow": NOBODY, "tls": pair.tls("starttls")}
    with open_door(tmp_path, listener, users=USERS) as (gateway, provider):
        where = ["--server", "127.0.0.1", "--port", str(gateway.smtp_port), "--helo", "c.test"]
        who = ["--auth", mechanism, "--auth-user", "shop1", "--auth-password", PASSWORD]
        mail = ["--from", "a@shop1.test", "--to", "b@cust.test"]
        done = subprocess.run(
            ["swaks", *where, *who, *mail, "--tls"],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        provider.wait_for_messages(1)
        assert b" with ESMTPSA id " in provider.messages[0].content
        assert_no_password(tmp_path, gateway)
