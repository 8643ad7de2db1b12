"""A disk that remembers each write and each flush, in order, so that any power cut can be replayed.

It is one file, mounted by FUSE, and the kernel's loop driver makes a block device of it: the file
system on it is a real one, and what it has not flushed is not on the disk. Needs root.

Events of its log, each an `Event` and the bytes that it names: `WRITE` was taken into the disk's
cache, `FLUSH`: all that came before is durable.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path

EVENT = struct.Struct("<QQII")
WRITE, FLUSH = 1, 2

_REQUEST = struct.Struct("<IIQQIIIHH")
_REPLY = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<QIIQQQQQQIIIIIIIIII")
_AT = struct.Struct("<QQI")  # of reads and writes: handle, offset, size
_AT_BYTES = 40
_MAX_BYTES = 1 << 20
_MAX_PAGES, _BIG_WRITES = 1 << 22, 1 << 5
_DIRECT = 1
_FORGET, _BATCH_FORGET, _INTERRUPT, _DESTROY = 2, 42, 36, 38
_WRITE, _FLUSH = 16, 20
_LOST_WHEN_BROKEN = frozenset({_WRITE, _FLUSH})
_NO_REPLY = frozenset({_FORGET, _BATCH_FORGET, _INTERRUPT})


@dataclass(frozen=True, slots=True)
class Event:
    """One write, or a flush, which has no content."""

    at_ns: int  # CLOCK_MONOTONIC
    offset: int
    content: bytes | None


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of a log; one that is still being written is left out."""
    with path.open("rb") as log:
        while len(head := log.read(EVENT.size)) == EVENT.size:
            at_ns, offset, kind, count = EVENT.unpack(head)
            content = log.read(count)
            if len(content) == count:
                yield Event(at_ns, offset, content if kind == WRITE else None)


class Disk:
    """Answers the kernel's requests for the one file; ends when it is unmounted.

    Broken, which USR1 makes it, it writes and flushes nothing any more, and says so.
    """

    def __init__(self, device: int, image: mmap, log: Path) -> None:
        self._device = device
        self._image = image
        self._log = log.open("ab", buffering=0)
        self.is_broken = False
        self._answers: dict[int, Callable[[memoryview], bytes]] = {
            26: self._begin,
            3: self._attributes,
            4: self._attributes,
            14: lambda _: struct.pack("<QII", 0, _DIRECT, 0),
            15: self._read,
            _WRITE: self._write,
            18: lambda _: b"",
            _FLUSH: self._flush,
            25: lambda _: b"",
            _DESTROY: lambda _: b"",
        }

    def serve(self) -> None:
        """Answer until the end."""
        while True:
            try:
                request = memoryview(os.read(self._device, _MAX_BYTES + 4096))
            except OSError as error:
                if error.errno == errno.ENODEV:  # unmounted
                    return
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue
                raise
            _, kind, unique, *_ = _REQUEST.unpack_from(request)
            if kind in _NO_REPLY:
                continue
            said, failure = b"", 0
            if self.is_broken and kind in _LOST_WHEN_BROKEN:
                failure = -errno.EIO
            elif (answer := self._answers.get(kind)) is not None:
                said = answer(request[_REQUEST.size :])
            else:
                failure = -errno.ENOSYS
            os.write(self._device, _REPLY.pack(_REPLY.size + len(said), failure, unique) + said)

    def _begin(self, asked: memoryview) -> bytes:
        major, minor, ahead, flags = struct.unpack_from("<IIII", asked)
        chosen = flags & (_MAX_PAGES | _BIG_WRITES)
        said = (major, min(minor, 38), ahead, chosen, 16, 12, _MAX_BYTES, 1, _MAX_BYTES // 4096, 0)
        return struct.pack("<IIIIHHIIHH", *said).ljust(64, b"\0")

    def _attributes(self, _asked: memoryview) -> bytes:
        size = len(self._image)
        return _ATTRIBUTES.pack(
            *(0, 0, 0), *(1, size, size // 512, 0, 0, 0), *(0, 0, 0), 0o100600, 1, 0, 0, 0, 4096, 0
        )

    def _read(self, asked: memoryview) -> bytes:
        _, offset, count = _AT.unpack_from(asked)
        return self._image[offset : offset + count]

    def _write(self, asked: memoryview) -> bytes:
        _, offset, count = _AT.unpack_from(asked)
        content = asked[_AT_BYTES : _AT_BYTES + count]
        self._note(WRITE, offset, content)
        self._image[offset : offset + count] = content
        return struct.pack("<II", count, 0)

    def _flush(self, _asked: memoryview) -> bytes:
        self._note(FLUSH, 0, b"")
        return b""

    def _note(self, kind: int, offset: int, content: memoryview | bytes) -> None:
        head = EVENT.pack(time.monotonic_ns(), offset, kind, len(content))
        os.writev(self._log.fileno(), [head, content])


def mount(file: Path) -> int:
    """Put a disk in the place of a file; return the descriptor of its requests."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=100000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"disk", os.fsencode(file), b"fuse", 0, options.encode()):
        failure = ctypes.get_errno()
        raise OSError(failure, f"the disk is not mounted: {os.strerror(failure)}")
    return device


def main() -> None:
    """Run as `python3 -m bench.cutting.disk`; ready at its first line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, required=True, help="is the disk from now on")
    parser.add_argument("--image", type=Path, required=True, help="what is on it")
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    with options.image.open("r+b") as image, mmap(image.fileno(), 0) as content:
        disk = Disk(mount(options.file), content, options.log)
        signal.signal(signal.SIGUSR1, lambda *_: setattr(disk, "is_broken", True))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        disk.serve()


if __name__ == "__main__":
    main()
