"""A message on its way from one queue to another: as a line of JSON, or in an mbox file.

An mbox file is quoted as mboxrd does, so that content comes back byte for byte. An entry written
here begins with a field that says its queue id, length, number of recipients and mode. Of any other
mbox the envelope is read where mailers leave it: Return-Path or the separator, and X-Original-To,
Envelope-To or Delivered-To.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from relaygw.mail.content import normalise_line_ends
from relaygw.mail.dsn_request import NO_REQUEST, DsnRequest
from relaygw.mail.words import unstorable_sign

FORMAT = "relaygw_export"
VERSION = 1
_SEPARATOR = b"From "
_MARK = b"X-Relaygw-Export: "
_OURS = re.compile(_MARK + rb"([A-Z0-9]{10,20}) (\d+) (\d+) (\w+)\n")
_QUOTED = re.compile(rb"^>+From ")
_TO_QUOTE = re.compile(rb"^(>*From )", re.MULTILINE)
_ENVELOPE = re.compile(
    rb"^(return-path|x-original-to|envelope-to|delivered-to)[ \t]*+:[ \t]*+([^\n]*+)\n",
    re.IGNORECASE | re.MULTILINE,
)
_NULL_SENDER = "MAILER-DAEMON"
_RECIPIENT_FIELDS = (b"x-original-to", b"envelope-to", b"delivered-to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Envelope and content of a message; `content` has CRLF line ends."""

    sender: str | None  # "" is the null sender, None: not told
    recipients: tuple[str, ...]  # those that still waited
    content: bytes
    queue_id: str = ""  # where it came from
    mode: str | None = None  # that it was accepted in; it stays as strict. None: not told
    identity: str = ""  # what it is known by where it came from; "": its key
    dsn: DsnRequest = NO_REQUEST

    def key(self) -> str:
        """Return a key that is the same whenever this very message comes again."""
        digest = hashlib.sha256()
        for part in (self.queue_id, self.sender or "", *self.recipients):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(self.content)
        return digest.hexdigest()[:40]


class NotExported(ValueError):
    """A piece of input is no exported message; the text says why."""


def as_line(message: Exported, about: dict[str, Any]) -> bytes:
    """Return a message as a line of JSON; `about` are further fields."""
    fields = {
        FORMAT: VERSION,
        "queue_id": message.queue_id,
        "sender": message.sender,
        "recipients": list(message.recipients),
        "mode": message.mode,
        **about,
        "content": b64encode(message.content).decode("ascii"),
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
    sender, recipients, content = map(fields.get, ("sender", "recipients", "content"))
    if not isinstance(sender, str):
        raise NotExported("sender is not text")
    if not isinstance(recipients, list) or not all(
        isinstance(recipient, str) for recipient in recipients
    ):
        raise NotExported("recipients are not a list of addresses")
    if not isinstance(content, str):
        raise NotExported("content is not text")
    queue_id = str(fields.get("queue_id") or "")
    _check_storable(sender=sender, recipients="".join(recipients), queue_id=queue_id)
    try:
        body = b64decode(content, validate=True)
    except (ValueError, binascii.Error) as error:
        raise NotExported(f"content is not base64: {error}") from error
    mode, whom = fields.get("mode"), tuple(recipients)
    if not isinstance(mode, str):
        raise NotExported("mode is not text")
    return Exported(sender=sender, recipients=whom, content=body, queue_id=queue_id, mode=mode)


def _check_storable(**texts: str) -> None:
    for name, text in texts.items():
        sign = unstorable_sign(text)
        if sign is not None:
            raise NotExported(f"{name} has {sign!r}, which no text may have")


# --- mbox ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Entry:
    """One message of an mbox file; `content` is None when it is over the limit."""

    separator: bytes
    content: bytes | None


def as_entry(message: Exported, *, at_ms: int) -> bytes:
    """Return a message as an entry of an mbox file."""
    sender = "".join(message.sender.split()) if message.sender else _NULL_SENDER
    date = time.asctime(time.gmtime(at_ms / 1000))
    sizes = f"{len(message.content)} {len(message.recipients)}"
    mark = f"{message.queue_id} {sizes} {message.mode or ''}\n".encode()
    body = _TO_QUOTE.sub(rb">\1", message.content.replace(b"\r\n", b"\n"))
    return b"".join(
        (
            f"From {sender} {date}\n".encode(),
            _MARK + mark,
            f"Return-Path: <{message.sender or ''}>\n".encode(),
            *(f"X-Original-To: {address}\n".encode() for address in message.recipients),
            body,
            b"\n" if body.endswith(b"\n") else b"\n\n",
        )
    )


def read_entries(lines: Iterable[bytes], *, limit_bytes: int) -> Iterator[Entry]:
    """Yield the messages of an mbox file. Raises NotExported when it is none."""
    separator: bytes | None = None
    kept: list[bytes] = []
    size_bytes = 0
    is_after_blank = True
    for line in lines:
        if is_after_blank and line.startswith(_SEPARATOR):
            if separator is not None:
                yield _entry(separator, kept, size_bytes, limit_bytes)
            separator, kept, size_bytes = line, [], 0
            is_after_blank = False
            continue
        if separator is None:
            if line.strip():
                raise NotExported('the file does not begin with "From ": it is not an mbox')
            continue
        is_after_blank = line in (b"\n", b"\r\n")
        size_bytes += len(line)
        if size_bytes > limit_bytes:
            kept = []
        else:
            kept.append(line[1:] if _QUOTED.match(line) else line)
    if separator is not None:
        yield _entry(separator, kept, size_bytes, limit_bytes)


def _entry(separator: bytes, kept: list[bytes], size_bytes: int, limit_bytes: int) -> Entry:
    if size_bytes > limit_bytes:
        return Entry(separator, None)
    if kept and kept[-1] in (b"\n", b"\r\n"):
        kept.pop()  # belongs to the file
    return Entry(separator, b"".join(kept))


def exported(entry: Entry) -> Exported:
    """Return the message of an entry. Raises NotExported."""
    if entry.content is None:
        raise NotExported("larger than max_message_size")
    ours = _OURS.match(entry.content)
    return _of_ours(entry.content, ours) if ours else _of_others(entry.separator, entry.content)


def _of_ours(text: bytes, mark: re.Match[bytes]) -> Exported:
    size_bytes, count = int(mark[2]), int(mark[3])
    fields = text[mark.end() :].split(b"\n", count + 1)
    *head, body = fields
    values = [line.partition(b": ")[2].decode("utf-8", "backslashreplace") for line in head]
    content = body.replace(b"\n", b"\r\n")
    if content[size_bytes:] == b"\r\n":  # it had no line end of its own
        content = content[:size_bytes]
    if len(content) != size_bytes or len(values) != count + 1:
        raise NotExported(f"damaged: {len(content)} bytes instead of {size_bytes}")
    sender, *recipients = values
    return Exported(
        sender=sender.removeprefix("<").removesuffix(">"),
        recipients=tuple(recipients),
        content=content,
        queue_id=mark[1].decode(),
        mode=mark[4].decode(),
    )


def _of_others(separator: bytes, text: bytes) -> Exported:
    content = text.replace(b"\r\n", b"\n")
    head = content[: content.find(b"\n\n") + 1] if b"\n\n" in content else content
    found: dict[bytes, list[str]] = {}
    for match in _ENVELOPE.finditer(head):
        address = match[2].decode("utf-8", "backslashreplace").strip()
        address = address.removeprefix("<").removesuffix(">")
        found.setdefault(match[1].lower(), []).append(address)
    return_path = found.get(b"return-path")
    sender = return_path[0] if return_path else _of_separator(separator)
    recipients = next((found[name] for name in _RECIPIENT_FIELDS if name in found), [])
    return Exported(
        sender=sender,
        recipients=tuple(dict.fromkeys(recipients)),
        # what told the envelope was put there by the mailer that wrote the file
        content=normalise_line_ends(_ENVELOPE.sub(b"", head) + content[len(head) :]),
    )


def _of_separator(separator: bytes) -> str | None:
    words = separator.decode("utf-8", "backslashreplace").split()
    if len(words) < 2:
        return None
    return "" if words[1].upper() == _NULL_SENDER else words[1]
