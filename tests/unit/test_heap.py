"""A process that forks leaves its children no holes in its heap."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import ctypes, gc
from relaygw.roles import heap

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = heap._MallocInfo
kept = [bytearray(size) for size in range(600, 3000) for _ in range(3)]
del kept[::2]
before = libc.mallinfo2()
heap.share()
after = libc.mallinfo2()
print(before.free - before.at_end, after.free - after.at_end, gc.get_freeze_count())
"""


def test_what_is_free_between_objects_is_taken() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    holes_before, holes_after, frozen = map(int, run.stdout.split())
    assert holes_before > 1_000_000
    assert holes_after < holes_before / 20
    assert frozen > 10_000
