"""One post to a receiver: what it says, how it is signed, where it may go, what the answer means.

It is signed by Standard Webhooks 1.0.0; docs/webhooks.md shows one. The connection goes to the very
address that was looked at, as in the check of links. A redirect is no success and is not followed;
of an answer only its status and Retry-After are read.
"""

from __future__ import annotations

import ssl
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic_core import to_json  # a quarter of what the standard library takes

from relaygw import __version__
from relaygw.errors import RelaygwError
from relaygw.http_request import Unanswered, host_of, post_directly
from relaygw.mail.clock import clock_ms, rfc3339, utc_time
from relaygw.reach import is_public, verifying_context
from relaygw.settings.model import Settings
from relaygw.settings.webhooks import Webhook
from relaygw.store.outbox import WebhookEvent

_VERSION = 1
"""Of the body: it grows when a receiver that knows the old one could not read the new one."""
MAX_EVENTS = 200
_MAX_BYTES = 65_536  # of the events, together; one is far smaller
_TYPE = "mail.events"


def fits(events: Sequence[WebhookEvent]) -> int:
    """Return how many of the events, from the first on, one post has room for."""
    size = 0
    for number, event in enumerate(events):
        size += len(_encoded(event)) + 1
        if size > _MAX_BYTES:
            return number
    return len(events)


def body_of(events: Sequence[WebhookEvent], *, hostname: str, mode: str, at_ms: int) -> bytes:
    """Return the bytes of a post; `hostname` and `mode` are the gateway's."""
    head = {
        "type": _TYPE,
        "version": _VERSION,
        "timestamp": rfc3339(at_ms),
        "gateway": hostname,
        "mode": mode,
        "data": {"events": []},
    }
    return to_json(head).removesuffix(b"]}}") + b",".join(map(_encoded, events)) + b"]}}"


@lru_cache(maxsize=MAX_EVENTS)
def _encoded(event: WebhookEvent) -> bytes:
    """Return an event as it is posted; of those of a post each is made once."""
    return to_json(_event_object(event))


def _event_object(event: WebhookEvent) -> dict[str, Any]:
    """Return one event as receivers get it."""
    return {
        "id": event.event_id,
        "kind": event.kind,
        "at": rfc3339(event.at_ms),
        "queue_id": event.queue_id,
        "recipient": event.address,
        "original_recipient": event.original,
        "sender": event.sender,
        "message_id": event.message_id,
        "order": event.link_value,
        "provider": event.provider,
        "verdict": event.verdict,
        "reply": event.reply,
        "dsn": event.dsn,
    }


def headers_of(body: bytes, *, post_id: str, keys: Sequence[str], at_ms: int) -> dict[str, str]:
    """Return the headers of an attempt at `at_ms`, with a signature by each of `keys`."""
    from standardwebhooks import Webhook as Signer

    at, text = utc_time(at_ms), body.decode()
    return {
        "content-type": "application/json",
        "user-agent": f"relaygw/{__version__}",
        "webhook-id": post_id,
        "webhook-timestamp": str(at_ms // 1000),
        "webhook-signature": " ".join(Signer(key).sign(post_id, at, text) for key in keys),
    }


def trial_event(at_ms: int) -> WebhookEvent:
    """Return the event that `relaygw webhooks test` sends."""
    return WebhookEvent(
        event_id=f"ev_test_{at_ms}",
        event_no=0,
        queue_id="",
        rcpt_no=0,
        kind="test",
        at_ms=at_ms,
        verdict=None,
        provider=None,
        reply="somebody ran relaygw webhooks test",
        dsn=None,
        address=None,
        original=None,
        sender=None,
        message_id=None,
        link_value=None,
    )


LIMIT_S = 15.0  # for a post, from the name to the status


class NotTaken(RelaygwError):
    """A receiver did not take a post; the text says why, and holds no secret."""

    def __init__(
        self, problem: str, *, is_gone: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(problem)
        self.is_gone = is_gone
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A receiver's URL and keys, as they were read."""

    url: str
    keys: tuple[str, ...]
    tls: ssl.SSLContext  # whom it believes; costs milliseconds to make
    allow_private: bool = False


async def send_events(
    target: Target,
    events: Sequence[WebhookEvent],
    post_id: str,
    settings: Settings,
    *,
    limit_s: float = LIMIT_S,
) -> int:
    """Post events, signed now; return the status, which is 2xx. Raises NotTaken."""
    now_ms = clock_ms()
    mode = settings.mode.value
    body = body_of(events, hostname=settings.hostname, mode=mode, at_ms=now_ms)
    headers = headers_of(body, post_id=post_id, keys=target.keys, at_ms=now_ms)
    return await send_post(target, body, headers, limit_s=limit_s)


def read_target(webhook: Webhook) -> Target:
    """Read where a receiver is and what signs; blocks. Raises SettingsError."""
    url, keys = webhook.read_url(), tuple(webhook.read_keys())
    return Target(url, keys, verifying_context(), allow_private=webhook.allow_private)


async def send_post(
    target: Target, body: bytes, headers: Mapping[str, str], *, limit_s: float = LIMIT_S
) -> int:
    """Post a body; return the status, which is 2xx. Raises NotTaken."""
    parts = urlsplit(target.url)
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = {**headers, "authorization": f"Basic {b64encode(user.encode()).decode()}"}
    host = host_of(target.url)
    try:
        answer = await post_directly(
            target.url,
            body,
            headers,
            limit_s=limit_s,
            context=target.tls,
            permit=lambda name, addresses: _permit(host, name, addresses, target.allow_private),
        )
    except Unanswered as error:
        raise NotTaken(str(error)) from None
    if answer.is_success:
        return answer.status
    status = answer.status
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    raise NotTaken(
        f"{host} answered {status}{hint}",
        is_gone=status == 410,
        retry_after_s=seconds_of(answer.headers.get("retry-after", "")),
    )


def _permit(host: str, name: str, addresses: Sequence[str], allow_private: bool) -> None:
    """Raise NotTaken for a name with an address inside that nobody named."""
    if _is_literal(name) or allow_private or all(map(is_public, addresses)):
        return
    if name == "localhost" and all(ip_address(address).is_loopback for address in addresses):
        return
    raise NotTaken(
        f"{host} has an address inside this network; if that is right, set allow_private: true"
    )


def _is_literal(name: str) -> bool:
    with suppress(ValueError):
        ip_address(name)
        return True
    return False


def seconds_of(retry_after: str) -> float | None:
    """Return the wait that Retry-After asks for, as seconds or a date (RFC 9110); None: nothing."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    with suppress(ValueError, OverflowError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None
