"""Commands that no mail client should send: refused by the letter, and the session survives.

RFC 5321 sections 3, 4.1 and 4.3.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.e2e.corpus.rig import (
    ALIVE,
    CLOSED,
    DATA,
    EHLO,
    MAIL,
    MARGIN_KIB,
    QUEUED,
    RCPT,
    START,
    Case,
    Rig,
    memory_bounded,
    repeat,
    running_rig,
)
from tests.e2e.gateway import PATIENCE_S, RawClient

_CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(197)
_EVIL = b"MAIL FROM:<evil@x>\r\nRCPT TO:<r@rd.test>\r\nDATA\r\n"
_CONTENT = b"Subject: t\r\n\r\nA\r\n.\r\n"


def _long_command(rig: Rig, client: RawClient) -> None:
    with memory_bounded(rig.pid("front"), growth_kib=1024 + MARGIN_KIB):
        assert client.command(b"NOOP " + b"x" * 100_000).startswith("500 5.5.2")


def _endless_command(rig: Rig, client: RawClient) -> None:
    with memory_bounded(rig.pid("front"), growth_kib=2048 + MARGIN_KIB):
        try:
            for _ in range(50):
                client.send(b"x" * 10**6)
        except ConnectionError:
            pass  # the front hung up, which is what is asked for
        assert client.read_reply()[:3] in ("500", "")
        assert client.is_closed()


def _talk_first(rig: Rig, client: RawClient) -> None:
    """A client whose bytes are there before the front has accepted it."""
    pid = rig.pid("front")
    os.kill(pid, signal.SIGSTOP)
    try:
        early = socket.create_connection(("127.0.0.1", rig.gateway.smtp_port), PATIENCE_S)
        early.sendall(b"EHLO c.test\r\n")
    finally:
        os.kill(pid, signal.SIGCONT)
    with early, early.makefile("rb") as replies:
        assert replies.readline()[:3] in (b"220", b"554")
    rig.do(client, ALIVE)


def _half_close(_rig: Rig, client: RawClient) -> None:
    client.send(_CONTENT)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.read_reply().startswith("250 2.0.0 Ok: queued as ")
    assert client.is_closed()


def _reset(_rig: Rig, client: RawClient) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


CASES = (
    Case(id="C1", dialogue=((b"GET / HTTP/1.1\r\n", r"221 2\.7\.0|500", CLOSED),)),
    Case(
        id="C2",
        dialogue=((b"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b>\r\n", "221 2.7.0", CLOSED),),
    ),
    Case(id="C3", dialogue=((_CLIENT_HELLO, CLOSED),)),
    Case(id="C4", dialogue=((bytes(range(128, 256)) + b"\r\n", "500 5.5.2"), ALIVE)),
    Case(id="C5", dialogue=((b"\r\n", "500 5.5.2"), ALIVE)),
    Case(id="C6", dialogue=((MAIL[0], "503 5.5.1"), ALIVE)),
    Case(id="C7", dialogue=(EHLO, (RCPT[0], "503 5.5.1"), ALIVE)),
    Case(id="C8", dialogue=(EHLO, MAIL, (DATA[0], r"(503|554) 5\.5\.1"), ALIVE)),
    Case(
        id="C9",
        dialogue=(EHLO, MAIL, (b"RCPT TO:<x@[]>\r\n", "501"), (DATA[0], "554 5.5.1"), ALIVE),
    ),
    Case(id="C10", dialogue=(EHLO, MAIL, (MAIL[0], "503 5.5.1"), ALIVE)),
    Case(id="C11", dialogue=(EHLO, MAIL, RCPT, (b"DATA x\r\n", "501 5.5.4"), ALIVE)),
    Case(id="C12", dialogue=((b"NOOP " + b"x" * 2095 + b"\r\n", r"250|500 5\.5\.2"), ALIVE)),
    Case(id="C13", dialogue=(_long_command,)),
    Case(id="C14", dialogue=(_endless_command,)),
    Case(id="C15", dialogue=((b"EHLO c.test\n", "501 5.5.2", CLOSED),)),
    Case(id="C16", dialogue=(EHLO, (b"NOOP\rMAIL FROM:<a@b>\r\n", "500 5.5.2"), MAIL, ALIVE)),
    Case(id="C17", dialogue=(_talk_first,)),
    Case(id="C18", dialogue=(EHLO, MAIL, RCPT, (DATA[0] + _CONTENT, "554 5.5.0", CLOSED))),
    Case(id="C19", dialogue=(repeat(b"NOOP", until=r"421 4\.7\.0", at_most=130),)),
    Case(id="C20", dialogue=(repeat(b"BLAH", until=r"421 4\.7\.0", at_most=21),)),
    Case(id="C21", dialogue=((b"VRFY root\r\n", r"252 2\.0\.0|502 5\.5\.1"), ALIVE)),
    Case(id="C21-unknown", dialogue=((b"VRFY nobody-here\r\n", r"252 2\.0\.0|502 5\.5\.1"),)),
    *(
        Case(id=f"C22-{line.split()[0].decode()}", dialogue=((line, r"502 5\.5\.1|500"), ALIVE))
        for line in (b"EXPN root\r\n", b"TURN\r\n", b"ETRN x\r\n")
    ),
    *(
        Case(id=f"C23-{line.split()[0].decode()}", dialogue=((line, r"550 5\.7\.0|500"), ALIVE))
        for line in (b"XCLIENT ADDR=10.9.9.9\r\n", b"XFORWARD ADDR=10.9.9.9\r\n")
    ),
    Case(
        id="C24",
        dialogue=(
            (b"PROXY TCP4 10.9.9.9 10.0.0.2 1 25\r\n", "500"),
            *START,
            (_CONTENT, QUEUED),
        ),
        messages=1,
        checks=(lambda message: _assert_absent(b"10.9.9.9", message.content),),
    ),
    Case(id="C25", dialogue=((b"EHLO\r\n", "501"), ALIVE)),
    Case(id="C26-control", dialogue=((b"EHLO a\x01b\r\n", "501"), ALIVE)),
    Case(id="C26-long", dialogue=((b"EHLO " + b"a" * 400 + b"\r\n", "501"), ALIVE)),
    Case(id="C27", dialogue=(EHLO, MAIL, RCPT, (b"RSET\r\n", "250"), (DATA[0], "503 5.5.1"))),
    Case(id="C28", dialogue=(*START, (b"Subject: t\r\n\r\nA\r\n",))),
    Case(id="C29", dialogue=(*START, _half_close), messages=1),
    Case(
        id="C31",
        dialogue=(EHLO, (b"BDAT 66 LAST\r\n" + _EVIL, r"50[023]", CLOSED)),
    ),
    Case(
        id="C31-transaction",
        dialogue=(EHLO, MAIL, RCPT, (b"BDAT 6\r\n", r"50[023]"), (DATA[0], CLOSED)),
    ),
)


def _assert_absent(text: bytes, content: bytes) -> None:
    assert text not in content


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(tmp_path_factory.mktemp("commands")) as rig:
        yield rig


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_commands(rig: Rig, case: Case) -> None:
    rig.judge(case)


def test_reset_after_the_dot(rig: Rig) -> None:
    """C30: it is not known whether it was taken, but never twice."""
    start = len(rig.provider.messages)
    rig.play((*START, (_CONTENT,), _reset))
    assert len(rig.settle(start)) <= 1
