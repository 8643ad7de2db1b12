"""The listener for events of providers: `POST /events/NAME`, and nothing else.

It may face the Internet. So everything is bounded before anybody is believed: connections, bytes
in memory, how long a body takes, posts of one client and of all. The Host field says nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import unquote_to_bytes

from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from relaygw.feedback.format import MAX_BODY, Format, Post
from relaygw.feedback.receiving import NotTaken, PostBox
from relaygw.mail.clock import clock_ms
from relaygw.web.gate.identity import Forwarded

MOST_AT_ONCE = 200  # posts
_PREFIX = "/events/"
_DISCARD_WITHIN_S = 2.0
_UNREAD = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT)
_LENGTH_DIGITS = 10
_CLIENTS = 10_000
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a listener takes at most; of posts: a second, and at once."""

    body_s: float = 10.0
    held_bytes: int = 32 * 2**20  # of bodies in memory
    of_all: tuple[float, float] = (1_000.0, 2_000.0)
    of_client: tuple[float, float] = (300.0, 1_000.0)
    refused_of_client: tuple[float, float] = (5.0, 100.0)


USUAL = Bounds()


class _Body:
    """What comes of a body, and what was kept of it."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_whole = False
        self.pieces: list[bytes] = []

    async def next_piece(self) -> bytes:
        """Return the next bytes; raises ConnectionError for who leaves."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("it left")
        self.is_whole = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    async def discard(self) -> None:
        """Read what is left, for a moment: who is cut off while it sends sees no answer."""
        size_bytes = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_DISCARD_WITHIN_S):
                while not self.is_whole and size_bytes < MAX_BODY:
                    size_bytes += len(await self.next_piece())


class EventsApp:
    """One ASGI application for all providers."""

    def __init__(
        self,
        posts: PostBox,
        proxies: Iterable[IPv4Network | IPv6Network] = (),
        bounds: Bounds = USUAL,
    ) -> None:
        self._posts, self._bounds = posts, bounds
        # who sits in front says for whom, which is believed for limits alone
        self._forwarded = Forwarded((*proxies, *_LOOPBACK))
        self._all = Bucket(*bounds.of_all)
        self._clients: Buckets = Buckets(*bounds.of_client)
        self._refused: Buckets = Buckets(*bounds.refused_of_client)
        self._held_bytes = 0
        self._at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        name = _provider_in(scope)
        known = None if name is None else self._posts.format_of(name)
        if name is None or known is None or scope["method"] != "POST":
            await _answer(send, HTTPStatus.NOT_FOUND)
            return
        body = _Body(receive)
        try:
            await self._take(name, known, scope, body)
        except NotTaken as error:
            if error.status not in _UNREAD:
                await body.discard()
            await _answer(send, error.status)
        except ConnectionError:
            return  # nobody is there to answer
        else:
            await _answer(send, HTTPStatus.OK)

    async def _take(self, name: str, known: Format, scope: Scope, body: _Body) -> None:
        client = self._forwarded.guesser(HTTPConnection(scope))
        refused = self._refused.of(client)
        # of what all have a client pays last: who is beyond its own share takes nobody else's
        may_post = refused.has_any() and self._clients.of(client).take() and self._all.take()
        if not may_post:
            raise self._posts.refusal(name, "too_many", f"too many posts, the last of {client}")
        if self._at_once >= MOST_AT_ONCE:
            raise self._posts.refusal(name, "too_many", "too many posts at once")
        fields = reversed(scope["headers"])  # of several of one name the first counts
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in fields}
        self._at_once += 1
        try:
            await self._read(name, known, headers, body)
            await self._posts.take(name, Post(b"".join(body.pieces), headers, clock_ms()))
        except NotTaken:
            refused.take()
            raise
        finally:
            self._at_once -= 1
            self._held_bytes -= sum(map(len, body.pieces))

    async def _read(self, name: str, known: Format, headers: dict[str, str], body: _Body) -> None:
        """Read a body of at most 1 MiB, as it comes; raises NotTaken, ConnectionError."""
        if headers.get("content-encoding", "identity").lower() != "identity":
            why = "a post is compressed, which no provider does"
            raise self._posts.refusal(name, "unreadable", why, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = headers.get("content-length", "0")
        if len(length) > _LENGTH_DIGITS or not length.isdecimal() or int(length) > MAX_BODY:
            raise self._too_large(name, known)
        size_bytes = 0
        try:
            async with asyncio.timeout(self._bounds.body_s):
                while not body.is_whole:
                    piece = await body.next_piece()
                    size_bytes += len(piece)
                    self._held_bytes += len(piece)
                    body.pieces.append(piece)
                    if size_bytes > MAX_BODY:
                        raise self._too_large(name, known)
                    if self._held_bytes > self._bounds.held_bytes:
                        why = "too many bytes of posts at once"
                        raise self._posts.refusal(name, "too_many", why)
        except TimeoutError:
            why = f"a post took longer than {self._bounds.body_s:g} s"
            raise self._posts.refusal(name, "too_slow", why, HTTPStatus.REQUEST_TIMEOUT) from None

    def _too_large(self, name: str, known: Format) -> NotTaken:
        why = f"a post has more than {MAX_BODY} bytes"
        return self._posts.refusal(name, "too_large", why, known.too_large)


def _provider_in(scope: Scope) -> str | None:
    path = unquote_to_bytes(scope.get("raw_path") or scope["path"]).decode("latin-1")
    return path.removeprefix(_PREFIX) if path.startswith(_PREFIX) else None


async def _answer(send: Send, status: int) -> None:
    """Answer without a word; of what is refused the rest is not read."""
    headers = [(b"content-length", b"0"), (b"cache-control", b"no-store")]
    if status != HTTPStatus.OK:
        headers.append((b"connection", b"close"))
    if status == HTTPStatus.UNAUTHORIZED:  # Amazon SNS sends its login only when it is asked
        headers.append((b"www-authenticate", b'Basic realm="events"'))
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers.append((b"retry-after", b"30"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class Bucket:
    """So many things a second, and so many at once."""

    __slots__ = ("_at_s", "_left", "_most", "_per_s")

    def __init__(self, per_s: float, most: float) -> None:
        self._per_s, self._most, self._left = per_s, most, most
        self._at_s = time.monotonic()

    def has_any(self) -> bool:
        """True while one more may be taken."""
        now_s = time.monotonic()
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._left >= 1

    def take(self) -> bool:
        """Take one; False when there is none left."""
        if not self.has_any():
            return False
        self._left -= 1
        return True


class Buckets:
    """A bucket for each client; of very many those that were seen last."""

    def __init__(self, per_s: float, most: float) -> None:
        self._limits = (per_s, most)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def of(self, client: str) -> Bucket:
        """Return the bucket of a client."""
        bucket = self._buckets.setdefault(client, Bucket(*self._limits))
        self._buckets.move_to_end(client)
        while len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return bucket
