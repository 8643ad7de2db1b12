"""Leaves a message in the maildrop, for the front to take now or when it runs again.

On return of `leave` the file has its final name and both are on disk. Until then no other
program sees a message: a signal, a full disk or a crash leaves no `.drop` file behind.
"""

from __future__ import annotations

import errno
import posix

from relaygw.mail import drop
from relaygw.sendmail.arguments import EX_TEMPFAIL, EX_UNAVAILABLE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # `signal` would load the enum module, as costly as all of ours

_FLAGS = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
_TYPE, _PIPE = 0o170000, 0o010000  # of a file, in its mode
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_REMEDIES = {
    errno.ENOENT: "create it, or start `relaygw serve` once, which does",
    errno.EINTR: "send the message again",
    **dict.fromkeys(_FULL, "free some space there"),
}
installed_for = drop.DIRECTORY  # the launcher may name another one
_ENDING = {_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM}


class SpoolFailure(Failure):
    """Nothing was left in the maildrop; trying again later is right."""

    def __init__(self, text: str, *, is_full: bool = False) -> None:
        super().__init__(EX_TEMPFAIL, text)
        self.is_full = is_full


def maildrop() -> str:
    """Return the directory: RELAYGW_MAILDROP, else the launcher's, else the default.

    The variable opens nothing to the caller, whose own rights are used, unless this program
    was given other rights than his.
    """
    is_own = posix.getuid() == posix.geteuid() and posix.getgid() == posix.getegid()
    named = posix.environ.get(b"RELAYGW_MAILDROP", b"") if is_own else b""
    return named.decode("utf-8", "surrogateescape") or installed_for


def leave(lines: list[tuple[bytes, bytes | None]], content: list[bytes | memoryview]) -> str:
    """Write one drop file and return its id; raises SpoolFailure, or Failure if it never can be.

    Signals that end a program wait from here on, so that none comes between the file and the
    word to the caller that it is there. `release_signals` ends that; a failure does so, too.
    """
    try:
        cwd: bytes | None = posix.getcwdb().decode("utf-8", "replace").encode()
    except OSError:
        cwd = None  # it is gone, or we may not know
    head = drop.encode_head([(b"cwd", cwd), *lines])
    if len(head) > drop.MAX_HEAD_BYTES:
        raise Failure(EX_UNAVAILABLE, "too many recipients for one message: send it in parts")
    directory = maildrop()
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)
    try:
        size_bytes = sum(len(part) for part in content)
        _look_for_room(directory, size_bytes)
        trailer = drop.encode_trailer(size_bytes)
        drop_id = _write(directory, [head, *content, trailer])
    except OSError as error:
        release_signals()
        raise _failure(directory, error) from error
    _wake(directory)
    return drop_id


def release_signals() -> None:
    """Let the signals come that waited for `leave`."""
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _ENDING)


def _write(directory: str, parts: list[bytes | memoryview]) -> str:
    drop_id = posix.urandom(drop.ID_BYTES).hex()
    written = f"{directory}/{drop.WRITING_PREFIX}{drop_id}"
    complete = f"{directory}/{drop_id}{drop.COMPLETE_SUFFIX}"
    file = posix.open(written, _FLAGS, 0o600)
    left = written
    try:
        for part in parts:
            write_all(file, part)
        posix.fchmod(file, drop.mode_in(posix.stat(directory).st_mode))
        posix.fsync(file)
        if _signal.sigpending() & _ENDING:
            raise InterruptedError(errno.EINTR, "ended by a signal")
        posix.rename(written, complete)
        left = complete
        # makes the rename durable, too (ext4, xfs, btrfs); the directory may not be readable
        posix.fsync(file)
    except Exception:
        is_removed = _is_removed(left)
        if is_removed or left == written:
            raise
        # the front took the message over before its last sync failed: it is not lost
    finally:
        posix.close(file)
    return drop_id


def _look_for_room(directory: str, size_bytes: int) -> None:
    """Raise OSError where the database beside the maildrop would have no room to take it."""
    volume = posix.statvfs(directory)
    is_large = size_bytes > drop.LARGE_BYTES
    room = drop.ROOM_BESIDE_LARGE if is_large else drop.ROOM_BESIDE_SMALL
    copies, least_bytes, share = room
    whole_bytes = volume.f_blocks * volume.f_frsize
    needed_bytes = copies * size_bytes + min(least_bytes, int(share * whole_bytes))
    if whole_bytes and volume.f_bavail * volume.f_frsize < needed_bytes:
        raise OSError(errno.ENOSPC, "too little space is left on the volume")


def write_all(file: int, part: bytes | memoryview) -> None:
    """Write all of `part`, however little is taken at once. Raises OSError."""
    view = memoryview(part)
    while view:
        view = view[posix.write(file, view) :]


def _is_removed(path: str) -> bool:
    """Remove a file that failed; False if another did so before."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


def _failure(directory: str, error: OSError) -> SpoolFailure:
    remedy = _closed(directory) if error.errno in _CLOSED else _REMEDIES.get(error.errno or 0)
    remedy = remedy or "the machine cannot do it now: look at its own log, send again then"
    text = f"cannot leave the message in {directory}: {error.strerror}; {remedy}"
    return SpoolFailure(text, is_full=error.errno in _FULL)


def _closed(directory: str) -> str:
    """Name what keeps this user out, which may be a directory on the way, and what to do."""
    for end, letter in enumerate(directory):
        above = directory[:end]
        if letter == "/" and above and not posix.access(above, posix.X_OK):
            return (
                f"this user may not enter {above}, which has mode {_mode(above)}: chmod o+x "
                f"{above}, or set maildrop.path to a place outside of it"
            )
    return f"let this user write there: owner relaygw, mode 3733; it has mode {_mode(directory)}"


def _mode(path: str) -> str:
    try:
        return f"{posix.stat(path).st_mode & 0o7777:o}"
    except OSError:
        return "unknown"


def _wake(directory: str) -> None:
    """Tell the front; it looks by itself soon enough when it does not hear of it."""
    flags = posix.O_WRONLY | posix.O_NONBLOCK | posix.O_NOFOLLOW | posix.O_CLOEXEC
    try:
        pipe = posix.open(f"{directory}/{drop.WAKE_PIPE}", flags)
        try:
            if posix.fstat(pipe).st_mode & _TYPE == _PIPE:  # others may put a file of theirs there
                posix.write(pipe, b"\0")
        finally:
            posix.close(pipe)
    except OSError:
        pass
