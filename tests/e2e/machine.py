"""A machine of its own for tests: systemd as process 1 over a Debian that stays as it is.

    with Machine(Path("/"), tmp_path) as machine:
        machine.run("dpkg", "--install", "/relaygw.deb")

What it writes is in memory, over the given root. It has processes, mounts, a host name and a
network of its own: nothing outside can be reached. Root only, and a kernel with cgroup2.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.fakes.scripted_provider import ThreadedProvider

PATIENCE_S = 90.0
_ENTER = """
set -eu
base=$1 place=$2
mount -t tmpfs tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=$base,upperdir=$place/upper,workdir=$place/work" "$place/root"
cd "$place/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir -p var/lib/apt/lists  # there is no network, so nothing to look for in them
for one in run tmp dev var/lib/apt/lists; do mount -t tmpfs -o mode=755 tmpfs "$one"; done
chmod 1777 tmp
for one in null zero full random urandom tty; do
    : >"dev/$one"
    mount --bind "/dev/$one" "dev/$one"
done
ln -s /proc/self/fd dev/fd
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
# nothing of the machine that the root is of is started: only what is asked for
printf '[Unit]\\nWants=dbus.socket systemd-journald.socket\\n' >etc/systemd/system/tests.target
rm -rf etc/relaygw var/lib/relaygw var/spool/relaygw var/log/relaygw
for one in $3; do ln -sf /dev/null "etc/systemd/system/$one.service"; done
# what would be made anew with each reload, or with each package, and is not looked at
mkdir -p etc/systemd/system-generators
for one in usr/lib/systemd/system-generators/*; do
    ln -sf /dev/null "etc/systemd/system-generators/${one##*/}"
done
rm -f var/lib/man-db/auto-update
echo machine.test >etc/hostname
hostname machine.test
ip link set lo up
mount --make-rshared "$place/root"  # systemd mounts credentials from a process beside it
touch "$place/entered"
exec chroot "$place/root" env -i container=tests PATH=/usr/sbin:/usr/bin \\
    /usr/lib/systemd/systemd --unit=tests.target --log-target=journal
"""
_MASKED = (
    *("systemd-sysctl", "systemd-modules-load", "systemd-remount-fs", "systemd-udevd"),
    *("systemd-journal-catalog-update", "systemd-hwdb-update", "systemd-update-done", "ldconfig"),
    *("systemd-networkd", "systemd-resolved", "systemd-timesyncd", "systemd-binfmt"),
)
_CLONE_NEWNET = 0x40000000


def cgroup2() -> Path:
    """Return where the kernel's cgroups of version 2 are; StopIteration if nowhere."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return next(Path(place) for _, place, kind, *_ in mounts if kind == "cgroup2")


class Machine:
    """A machine that runs for the length of a with block."""

    def __init__(self, base: Path, directory: Path) -> None:
        self._base = base
        self.place = directory / "machine"
        self.place.mkdir()
        self.before: set[str] = set()
        self.said = ""
        """For tests that share it: what was written before, and what the first command said."""
        self._group = cgroup2() / f"relaygw-tests-{os.getpid()}-{id(self)}"

    def __enter__(self) -> Self:
        self._group.mkdir()
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
        # it does not outlive a test run that is killed
        join = 'echo $$ >"$1/cgroup.procs"; shift; exec setpriv --pdeathsig KILL "$@"'
        enter = ["bash", "-c", _ENTER, "bash", str(self._base), str(self.place)]
        enter.append(" ".join(_MASKED))
        unshare = ["unshare", *spaces, "--fork", "--kill-child", *enter]
        self._outer = subprocess.Popen(
            ["bash", "-c", join, "bash", str(self._group), *unshare],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            self._pid = self._first_pid()
            self.wait_for(lambda: self.run("systemctl", "is-active", "tests.target", check=False))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._outer.kill()  # takes process 1 with it, and that everything else
        self._outer.wait()
        for place, _, _ in os.walk(self._group, topdown=False):
            _wait(lambda place=place: _is_removed(Path(place)), "an empty cgroup")

    def _first_pid(self) -> int:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        _wait(lambda: bool(children.read_text().split()), "a first process")
        pid = int(children.read_text().split()[0])
        entered = Path(f"/proc/{pid}/root{self.place}/entered")
        command = Path(f"/proc/{pid}/comm")
        _wait(lambda: entered.exists() or "systemd" in command.read_text(), "a root")
        return pid

    # --- inside --------------------------------------------------------------------------

    def run(
        self, *words: str, user: str = "root", check: bool = True, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; its output is in the result."""
        become = [] if user == "root" else ["setpriv", f"--reuid={user}", "--clear-groups"]
        become += [] if user == "root" else [f"--regid={user}"]
        enter = ["nsenter", "--target", str(self._pid), "--all", "--root"]
        done = subprocess.run(
            [*enter, "env", "-i", *_ENVIRONMENT, *become, *words],
            input=input,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0 or not check, (words, done.stdout, done.stderr)
        return done

    def wait_for(self, ask: Callable[[], subprocess.CompletedProcess[str]]) -> None:
        """Run a command until it says yes."""
        _wait(lambda: ask().returncode == 0, "yes")

    def path(self, inside: str) -> Path:
        """Return where a file of the machine is seen from outside."""
        return Path(f"/proc/{self._pid}/root{inside}")

    def put(self, source: Path, inside: str) -> str:
        """Copy a file into the machine; return its path there."""
        shutil.copy(source, self.path(inside))
        return inside

    def written(self) -> set[str]:
        """Return the files that were written or made, but for logs and what is in memory."""
        # as it is seen by unshare, which stays outside of the new root
        upper = f"/proc/{self._outer.pid}/root{self.place}/upper"
        find = ["find", upper, "!", "-type", "c", "-printf", "%P\\n"]
        done = subprocess.run(find, capture_output=True, text=True, check=True)
        return {
            name
            for name in done.stdout.splitlines()
            if not name.startswith(_NOT_LOOKED_AT) and not (self._base / name).exists()
        }

    def call(self, what: Callable[[], Any]) -> Any:
        """Call something in a thread whose sockets are of the machine's network."""
        result: list[Any] = []
        error: list[BaseException] = []

        def inside() -> None:
            try:
                self.join_network()
                result.append(what())
            except BaseException as raised:
                error.append(raised)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if error:
            raise error[0]
        return result[0]

    def join_network(self) -> None:
        """Move this thread into the machine's network."""
        with open(f"/proc/{self._pid}/ns/net", "rb") as network:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(network.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")


_NOT_LOOKED_AT = (
    "var/log/",
    "var/lib/dpkg/",
    "var/cache/",
    "var/lib/systemd/",
    "var/lib/apt/",
    "var/tmp/",
)
_ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root")


class ProviderInside(ThreadedProvider):
    """A provider in the network of a machine."""

    def __init__(self, machine: Machine, **options: Any) -> None:
        super().__init__(**options)
        self._machine = machine

    def _main(self) -> None:
        self._machine.join_network()
        super()._main()


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while (began_s := time.monotonic()) and not condition():
        now_s = time.monotonic()
        assert now_s < deadline_s, f"not within {PATIENCE_S} s: {what}"
        time.sleep(max(0.02, 3 * (now_s - began_s)))  # to look may take a program


def _is_removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True
