"""A thin spool tells a central gateway where mail came from; nobody else may; no provider hears."""

from __future__ import annotations

import os
import re
import smtplib
from pathlib import Path

import pytest

from relaygw.mail.envelope import Source
from relaygw.mail.source_header import source_line
from relaygw.mail.state import DeliveryState
from relaygw.store.queue_entry import QueueEntry
from tests.e2e.gateway import PATIENCE_S, Gateway, gateway_to, provider_settings
from tests.e2e.sendmail_rig import Installation
from tests.fakes.scripted_provider import ThreadedProvider

ALL_STATES = frozenset(DeliveryState)
FORGED = source_line(Source(host="bank", uid=0, user="root", script="0:evil.php"))
LOCAL = b"X-PHP-Originating-Script: 33:mail.php\nSubject: order\n\nhello\n"


def central(directory: Path, port: int, **provider: object) -> Gateway:
    directory.mkdir()
    return Gateway(
        directory,
        hostname="central.test",
        providers={"main": provider_settings(port, **provider)},
        listeners=[{"bind": "127.0.0.1:0", "trust_source": ["127.0.0.1"]}],
    )


def spool(directory: Path, port: int, **provider: object) -> Gateway:
    directory.mkdir()
    settings = provider_settings(port, send_source=True, **provider)
    return Gateway(directory, hostname="web1.test", providers={"central": settings})


def only_entry(gateway: Gateway) -> QueueEntry:
    (entry,) = gateway.queue(ALL_STATES)
    return entry


def test_the_source_travels_to_the_central_gateway(command: Installation, tmp_path: Path) -> None:
    with (
        ThreadedProvider() as provider,
        central(tmp_path / "central", provider.port) as second,
        spool(tmp_path / "spool", second.smtp_port) as first,
    ):
        first.wait_until((tmp_path / "spool/maildrop/wake").exists, "a maildrop")
        sent = command.run(
            "-f", "a@shop.test", "b@cust.test", content=LOCAL,
            maildrop=tmp_path / "spool" / "maildrop",
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        provider.wait_for_messages(1)
        second.wait_until_empty()
        here, there = only_entry(first).source, only_entry(second).source
        (line,) = second.wait_for_log(r"smtpd\[\d+\]: \w+: client=")
    assert here.uid == os.getuid() and here.cwd == str(Path.cwd())
    assert there == Source(
        client="127.0.0.1",
        helo="web1.test",
        listener=there.listener,
        host="web1.test",
        uid=os.getuid(),
        script="33:mail.php",
    )
    assert "client=unknown[127.0.0.1]" in line
    (message,) = provider.messages
    assert b"relaygw-source" not in message.content.lower()
    assert message.content.endswith(LOCAL.replace(b"\n", b"\r\n"))
    assert re.search(rb"\AReceived: from web1\.test ", message.content)


@pytest.mark.parametrize("body_bytes", [100, 3_000_000], ids=["small", "streamed"])
def test_what_an_smtp_client_of_the_spool_says_is_replaced(tmp_path: Path, body_bytes: int) -> None:
    body = b"\r\n" + (b"x" * 70 + b"\r\n") * (body_bytes // 72)
    with (
        ThreadedProvider() as provider,
        central(tmp_path / "central", provider.port) as second,
        spool(tmp_path / "spool", second.smtp_port) as first,
    ):
        queue_id = first.send("a@shop.test", ["b@cust.test"], FORGED + b"Subject: x\r\n" + body)
        (warned,) = first.wait_for_log("X-Relaygw-Source")
        provider.wait_for_messages(1)
        second.wait_until_empty()
        source = only_entry(second).source
    assert f"{queue_id}: X-Relaygw-Source of unknown[127.0.0.1] removed, not trusted" in warned
    assert (source.host, source.uid, source.user) == ("web1.test", None, None)
    (message,) = provider.messages
    assert b"relaygw-source" not in message.content.lower()
    assert message.content.endswith(b"Subject: x\r\n" + body)


def test_a_spoofing_client_is_not_believed_and_named_once_a_connection(tmp_path: Path) -> None:
    with ThreadedProvider() as provider, central(tmp_path / "central", provider.port) as gateway:
        with smtplib.SMTP(
            "127.0.0.1",
            gateway.smtp_port,
            "client.test",
            PATIENCE_S,
            source_address=("127.0.0.3", 0),
        ) as client:
            for _ in range(3):
                client.sendmail(
                    "a@shop.test", ["b@cust.test"], FORGED + b"Subject: x\r\n\r\nhi\r\n"
                )
        provider.wait_for_messages(3)
        gateway.wait_until_empty()
        sources = [entry.source for entry in gateway.queue(ALL_STATES)]
        warned = [line for line in gateway.lines if "X-Relaygw-Source" in line]
    assert len(sources) == 3
    for source in sources:
        assert (source.client, source.host, source.uid) == ("127.0.0.3", None, None)
        assert (source.user, source.script) == (None, None)
    assert len(warned) == 1 and "unknown[127.0.0.3]" in warned[0]
    for message in provider.messages:
        assert b"relaygw-source" not in message.content.lower()


@pytest.mark.parametrize("is_chaining", [False, True])
def test_a_provider_gets_its_fields_in_front_of_every_mail(
    tmp_path: Path, is_chaining: bool
) -> None:
    with ThreadedProvider() as provider:
        settings = provider_settings(
            provider.port,
            send_source=True,
            headers={"X-PM-Message-Stream": "outbound", "subject": "unused"},
            chain_transactions=is_chaining,
            max_connections=1,
            max_message_size=2000,
        )
        with Gateway(tmp_path, providers={"main": settings}) as gateway:
            for number in range(20):
                gateway.send("a@shop.test", ["b@cust.test"], b"Subject: %d\r\n\r\nhi\r\n" % number)
            large = gateway.send(
                "a@shop.test", ["b@cust.test"], b"Subject: x\r\n\r\n" + b"y" * 1900
            )
            provider.wait_for_messages(20)
            gateway.wait_until_empty()
            (bounced,) = gateway.entry(large).recipients
    expected = b"X-Relaygw-Source: v=1; host=gw.test; client=127.0.0.1\r\n"
    expected += b"X-PM-Message-Stream: outbound\r\nReceived: from client.test "
    for message in provider.messages:
        assert message.content.startswith(expected), message.content
        assert message.content.count(b"ubject:") == 1
        assert f"SIZE={len(message.content)}" in message.mail_parameters
    assert (bounced.state, bounced.dsn) == ("bounced", "5.3.4")
    assert re.search(r"^552 5\.3\.4 .* its max_message_size is 2000$", bounced.reply or "")


@pytest.mark.parametrize("has_dsn", [True, False])
def test_dsn_wishes_reach_a_provider_that_takes_them(
    command: Installation, tmp_path: Path, has_dsn: bool
) -> None:
    extensions = ["PIPELINING", "SIZE 52428800", "8BITMIME", *(["DSN"] if has_dsn else [])]
    with (
        ThreadedProvider(extensions=extensions) as provider,
        gateway_to(provider, tmp_path) as gateway,
    ):
        gateway.wait_until((tmp_path / "maildrop/wake").exists, "a maildrop")
        words = ("-N", "failure,delay", "-R", "hdrs", "-V", "order 1+1", "b@cust.test")
        sent = command.run(*words, content=LOCAL, maildrop=tmp_path / "maildrop")
        assert sent.returncode == 0, sent.stderr
        provider.wait_for_messages(1)
    (message,) = provider.messages
    wishes = {"RET=HDRS", "ENVID=order+201+2B1"}
    assert wishes & set(message.mail_parameters) == (wishes if has_dsn else set())
    (connection,) = provider.connections
    (rcpt,) = [line for line in connection.commands if line.startswith(b"RCPT")]
    assert rcpt == b"RCPT TO:<b@cust.test>" + (b" NOTIFY=FAILURE,DELAY" if has_dsn else b"")
