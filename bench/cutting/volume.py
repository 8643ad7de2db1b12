"""File systems on a recording disk and on its images; all of it ends with this process.

Mounts are in a namespace of their own, and their loop devices go with them. Needs root.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.killing.programs import Program
from bench.killing.sink_watch import wait_until

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS
_MAKERS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K"),
}
FILE_SYSTEMS = tuple(_MAKERS)


def can_be_cut() -> bool:
    """Return whether this process may put a file system on a disk of its own."""
    devices = Path("/dev/fuse"), Path("/dev/loop-control")
    return os.geteuid() == 0 and all(os.access(one, os.W_OK) for one in devices)


def leave_the_mounts_of_others() -> None:
    """Let what this process mounts be seen by nobody but its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "only root may mount a disk that can be cut")
    if not _is_root_a_mount():
        _mount_root()
    _run("mount", "--make-rprivate", "/")


def _is_root_a_mount() -> bool:
    """Return whether `/` is a mount point: in a chroot it is a directory of another one."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == "/" for line in mounts)


def _mount_root() -> None:
    """Make `/` a mount point, which alone can be made private, and whose mounts can be."""
    # below /proc, which is a mount point everywhere: made private, it keeps what follows here
    place = Path("/proc/fs")
    _run("mount", "--make-rprivate", "/proc")
    _run("mount", "-t", "tmpfs", "tmpfs", str(place))
    root, here = place / "root", Path.cwd()
    root.mkdir()
    _run("mount", "--rbind", "/", str(root))
    os.chroot(root)
    os.chdir(here)
    _run("umount", str(place))


class Volume:
    """A file system on a recording disk.

    `empty` is the disk before it was mounted, `log` what happened to it since, `content` what is
    on it.
    """

    def __init__(self, directory: Path, *, file_system: str, size_bytes: int) -> None:
        self.empty, self.log = directory / "empty", directory / "disk.log"
        self.place = directory / "mounted"
        self._disk, self.content = directory / "disk", directory / "content"
        self._options = "nouuid" if file_system == "xfs" else "defaults"
        self.place.mkdir()
        self._disk.touch()
        with self.content.open("wb") as file:
            file.truncate(size_bytes)
        _run(*_MAKERS[file_system], str(self.content))
        shutil.copyfile(self.content, self.empty)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Mount it for use; left, nothing is written any more."""
        files = {"file": self._disk, "image": self.content, "log": self.log}
        with Program("bench.cutting.disk", **files) as self._program:
            try:
                with self.mounted(self._disk):
                    yield
            finally:
                _is_unmounted(self._disk)

    def break_down(self) -> None:
        """Let the disk write nothing any more, while it is recorded."""
        self._program.send_signal(signal.SIGUSR1)

    @contextmanager
    def mounted(self, image: Path) -> Iterator[Path]:
        """Mount an image where the volume was."""
        _run("mount", "-o", f"loop,{self._options}", str(image), str(self.place))
        try:
            yield self.place
        finally:
            wait_until(lambda: _is_unmounted(self.place), "programs on the disk to end")


def roomy_place() -> Path | None:
    """Return a directory in memory where there is one: a disk's log is long."""
    memory = Path("/dev/shm")
    is_there = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 2**30
    return memory if is_there else None


def _is_unmounted(place: Path) -> bool:
    """Unmount; False while a program that was killed still ends."""
    return subprocess.run(["umount", str(place)], check=False, capture_output=True).returncode == 0


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)
