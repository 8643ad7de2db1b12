"""Takes posts of providers: believed first, durable next, and only then answered.

Secrets are read when the process begins: a reload begins another one. What cannot be taken now is
answered so that the provider posts it again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from zlib import crc32

from relaygw.errors import EndsReaders, SettingsError
from relaygw.feedback.certificates import Certificates, Fetch, NotFetched, fetch
from relaygw.feedback.format import Format, Post, Refused, Trust, Verified
from relaygw.feedback.formats import FORMATS
from relaygw.feedback.reading import Seldom
from relaygw.observe.readings import ProcessReadings, Reader, unwatched
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.store.batch_writer import BatchWriter
from relaygw.store.feedback import NewPost
from relaygw.store.store import Store

MOST_WAITING = 10_000
"""Posts that wait to be read: more are not taken, they would fill the disk."""
_LOOK_EACH_S = 1.0
_TELL_EACH_S = 600.0
_READ_AGAIN_S = 30.0
_DURABLE_WITHIN_S = 8.0  # the most impatient provider gives up after 15 s
_BATCH_BYTES = 2 * 2**20

_log = logging.getLogger("relaygw.feedback")


class NotTaken(Exception):
    """A post that is not taken: the status for it, and a label for metrics."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


@dataclass(slots=True)
class _Sender:
    """A provider that may post, and what it is believed by; None: that cannot be read now."""

    format: Format
    provider: Provider
    trust: Trust | None = None
    tried_at_s: float = float("-inf")
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class PostBox:
    """Takes the posts of all providers with `events`."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        taken: Callable[[], None] = lambda: None,
        counted: Callable[[str, str], None] = lambda _provider, _reason: None,
        fetch_url: Fetch = fetch,
        readings: ProcessReadings | None = None,
    ) -> None:
        """`taken` hears that there is something to read, `counted` why a post is not taken."""
        self._readings = readings or unwatched()
        self._store = store
        self._fetch = fetch_url
        self._keys = Certificates(fetch_url)
        self._counted = counted
        self._senders = {
            name: _Sender(FORMATS[provider.preset], provider)
            for name, provider in settings.providers.items()
            if provider.events is not None
            and provider.preset is not None
            and provider.preset in FORMATS
        }
        self._often = Seldom(_TELL_EACH_S)
        self._refused: dict[tuple[str, str], int] = {}  # since it was told last
        self._looked_at_s = float("-inf")
        self._is_full = False
        self._writer: BatchWriter[NewPost, bool | Exception] = BatchWriter(
            "events",
            size=_batch_size,
            write_all=store.feedback.receive,
            refused=lambda _, error: error,
            told=lambda _posts, _results: taken(),
        )

    def format_of(self, name: str) -> Format | None:
        """Return how a provider speaks, None for one that may not post."""
        sender = self._senders.get(name)
        return None if sender is None else sender.format

    async def take(self, name: str, post: Post) -> None:
        """Make a post durable; raises NotTaken. One that is known already is taken, too."""
        sender = self._senders[name]
        trust = await self._trust_of(name, sender)
        if trust is None:
            raise self.refusal(name, "store", "what it is believed by cannot be read")
        try:
            # nobody else is verified meanwhile, unless a certificate is fetched first
            what = f"post to {name}, CRC {crc32(post.body):08x}"
            with self._readings.reading(Reader.POSTS, what):
                verified = await sender.format.verify(post, trust)
        except EndsReaders as error:
            raise self.refusal(name, "unreadable", str(error), HTTPStatus.BAD_REQUEST) from None
        except Refused as refused:
            reason = "unreadable" if refused.status == 400 else "not_believed"
            raise self.refusal(name, reason, refused.reason, refused.status) from None
        if verified.confirm_url is not None:
            await self._confirm(name, verified.confirm_url)
        if verified.told:
            _log.warning("events of provider %s: %s", name, verified.told)
        if verified.is_events:
            await self._store_post(name, post, verified)

    def refusal(self, name: str, reason: str, why: str, status: int | None = None) -> NotTaken:
        """Return the refusal of a post; counted, and told now and then.

        Without a status the provider is to post it again.
        """
        self._counted(name, reason)
        key = (name, reason)
        self._refused[key] = self._refused.get(key, 0) + 1
        if self._often.may(key):
            _log.warning(
                "posts to /events/%s are not taken (%d since this was told last): %s",
                *(name, self._refused.pop(key), why),
            )
        return NotTaken(self._senders[name].format.busy if status is None else status, reason)

    async def close(self) -> None:
        """Wait a moment for what is being written."""
        await self._writer.drain(_DURABLE_WITHIN_S)

    async def _trust_of(self, name: str, sender: _Sender) -> Trust | None:
        if sender.trust is not None:
            return sender.trust
        async with sender.reading:  # posts that come meanwhile wait for it
            is_due = time.monotonic() - sender.tried_at_s > _READ_AGAIN_S
            if sender.trust is None and is_due:
                try:
                    sender.trust = await asyncio.to_thread(_read_trust, sender.provider, self._keys)
                except SettingsError as error:
                    _log.warning("providers.%s.events.secret: %s", name, error)
                sender.tried_at_s = time.monotonic()
        return sender.trust

    async def _confirm(self, name: str, url: str) -> None:
        try:
            await self._fetch(url)
        except NotFetched as error:
            why = f"the subscription cannot be confirmed: {error}"
            raise self.refusal(name, "store", why) from None

    async def _store_post(self, name: str, post: Post, verified: Verified) -> None:
        if await self._has_too_many():
            raise self.refusal(name, "too_many", f"{MOST_WAITING} of them wait to be read")
        new = NewPost(
            provider=name,
            body=post.body,
            token=verified.once,
            until_ms=verified.once_until_ms,
        )
        try:
            async with asyncio.timeout(_DURABLE_WITHIN_S):
                result = await asyncio.shield(self._writer.add(new))
        except TimeoutError:  # it may become durable still; the next post of it counts nothing then
            raise self.refusal(name, "store", "the store does not answer") from None
        if isinstance(result, Exception):
            raise self.refusal(name, "store", str(result))
        if not result:  # somebody has posted it before: the provider, or who saw it
            self._counted(name, "used")

    async def _has_too_many(self) -> bool:
        if time.monotonic() - self._looked_at_s > _LOOK_EACH_S:
            self._looked_at_s = time.monotonic()
            try:
                count = self._store.feedback.count_posts
                self._is_full = await asyncio.to_thread(count, MOST_WAITING) >= MOST_WAITING
            except Exception:  # whoever writes finds out
                self._is_full = False
        return self._is_full


def _batch_size(posts: Sequence[NewPost]) -> int:
    size_bytes = 0
    for number, post in enumerate(posts):
        size_bytes += len(post.body)
        if number and size_bytes > _BATCH_BYTES:
            return number
    return len(posts)


def _read_trust(provider: Provider, keys: Certificates) -> Trust:
    events = provider.events
    assert events is not None
    return Trust(
        secret=events.secret.read() if events.secret is not None else "",
        topics=frozenset() if events.topic is None else frozenset({events.topic}),
        keys=keys,
    )


def settings_problems(settings: Settings) -> Mapping[str, str]:
    """Return the problems of the secrets that can be read, by provider; blocks."""
    found = {}
    for name, provider in settings.providers.items():
        secret = provider.events.secret if provider.events is not None else None
        known = FORMATS.get(provider.preset or "")
        if secret is None or known is None or secret.kind == "command":
            continue
        try:
            problem = known.problem(secret.read())
        except SettingsError:
            continue  # told as all secrets are
        if problem:
            found[name] = problem
    return found
