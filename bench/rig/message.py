"""Numbered messages that show any damage: their digest covers envelope and content.

A message to one goes to `ID@cust.test`, one to several to `ID+1@cust.test`, `ID+2@cust.test` and so
on: of these the history names the recipients, and the digest is that of the first form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

NOBODY = "-"
"""Stands for the id of content that has none."""
_PLACE = re.compile(r"\+\d+(?=@)")
_ID_LINE = re.compile(rb"^X-Id: ([0-9a-f-]+)\r$", re.M)


@dataclass(frozen=True, slots=True)
class Message:
    """What a client hands over; `content` has CRLF line ends and no dot-stuffing."""

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes

    @property
    def digest(self) -> str:
        """What `digest` returns for it when it arrives whole."""
        return digest(self.sender, self.recipients[0], self.content)


def compose(message_id: str, number: int, *, more_lines: int = 0, several: int = 0) -> Message:
    """Return the message with an id; sizes from 0.4 to 4 kB, by `number`, and 66 bytes a line.

    It is to one recipient, or to `several`.
    """
    people = [f"{message_id}+{one}@cust.test" for one in range(1, several + 1)]
    head = (
        f"X-Id: {message_id}\r\n"
        f"Subject: kill {message_id}\r\n"
        f"From: shop@shop.test\r\nTo: {message_id}@cust.test\r\n"
        f"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
        f"Message-ID: <{message_id}@shop.test>\r\n\r\n"
    )
    line = hashlib.sha256(message_id.encode()).hexdigest()
    # a line that begins with a dot tells whether stuffing is undone exactly once
    body = f"..{line}\r\n" + f"{line}\r\n" * (2 + number % 50 + more_lines)
    return Message(
        message_id=message_id,
        sender="shop@shop.test",
        recipients=tuple(people) or (f"{message_id}@cust.test",),
        content=(head + body).encode("ascii"),
    )


def identify(content: bytes) -> tuple[str, bytes]:
    """Return the id in received content, and what the client wrote of it.

    A gateway puts its own fields on top (RFC 5321 section 4.4); everything from X-Id on must
    be as it was sent.
    """
    found = _ID_LINE.search(content)
    if found is None:
        return NOBODY, content
    return found[1].decode("ascii"), content[found.start() :]


def digest(sender: str, recipient: str, content: bytes) -> str:
    """Return a short hash of an envelope and its content, the same for each of several."""
    envelope = f"{sender}\n{_PLACE.sub('', recipient)}\n".encode()
    return hashlib.sha256(envelope + content).hexdigest()[:32]


def id_of(address: str) -> str:
    """Return the id of the message that an address is a recipient of."""
    return _PLACE.sub("", address).partition("@")[0]


def named(addresses: Sequence[str]) -> dict[str, list[str]]:
    """Return what the history says of recipients: those of a message to several by their names."""
    if any(_PLACE.search(one) for one in addresses):
        return {"recipients": list(addresses)}
    return {}
