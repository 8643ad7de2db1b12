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
from dataclasses import dataclass
from pathlib import Path

_FROM = re.compile(r"/qmgr\[\d+\]: ([0-9A-Za-z]+): from=<(.*?)>,")
_TO = re.compile(
    r"/(\w[\w-]*)\[\d+\]: ([0-9A-Za-z]+): to=<(.*?)>,(?: orig_to=<(.*?)>,)? relay=([^,]*),"
    r".*?\bstatus=([a-z-]+)(?: \((.*)\))?"
)
_REJECT = re.compile(
    r"/smtpd\[\d+\]: ([0-9A-Za-z]+): reject: RCPT from .*?: Recipient address rejected: (.*?);"
    r" from=<(.*?)> to=<(.*?)>(?: proto=|$)"
)
REJECTED = "rejected"
_MAX_KNOWN = 100_000  # messages whose sender is remembered
_LOOK_S = 0.2
_PIECE_BYTES = 2**16
_MAX_LINE_BYTES = 2**20


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


def read_maillog(lines: Iterable[str]) -> Iterator[Logged]:
    """Yield the deliveries that a log of Postfix tells of; other lines are passed over."""
    senders: OrderedDict[str, str] = OrderedDict()
    for line in lines:
        found = _FROM.search(line)
        if found is not None:
            senders[found[1]] = found[2]
            if len(senders) > _MAX_KNOWN:
                senders.popitem(last=False)
            continue
        found = _TO.search(line)
        if found is not None:
            daemon, queue_id, recipient, original, relay, status, text = found.groups()
            sender = senders.get(queue_id)
            yield Logged(queue_id, sender, recipient, original, daemon, relay, status, text or "")
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

    A log that is rotated is read to its end, then the new one; what is not there yet is waited for.
    """
    rest = b""
    descriptor: int | None = None
    try:
        while True:
            if descriptor is None:
                descriptor, rest = _opened(path), b""
            piece = os.read(descriptor, _PIECE_BYTES) if descriptor is not None else b""
            if piece:
                *lines, rest = (rest + piece).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
                rest = rest[:_MAX_LINE_BYTES]
            elif is_over():
                return
            else:
                time.sleep(_LOOK_S)
                if descriptor is not None and _is_replaced(descriptor, path):
                    os.close(descriptor)
                    descriptor = None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _is_replaced(descriptor: int, path: Path) -> bool:
    """Return whether all of a log was read and another is under its name, or it was emptied."""
    mine, at = os.fstat(descriptor), os.lseek(descriptor, 0, os.SEEK_CUR)
    if mine.st_size != at:
        return mine.st_size < at
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)
