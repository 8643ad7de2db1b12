"""What a provider reports reaches every instance within seconds, and a kill loses nothing of it."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy import select

from relaygw.mail.clock import clock_ms
from relaygw.store.side_tables import event_post, provider_event, suppression, verdict
from relaygw.store.store import Store
from tests.campaign import times
from tests.e2e.fleet import Start
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.ports import fixed_binds, free_port
from tests.fakes.scripted_provider import ThreadedProvider
from tests.feedback.documented import Sent, examples
from tests.feedback.signers import SendGrid
from tests.forked import run_relaygw

SIGNER = SendGrid()
EVENTS = {"events": {"bind": "127.0.0.1:0"}}
BOUNCE = next(one for one in examples("sendgrid") if one.name == "bounce")
CONTENT = b'X-SMTPAPI: {"category": "orders"}\r\nSubject: order\r\n\r\nhello\r\n'


def sendgrid() -> ThreadedProvider:
    return ThreadedProvider(auth=("PLAIN",), users={"apikey": "api-key"})


def sendgrid_at(port: int) -> dict[str, Any]:
    """Settings of a SendGrid on this machine that reports events."""
    login = {"password": "plain:api-key", "auth_without_tls": True, "auth": "plain"}
    events = {"events": {"secret": f"plain:{SIGNER.secret}"}}
    return provider_settings(port, preset="sendgrid", **login, **events)


def events_url(gateway: Gateway) -> str:
    """Return where a gateway takes the events of its provider."""
    (line,) = gateway.wait_for_log(r"events on http://\S+")[-1:]
    found = re.search(r"events on (http://\S+:\d+)", line)
    assert found is not None
    return f"{found[1]}/events/sendgrid"


def sent_by(gateway: Gateway, provider: ThreadedProvider, address: str) -> tuple[str, Sent]:
    """Send a mail; return its queue id, and it as the provider knows it."""
    count = len(provider.messages)
    queue_id = gateway.send("a@shop.test", [address], CONTENT)
    provider.wait_for_messages(count + 1)
    head = provider.messages[-1].content.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ")
    (line,) = (one for one in head.split(b"\r\n") if one.startswith(b"X-SMTPAPI:"))
    told = json.loads(line.partition(b":")[2])
    assert told["category"] == "orders", "what the shop set stays"
    mark = told["unique_args"]["relaygw"]
    return queue_id, Sent(address=address, mark=mark, at_ms=clock_ms())


def post(url: str, sent: Sent) -> None:
    """Post a bounce of a mail as SendGrid does."""
    signed = SIGNER.sign([BOUNCE.make(sent)], clock_ms())
    assert httpx2.post(url, content=signed.body, headers=signed.headers).status_code == 200


def count(store: Store, table: Any) -> int:
    with store.database.read() as tx:
        return len(tx.execute(select(table)).all())


@pytest.mark.campaign
def test_an_event_at_one_instance_is_known_to_every_other_within_a_second(start: Start) -> None:
    with sendgrid() as provider:
        settings = {"sendgrid": sendgrid_at(provider.port)}
        listening, other = (
            start("gw1", providers=settings, **EVENTS),
            start("gw2", providers=settings),
        )
        url = events_url(listening)
        took_s = []
        for number in range(times(3, campaign=100)):
            address = f"{number}@cust.test"
            queue_id, sent = sent_by(other, provider, address)
            began_s = time.monotonic()
            post(url, sent)
            for one in (listening, other):
                one.wait_until(partial(_is_known, one.store, queue_id, address), "it is known")
            took_s.append(time.monotonic() - began_s)
        print(f"known to both instances after {max(took_s):.2f} s at most")
        assert statistics.median(took_s) <= 5, took_s
        for one in (listening, other):
            told = run_relaygw(
                ["--config", one.config, "queue", "explain", queue_id],
                capture_output=True,
                text=True,
                env=one.environment,
            )
            assert "unknown recipient" in told.stdout, told


def _is_known(store: Store, queue_id: str, address: str) -> bool:
    with store.database.read() as tx:
        words = tx.execute(select(verdict.c.kind).where(verdict.c.queue_id == queue_id)).all()
        listed = tx.execute(select(suppression).where(suppression.c.address == address)).all()
    return [tuple(one) for one in words] == [("hard",)] and len(listed) > 0


@contextmanager
def nobody_reads(url: str) -> Iterator[None]:
    """Let everyone wait who wants to write what a post tells, for the length of a with block."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE provider_event IN ACCESS EXCLUSIVE MODE")
        yield


def test_a_gateway_that_is_killed_after_its_200_loses_nothing_and_counts_once(
    start: Start, queue_url: str
) -> None:
    with sendgrid() as provider:
        gateway = start("gw1", providers={"sendgrid": sendgrid_at(provider.port)}, **EVENTS)
        url = events_url(gateway)
        mail = [sent_by(gateway, provider, f"{number}@cust.test") for number in range(5)]
        with nobody_reads(queue_url):
            for _, sent in mail:
                post(url, sent)
            gateway.kill_all()
        assert count(gateway.store, event_post) == len(mail)
        assert count(gateway.store, verdict) == 0
        seen = len(gateway.lines)
        gateway.start()
        gateway.wait_until(lambda: count(gateway.store, event_post) == 0, "all posts are read")
        assert count(gateway.store, provider_event) == count(gateway.store, verdict) == len(mail)
        (line,) = gateway.wait_for_log(r"events on http://\S+", start=seen)[-1:]
        new_url = re.search(r"http://\S+:\d+", line)
        assert new_url is not None
        for _, sent in mail:  # SendGrid posts what it has no answer to
            post(f"{new_url[0]}/events/sendgrid", sent)
        gateway.wait_until(lambda: count(gateway.store, event_post) == 0, "all posts are read")
        assert count(gateway.store, provider_event) == len(mail)


def test_the_listener_comes_and_goes_with_a_reload(tmp_path: Path) -> None:
    with sendgrid() as provider:
        settings = {"sendgrid": sendgrid_at(provider.port)}
        events = {"events": {"bind": f"127.0.0.1:{free_port()}"}}
        with Gateway(tmp_path, providers=settings, **fixed_binds(), **events) as gateway:
            url = events_url(gateway)
            assert httpx2.post(url, content=b"[]").status_code >= 400
            gateway.settings["providers"]["sendgrid"]["events"] = None
            gateway.settings["events"] = {"bind": None}
            position = gateway.reload()
            gateway.wait_for_log("reloaded", start=position)
            gateway.wait_until(lambda: _is_closed(url), "nobody listens")
            gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
            provider.wait_for_messages(1)
            assert b"unique_args" not in provider.messages[-1].content


def _is_closed(url: str) -> bool:
    try:
        httpx2.post(url, content=b"[]")
    except httpx2.TransportError:
        return True
    return False
