"""Certificates that Amazon SNS signs with: addresses pinned, fetched once, kept while valid.

The address stands in the post itself, so it is checked in full before anything is fetched: a
certificate of somebody else's host would prove anything.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from relaygw.feedback.format import Refused
from relaygw.http_request import Unanswered, ask

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns what an address holds. Raises `NotFetched`."""

_Value = TypeVar("_Value")

_HOST = r"https://sns\.[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE = re.compile(rf"{_HOST}/SimpleNotificationService-[0-9a-f]{{8,64}}\.pem", re.ASCII)
_SUBSCRIBE = re.compile(rf"{_HOST}/\?[A-Za-z0-9%&=:._~+-]{{1,2000}}", re.ASCII)
_MAX_CERTIFICATE = 16_384
_KEPT = 16
_FORGOTTEN_S = 60  # after that long a certificate that could not be had is asked for again
_AT_ONCE = 4
_MIN_KEY_BITS = 2048


class NotFetched(Exception):
    """An address could not be read; the text says why."""


@dataclass(frozen=True, slots=True)
class _Kept:
    key: RSAPublicKey
    from_ms: int
    until_ms: int


def is_certificate_url(url: str) -> bool:
    """True for an address at which Amazon keeps a certificate of SNS."""
    return len(url) < 300 and _CERTIFICATE.fullmatch(url) is not None


def is_subscribe_url(url: str) -> bool:
    """True for an address at Amazon SNS, of the form that confirms subscriptions."""
    return len(url) < 3000 and _SUBSCRIBE.fullmatch(url) is not None


class Certificates:
    """Public keys by the address of their certificate."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._kept: dict[str, _Kept] = {}
        self._failed: dict[str, tuple[int, str]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def public_key(self, url: str, at_ms: int) -> RSAPublicKey:
        """Return the key of a certificate that is valid at a time.

        Raises `Refused`: 403 for an address or a certificate that is wrong, 503 when it cannot be
        fetched now.
        """
        if not is_certificate_url(url):
            raise Refused(HTTPStatus.FORBIDDEN, "SigningCertURL is not an address of Amazon SNS")
        kept = self._kept.get(url)
        if kept is None:
            async with self._gate:
                kept = self._kept.get(url) or await self._fetched(url, at_ms)
        if not kept.from_ms <= at_ms <= kept.until_ms:
            raise Refused(
                HTTPStatus.FORBIDDEN, "the certificate at SigningCertURL is not valid now"
            )
        return kept.key

    async def _fetched(self, url: str, at_ms: int) -> _Kept:
        failed_ms, reason = self._failed.get(url, (0, ""))
        if reason and abs(at_ms - failed_ms) < _FORGOTTEN_S * 1000:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, reason)
        try:
            kept = _read(await self._fetch(url))
        except (NotFetched, ValueError) as error:
            reason = f"no certificate at {url}: {error}"
            _keep(self._failed, url, (at_ms, reason))
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, reason) from None
        _keep(self._kept, url, kept)
        return kept


def _keep(kept: dict[str, _Value], url: str, value: _Value) -> None:
    """Keep a value, in the place of the oldest where there are too many."""
    kept.pop(url, None)
    while len(kept) >= _KEPT:
        del kept[next(iter(kept))]
    kept[url] = value


def _read(pem: bytes) -> _Kept:
    """Return the facts of a certificate. Raises ValueError."""
    if len(pem) > _MAX_CERTIFICATE:
        raise ValueError(f"{len(pem)} bytes are too many for a certificate")
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        key = certificate.public_key()
    except Exception as error:  # keys of kinds that the library does not know
        raise ValueError(f"its key cannot be read: {error}") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < _MIN_KEY_BITS:
        raise ValueError(f"its key is not an RSA key of {_MIN_KEY_BITS} bits or more")
    return _Kept(key, _ms(certificate.not_valid_before_utc), _ms(certificate.not_valid_after_utc))


def _ms(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


# --- fetching ---------------------------------------------------------------------------
# Fetches a small file from an address that was checked: no redirects, bounded size and time.


_LIMIT_S = 5.0
_MAX_BYTES = 65_536


async def fetch(url: str) -> bytes:
    """Return the content of an https address; only a 200 is an answer. Raises `NotFetched`."""
    try:
        answer = await ask(
            "GET",
            url,
            limit_s=_LIMIT_S,
            max_body_bytes=_MAX_BYTES,
            headers={"Accept-Encoding": "identity"},
        )
    except Unanswered as error:
        raise NotFetched(error.reason) from None
    if answer.status != 200:
        raise NotFetched(f"the answer was {answer.status}, not 200")
    if len(answer.body) > _MAX_BYTES:
        raise NotFetched(f"it is larger than {_MAX_BYTES} bytes")
    return answer.body
