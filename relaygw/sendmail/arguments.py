"""The command line: words in, with the habits of Postfix's sendmail (getopt, stopping at an
address); exit codes of sysexits.h out, and one line on stderr for each trouble.

-C, -X, -O, -D and all that is unknown have no effect whatsoever: applications pass text of
strangers here (CVE-2016-10033).
"""

from __future__ import annotations

import posix

EX_USAGE = 64
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_IOERR = 74
EX_TEMPFAIL = 75

SUBMIT = "submit"
SMTP = "smtp"
LIST = "list"
FLUSH = "flush"
VERIFY = "verify"
NOTHING = "nothing"

_PROGRAMS = {b"mailq": LIST, b"newaliases": NOTHING, b"runq": FLUSH}
_MODES = {b"m": SUBMIT, b"s": SMTP, b"p": LIST, b"v": VERIFY, b"i": NOTHING}
_TAKES_NEXT_WORD = b"ABCFLNORVXbefhopr"
_TAKES_REST_OF_WORD = b"Ddq"
_NOTIFY_WORDS = {b"never", b"success", b"failure", b"delay"}
_INTERVALS = b"0123456789"
_SERVE = "is done by `relaygw serve`"


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


class Arguments:
    """What the caller asks for; values are bytes as given, None where no reply."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.has_header_recipients = False
        self.stops_at_dot = True
        self.sender: bytes | None = None
        self.full_name: bytes | None = None
        self.notify: bytes | None = None
        self.ret: bytes | None = None
        self.envid: bytes | None = None
        self.queue_id: bytes | None = None
        self.addresses: list[bytes] = []

    def take_option(self, letter: bytes, value: bytes) -> None:
        """Note one option; those that are not named here are accepted and mean nothing."""
        if letter in b"fr":
            self.sender = value
        elif letter == b"F":
            self.full_name = value
        elif letter == b"t":
            self.has_header_recipients = True
        elif letter == b"i" or (letter == b"o" and value[:1] == b"i"):
            self.stops_at_dot = False
        elif letter in b"bI":
            self.mode = _mode(value) if letter == b"b" else NOTHING
        elif letter == b"q":
            self._take_flush(value)
        else:
            self._take_notification(letter, value)

    def _take_flush(self, value: bytes) -> None:
        if value[:1] and value[:1] in _INTERVALS:
            raise Failure(EX_USAGE, f"-q with an interval {_SERVE}")
        if value[:1] in (b"R", b"S"):
            raise Failure(EX_USAGE, "-qR and -qS are not supported: see `relaygw queue retry`")
        self.mode = FLUSH
        self.queue_id = value[1:] if value[:1] == b"I" else None

    def _take_notification(self, letter: bytes, value: bytes) -> None:
        """Note what notices are wanted; a wrong wish never costs a mail, as with Postfix."""
        if letter == b"N":
            words = value.lower().split(b",")
            if not _NOTIFY_WORDS.issuperset(words) or (b"never" in words and len(words) > 1):
                warn("-N takes never, or success,failure,delay; it is ignored")
            else:
                self.notify = value
        elif letter == b"R":
            if value not in (b"full", b"hdrs"):
                warn("-R takes full or hdrs; it is ignored")
            else:
                self.ret = value
        elif letter == b"V":
            if not value.isascii() or not value.decode().isprintable() or len(value) > 100:
                warn("-V takes up to 100 printable characters; it is ignored")
            else:
                self.envid = value


def _mode(value: bytes) -> str:
    if value[:1] in (b"d", b"l"):
        raise Failure(EX_USAGE, f"-b{value[:1].decode()} {_SERVE}")
    mode = _MODES.get(value)
    if mode is None:
        raise Failure(EX_USAGE, "that mode of -b is not supported")
    return mode


def parse_arguments(program: bytes, words: list[bytes]) -> Arguments:
    """Read the words behind the program's name; raises Failure."""
    arguments = Arguments(_PROGRAMS.get(program.removeprefix(b"relaygw-"), SUBMIT))
    at = 0
    while at < len(words) and words[at][:1] == b"-" and words[at] != b"-":
        word = words[at]
        at += 1
        if word == b"--":
            break
        at = _take_word(arguments, word, words, at)
    arguments.addresses = words[at:]
    return arguments


def _take_word(arguments: Arguments, word: bytes, words: list[bytes], at: int) -> int:
    for place in range(1, len(word)):
        letter, value = word[place : place + 1], word[place + 1 :]
        if letter in _TAKES_NEXT_WORD and not value:
            if at == len(words):
                raise Failure(EX_USAGE, f"option -{letter.decode()} needs a value")
            arguments.take_option(letter, words[at])
            return at + 1
        if letter in _TAKES_NEXT_WORD or letter in _TAKES_REST_OF_WORD:
            arguments.take_option(letter, value)
            return at
        arguments.take_option(letter, b"")
    return at
