"""A queue file of Postfix: who sent it, who still waits for it, and its content.

It is a row of records (Postfix's rec_type.h): a letter, a length in groups of seven bits, data. The
envelope comes first, then the content line by line, then what cleanup found in the header. A
delivery agent turns the `R` of a recipient into `D` once it is done. Whatever milters added stands
at the end of the file, and pointers lead there and back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from relaygw.errors import RelaygwError
from relaygw.mail.dsn_request import NO_REQUEST, DsnRequest, read_request

_SIZE, _TIME, _SENDER, _ATTRIBUTE, _POINTER, _PADDING = "CTSApw"
_WAITING, _DONE, _CANCELLED, _REDIRECT = "RD/>"
_MESSAGE, _LINE, _PIECE, _EXTRACTED, _END = "MNLXE"
_CONTENT = _LINE + _PIECE
_KNOWN = frozenset("CTSARD/>cFILOWKfdrePV<ionm")  # around the content
_MAX_LENGTH_BYTES = 5
_ARRIVAL = re.compile(rb"\d{1,19}(?: +\d{1,6})?")
_DOT_STRING = re.compile(
    r"[^\s\"\\(),:;<>@\[\]\x00-\x1f\x7f.]+(?:\.[^\s\"\\(),:;<>@\[\]\x00-\x1f\x7f.]+)*"
)
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:|From |>From |\r\n")
_FROM = re.compile(rb"from[ \t]*:", re.I)
_NOTIFY = ((1, "NEVER"), (2, "SUCCESS"), (4, "FAILURE"), (8, "DELAY"))
_RETURNS = {b"1": "FULL", b"2": "HDRS"}
_NOT_DONE_HERE = {  # what Postfix would do with it and relaygw does not
    "I": "content filter {}",
    "L": "filter {}",
    "V": "VERP {}",
}


class DamagedQueueFile(RelaygwError):
    """A file is no whole queue file; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMail:
    """What a queue file holds."""

    arrived: str  # seconds since the epoch, and microseconds
    sender: str  # "" is the null sender
    waiting: tuple[str, ...]  # recipients that are not done
    content: bytes  # with CRLF line ends
    everybody: tuple[str, ...]  # all recipients, in the order of the file
    dsn: DsnRequest = NO_REQUEST
    left_out: tuple[str, ...] = ()  # what Postfix would do with it and relaygw does not

    def key(self) -> str:
        """Return a key that no other mail has, and this one in whatever state its file is.

        The name of the file is no part of it: a copied queue gets other ones.
        """
        digest = hashlib.sha256()
        for part in (self.arrived, self.sender, *self.everybody):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(self.content)
        return digest.hexdigest()[:40]


@dataclass(slots=True)
class _Read:
    """What was read so far."""

    part: str = ""  # of the file: "", M or X
    arrived: str | None = None
    sender: str | None = None
    redirect: str | None = None
    waiting: list[str] = field(default_factory=list)
    everybody: list[str] = field(default_factory=list)
    cancelled: int = 0
    lines: list[bytes] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    sizes: list[int] | None = None
    attributes: dict[bytes, bytes] = field(default_factory=dict)
    notify: set[bytes | None] = field(default_factory=set)  # of those who wait


def read_queue_file(data: bytes, *, is_maildrop: bool = False) -> QueuedMail:
    """Return the mail of a queue file, or of a file that `sendmail` left in the maildrop.

    Raises DamagedQueueFile unless all of it is there.
    """
    read = _Read()
    for at, kind, body, end in _records(data):
        if at == 0 and kind != _SIZE and not is_maildrop:
            raise DamagedQueueFile("does not begin with the record of its size")
        if kind == _MESSAGE and read.part == "":
            read.part = kind
            _check_place(read, 1, end, "its content begins")
        elif kind == _EXTRACTED and read.part == _MESSAGE:
            read.part = kind
            _check_place(read, 0, at, "its content ends")
        elif read.part == _MESSAGE and kind in _CONTENT:
            read.lines.append(body + b"\r\n" if kind == _LINE else body)
        elif kind in _KNOWN and read.part != _MESSAGE:
            _take(read, kind, body)
        elif kind != _END or read.part != _EXTRACTED:
            raise DamagedQueueFile(f"has a record {kind!r} at an illegal position, byte {at}")
    mail = _mail(read)
    return replace(mail, content=_with_from(mail)) if is_maildrop else mail


def _with_from(mail: QueuedMail) -> bytes:
    """Return content with the From field that cleanup would have added."""
    header = mail.content.partition(b"\r\n\r\n")[0]
    if any(_FROM.match(line) for line in header.split(b"\r\n")):
        return mail.content
    sender = mail.sender.encode("utf-8", "surrogatepass") or b"MAILER-DAEMON"
    end = b"\r\n" if _FIELD.match(mail.content) else b"\r\n\r\n"  # without a header all is body
    return b"From: " + sender + end + mail.content


def _check_place(read: _Read, number: int, at: int, what: str) -> None:
    if read.sizes is None:
        return
    expected = sum(read.sizes[number:2])
    if at != expected:
        raise DamagedQueueFile(f"{what} at byte {at}, and its first record says {expected}")


def _records(data: bytes) -> Iterator[tuple[int, str, bytes, int]]:
    """Yield place, letter, data and end of each record, up to the last one; follow pointers."""
    at, followed = 0, set[int]()
    while True:
        kind, body, end = _record(data, at)
        if kind == _POINTER:
            target = int(body) if body.strip().isdigit() else -1
            if target >= len(data) or target < 0:
                raise DamagedQueueFile(f"has a pointer at byte {at} to an invalid position")
            if target and at in followed:
                raise DamagedQueueFile(f"has a pointer loop at byte {at}")
            followed.add(at)
            at = target or end
            continue
        if kind != _PADDING:
            yield at, kind, body, end
        if kind == _END:
            return
        at = end


def _record(data: bytes, at: int) -> tuple[str, bytes, int]:
    length, begin = 0, at + 1
    for place in range(_MAX_LENGTH_BYTES):
        if begin >= len(data):
            break
        byte = data[begin]
        begin += 1
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            end = begin + length
            if end <= len(data):
                return chr(data[at]), data[begin:end], end
            break
    raise DamagedQueueFile(f"is cut off: {len(data)} bytes end within the record at byte {at}")


def _take(read: _Read, kind: str, body: bytes) -> None:
    """Take a record of the envelope, or of what was extracted."""
    if kind in (_WAITING, _DONE, _CANCELLED):
        _take_recipient(read, kind, body)
    elif kind == _SENDER:
        read.sender = _address(body) if read.sender is None else read.sender
    elif kind == _REDIRECT:
        read.redirect = _address(body)
    elif kind == _ATTRIBUTE:
        name, _, value = body.partition(b"=")
        read.attributes[name] = value
    elif kind == _TIME:
        if not _ARRIVAL.fullmatch(body.strip()):
            raise DamagedQueueFile("has no time of arrival")
        read.arrived = body.strip().decode("ascii")
    elif kind == _SIZE:
        words = body.split()
        if len(words) < 3 or not all(word.isdigit() for word in words[:3]):
            raise DamagedQueueFile("does not begin with the record of its size")
        read.sizes = [int(word) for word in words[:3]]
    elif kind in _NOT_DONE_HERE:
        shown = body.decode("utf-8", "backslashreplace")
        read.left_out.append(_NOT_DONE_HERE[kind].format(shown))


def _take_recipient(read: _Read, kind: str, body: bytes) -> None:
    notify = read.attributes.pop(b"notify_flags", None)
    address = _address(body)
    if kind == _CANCELLED:
        read.cancelled += 1
        return
    read.everybody.append(address)
    if kind == _WAITING:
        read.waiting.append(address)
        read.notify.add(notify)


def _address(body: bytes) -> str:
    """Return an address as SMTP writes it; in a queue file it stands without quotes.

    What is no UTF-8 becomes an address that is none, and is captured as such.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body.decode("utf-8", "backslashreplace")
    local, at, domain = text.rpartition("@")
    if not at:
        local, domain = domain, ""
    if local and not _DOT_STRING.fullmatch(local):
        local = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
    return f"{local}{at}{domain}"


def _mail(read: _Read) -> QueuedMail:
    if read.arrived is None:
        raise DamagedQueueFile("has no time of arrival")
    if read.sender is None:
        raise DamagedQueueFile("has no sender")
    if read.sizes is not None:
        expected, found = read.sizes[2], len(read.everybody)
        if expected not in (found, found + read.cancelled):
            raise DamagedQueueFile(f"has {found} recipients, and its first record says {expected}")
    waiting = read.waiting
    if read.redirect is not None and waiting:
        waiting = [read.redirect]
    return QueuedMail(
        arrived=read.arrived,
        sender=read.sender,
        waiting=tuple(dict.fromkeys(waiting)),
        content=b"".join(read.lines),
        everybody=tuple(read.everybody),
        dsn=_dsn(read),
        left_out=tuple(dict.fromkeys(read.left_out)),
    )


def _dsn(read: _Read) -> DsnRequest:
    """Return the wishes for delivery notices; NOTIFY where all who wait share one."""
    notify = None
    if len(read.notify) == 1:
        flags = next(iter(read.notify)) or b""
        number = int(flags) if flags.isdigit() else 0
        notify = ",".join(word for flag, word in _NOTIFY if number & flag) or None
    envid = read.attributes.get(b"envelope_id", b"").decode("utf-8", "replace") or None
    returns = _RETURNS.get(read.attributes.get(b"ret_flags", b""))
    return read_request(notify=notify, ret=returns, envid=envid)
