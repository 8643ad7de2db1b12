"""End of data: CRLF.CRLF and nothing else; no look-alike ends a message here or upstream.

RFC 5321 sections 4.1.1.4 and 4.5.2, RFC 2920.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.e2e.corpus.rig import BYE, DATA, MAIL, QUEUED, RCPT, START, Case, Rig, running_rig
from tests.e2e.gateway import RawClient

HEADER = b"Subject: t\r\n\r\n"
EVIL = b"MAIL FROM:<evil@x>\r\nRCPT TO:<r@rd.test>\r\nDATA\r\nX\r\n.\r\n"
_EVIL_TEXT = EVIL.removesuffix(b".\r\n")
_BUFFER_EDGES = (*range(1000, 1005), *range(65530, 65546), *range(131066, 131078))

# the look-alike as sent, and the lines that it makes: unstuffed by CRLF, then normalised
_LOOKALIKES = {
    "S1": (b"A\n.\n", b"A\r\n.\r\n"),
    "S2": (b"A\n.\r\n", b"A\r\n.\r\n"),
    "S3": (b"A\r\n.\n", b"A\r\n\r\n"),
    "S4": (b"A\r.\r", b"A\r\n.\r\n"),
    "S5": (b"A\r\n.\r", b"A\r\n\r\n"),
    "S6": (b"A\r.\r\n", b"A\r\n.\r\n"),
    "S7": (b"A\r\n.\x00\r\n", b"A\r\n\x00\r\n"),
    "S8": (b"A\r\n.\r\r\n", b"A\r\n\r\n\r\n"),
}


def _whole(name: str, content: bytes, *, arrives: bytes | None = None) -> Case:
    """Content that ends where it should: one 250, then the session goes on."""
    dialogue = (*START, (content + b".\r\n", QUEUED), BYE)
    expected = content if arrives is None else arrives
    return Case(id=name, dialogue=dialogue, messages=1, content=expected)


def _byte_by_byte(rig: Rig, client: RawClient) -> None:
    # a round trip of another session shows that the front has read what was sent before
    with rig.gateway.connect() as other:
        for byte in HEADER[-2:] + b"A\r\n.\r\n":
            client.send(bytes([byte]))
            assert other.command(b"NOOP").startswith("250")
    assert re.match(QUEUED, client.read_reply())


def _filled(size_bytes: int) -> bytes:
    count, rest = divmod(size_bytes - len(HEADER), 18)
    return HEADER + b"0123456789 relay\r\n" * (count - 1) + b"x" * (rest + 16) + b"\r\n"


CASES = (
    *(
        Case(
            id=name,
            dialogue=(*START, (HEADER + sent + EVIL, QUEUED), BYE),
            messages=1,
            content=HEADER + arrives + _EVIL_TEXT,
        )
        for name, (sent, arrives) in _LOOKALIKES.items()
    ),
    _whole(
        "S10",
        HEADER + b"..two\r\n...three\r\n.x\r\n",
        arrives=HEADER + b".two\r\n..three\r\nx\r\n",
    ),
    Case(
        id="S11",
        dialogue=(*START, (HEADER[:-2],), _byte_by_byte, BYE),
        messages=1,
        content=HEADER + b"A\r\n",
    ),
    *(_whole(f"S12-{size}", _filled(size)) for size in _BUFFER_EDGES),
    _whole("S13", HEADER + b"abc.\r\nMAIL FROM:<evil@x>\r\n"),
    _whole("S14", b""),
    Case(
        id="S15",
        dialogue=(
            *START,
            (HEADER + b"A\r\n.\r\n" + MAIL[0] + RCPT[0] + DATA[0], QUEUED, "250", "250", "354"),
            (HEADER + b"A\r\n.\r\n", QUEUED),
            BYE,
        ),
        messages=2,
        content=HEADER + b"A\r\n",
    ),
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running_rig(tmp_path_factory.mktemp("data")) as rig:
        yield rig


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_end_of_data(rig: Rig, case: Case) -> None:
    rig.judge(case)


@pytest.mark.parametrize("name", _LOOKALIKES, ids=lambda name: f"S9-{name}")
def test_upstream_wire(rig: Rig, name: str) -> None:
    """The provider's socket shows one end of data and no bare CR or LF around a dot."""
    before = {c.number: len(c.transcript) for c in rig.provider.connections}
    rig.play((*START, (HEADER + _LOOKALIKES[name][0] + EVIL, QUEUED), BYE))
    rig.gateway.wait_until_empty()
    rig.provider.run(rig.provider.note())
    new = [bytes(c.transcript[before.get(c.number, 0) :]) for c in rig.provider.connections]
    (wire,) = [octets for octets in new if b"DATA\r\n" in octets]
    content, _, after = wire.partition(b"DATA\r\n")[2].partition(b"\r\n.\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", content)
    assert after in (b"", b"QUIT\r\n")  # a connection of its age may say goodbye already
