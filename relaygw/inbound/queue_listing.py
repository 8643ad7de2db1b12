"""mailq for any local user: whoever connects to a socket in the maildrop is sent the queue.

In the form of Postfix's mailq with long queue ids, which monitoring reads: `*` behind the id is
active, `!` held. A page at a time, in a thread that rests as long as it worked, and none while a
client does not read.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from relaygw.inbound.drop_directory import DropDirectory
from relaygw.inbound.local_socket import STALL_S, LocalSocket
from relaygw.mail import drop
from relaygw.mail.state import DeliveryState
from relaygw.mail.words import counted, escape
from relaygw.observe.maillog import MailLog
from relaygw.store.queue import Queue
from relaygw.store.queue_entry import Waiting, Way

LookAround = Callable[[], Callable[[Way], str]]
"""Looks at what is in the way of mail now, and returns what says it; "" for nothing."""
PAGE_MESSAGES = 500
HEADINGS = b"----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n"
NULL_SENDER = "MAILER-DAEMON"  # what Postfix prints for the null sender
_HELD = frozenset({DeliveryState.HELD.value})
_RECIPIENT_INDENT = " " * 47  # below the sender
_REASON_END = 76  # reasons are set against the right
_REASON_CHARACTERS = 1000


@dataclass(slots=True)
class _Progress:
    after: str = ""  # this id
    messages: int = 0
    size_bytes: int = 0
    is_over: bool = False
    wait_words: Callable[[Way], str] | None = None  # None: nothing was read yet


class QueueListing(LocalSocket):
    """Tells what is queued."""

    name = drop.QUEUE_SOCKET
    serves = "mailq"

    def __init__(
        self,
        directory: DropDirectory,
        queue: Queue,
        log: MailLog,
        look_around: LookAround,
    ) -> None:
        super().__init__(directory, log)
        self._queue = queue
        self._look_around = look_around

    async def answer(self, client: socket.socket, _uid: int) -> None:
        """Send the whole report."""
        loop, progress = asyncio.get_running_loop(), _Progress()
        while not progress.is_over:
            page = await loop.run_in_executor(self.thread, self._next_page, progress)
            async with asyncio.timeout(STALL_S):
                await loop.sock_sendall(client, page)

    # --- in the thread -------------------------------------------------------------------

    def _next_page(self, progress: _Progress) -> bytes:
        begun_s = time.thread_time()
        entries = self._queue.waiting(limit=PAGE_MESSAGES, after=progress.after)
        if progress.wait_words is None:
            progress.wait_words = self._look_around()
        rows = [compose_rows(entry.explained(progress.wait_words)) for entry in entries]
        if rows and not progress.messages:
            rows.insert(0, HEADINGS)
        if entries:
            progress.after = entries[-1].queue_id
            progress.messages += len(entries)
            progress.size_bytes += sum(entry.size_bytes for entry in entries)
        progress.is_over = len(entries) < PAGE_MESSAGES
        if not progress.is_over:
            time.sleep(time.thread_time() - begun_s)
        elif not progress.messages:
            rows.append(drop.QUEUE_EMPTY)
        else:
            rows.append(compose_closing(messages=progress.messages, size_bytes=progress.size_bytes))
        return b"".join(rows)


def compose_rows(message: Waiting) -> bytes:
    """Return the lines of a message, an empty one last; times are local."""
    arrival = time.asctime(time.localtime(message.accepted_at_ms / 1000))[:19]
    sender = escape(message.sender) or NULL_SENDER
    mark = "!" if message.states == _HELD else ""
    if DeliveryState.ACTIVE in message.states:
        mark = "*"
    # a mark needs a place of its own, so that no size runs into it
    name = f"{message.queue_id}{mark}"
    lines = [f"{name:<18} {message.size_bytes:>7} {arrival} {sender}", *_recipient_lines(message)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def compose_closing(*, messages: int, size_bytes: int) -> bytes:
    """Return the last line."""
    text = f"{size_bytes // 1024} Kbytes in {counted(messages, 'Request')}.\n"
    return drop.QUEUE_CLOSING + text.encode("ascii")


def _recipient_lines(message: Waiting) -> Iterator[str]:
    said = ""
    for address, why, _ in message.recipients:
        reason = escape(why[:_REASON_CHARACTERS])
        if reason and reason != said:
            yield f"({reason})".rjust(_REASON_END + 2)
        said = reason
        yield f"{_RECIPIENT_INDENT} {escape(address)}"
