"""What an engine does with an image, by the kernel's own means: root only.

An image is a directory with /etc of this machine, an overlay over its /usr, and the base
Python; what the steps write stays in the directory. Each run has mounts, processes and a
network of its own, an empty environment, and a chroot; when it ends nothing of it is left.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_BESIDE = ("", ".usr", ".work")
_LINKS = ("bin", "lib", "lib64", "sbin")
_NOT_IN_SLIM = ("sbin/sendmail", "lib/sendmail", "bin/mailq", "bin/newaliases")
"""What of this machine's /usr a slim image has not: another mailer's programs."""
_ENTER = """
set -eu
root=$1 python=$2; shift 2
mount -t overlay overlay -o "lowerdir=/usr,upperdir=$root.usr,workdir=$root.work" "$root/usr"
mkdir -p "$root$python"
case "$python" in
/usr | /usr/*) ;;
*) mount --bind "$python" "$root$python" ;;
esac
for device in null urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
if [ -n "${RIG_BINDS:-}" ]; then
    for bind in $RIG_BINDS; do
        mkdir -p "$root${bind#*=}"
        mount --bind "${bind%=*}" "$root${bind#*=}"
    done
fi
mount -t proc proc "$root/proc"
if [ -n "${RIG_VOLUMES:-}" ]; then
    for volume in $RIG_VOLUMES; do mount --bind "$root$volume" "$root$volume"; done
    mount --rbind "$root" "$root"
    mount -o remount,ro,bind "$root"
fi
unset RIG_BINDS RIG_VOLUMES
exec chroot "$root" "$@"
"""
_LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
"""
BASE_ENVIRONMENT = {"PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Root:
    """The file system of an image while it is built or runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("usr", "proc", "dev", "run"):
            (path / name).mkdir(parents=True)
        (path / "tmp").mkdir()
        (path / "tmp").chmod(0o1777)
        for side in _BESIDE[1:]:
            self._beside(side).mkdir()
        for name in _LINKS:
            (path / name).symlink_to(f"usr/{name}")
        shutil.copytree("/etc", path / "etc", symlinks=True, ignore=_unreadable)
        for name in _NOT_IN_SLIM:
            whiteout = self._beside(".usr") / name
            whiteout.parent.mkdir(exist_ok=True)
            os.mknod(whiteout, stat.S_IFCHR, os.makedev(0, 0))
        local = self._beside(".usr") / "local/bin"
        local.mkdir(parents=True)
        if not (Path(sys.base_prefix) / "bin/python").exists():
            (local / "python").symlink_to(Path(sys.base_prefix) / "bin/python3")

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def copy(self, name: Path) -> Root:
        """Return a copy, as a stage that begins with this one."""
        for ending in ("", ".usr"):
            source = self._beside(ending)
            subprocess.run(["cp", "-a", source, f"{name}{ending}"], check=True)
        other = Root.__new__(Root)
        other.path = name
        other._beside(".work").mkdir()
        return other

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "0:0",
        cwd: str = "/",
        env: Mapping[str, str],
        has_network: bool = False,
        binds: Mapping[Path, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its output is in the result."""
        return subprocess.run(
            self._command(argv, user, cwd, env, has_network=has_network),
            env=_rig_environment(binds),
            capture_output=True,
            text=True,
            timeout=500 if has_network else 110,  # an index of packages takes its time
            check=False,
        )

    def _command(
        self,
        argv: Sequence[str],
        user: str,
        cwd: str,
        env: Mapping[str, str],
        *,
        has_network: bool = False,
    ) -> list[str]:
        uid, _, gid = user.partition(":")
        spaces = ["--mount", "--pid", "--fork", "--kill-child", *([] if has_network else ["--net"])]
        inner = f"cd {shlex.quote(cwd)} && exec {shlex.join(argv)}"
        loopback = "" if has_network else f"python3 -c {shlex.quote(_LOOPBACK_UP)}\n"
        privileges = ["--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs"]
        return [
            *("unshare", *spaces, "sh", "-c", loopback + _ENTER, "rig"),
            *(str(self.path), sys.base_prefix),
            *("setpriv", *(privileges if uid != "0" else ["--clear-groups"])),
            *("env", "-i", *(f"{name}={value}" for name, value in env.items())),
            *("/bin/sh", "-c", inner),
        ]

    @contextmanager
    def started(
        self,
        argv: Sequence[str],
        *,
        user: str,
        cwd: str,
        env: Mapping[str, str],
        volumes: Sequence[str] = (),
        binds: Mapping[Path, str] | None = None,
    ) -> Iterator[Running]:
        """Run a command as process 1 of a container for the length of a with block.

        With volumes, nothing outside of them can be written.
        """
        log = self.path.with_name(self.path.name + ".log")
        with log.open("wb") as stream:
            outer = subprocess.Popen(
                self._command(argv, user, cwd, env),
                env=_rig_environment(binds, volumes),
                stdout=stream,
                stderr=stream,
            )
        try:
            yield Running(outer, log, root=self.path, user=user, env=env)
        finally:
            if outer.poll() is None:
                outer.kill()  # takes process 1 with it, and that everything else
            outer.wait()


def remove_root(path: Path) -> None:
    """Remove the file system of an image, and what is kept beside it, where there is one."""
    for ending in _BESIDE:
        shutil.rmtree(f"{path}{ending}", ignore_errors=True)


class Running:
    """A container that runs."""

    def __init__(
        self,
        outer: subprocess.Popen[bytes],
        log: Path,
        *,
        root: Path,
        user: str,
        env: Mapping[str, str],
    ) -> None:
        self._outer, self._log, self._root, self._user, self._env = outer, log, root, user, env

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text()

    @property
    def is_running(self) -> bool:
        """True until process 1 has ended."""
        return self._outer.poll() is None

    def execute(self, argv: Sequence[str], *, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command beside process 1, as `docker exec` and health checks do."""
        uid, _, gid = (user or self._user).partition(":")
        return subprocess.run(
            [
                *("nsenter", "--target", str(self._first_pid()), "--mount", "--net", "--pid"),
                *("--root", "setpriv", "--reuid", uid, "--regid", gid),
                *("--clear-groups", "env", "-i", *(f"{k}={v}" for k, v in self._env.items())),
                *argv,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def stop(self, limit_s: float = 40.0) -> int:
        """Send TERM to process 1; return its exit code."""
        os.kill(self._first_pid(), signal.SIGTERM)
        return self._outer.wait(limit_s)

    def wait_until_healthy(self, check: Sequence[str], limit_s: float = 90.0) -> None:
        """Run the health check until it says yes."""
        deadline_s = time.monotonic() + limit_s
        while (done := self.execute(check)).returncode != 0:
            assert self.is_running, (done.stderr, self.log)
            assert time.monotonic() < deadline_s, (done.stderr, self.log)
            time.sleep(0.1)

    def _first_pid(self) -> int:
        path = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        deadline_s = time.monotonic() + 10
        while not (pids := path.read_text().split()):
            assert time.monotonic() < deadline_s, self.log
            time.sleep(0.01)
        return int(pids[0])


def _rig_environment(
    binds: Mapping[Path, str] | None, volumes: Sequence[str] = ()
) -> dict[str, str]:
    pairs = " ".join(f"{source}={target}" for source, target in (binds or {}).items())
    return {**os.environ, "RIG_BINDS": pairs, "RIG_VOLUMES": " ".join(volumes)}


def _unreadable(directory: str, names: list[str]) -> list[str]:
    """Name what of /etc is no file, directory or link."""
    return [name for name in names if not _is_plain(Path(directory) / name)]


def _is_plain(path: Path) -> bool:
    return path.is_symlink() or path.is_file() or path.is_dir()
