"""Reading content: where it ends, whatever the pieces it arrives in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaygw.inbound.content import MEMORY_BYTES, ContentReader, TooMuchData

LIMIT = 10 * 2**20


def feed(
    raw: bytes, *, cuts: list[int], limit: int, spool: Path, at_once: bool = False
) -> tuple[bytes, bytes]:
    """Return the content read from pieces cut at `cuts`, and what follows its end of data."""
    reader = ContentReader(limit_bytes=limit, spool_directory=spool)
    start = 0
    rest: bytes | None = None
    for cut in [*sorted(cuts), len(raw)]:
        piece = raw[start : max(start, cut)]
        start = max(start, cut)
        if rest is None:
            rest = reader.feed(piece)
            if rest is None and (reader.has_piece or (at_once and piece)):
                reader.work_up()
        else:
            rest += piece
    assert rest is not None
    reader.work_up()
    content = reader.content
    content.read_head()
    whole = b"".join(content.chunks(content.head)) if content.is_spooled else content.head
    assert content.size_bytes == len(whole) or content.is_too_big
    content.close()
    return whole, rest


PIECES = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"ab", b"..", b"x" * 700]), max_size=30
)


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 2000), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_the_first_end_of_data_ends_it(
    tmp_path: Path, pieces: list[bytes], cuts: list[int]
) -> None:
    raw = b"".join(pieces) + b"\r\n.\r\nNEXT"
    virtual = b"\r\n" + raw  # the content starts at the beginning of a line
    end = virtual.index(b"\r\n.\r\n")
    lines = virtual[: end + 2][2:]
    expected = (b"\r\n" + lines).replace(b"\r\n.", b"\r\n")[2:]
    expected = expected.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    whole, rest = feed(raw, cuts=cuts, limit=LIMIT, spool=tmp_path)
    assert whole == expected
    assert rest == virtual[end + 5 :]


@pytest.mark.parametrize("size", [MEMORY_BYTES - 2, MEMORY_BYTES, 3 * MEMORY_BYTES + 17])
def test_large_content_comes_back_whole(tmp_path: Path, size: int) -> None:
    line = b".starts with a dot\r\n"
    body = (line * (size // len(line) + 1))[:size] + b"\r\n"
    stuffed = (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:]
    whole, rest = feed(stuffed + b".\r\nQUIT", cuts=[], limit=LIMIT, spool=tmp_path)
    assert whole == body
    assert rest == b"QUIT"


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7])
def test_every_place_between_pieces_is_safe(tmp_path: Path, step: int) -> None:
    body = b"..a\r\n.b\r\r\n\n.\r\n..\r\n\r\nlast\r\n"
    stuffed = (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:]
    raw = stuffed + b".\r\nNEXT"
    cuts = list(range(0, len(raw), step))
    whole, rest = feed(raw, cuts=cuts, limit=LIMIT, spool=tmp_path, at_once=True)
    assert whole == body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert rest == b"NEXT"


def test_content_over_the_limit_is_read_to_its_end(tmp_path: Path) -> None:
    reader = ContentReader(limit_bytes=4096, spool_directory=tmp_path)
    assert reader.feed(b"x" * 5000 + b"\r\n.") is None
    assert reader.feed(b"\r\nNOOP\r\n") == b"NOOP\r\n"
    reader.work_up()
    assert reader.content.is_too_big
    assert reader.content.head == b""


def test_a_client_that_never_stops_is_cut(tmp_path: Path) -> None:
    reader = ContentReader(limit_bytes=1024, spool_directory=tmp_path)
    for _ in range(64):
        assert reader.feed(b"x" * 2**20) is None
    with pytest.raises(TooMuchData):
        reader.feed(b"x" * 2**20)


def test_a_spool_that_cannot_be_written_loses_no_step(tmp_path: Path) -> None:
    reader = ContentReader(limit_bytes=LIMIT, spool_directory=tmp_path / "missing")
    for _ in range(3):
        assert reader.feed(b"x" * MEMORY_BYTES) is None
        reader.work_up()
    assert reader.feed(b"\r\n.\r\nNOOP\r\n") == b"NOOP\r\n"
    reader.work_up()
    assert isinstance(reader.content.error, OSError)
    assert not reader.content.is_spooled
