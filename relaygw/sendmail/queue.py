"""mailq: what the front says is queued, copied to stdout; and what postqueue and postsuper ask for.

Any local user may put a socket into the maildrop while no front is there, so only one of the
gateway's user or of root is believed: what comes from there is shown to whoever asks, root too.
"""

from __future__ import annotations

import _socket  # `socket` is the most costly module of all
import posix
import sys

from relaygw.mail import drop
from relaygw.sendmail import spool
from relaygw.sendmail.arguments import EX_IOERR, EX_TEMPFAIL, EX_UNAVAILABLE, EX_USAGE, Failure

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


# --- postqueue and postsuper ---------------------------------------------------------------

POSTQUEUE = b"postqueue"
POSTSUPER = b"postsuper"
_VERBS = {"d": "delete", "e": "expire", "f": "expire", "h": "hold", "H": "release", "r": "retry"}
_NOTHING_TO_DO = "psSv"  # what Postfix mends in its own directories, and its -v
_STATES = {"active": "active", "deferred": "deferred", "hold": "held", "incoming": "incoming"}
_USAGE = {
    POSTQUEUE: "use -p, -j, -f, -i ID or -s SITE",
    POSTSUPER: "use -d, -e, -f, -h, -H or -r with ID, ALL or -, then names of queues",
}


def is_listing(program: bytes, words: list[str]) -> bool:
    """True for `postqueue -p`, which is mailq."""
    return program == POSTQUEUE and "p" in dict(_options(program, words)[0])


def gateway_words(program: bytes, words: list[str]) -> list[list[str]]:
    """Return the words of each call of relaygw, in order; raises Failure."""
    options, rest = _options(program, words)
    if program == POSTQUEUE:
        return [_of_postqueue(letter, value, rest) for letter, value in options[:1]]
    states = [_state(name) for name in rest]
    return [
        _of_postsuper(letter, value, states)
        for letter, value in options
        if letter not in _NOTHING_TO_DO
    ]


def _options(program: bytes, words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    takes = "is" if program == POSTQUEUE else "defhHr"
    alone = "fjpv" if program == POSTQUEUE else _NOTHING_TO_DO
    options: list[tuple[str, str]] = []
    rest = list(words)
    while rest and rest[0][:1] == "-" and rest[0] != "-":
        letters = rest.pop(0)[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in takes:
                if not letters and not rest:
                    raise Failure(EX_USAGE, f"option -{letter} needs a value")
                options.append((letter, letters or rest.pop(0)))
                break
            if letter not in alone:
                raise Failure(EX_USAGE, f"-{letter} is not supported; {_USAGE[program]}")
            if letter != "v":
                options.append((letter, ""))
    if not options:
        raise Failure(EX_USAGE, _USAGE[program])
    return options, rest


def _of_postqueue(letter: str, value: str, rest: list[str]) -> list[str]:
    if rest:
        raise Failure(EX_USAGE, _USAGE[POSTQUEUE])
    return {
        "p": ["queue", "list", "--mailq"],
        "j": ["queue", "list", "--postfix-json"],
        "f": ["queue", "flush"],
        "i": ["queue", "flush", value],
        "s": ["queue", "flush", "--recipient", f"@{value}"],
    }[letter]


def _state(name: str) -> str:
    if name not in _STATES:
        raise Failure(EX_USAGE, f"no queue of the name {name!r}; there are {', '.join(_STATES)}")
    return _STATES[name]


def _of_postsuper(letter: str, value: str, states: list[str]) -> list[str]:
    chosen = [word for state in states for word in ("--state", state)]
    whom = [value] if value != "ALL" else [] if chosen else ["--all"]
    return ["queue", _VERBS[letter], *whom, *chosen, "--yes"]
