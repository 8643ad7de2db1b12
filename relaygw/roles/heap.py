"""Memory before a fork: arranged so that children go on sharing it.

What a child changes of a shared page it gets a copy of. It takes free blocks between the objects
of its parent first, so those are taken here and never given back: they are of no use anyway.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

_BLOCKS_BYTES = (65536, 16384, 4096, 1024, 512, 256, 128, 96, 64, 48, 32, 24)
# Python's own allocator: blocks of one size up to 512 bytes lie in a pool
_POOL_BYTES, _POOL_HEAD_BYTES = 16384, 48
_SIZES_BYTES = range(48, 513, 16)
_MOST_FREE = 500
_kept: list[bytes] = []


class _MallocInfo(ctypes.Structure):
    """What `mallinfo2` of glibc returns; the last two: free bytes, and those at the end of all."""

    _fields_ = [(f"field_{number}", ctypes.c_size_t) for number in range(8)] + [
        ("free", ctypes.c_size_t),
        ("at_end", ctypes.c_size_t),
    ]


def share() -> None:
    """Keep what is there now in pages that hardly change; called right before the first fork."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallinfo2"):
        _fill_holes(libc)
    _fill_pools()
    # a child that displaces a name in the cache of types changes the page of the name
    getattr(sys, "_clear_internal_caches", sys._clear_type_cache)()
    gc.freeze()


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


def _fill_pools() -> None:
    for size in _SIZES_BYTES:
        for _ in range(_MOST_FREE):
            block = bytes(size - sys.getsizeof(b""))
            if id(block) % _POOL_BYTES == _POOL_HEAD_BYTES:  # the first of a new pool
                break
            _kept.append(block)
