"""One post to a receiver that answers, refuses, lies, hangs, or is where it may not be."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from relaygw import http_request
from relaygw.mail.clock import clock_ms
from relaygw.reach import verifying_context
from relaygw.webhooks import post
from relaygw.webhooks.post import NotTaken, Target, body_of, headers_of, send_post, trial_event
from tests.e2e.ports import free_port
from tests.fakes.event_receiver import SECRET, EventReceiver
from tests.tables import each_of


def trial(keys: tuple[str, ...] = (SECRET,)) -> tuple[bytes, dict[str, str]]:
    now_ms = clock_ms()
    body = body_of([trial_event(now_ms)], hostname="gw.test", mode="staging", at_ms=now_ms)
    return body, headers_of(body, post_id="msg_1", keys=keys, at_ms=now_ms)


async def send(url: str, *, limit_s: float = 15.0, allow_private: bool = False) -> int:
    target = Target(url, (SECRET,), verifying_context(), allow_private=allow_private)
    return await send_post(target, *trial(), limit_s=limit_s)


async def refusal(url: str, **more: float) -> NotTaken:
    with pytest.raises(NotTaken) as found:
        await send(url, **more)
    assert "token-of-the-url" not in str(found.value)
    assert "hidden" not in str(found.value)
    return found.value


@each_of("status", [200, 202, 204, 299])
async def test_any_2xx_takes_a_post(status: int) -> None:
    with EventReceiver(status) as receiver:
        assert await send(receiver.url) == status
        receiver.wait_for(1)
        receiver.check()
    (post_id, (event,)) = receiver.posts[0]
    assert (post_id, event["kind"]) == ("msg_1", "test")
    assert receiver.bodies[0]["type"] == "mail.events"
    assert receiver.bodies[0]["version"] == 1
    assert receiver.bodies[0]["mode"] == "staging"


@each_of("status", [300, 301, 302, 307, 308, 400, 401, 404, 410, 413, 429, 500, 502, 503, 504])
async def test_all_else_does_not_and_a_redirect_is_not_followed(status: int) -> None:
    with EventReceiver(status) as receiver, EventReceiver() as elsewhere:
        receiver.headers = {"Location": elsewhere.url}
        error = await refusal(receiver.url)
    assert f"127.0.0.1:{receiver.port} answered {status}" in str(error)
    assert error.is_gone is (status == 410)
    assert (receiver.asked, elsewhere.asked) == (1, 0)


@each_of(
    ("given", "seconds"),
    [
        ("7", 7),
        ("31536000", 31536000),
        ("99999999999999999999999999", 9999999999),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("²", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 0),
    ],
)
async def test_retry_after_is_read_as_seconds_or_a_date(given: str, seconds: float | None) -> None:
    assert post.seconds_of(given) == seconds or (seconds == 0 and post.seconds_of(given))
    in_a_minute = post.seconds_of(formatdate(time.time() + 60, usegmt=True))
    assert in_a_minute is not None
    assert 50 < in_a_minute <= 60


def endless_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with suppress(OSError):
        while True:
            handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def slow_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    with suppress(OSError):
        while True:
            handler.wfile.write(b"a")
            time.sleep(0.05)


def many_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    with suppress(OSError):
        while True:
            handler.wfile.write(b"X-More: " + b"a" * 1000 + b"\r\n")


def only_continue(handler: BaseHTTPRequestHandler) -> None:
    with suppress(OSError):
        while True:
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.01)


def says_nothing(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def closes(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"220 mx.test ESMTP\r\n")


def other_protocol(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"220 mx.test ESMTP\r\n\r\n")


def refuses_unread(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 410 Gone\r\nRetry-After: 7\r\n\r\n"
    )


async def test_what_comes_before_the_answer_is_none() -> None:
    with EventReceiver(refuses_unread) as receiver:
        error = await refusal(receiver.url)
    assert (error.is_gone, error.retry_after_s) == (True, 7)


async def test_what_is_asked_of_a_receiver() -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append((handler.path, {k.lower(): v for k, v in handler.headers.items()}))
        handler.send_response(204)
        handler.end_headers()

    with EventReceiver(answer) as receiver:
        host = f"127.0.0.1:{receiver.port}"
        for path in ("", "?a=b&c=%20d", "/x/%C3%A4?q#part"):
            assert await send(f"http://{host}{path}") == 204
        receiver.check()
    assert [path for path, _ in seen] == ["/", "/?a=b&c=%20d", "/x/%C3%A4?q"]
    assert {headers["host"] for _, headers in seen} == {host}
    assert {headers["connection"] for _, headers in seen} == {"close"}


async def test_an_answer_without_end_is_an_answer_and_is_not_read() -> None:
    with EventReceiver(endless_body) as receiver:
        assert await send(receiver.url, limit_s=5) == 200


@each_of("answer", [slow_headers, many_headers, only_continue, says_nothing, closes, no_http])
async def test_a_receiver_that_lies_or_hangs_costs_a_time_and_nothing_else(answer) -> None:
    with EventReceiver(answer) as receiver:
        begun_s = time.monotonic()
        error = await refusal(receiver.url, limit_s=1.0)
        assert time.monotonic() - begun_s < 10
    assert f"127.0.0.1:{receiver.port}" in str(error)


@each_of(
    ("answer", "words"),
    [
        (other_protocol, "it does not answer in HTTP"),
        (no_http, "it ended the connection without an answer in HTTP"),
        (closes, "it ended the connection without an answer in HTTP"),
    ],
)
async def test_what_went_wrong_is_said_in_words(answer, words: str) -> None:
    with EventReceiver(answer) as receiver:
        error = await refusal(receiver.url)
    assert str(error) == f"127.0.0.1:{receiver.port} cannot be reached ({words})"


async def test_nobody_listens_there() -> None:
    error = await refusal(f"http://127.0.0.1:{free_port()}/token-of-the-url")
    assert "Connection refused" in str(error)


# --- where it may go --------------------------------------------------------------------------


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Return names and the addresses that a resolver has for them."""
    known: dict[str, list[str]] = {}

    async def addresses_of(name: str, _port: int) -> list[str]:
        return known.get(name, [name])

    monkeypatch.setattr(http_request, "addresses_of", addresses_of)
    return known


@each_of(
    "inside",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
        *("::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"),
    ],
)
async def test_a_name_that_leads_inside_is_not_followed(
    named: dict[str, list[str]], inside: str
) -> None:
    named["shop.test"] = ["93.184.216.34", inside]
    error = await refusal("https://shop.test/token-of-the-url")
    assert "shop.test has an address inside this network" in str(error)
    assert "allow_private: true" in str(error)


async def test_it_is_where_the_settings_say_so(named: dict[str, list[str]]) -> None:
    with EventReceiver() as receiver:
        named["shop.test"] = ["127.0.0.1"]
        url = f"http://shop.test:{receiver.port}/"
        await refusal(url)
        assert await send(url, allow_private=True) == 200
        named["localhost"] = ["127.0.0.1"]
        assert await send(f"http://localhost:{receiver.port}/") == 200
        named["localhost"] = ["10.0.0.1"]
        await refusal(f"http://localhost:{receiver.port}/")


async def test_another_address_is_tried_when_one_is_dead(named: dict[str, list[str]]) -> None:
    with EventReceiver() as receiver:
        named["shop.test"] = ["127.0.0.2", "127.0.0.1"]
        url = f"http://shop.test:{receiver.port}/"
        assert await send(url, allow_private=True) == 200
        assert receiver.asked == 1


async def test_a_name_and_a_password_in_the_url_are_used_and_not_told() -> None:
    seen: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        handler.send_response(401)
        handler.end_headers()

    with EventReceiver(answer) as receiver:
        error = await refusal(f"http://shop:hidden@127.0.0.1:{receiver.port}/")
    assert seen == ["Basic c2hvcDpoaWRkZW4="]
    assert str(error) == f"127.0.0.1:{receiver.port} answered 401"


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[trustme.CA]:
    ca, path = trustme.CA(), tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield ca


def server_tls(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


async def test_a_certificate_is_verified_for_the_name_of_the_url(
    authority: trustme.CA, named: dict[str, list[str]]
) -> None:
    named["shop.test"] = ["127.0.0.1"]
    with EventReceiver(tls=server_tls(authority, "shop.test")) as receiver:
        url = f"https://shop.test:{receiver.port}/"
        assert await send(url, allow_private=True) == 200
        wrong = await refusal(f"https://127.0.0.1:{receiver.port}/")
        assert "certificate not verified" in str(wrong)
    with EventReceiver(tls=server_tls(authority, "127.0.0.1")) as receiver:
        assert await send(f"https://127.0.0.1:{receiver.port}/") == 200
    with EventReceiver(tls=server_tls(trustme.CA(), "127.0.0.1")) as receiver:
        stranger = await refusal(f"https://127.0.0.1:{receiver.port}/")
        assert "certificate not verified" in str(stranger)
        assert receiver.asked == 0


async def test_plain_http_where_tls_should_be(tmp_path: Path) -> None:
    with EventReceiver() as receiver:
        error = await refusal(f"https://127.0.0.1:{receiver.port}/")
    assert "cannot be reached (it does not speak TLS on this port)" in str(error)


async def test_a_connection_that_ends_while_tls_begins() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await refusal(f"https://127.0.0.1:{port}/")
    words = ("it ended the connection", "Connection reset by peer")
    assert any(one in str(error) for one in words), str(error)


# --- signatures -------------------------------------------------------------------------------


def test_each_key_signs_while_they_change() -> None:
    new, old = SECRET, "whsec_" + "B" * 32
    body, headers = trial((new, old))
    from standardwebhooks import Webhook

    for key in (new, old):
        Webhook(key).verify(body, headers)
    assert len(headers["webhook-signature"].split()) == 2


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of Standard Webhooks 1.0.0's own test vectors."""
    body = b'{"test": 2432232314}'
    headers = headers_of(
        body,
        post_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        keys=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        at_ms=1_614_265_330_000,
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"
