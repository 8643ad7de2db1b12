"""What lies in the maildrop: drop files, version 1, and where the front listens.

    relaygw drop 1
    cwd VALUE            optional, the caller's working directory
    from VALUE           envelope sender; nothing behind `from ` is the null sender
    name VALUE           optional, the full name that was put into a From field
    to VALUE             one line for each recipient, in order
    notify VALUE         optional, as `ret` and `envid`: what RFC 3461 calls them
                         an empty line ends the head
    CONTENT              line ends as given, Bcc and Resent-Bcc removed
                         an empty line, then: relaygw end COUNT (bytes of CONTENT)

A VALUE is UTF-8 with `%XX` for control bytes and `%`. The owner of the file is the only proof
of who wrote it. Whoever connects to the queue socket is sent the whole report of what is queued,
as Postfix's mailq prints it, and then the end of the stream; nothing is read from him. On the
socket for requests a client sends `flush` and a queue id, or none for all, or `verify`, a sender
and a recipient, with NUL between them and LF behind; he is sent lines of text, the last of them
`exit CODE`, and the end. The sendmail command starts once for each mail, so nothing is imported
here.
"""

from __future__ import annotations

FIRST_LINE = b"relaygw drop 1\n"
MAX_HEAD_BYTES = 256 * 1024
DIRECTORY = "/var/spool/relaygw/maildrop"
WAKE_PIPE = "wake"  # name of the named pipe by which the front hears of new files
QUEUE_SOCKET = "queue"  # name of the stream socket on which the front tells what is queued
REQUEST_SOCKET = "requests"  # and of that on which it flushes and verifies for local users
FLUSH, VERIFY = "flush", "verify"
MAX_REQUEST_BYTES = 4096
QUEUE_EMPTY = b"Mail queue is empty\n"
QUEUE_CLOSING = b"-- "  # how the last line of a report begins when something is queued
LONGEST_CLOSING_BYTES = 100

MAX_CONTENT_BYTES = 100 * 2**20  # that the command leaves, whatever a listener takes
MAX_HEADER_BYTES = 4 * 2**20  # whichever way it comes; a listener may take less
LARGE_BYTES = 2**20  # content over that is stored apart from its message
# that large mail leaves of a volume, so that the database can go on; of a small one this share
LEAST_FREE_BYTES, LEAST_FREE_SHARE = 64 * 2**20, 0.25
# copies of content while it is taken (this file, the front's, in log and database); what is left
ROOM_BESIDE_LARGE = (4, LEAST_FREE_BYTES, LEAST_FREE_SHARE)
ROOM_BESIDE_SMALL = (1, 8 * 2**20, 0.04)
ID_BYTES = 16  # random bytes in a drop id; its hex digits make the file's name
WRITING_PREFIX = ".w-"
COMPLETE_SUFFIX = ".drop"

_HEX_DIGITS = "0123456789abcdefABCDEF"
_ESCAPED = bytes(range(0x20)) + b"\x7f%"


def mode_in(directory_mode: int) -> int:
    """The mode of a file that is left: its reader is in its group, or owns a directory of others'.

    Into a directory with `maildrop.group` only its members and its owner get, and no member lists.
    """
    return 0o640 if directory_mode & 0o001 else 0o644


def is_complete(name: str) -> bool:
    """True for the name of a file that is to be taken."""
    digits = name.removesuffix(COMPLETE_SUFFIX)
    is_long_enough = len(digits) == 2 * ID_BYTES == len(name) - len(COMPLETE_SUFFIX)
    return is_long_enough and not digits.strip(_HEX_DIGITS)


def escape(value: bytes) -> bytes:
    """Return `value` for a line of the head."""
    if len(value.translate(None, _ESCAPED)) == len(value):
        return value
    return b"".join(b"%%%02X" % byte if byte in _ESCAPED else b"%c" % byte for byte in value)


def encode_head(lines: list[tuple[bytes, bytes | None]]) -> bytes:
    """Return the head of a drop file from (name, value); a value of None leaves its line out."""
    written = [b"%s %s\n" % (name, escape(value)) for name, value in lines if value is not None]
    return FIRST_LINE + b"".join(written) + b"\n"


def encode_trailer(content_bytes: int) -> bytes:
    """Return the end of a file behind content of that size; a file without it is incomplete."""
    return b"\nrelaygw end %d\n" % content_bytes


def encode_answer(code: int, text: str) -> bytes:
    """Return the answer to a request; `code` is the exit code of who asked."""
    return f"{text}\nexit {code}\n".encode()


def read_answer(answer: bytes) -> tuple[int, bytes] | None:
    """Return exit code and text of an answer; None: it is not whole."""
    text, mark, code = answer.rpartition(b"\nexit ")
    is_whole = mark and code.endswith(b"\n") and code[:-1].isdigit()
    return (int(code), text) if is_whole else None


def is_whole_report(end: bytes) -> bool:
    """True if a report that ends with `end` (LONGEST_CLOSING_BYTES of it, or all) is whole."""
    last_line = end[end[:-1].rfind(b"\n") + 1 :]
    return end == QUEUE_EMPTY or (end.endswith(b"\n") and last_line.startswith(QUEUE_CLOSING))
