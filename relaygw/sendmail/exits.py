"""How the command ends: exit codes of sysexits.h, and one line on stderr for each trouble."""

from __future__ import annotations

import posix

EX_USAGE = 64
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_IOERR = 74
EX_TEMPFAIL = 75


class Failure(Exception):
    """The command cannot do it; the text names what, why and what to do."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def warn(text: str) -> None:
    """Write one line to stderr, if there is one."""
    try:  # noqa: SIM105 - contextlib would have to be loaded
        posix.write(2, f"sendmail: {printable(text)}\n".encode())
    except OSError:
        pass  # nobody listens; the exit code says enough


def printable(text: str) -> str:
    """Return `text` with everything escaped that could forge a line of a log."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: bytes) -> str:
    """Return a value of the caller for a text, shortened."""
    return repr(value[:200].decode("utf-8", "backslashreplace"))
