"""A message on its way from one queue to another, and its form as a line of JSON.

What counts is the envelope and the content; the rest of a line is for whoever reads it.
"""

from __future__ import annotations

import binascii
import hashlib
import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

from relaygw.mail.storable import unstorable_sign

FORMAT = "relaygw_export"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Envelope and content of a message; `content` has CRLF line ends."""

    sender: str | None  # "" is the null sender, None: not told
    recipients: tuple[str, ...]  # those that still waited
    content: bytes
    queue_id: str = ""  # where it came from
    mode: str | None = None  # that it was accepted in; it stays as strict. None: not told

    def key(self) -> str:
        """Return what is the same whenever this very message comes again."""
        digest = hashlib.sha256()
        for part in (self.queue_id, self.sender or "", *self.recipients):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(self.content)
        return digest.hexdigest()[:40]


class NotExported(ValueError):
    """A piece of input is no exported message; the text says why."""


def as_line(one: Exported, about: dict[str, Any]) -> bytes:
    """Return a message as a line of JSON; `about` are further fields."""
    fields = {
        FORMAT: VERSION,
        "queue_id": one.queue_id,
        "sender": one.sender,
        "recipients": list(one.recipients),
        "mode": one.mode,
        **about,
        "content": b64encode(one.content).decode("ascii"),
    }
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


def from_line(line: bytes) -> Exported:
    """Return the message of a line. Raises NotExported."""
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise NotExported(f"no JSON: {error}") from error
    except RecursionError:
        raise NotExported("no JSON: too deep") from None
    if not isinstance(fields, dict) or fields.get(FORMAT) != VERSION:
        raise NotExported(f'no object with "{FORMAT}":{VERSION}')
    sender, recipients, content = (
        fields.get("sender"), fields.get("recipients"), fields.get("content"),
    )  # fmt: skip
    if not isinstance(sender, str):
        raise NotExported("sender is not text")
    if not isinstance(recipients, list) or not all(isinstance(one, str) for one in recipients):
        raise NotExported("recipients are no list of addresses")
    if not isinstance(content, str):
        raise NotExported("content is not text")
    queue_id = str(fields.get("queue_id") or "")
    for name, text in (("sender", sender), ("recipients", "".join(recipients)),
                       ("queue_id", queue_id)):  # fmt: skip
        _check_storable(name, text)
    try:
        body = b64decode(content, validate=True)
    except (ValueError, binascii.Error) as error:
        raise NotExported(f"content is not base64: {error}") from error
    if not isinstance(fields.get("mode"), str):
        raise NotExported("mode is not text")
    return Exported(
        sender=sender,
        recipients=tuple(recipients),
        content=body,
        queue_id=queue_id,
        mode=fields["mode"],
    )


def _check_storable(name: str, text: str) -> None:
    sign = unstorable_sign(text)
    if sign is not None:
        raise NotExported(f"{name} has {sign!r}, which no text may have")
