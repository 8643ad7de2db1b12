"""STARTTLS and AUTH as they should not be used (T1-T9). RFC 3207, RFC 4954."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.e2e.corpus.rig import ALIVE, BYE, CLOSED, EHLO, MAIL, Case, Rig, running_rig
from tests.e2e.doors import PASSWORD, Pair, make_pair, plain, send, starttls, turn_to_tls, user
from tests.e2e.gateway import RawClient

_PLAIN = plain("shop1", PASSWORD) + b"\r\n"
_LINE = base64.b64encode(b"\0shop1\0" + PASSWORD.encode()) + b"\r\n"
_BLOB = base64.b64encode(b"\0a\0" + b"x" * 9000)
_HUGE = base64.b64encode(b"\0a\0" + b"x" * 12000)

CASES = (
    Case(id="T1", dialogue=(EHLO, (b"STARTTLS\r\nNOOP x\r\n", r"554 5\.5\.0", CLOSED))),
    Case(id="T3", dialogue=(EHLO, (b"STARTTLS x\r\n", r"501 5\.5\.4"), ALIVE)),
    Case(id="T5", dialogue=(EHLO, (b"AUTH PLAIN ****\r\n", r"501 5\.5\.2"), ALIVE)),
    Case(
        id="T5-asked",
        dialogue=(EHLO, (b"AUTH PLAIN\r\n", "334 $"), (b"****\r\n", r"501 5\.5\.2")),
    ),
    Case(
        id="T6-three",
        dialogue=(EHLO, (b"AUTH PLAIN %s\r\n" % base64.b64encode(b"\0a\0b\0c"), "501|535"), ALIVE),
    ),
    Case(
        id="T6-none",
        dialogue=(EHLO, (b"AUTH PLAIN %s\r\n" % base64.b64encode(b"abc"), "501|535"), ALIVE),
    ),
    Case(id="T6-12kB", dialogue=(EHLO, (b"AUTH PLAIN %s\r\n" % _BLOB, "501|535"), ALIVE)),
    Case(
        id="T6-longer",
        dialogue=(EHLO, (b"AUTH PLAIN\r\n", "334"), (_HUGE + b"\r\n", r"500 5\.5\.6"), ALIVE),
    ),
    Case(
        id="T6-endless",
        dialogue=(EHLO, (b"AUTH PLAIN\r\n", "334"), (b"A" * 300_000, r"500 5\.5\.6", CLOSED)),
    ),
    Case(id="T7-plain", dialogue=(EHLO, (b"AUTH PLAIN\r\n", "334 $"), (b"*\r\n", r"501 5\.7\.0"))),
    Case(
        id="T7-login",
        dialogue=(
            EHLO,
            (b"AUTH LOGIN c2hvcDE=\r\n", "334 UGFzc3dvcmQ6"),
            (b"*\r\n", r"501 5\.7\.0"),
            (_PLAIN, r"235 2\.7\.0"),
        ),
    ),
    Case(id="T9", dialogue=(EHLO, MAIL, (_PLAIN, r"503 5\.5\.1"), ALIVE)),
    Case(id="twice", dialogue=(EHLO, (_PLAIN, r"235 "), (_PLAIN, r"503 5\.5\.1"), ALIVE)),
    Case(id="without-EHLO", dialogue=((_PLAIN, r"503 5\.5\.1"), ALIVE)),
    Case(id="unknown", dialogue=(EHLO, (b"AUTH CRAM-MD5\r\n", r"504 5\.5\.4"), ALIVE)),
    Case(id="no-mechanism", dialogue=(EHLO, (b"AUTH\r\n", r"50[14] 5\.5\.4"), ALIVE)),
    Case(id="empty-initial", dialogue=(EHLO, (b"AUTH PLAIN =\r\n", r"501 5\.5\.2"), ALIVE)),
    Case(
        id="asked",
        dialogue=(EHLO, (b"AUTH plain\r\n", "334 $"), (_LINE, r"235 2\.7\.0"), BYE),
    ),
    Case(id="AUTH-of-MAIL", dialogue=(EHLO, (b"MAIL FROM:<s@ok.test> AUTH=<>\r\n", "250"))),
)  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[Rig]:
    listener = {"bind": "127.0.0.1:0", "tls": pair.tls("starttls")}
    directory = tmp_path_factory.mktemp("tls")
    with running_rig(directory, listeners=[listener], users=[user()]) as rig:
        yield rig


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_case(rig: Rig, case: Case) -> None:
    rig.judge(case)


def test_what_came_before_tls_is_forgotten(rig: Rig, pair: Pair) -> None:
    """T1, T2: EHLO, login and transaction are asked for again; STARTTLS is there only once."""
    with rig.gateway.connect() as client:
        client.command(b"EHLO c.test")
        assert client.command(plain("shop1", PASSWORD)).startswith("235 ")
        rig.do(client, MAIL)
        assert client.command(b"STARTTLS").startswith("220 ")
        turn_to_tls(client, pair.client_context)
        assert client.command(b"RCPT TO:<r@rd.test>").startswith("503 5.5.1")
        assert client.command(b"MAIL FROM:<s@ok.test>").startswith("503 5.5.1")
        assert "STARTTLS" not in client.command(b"EHLO c.test")
        assert client.command(b"STARTTLS").startswith("503 5.5.1")
        assert client.command(plain("shop1", PASSWORD)).startswith("235 ")
        assert send(client).startswith("250 ")


def test_plain_text_instead_of_a_handshake_is_hung_up_on(rig: Rig) -> None:
    """T1: commands that are injected behind the 220 reach nobody."""
    with rig.gateway.connect() as client:
        client.command(b"EHLO c.test")
        assert client.command(b"STARTTLS").startswith("220 ")
        client.send(b"MAIL FROM:<s@ok.test>\r\n")
        rest = client.read_line()  # at most a TLS alert
        assert not rest.strip() or rest[0] == 0x15
        client.close()
    rig.gateway.wait_for_log(r"warning: TLS: \S+ from unknown\[127\.0\.0\.1\]")


def test_commands_in_one_record_are_answered_one_by_one(rig: Rig, pair: Pair) -> None:
    with rig.gateway.connect() as client:
        starttls(client, pair.client_context)
        client.send(b"NOOP\r\nRSET\r\nNOOP\r\n")
        assert [client.read_reply()[:3] for _ in range(3)] == ["250"] * 3


def test_tls_before_a_plain_greeting_is_hung_up_on(rig: Rig, pair: Pair) -> None:
    client = RawClient(rig.gateway.smtp_port)
    client.send(b"\x16\x03\x01\x00\x10" + b"x" * 16)
    assert client.is_closed()
    client.close()
