"""What a maillog tells of deliveries: from whom, to whom, by which host, with what result."""

from __future__ import annotations

import errno
import gzip
import os
import re
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

# What is before a mark is passed over once, up to the first: what a stranger wrote into a line, be
# it marks again and again, takes time with its size alone.
_FROM = re.compile(r"^(?>.*?/qmgr\[)\d+\]: ([0-9A-Za-z]+): from=<(.*?)>,")
_MESSAGE_ID = re.compile(r"/cleanup\[\d+\]: ([0-9A-Za-z]+): message-id=(.*)")
_TO = re.compile(
    r"^(?>.*?/(\w[\w-]*)\[)\d+\]: ([0-9A-Za-z]+): to=<(?>(.*?)>,(?= (?:orig_to=<|relay=)))"
    r"(?: orig_to=<(?>(.*?)>,(?= relay=)))? relay=([^,]*),.*?\bstatus=([a-z-]+)(?: \((.*)\))?"
)
_REJECT = re.compile(
    r"^(?>.*?/smtpd\[)\d+\]: ([0-9A-Za-z]+): reject: RCPT from "
    r"(?>.*?: Recipient address rejected: )(?>(.*?);(?= from=<)) from=<(?>(.*?)> to=<)"
    r"(?>(.*?)>(?= proto=|$))"
)
REJECTED = "rejected"
_FORWARDED = "forwarded as "
_MAX_KNOWN = 100_000  # messages whose sender and Message-ID are remembered
_LOOK_S = 0.2
_PIECE_BYTES = 2**16
_MAX_LINE_BYTES = 2**20
_LAST_BYTES = 4096  # by which a log is known again
_MAX_LOGS = 2  # the new one, and the one that was rotated


@dataclass(frozen=True, slots=True)
class Logged:
    """One recipient's delivery, as a line of the log has it."""

    queue_id: str
    sender: str | None  # None: its line is not in the log
    recipient: str
    original: str | None  # before rewriting
    daemon: str
    relay: str  # host[address]:port, local, none
    status: str  # sent, deferred, bounced; rejected: at the door
    text: str = ""  # what was said
    message_id: str | None = None  # None: its line is not in the log


def read_maillog(lines: Iterable[str]) -> Iterator[Logged]:
    """Yield the deliveries that a log of Postfix tells of; other lines are passed over."""
    senders: OrderedDict[str, str] = OrderedDict()
    message_ids: OrderedDict[str, str] = OrderedDict()
    for line in lines:
        for known, pattern in ((senders, _FROM), (message_ids, _MESSAGE_ID)):
            found = pattern.search(line)
            if found is not None:
                known[found[1]] = found[2].strip()
                if len(known) > _MAX_KNOWN:
                    known.popitem(last=False)
        found = _TO.search(line)
        if found is not None:
            daemon, queue_id, recipient, original, relay, status, text = found.groups()
            if daemon == "local" and (text or "").startswith(_FORWARDED):
                continue  # by aliases(5): what became of it has lines of its own
            sender, message_id = senders.get(queue_id), message_ids.get(queue_id)
            whom = (sender, recipient, original)
            yield Logged(queue_id, *whom, daemon, relay, status, text or "", message_id)
            continue
        found = _REJECT.search(line)
        if found is not None:
            queue_id, text, sender, recipient = found.groups()
            yield Logged(queue_id, sender, recipient, None, "smtpd", "none", REJECTED, text)


def whole_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a log, also of one that was packed by gzip. Raises OSError."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
        try:
            yield from lines
        except (EOFError, zlib.error) as error:  # gzip raises them for what is cut or damaged
            raise OSError(errno.EIO, f"the packed log is damaged ({error})", str(path)) from error


def followed_lines(path: Path, *, is_over: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines of a log and those that come, until `is_over`, asked when there is none.

    A log that is rotated is read on beside the new one, for what is still written to it; one that
    is emptied is read anew. What is not there yet is waited for.
    """
    logs: list[_GrowingLog] = []
    try:
        while True:
            there = _GrowingLog.opened(path, but=logs[-1] if logs else None)
            logs += [there] if there is not None else []
            pieces = [log.lines() for log in logs]
            yield from chain.from_iterable(filter(None, pieces))
            if len(logs) > _MAX_LOGS and pieces[0] is None:
                logs.pop(0).close()
            if all(piece is None for piece in pieces):
                if is_over():
                    return
                time.sleep(_LOOK_S)
    finally:
        for log in logs:
            log.close()


class _GrowingLog:
    """A log that is open, and how far it was read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""  # of a line that has not ended
        self._last = b""  # what was read last

    @classmethod
    def opened(cls, path: Path, *, but: _GrowingLog | None) -> _GrowingLog | None:
        """Open what is under a name now; None: nothing, or what is open already."""
        with suppress(FileNotFoundError):
            if but is None or not os.path.samestat(path.stat(), os.fstat(but._descriptor)):
                return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return None

    def lines(self) -> list[str] | None:
        """Return the lines of the next piece; None: there is none."""
        at = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if os.pread(self._descriptor, len(self._last), at - len(self._last)) != self._last:
            os.lseek(self._descriptor, 0, os.SEEK_SET)  # it was emptied, and written again
            self._rest = self._last = b""
        piece = os.read(self._descriptor, _PIECE_BYTES)
        if not piece:
            return None
        self._last = (self._last + piece)[-_LAST_BYTES:]
        *lines, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[:_MAX_LINE_BYTES]
        return [line.decode("utf-8", "replace") for line in lines]

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)
