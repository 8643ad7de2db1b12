"""What a format is: how a provider's posts are verified, and which events are read from them.

A format is two functions. `verify` looks at a post as it came and raises `Refused`, or tells what
has to be done before it is believed. `read` makes events of a body that was verified, later and
without any I/O; both take whatever a stranger may send and raise nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from relaygw.mail.verdict import Event

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MARK = "relaygw"
"""The name of our mark among a provider's tags, variables and metadata."""
MARK_HEADER = "x-relaygw-mark"
"""The header field that carries it where a provider has no place of its own; lower-case."""
MAX_BODY = 1 << 20
"""Bytes of a post; a listener refuses larger ones unread."""
MAX_RAW = 16_384
"""Characters of one event that are kept as it came."""


@dataclass(frozen=True, slots=True)
class Post:
    """A post as it came: the bytes are signed, so nobody decodes them before `verify`."""

    body: bytes
    headers: Mapping[str, str]  # names in lower case
    received_at_ms: int


class Keys(Protocol):
    """Where public keys of certificates come from; see `feedback.certificates`."""

    async def public_key(self, url: str, at_ms: int) -> RSAPublicKey:
        """Return the key of a certificate whose URL was checked. Raises `Refused`."""


@dataclass(frozen=True, slots=True, repr=False)
class Trust:
    """What a provider's posts are believed by; `secret` is never told."""

    secret: str  # a signing key, a public key or user:password, as the provider has it
    topics: frozenset[str] = frozenset()  # of SNS: only these
    keys: Keys | None = None  # of SNS


@dataclass(frozen=True, slots=True)
class Verified:
    """What the listener does beside taking the post.

    `once` is remembered until `once_until_ms`, in the transaction that takes the post; where it is
    known already the post was taken before or stolen: answer 200 and do nothing. `confirm_url` is
    fetched once by `fetch.fetch`, and its failure (`NotFetched`) answered by 503. `told` is a
    line for the log. Without `is_events` there is nothing to read in it.
    """

    once: str | None = None
    once_until_ms: int = 0
    confirm_url: str | None = None
    told: str = ""
    is_events: bool = True


class Refused(Exception):
    """A post that is not believed: the status that suits the provider, and why, for the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = int(status)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Format:
    """How one provider speaks."""

    verify: Callable[[Post, Trust], Awaitable[Verified]]  # raises Refused
    read: Callable[[bytes], list[Event]]
    problem: Callable[[str], str]  # what is wrong with a configured secret; "": nothing
    busy: int = HTTPStatus.SERVICE_UNAVAILABLE
    """What makes the provider post again later: for a rate limit, or a store in trouble."""
    too_large: int = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    needs_topic: bool = False
