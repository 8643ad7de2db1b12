"""Reading content: where it ends, whatever the pieces it arrives in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaygw.inbound.data import MEMORY_BYTES, TooMuchData, read_content

LIMIT = 10 * 2**20


async def feed(raw: bytes, *, cuts: list[int], limit: int, spool: Path) -> tuple[bytes, bytes]:
    """Return the content read, and what is left in the stream after it."""
    reader = asyncio.StreamReader(limit=1024)
    reading = asyncio.create_task(read_content(reader, limit_bytes=limit, spool_directory=spool))
    start = 0
    for cut in [*sorted(cuts), len(raw)]:
        reader.feed_data(raw[start : max(start, cut)])
        start = max(start, cut)
        await asyncio.sleep(0)
    reader.feed_eof()
    content = await reading
    rest = await reader.read()
    assert content.raw_bytes + len(rest) == len(raw)
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
    whole, rest = asyncio.run(feed(raw, cuts=cuts, limit=LIMIT, spool=tmp_path))
    assert whole == expected
    assert rest == virtual[end + 5 :]


@pytest.mark.parametrize("size", [MEMORY_BYTES - 2, MEMORY_BYTES, 3 * MEMORY_BYTES + 17])
async def test_large_content_comes_back_whole(tmp_path: Path, size: int) -> None:
    line = b".starts with a dot\r\n"
    body = (line * (size // len(line) + 1))[:size] + b"\r\n"
    stuffed = (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:]
    whole, rest = await feed(stuffed + b".\r\nQUIT", cuts=[], limit=LIMIT, spool=tmp_path)
    assert whole == body
    assert rest == b"QUIT"


async def test_content_over_the_limit_is_read_to_its_end(tmp_path: Path) -> None:
    reader = asyncio.StreamReader(limit=1024)
    reader.feed_data(b"x" * 5000 + b"\r\n.\r\nNOOP\r\n")
    content = await read_content(reader, limit_bytes=4096, spool_directory=tmp_path)
    assert content.is_too_big
    assert content.head == b""
    reader.feed_eof()
    assert await reader.read() == b"NOOP\r\n"


async def test_a_client_that_never_stops_is_cut(tmp_path: Path) -> None:
    reader = asyncio.StreamReader(limit=2**20)
    reader.feed_data(b"x" * (70 * 2**20))
    with pytest.raises(TooMuchData):
        await read_content(reader, limit_bytes=1024, spool_directory=tmp_path)


async def test_a_client_that_leaves_is_noticed(tmp_path: Path) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"half a message\r\n")
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await read_content(reader, limit_bytes=LIMIT, spool_directory=tmp_path)
