"""A process that forks leaves its children no holes, and no idle libraries; they stay small."""

from __future__ import annotations

import subprocess
import sys

from relaygw.roles import heap

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


def test_blocks_that_were_free_among_others_are_not_given_to_children() -> None:
    program = """
from relaygw.roles import heap

kept = [bytes(31) for _ in range(40_000)]  # 64 bytes each, with what is before them
pools = {id(block) // heap.POOL_BYTES for block in kept}
del kept[::3]
heap.share()
new = [bytes(31) for _ in range(5_000)]
print(sum(id(block) // heap.POOL_BYTES in pools for block in new))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 500  # the pool that was begun last


def test_no_more_is_taken_than_was_free() -> None:
    program = """
import uvloop, pydantic, sqlalchemy
from relaygw.roles import heap

print(heap._fill_pools(), heap._fill_pools())
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    first, second = map(int, run.stdout.split())
    # of each size a new pool, and the rest of the last one
    assert second < 2 * len(heap.SIZES_BYTES) * heap.POOL_BYTES
    assert first < 2 * 2**20


def test_libraries_that_nobody_uses_are_let_go_of_and_come_back() -> None:
    program = """
import hashlib, ssl
from pathlib import Path
from relaygw.roles import heap

def mapped_kib():
    return int(Path("/proc/self/status").read_text().partition("RssFile:")[2].split()[0])

ssl.create_default_context()
before = mapped_kib()
heap.share()
print(before, mapped_kib(), hashlib.sha256(b"").hexdigest()[:4], bool(ssl.create_default_context()))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    before, after, *used = run.stdout.split()
    assert int(after) < 0.7 * int(before)
    assert used == ["e3b0", "True"]


def test_threads_of_a_role_share_one_heap_and_large_blocks_are_given_back() -> None:
    program = """
import ctypes, threading
from relaygw.roles import heap

heap.keep_small()
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = heap._MallocInfo
bytearray(8_000_000)  # one that was freed would raise the limit for all later ones
together = threading.Barrier(8)
kept = []

def fill():
    together.wait()
    kept.append([bytearray(2000) for _ in range(500)])

threads = [threading.Thread(target=fill) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
in_blocks_before = libc.mallinfo2().field_4
piece = bytearray(256 * 1024)  # as uvloop takes for each look into a TLS connection
for_a_piece = libc.mallinfo2().field_4 - in_blocks_before
large = bytearray(1_000_000)
in_blocks = libc.mallinfo2().field_4 - in_blocks_before
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
print(f"<large>{for_a_piece} {in_blocks}")
"""
    run = subprocess.run(
        [sys.executable, "-u", "-c", program], capture_output=True, text=True, check=True
    )
    told, _, in_blocks = run.stdout.rpartition("<large>")
    for_a_piece, for_a_large_one = map(int, in_blocks.split())
    assert told.count("<heap nr=") == 1
    assert for_a_piece == 0, "each would be mapped, filled with zeros and unmapped"
    assert for_a_large_one >= 1_000_000


def test_roles_on_postgres_find_its_driver_loaded() -> None:
    program = """
import sys

from relaygw.roles import heap
from relaygw.roles.process import ROLES, preload
from relaygw.settings.model import Settings

preload(ROLES, Settings(mode="sandbox", queue={"url": "postgresql://nobody@127.0.0.1:1/none"}))
before = set(sys.modules)
from relaygw.store.store import open_store
open_store("postgresql://nobody@127.0.0.1:1/none").close()
print(*sorted(set(sys.modules) - before))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []
