"""Bodies of requests, read whole before anything is done: small, in time, or not at all."""

from __future__ import annotations

import asyncio

from starlette.requests import HTTPConnection
from starlette.types import Message, Receive

MAX_BODY_BYTES = 2**20
MAX_LOGIN_BYTES = 8192
"""Of a body that somebody sends whom nobody knows."""
BODY_S = 30.0
"""How long a body may take."""


class BadBody(Exception):
    """A body that is not taken; `status` is the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        # a body that comes too late would be taken for the next request; too large a one is
        # read to its end by the server, so that the client gets to read the answer
        self.headers = {"Connection": "close"} if status == 408 else None


class Gone(Exception):
    """The client has hung up; there is nobody to answer."""


async def read_body(connection: HTTPConnection, receive: Receive, *, limit_bytes: int) -> bytes:
    """Return the whole body; raises BadBody, or Gone."""
    too_large = BadBody(413, f"the body is larger than {limit_bytes} bytes")
    told = connection.headers.get("content-length", "0")
    if not told.isascii() or not told.isdigit() or int(told) > limit_bytes:
        raise too_large
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                chunks.append(message.get("body", b""))
                size_bytes += len(chunks[-1])
                if size_bytes > limit_bytes:
                    raise too_large
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise BadBody(408, f"the body took longer than {BODY_S:.0f} s") from None


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read, then what comes after it."""
    is_told = False

    async def again() -> Message:
        nonlocal is_told
        if is_told:
            return await receive()
        is_told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
