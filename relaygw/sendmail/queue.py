"""mailq: what the front says is queued, copied to stdout.

Any local user may put a socket into the maildrop while no front is there, so only one of the
gateway's user or of root is believed: what comes from there is shown to whoever asks, root too.
"""

from __future__ import annotations

import _socket  # `socket` is the most costly module of all
import posix
import sys

from relaygw.mail import drop
from relaygw.sendmail import spool
from relaygw.sendmail.arguments import EX_IOERR, EX_TEMPFAIL, EX_UNAVAILABLE, Failure

SILENCE_S = 60.0
_READ_BYTES = 65536
_CREDENTIALS_BYTES = 12  # pid, uid, gid
_UID = slice(4, 8)


def copy_report() -> bool:
    """Copy the front's report to stdout; False: none answers, and this user may read the queue.

    Raises Failure when he may not, or when the report is not whole.
    """
    directory = spool.maildrop()
    try:
        gateway_uid = posix.stat(directory).st_uid
    except OSError:
        gateway_uid = 0
    front, reason = None, "another user's program listens there"
    try:
        front = _connect(f"{directory}/{drop.QUEUE_SOCKET}", gateway_uid)
    except OSError as error:
        reason = error.strerror or str(error)
    if front is not None:
        _copy(front)
        return True
    if posix.geteuid() in (0, gateway_uid):
        return False
    raise Failure(
        EX_UNAVAILABLE,
        f"the gateway does not answer in {directory}: {reason}; "
        "start it, or ask root for `relaygw queue list`",
    )


def _connect(path: str, gateway_uid: int) -> _socket.socket | None:
    """Return a connection to the front, None if another user listens there; raises OSError."""
    front = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    try:
        front.settimeout(SILENCE_S)
        front.connect(path)
        found = front.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS_BYTES)
    except OSError:
        front.close()
        raise
    if int.from_bytes(found[_UID], sys.byteorder) not in (0, gateway_uid):
        front.close()
        return None
    return front


def _copy(front: _socket.socket) -> None:
    end = b""
    try:
        while piece := front.recv(_READ_BYTES):
            try:
                spool.write_all(1, piece)
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    return  # the reader has seen enough
                raise Failure(EX_IOERR, f"cannot write the list: {error.strerror}") from error
            end = (end + piece)[-drop.LONGEST_CLOSING_BYTES :]
    except OSError:
        pass  # the end of the report tells
    finally:
        front.close()
    if not drop.is_whole_report(end):
        raise Failure(
            EX_TEMPFAIL, "the list is incomplete: the gateway is busy or was stopped; try again"
        )
