"""The running gateway of a state directory, and all that run on this host.

`service.pid` is locked by the supervisor for as long as it lives, so a number that an old one
left behind means nothing. `draining` makes /readyz say no before the gateway stops.

Beside that each supervisor keeps an entry in a directory of the host, locked in the same way and
readable by all: commands find the gateway by it that runs under another user or configuration.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import signal
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

EARLY_SIGNALS = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
"""What a gateway that starts keeps waiting until it can follow them; they would end it."""
_SYSTEM_RUN_DIR = Path("/run/relaygw")
_MAX_ENTRY_BYTES = 65536


def draining_mark(state_dir: Path) -> Path:
    """Return the file that is there while a gateway is being drained."""
    return state_dir / "draining"


def hold_service_file(state_dir: Path) -> None:
    """Lock the file of this process, the supervisor, for as long as it lives."""
    with contextlib.suppress(OSError):  # only `relaygw drain` needs it
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        draining_mark(state_dir).unlink(missing_ok=True)
        descriptor = _locked(state_dir / "service.pid", os.O_CREAT)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())


def _locked(path: Path, flags: int) -> int:
    """Return an open file that is locked until this process ends, however that ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def running_service(state_dir: Path) -> int | None:
    """Return the process id of the gateway that runs on a state directory, if one does."""
    try:
        descriptor = os.open(state_dir / "service.pid", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 32).strip() or b"0") or None
    finally:
        os.close(descriptor)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """A gateway of this host; `config` is empty for one without a file, `queue` a URL.

    `mode` is the one it runs with, whatever its files say by now; empty of an older version.
    """

    pid: int
    user: str
    config: str
    queue: str
    state_dir: str
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGateway(RunningGateway):
    """A gateway by its entry; `user` is the owner of that file, who says so, and nobody else."""

    entry: os.stat_result


_held: list[int] = []  # the entry of this process


def hold_running_entry(gateway: RunningGateway, environ: Mapping[str, str]) -> Path | None:
    """Tell the commands of this host of a gateway until this process ends; return where.

    Once more after a reload: the entry is another one then.
    """
    for directory in _run_directories(environ):
        with contextlib.suppress(OSError):  # the next one; without any, only commands miss it
            if not directory.exists():
                directory.mkdir(parents=True)
                directory.chmod(0o755)
            for _ in _entries(directory, removes_dead=True):
                pass
            path, new = (directory / f"{gateway.pid}.{end}" for end in ("json", "new"))
            new.unlink(missing_ok=True)
            descriptor = _locked(new, os.O_CREAT | os.O_EXCL)
            os.write(descriptor, json.dumps(asdict(gateway)).encode() + b"\n")
            os.fchmod(descriptor, 0o644)
            new.rename(path)
            while _held:
                os.close(_held.pop())
            _held.append(descriptor)
            return path
    return None


def running_gateways(environ: Mapping[str, str]) -> list[FoundGateway]:
    """Return the gateways that run on this host, as far as this user is told of them."""
    found: dict[int, FoundGateway] = {}
    for directory in _run_directories(environ):
        with contextlib.suppress(OSError):
            found |= {entry.pid: entry for entry in _entries(directory)}
    return sorted(found.values(), key=lambda gateway: gateway.pid)


def environ_of(gateway: FoundGateway) -> dict[str, str]:
    """Return the variables that a gateway was started with.

    Raises OSError where this user may not see them, or the process is not of who made the entry.
    """
    place = Path(f"/proc/{gateway.pid}")
    if f"\nUid:\t{gateway.entry.st_uid}\t" not in (place / "status").read_text():
        raise PermissionError(f"{place} is a process of another user")
    lines = os.fsdecode((place / "environ").read_bytes()).split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def user_name(uid: int) -> str:
    """Return the name of a user of this host, its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _run_directories(environ: Mapping[str, str]) -> list[Path]:
    chosen = environ.get("RELAYGW_RUN_DIR", "")
    if chosen:
        return [Path(chosen)]
    own = environ.get("XDG_RUNTIME_DIR", "")
    return [_SYSTEM_RUN_DIR, *([Path(own) / "relaygw"] if own.startswith("/") else [])]


def _entries(directory: Path, *, removes_dead: bool = False) -> Iterator[FoundGateway]:
    """Yield what is told by root and by who owns a directory that nobody else may write to."""
    about = directory.stat()
    is_closed = not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    own = f"{os.getpid()}.json"  # whose lock does not keep us out, and would end by the look
    for path in sorted(
        candidate for candidate in directory.glob("*.json") if candidate.name != own
    ):
        with contextlib.suppress(OSError, ValueError, TypeError):
            # neither followed nor waited for: it may be a link or a pipe
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                entry = os.fstat(descriptor)
                try:
                    fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    if is_closed and entry.st_uid in (0, about.st_uid):
                        yield FoundGateway(
                            **json.loads(file.read(_MAX_ENTRY_BYTES))
                            | {"user": user_name(entry.st_uid), "entry": entry}
                        )
                    continue
            if removes_dead:
                path.unlink(missing_ok=True)
