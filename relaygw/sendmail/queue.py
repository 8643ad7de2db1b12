"""What the front is asked by any local user, and what postqueue and postsuper ask relaygw for.

mailq copies what the front says to stdout; a flush and -bv are requests to it, unless root or the
gateway's user asks: they have relaygw itself, which can do and tell more.

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
    front, reason = _reach(drop.QUEUE_SOCKET)
    if front is not None:
        _copy(front)
        return True
    if not is_stranger():
        return False
    raise _no_answer(reason, "relaygw queue list")


def request(verb: str, *words: str) -> int:
    """Have the front do something, print what it says, and return the exit code."""
    front, reason = _reach(drop.REQUEST_SOCKET)
    if front is None:
        raise _no_answer(reason, "relaygw queue flush, or relaygw check")
    line = "\0".join((verb, *words)).encode("utf-8", "surrogateescape")
    answer = b""
    if b"\n" not in line and len(line) < drop.MAX_REQUEST_BYTES:
        try:
            front.sendall(line + b"\n")
            while piece := front.recv(_READ_BYTES):
                answer += piece
        except OSError:
            pass  # the end of the answer tells
    front.close()
    told = drop.read_answer(answer)
    if told is None:
        raise Failure(EX_TEMPFAIL, "no answer: the gateway is busy or was stopped; try again")
    code, text = told
    if code and verb == drop.FLUSH:
        raise Failure(code, text.decode("utf-8", "replace"))
    if text:
        spool.write_all(1, text + b"\n")
    return code


def is_stranger() -> bool:
    """True unless root or the gateway's user asks."""
    return posix.geteuid() not in (0, _gateway_uid())


def _gateway_uid() -> int:
    try:
        return posix.stat(spool.maildrop()).st_uid
    except OSError:
        return 0


def _no_answer(reason: str, command: str) -> Failure:
    return Failure(
        EX_UNAVAILABLE,
        f"the gateway does not answer in {spool.maildrop()}: {reason}; "
        f"start it, or ask root for `{command}`",
    )


def _reach(name: str) -> tuple[_socket.socket | None, str]:
    """Return a connection to a socket of the front, or None and why there is none."""
    front, reason = None, "another user's program listens there"
    try:
        front = _connect(f"{spool.maildrop()}/{name}", _gateway_uid())
    except OSError as error:
        reason = error.strerror or str(error)
    return front, reason


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


def flushed(program: bytes, words: list[str]) -> str | None:
    """Return the queue id that postqueue is to flush, "" for all; None: something else."""
    if program != POSTQUEUE:
        return None
    letter, value = _options(program, words)[0][0]
    return value if letter in "fi" else None


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
