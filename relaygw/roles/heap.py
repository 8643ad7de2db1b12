"""Memory of the roles: before the fork arranged so that they go on sharing it, then kept small.

What a child changes of a shared page it gets a copy of. It takes free blocks between the objects
of its parent first, so those are taken here and never given back: they are of no use anyway.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import re
import sys
from pathlib import Path
from typing import Any

_BLOCKS_BYTES = (65536, 16384, 4096, 1024, 512, 256, 128, 96, 64, 48, 32, 24)
# Python's own allocator: blocks of one size up to 512 bytes lie in a pool
SIZES_BYTES = range(16, 513, 16)
_MOST_FREE_BYTES = 2 * 1024 * 1024
POOL_BYTES, _POOL_HEAD_BYTES = 16384, 48
_NEARLY_ALL = 0.9
# glibc: <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# uvloop has room for 256 KiB at each look into a TLS connection: mapped each time, that took an
# eighth of a worker's processor time
_LARGE_BYTES, _SPARE_BYTES = 512 * 1024, 1024 * 1024
_GARBAGE_OBJECTS = 2_000
_OF_LIBRARIES = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) r-[x-]p .*/.*\n(?:[A-Z].*\n)*?Anonymous: +0 kB$", re.MULTILINE
)


class _MallocInfo(ctypes.Structure):
    """What `mallinfo2` of glibc returns; the last two: free bytes, and those at the end of all."""

    _fields_ = [(f"field_{number}", ctypes.c_size_t) for number in range(8)] + [
        ("free", ctypes.c_size_t),
        ("at_end", ctypes.c_size_t),
    ]


def share() -> None:
    """Keep what is there now in pages that hardly change; called right before the first fork."""
    libc = ctypes.CDLL(None)
    _unmap_libraries(libc)
    gc.collect()
    if hasattr(libc, "mallinfo2"):
        libc.malloc_trim(0)  # whole pages within a hole go back before the hole is taken
        _fill_holes(libc)
    _fill_pools()
    # a child that displaces a name in the cache of types changes the page of the name
    getattr(sys, "_clear_internal_caches", sys._clear_type_cache)()
    gc.freeze()


def keep_small() -> None:
    """Have memory of this process used again, and given back; called right after the fork.

    By itself the library of C gives each thread that allocates a heap of its own, each with holes,
    and raises both limits with the first large message to what holds up to 64 MiB back.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        # the interpreter has one thread run at a time: hardly any waits for another's allocation
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _SPARE_BYTES)
    # what the parent has is frozen: looking through the rest takes a fraction of a millisecond
    gc.set_threshold(_GARBAGE_OBJECTS)


def settle() -> None:
    """Give back what loading took beside the code itself; called once that is loaded."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    gc.freeze()  # it stays: nobody has to look through it


def _unmap_libraries(libc: Any) -> None:
    """Let go of the pages of libraries that the start alone needed; what is used comes back.

    Only of mappings without a page of our own: nothing can be lost with them.
    """
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    mappings = b""
    with contextlib.suppress(OSError):  # a kernel that does not tell
        mappings = Path("/proc/self/smaps").read_bytes()
    for first, end in _OF_LIBRARIES.findall(mappings):
        start = int(first, 16)
        libc.madvise(start, int(end, 16) - start, mmap.MADV_DONTNEED)


def _fill_holes(libc: Any) -> None:
    libc.mallinfo2.restype = _MallocInfo
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.sbrk.argtypes, libc.sbrk.restype = [ctypes.c_ssize_t], ctypes.c_void_p
    info = libc.mallinfo2()
    end = libc.sbrk(0) - info.at_end
    for size in _BLOCKS_BYTES:
        for _ in range(info.free // size):
            block = libc.malloc(size)
            if block is None or block >= end:  # no hole of this size is left
                libc.free(block)
                break


def _fill_pools() -> int:
    """Take free blocks of each size until nearly a whole pool came at once; return their bytes."""
    if sys.getallocatedblocks() == 0:  # another allocator is in use
        return 0
    allocate = ctypes.pythonapi.PyObject_Malloc
    allocate.argtypes, allocate.restype = [ctypes.c_size_t], ctypes.c_void_p
    taken_bytes = 0
    for size in SIZES_BYTES:
        last, in_one, pool = 0, 1, (POOL_BYTES - _POOL_HEAD_BYTES) // size
        for _ in range(_MOST_FREE_BYTES // size):
            block = allocate(size)
            taken_bytes += size
            # not one after the other: the numbers of blocks are objects, too, of 32 bytes
            in_one = in_one + 1 if block // POOL_BYTES == last // POOL_BYTES else 1
            last = block
            if in_one >= pool * _NEARLY_ALL:
                break
    return taken_bytes
