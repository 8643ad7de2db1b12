"""Events of six providers through the real listener: each counts once, forgeries never do."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.store.store import Store
from relaygw.web.feedback import Bounds
from relaygw.web.server import ConnectionLimit
from tests.campaign import times
from tests.feedback.documented import EXAMPLES, examples
from tests.feedback.forgeries import FORGERIES, stolen
from tests.feedback.signers import SIGNERS, Ses
from tests.integration.events_rig import listening_at, open_registered
from tests.integration.web.test_web_patience import rest_of
from tests.tables import each_of

POSTS = times(2, campaign=10)  # of each event


@pytest.mark.campaign
async def test_each_documented_event_counts_once_however_often_it_comes(
    store: Store, url: str
) -> None:
    """Several times each, shuffled, to two instances."""
    other = open_registered(url, "two")
    async with listening_at(store) as one, listening_at(other, one.signers) as two:
        wanted = {}
        tries: list[tuple[str, dict[str, Any]]] = []
        for example in EXAMPLES:
            queue_id, sent = one.sent(example.preset, f"{len(wanted)}@cust.test")
            tries += [(example.preset, example.make(sent))] * POSTS
            if example.kind is not None:
                wanted[f"{queue_id}/0"] = example.kind.value
        random.Random(1).shuffle(tries)
        gate = asyncio.Semaphore(16)

        async def post(number: int, preset: str, payload: dict[str, Any]) -> int:
            async with gate:
                at = (one, two)[number % 2]
                return await at.post(at.signers[preset].sign([payload], clock_ms()), preset)

        posts = [post(number, *each) for number, each in enumerate(tries)]
        assert set(await asyncio.gather(*posts)) == {200}
        await one.until_read()
        await one.until(lambda: len(one.new) + len(two.new) >= len(wanted))
        assert one.verdicts() == wanted
        assert len(one.events()) == len(one.new) + len(two.new) == len(wanted)
    other.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # none of them comes to a database
async def test_no_forgery_has_any_effect(store: Store) -> None:
    async with listening_at(store, bounds=Bounds(refused_of_client=(1e6, 1e6))) as at:
        mail = {name: at.sent(name)[1] for name in SIGNERS}
        for forgery in FORGERIES:
            signed = forgery.make(at.signers[forgery.preset], mail[forgery.preset], clock_ms())
            if not all(value.isprintable() for value in signed.headers.values()):
                continue  # no client sends it
            await at.post(signed, forgery.preset)
        await at.until_read()
        assert at.events() == []
        assert sum(at.refused[name, "not_believed"] for name in SIGNERS) >= 500


async def test_what_signed_a_post_signs_no_other(store: Store) -> None:
    async with listening_at(store) as at:
        _, mail = at.sent("mailgun")
        signer = at.signers["mailgun"]
        genuine = signer.sign([examples("mailgun")[0].make(mail)], clock_ms())
        assert await at.post(genuine, "mailgun") == 200
        for signed in stolen(signer, genuine, mail):
            assert await at.post(signed, "mailgun") == 200
        await at.until_read()
        assert [row.kind for row in at.events()] == ["accepted"]
        assert at.refused["mailgun", "used"] == 3


async def test_subscriptions_of_our_topic_are_confirmed(store: Store) -> None:
    async with listening_at(store) as at:
        ses: Ses = at.signers["ses"]
        confirmation = ses.confirmation(clock_ms())
        assert await at.post(confirmation, "ses") == 503, "Amazon does not answer"
        ses.served[json.loads(confirmation.body)["SubscribeURL"]] = b"<ok/>"
        assert await at.post(confirmation, "ses") == 200
        stranger = Ses(topic="arn:aws:sns:us-east-1:999999999999:evil").confirmation(clock_ms())
        fetched = list(ses.fetched)
        assert await at.post(stranger, "ses") == 403
        assert ses.fetched == fetched


# --- nothing else is served ------------------------------------------------------------------


@each_of(
    "method, path",
    [
        ("GET", "/events/sendgrid"),
        ("PUT", "/events/sendgrid"),
        ("HEAD", "/"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("POST", "/"),
        ("POST", "/events/"),
        ("POST", "/events/nobody"),
        ("POST", "/events/sendgrid/"),
        ("POST", "/events//sendgrid"),
        ("POST", "/x/../events/nobody"),
        ("POST", "/EVENTS/sendgrid"),
        ("GET", "/api/gateway/v1/status"),
    ],
)
async def check_nothing_is_there(method: str, path: str, at: Any) -> None:
    response = await at.client.request(method, path)
    assert (response.status_code, response.content) == (404, b"")


async def test_nothing_else_is_served_and_any_host_is_taken(store: Store) -> None:
    async with listening_at(store) as at:
        await check_nothing_is_there(at=at)
        _, sent = at.sent("postmark")
        signed = at.signers["postmark"].sign([examples("postmark")[0].make(sent)], clock_ms())
        headers = {**signed.headers, "Host": "evil.test"}
        answer = await at.client.post("/events/postmark", content=signed.body, headers=headers)
        assert answer.status_code == 200
        unauthorized = await at.client.post("/events/postmark", content=signed.body)
        assert unauthorized.headers["www-authenticate"].startswith("Basic")


# --- bounds ----------------------------------------------------------------------------------


async def _talk(at: Any, head: str, body: bytes = b"", *, patience_s: float = 30) -> bytes:
    """Send a request by hand and return all that comes until the end."""
    port = at.client.base_url.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace("\n", "\r\n").encode() + body)
    try:
        return await asyncio.wait_for(reader.read(), patience_s)
    finally:
        writer.close()


async def test_a_large_post_is_refused_before_it_is_read(store: Store) -> None:
    async with listening_at(store) as at:
        head = "POST /events/sendgrid HTTP/1.1\nHost: x\nContent-Length: {}\n\n"
        for length in ("1048577", "99999999999999", "1" * 60):
            answer = await _talk(at, head.format(length))
            assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))
        chunked = "POST /events/sendgrid HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n"
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        assert (await _talk(at, chunked, piece * 17)).startswith(b"HTTP/1.1 413")
        assert at.refused["sendgrid", "too_large"] >= 2
        assert at.events() == []


async def test_what_is_compressed_is_not_opened(store: Store) -> None:
    async with listening_at(store) as at:
        bomb = gzip.compress(b"[" * 2**24)
        headers = {"Content-Encoding": "gzip"}
        answer = await at.client.post("/events/sendgrid", content=bomb, headers=headers)
        assert answer.status_code == 415


async def test_a_slow_body_is_given_up(store: Store) -> None:
    async with listening_at(store, bounds=Bounds(body_s=0.2)) as at:
        head = "POST /events/sendgrid HTTP/1.1\nHost: x\nContent-Length: 100\n\n"
        assert (await _talk(at, head, b"[")).startswith(b"HTTP/1.1 408")
        assert at.refused["sendgrid", "too_slow"] == 1


async def test_bodies_in_memory_are_few(store: Store) -> None:
    async with listening_at(store, bounds=Bounds(held_bytes=200_000)) as at:
        head = "POST /events/brevo HTTP/1.1\nHost: x\nContent-Length: 150001\n\n"
        port = at.client.base_url.port
        _, holding = await asyncio.open_connection("127.0.0.1", port)
        holding.write(head.replace("\n", "\r\n").encode() + b"x" * 150_000)
        while not at.refused["brevo", "too_many"]:  # until the first one is held
            answer = await _talk(at, head, b"x" * 150_001)
            assert answer.startswith(b"HTTP/1.1 429"), "Brevo posts again after that alone"
        holding.close()


async def test_guesses_are_cut_off_and_others_go_on(store: Store) -> None:
    async with listening_at(store, bounds=Bounds(refused_of_client=(0.001, 20.0))) as at:
        _, sent = at.sent("postmark")
        payload = examples("postmark")[0].make(sent)
        guess = {"X-Forwarded-For": "192.0.2.66", "Authorization": "Basic eDp5"}
        statuses = [
            (await at.client.post("/events/postmark", json=payload, headers=guess)).status_code
            for _ in range(25)
        ]
        assert statuses == [401] * 20 + [503] * 5
        assert at.refused["postmark", "too_many"] == 5
        signed = at.signers["postmark"].sign([payload], clock_ms())
        assert await at.post(signed, "postmark") == 200


async def test_too_many_posts_of_one_client_are_put_off(store: Store) -> None:
    async with listening_at(store, bounds=Bounds(of_client=(0.001, 5.0))) as at:
        _, sent = at.sent("brevo")
        signed = at.signers["brevo"].sign([examples("brevo")[0].make(sent)], clock_ms())
        assert [await at.post(signed, "brevo") for _ in range(7)] == [200] * 5 + [429] * 2


async def test_while_the_store_is_away_providers_are_to_post_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relaygw.errors import StoreUnavailable

    def fail(*_: Any) -> None:
        raise StoreUnavailable("gone")

    async with listening_at(store) as at:
        mail = {name: at.sent(name)[1] for name in SIGNERS}
        made = {name: examples(name)[0].make(sent) for name, sent in mail.items()}
        with monkeypatch.context() as patch:
            patch.setattr(at.store.feedback, "_write", fail)
            for name, payload in made.items():
                signed = at.signers[name].sign([payload], clock_ms())
                wanted = 429 if name == "brevo" else 503
                assert await at.post(signed, name) == wanted
        for name, payload in made.items():
            assert await at.post(at.signers[name].sign([payload], clock_ms()), name) == 200
        await at.until_read()
        assert len(at.events()) == len(made)


async def test_who_is_cut_off_takes_nothing_of_what_all_have(store: Store) -> None:
    bounds = Bounds(of_all=(0.001, 10.0), of_client=(0.001, 8.0), refused_of_client=(0.001, 3.0))
    async with listening_at(store, bounds=bounds) as at:
        _, sent = at.sent("postmark")
        payload = examples("postmark")[0].make(sent)
        for guess in ({"Authorization": "Basic eDp5"}, {}):
            headers = {"X-Forwarded-For": "192.0.2.66", **guess}
            for _ in range(10):
                await at.client.post("/events/postmark", json=payload, headers=headers)
        signed = at.signers["postmark"].sign([payload], clock_ms())
        assert await at.post(signed, "postmark") == 200


async def test_half_open_connections_shut_nobody_out(store: Store) -> None:
    """What is beyond the limits ends without an answer, which providers take for a time-out."""
    closed: list[tuple[str, str]] = []
    limit = ConnectionLimit(of_all=5, of_one=3, refused=lambda *one: closed.append(one))
    async with listening_at(store, limit=limit) as at, AsyncExitStack() as held:
        port = at.client.base_url.port

        async def half(host: str) -> asyncio.StreamReader:
            opened = asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))
            reader, writer = await opened
            held.callback(writer.close)
            writer.write(b"POST /e")
            return reader

        readers = [await half("127.0.0.2") for _ in range(8)]
        await at.until(lambda: len(closed) == 5)
        assert set(closed) == {("127.0.0.2", "of_one")}
        ends = [await rest_of(reader) for reader in readers[3:]]
        assert ends == [b""] * 5
        _, sent = at.sent("brevo")
        signed = at.signers["brevo"].sign([examples("brevo")[0].make(sent)], clock_ms())
        assert await at.post(signed, "brevo") == 200
        await half("127.0.0.3")  # with the one that the client keeps open there are five
        last = await half("127.0.0.1")
        assert await rest_of(last) == b""
        assert closed[5:] == [("127.0.0.1", "of_all")]
        assert await at.post(signed, "brevo") == 200, "who is there goes on"


async def test_who_sends_no_head_makes_room(store: Store) -> None:
    limit = ConnectionLimit(of_all=1)
    async with listening_at(store, limit=limit, head_s=0.1) as at:
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", at.client.base_url.port)
            writer.write(b"POST /events/brevo HTTP/1.1\r\nUpgrade: websocket\r\n")
            assert await rest_of(reader) == b""
            writer.close()
        _, sent = at.sent("brevo")
        signed = at.signers["brevo"].sign([examples("brevo")[0].make(sent)], clock_ms())
        assert await at.post(signed, "brevo") == 200
