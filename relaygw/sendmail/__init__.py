"""The drop-in sendmail, mailq and newaliases: a message on stdin becomes a file in the maildrop.

PHP starts one for each mail, so start-up is what counts: only C modules that are part of the
interpreter and a handful of small files are loaded. It runs outside of the environment's
site-packages (`python3 -I -S`) and may import `mail.drop`, and for -bs `inbound` and `mail`. Under
the names postqueue and postsuper it runs commands of relaygw.

Exit codes: 0 the message is on disk, 64 usage or no recipients, 66 no stdin, 69 it can never
be taken (of mailq: nobody answers), 75 the maildrop cannot be written now.
"""

from __future__ import annotations

import posix
import sys

from relaygw.mail import drop
from relaygw.mail.address_list import read_addresses
from relaygw.sendmail import arguments as mode
from relaygw.sendmail import spool
from relaygw.sendmail.arguments import (
    EX_NOINPUT,
    EX_TEMPFAIL,
    EX_USAGE,
    Arguments,
    Failure,
    parse_arguments,
    shown,
    warn,
)
from relaygw.sendmail.content import Message, compose_from, read_input

_NO_RECIPIENTS = "Recipient addresses must be specified on the command line or via the -t option"
_INTERRUPTED = 130  # as shells say it of SIGINT


def main(gateway_program: str, maildrop: str = "") -> None:
    """Do what sys.argv asks for and end the process.

    `gateway_program` is the path of `relaygw`, which mailq, -q and -bv run instead; `maildrop` is
    the directory that the launcher was installed for, if it is not the default.
    """
    if maildrop:
        spool.installed_for = maildrop
    try:
        exit_code = _run(gateway_program)
    except Failure as failure:
        warn(str(failure))
        exit_code = failure.exit_code
    except KeyboardInterrupt:
        exit_code = _INTERRUPTED
    except Exception as error:
        warn(f"internal error, nothing was sent: {type(error).__name__}: {error}")
        exit_code = EX_TEMPFAIL
    posix._exit(exit_code)  # nothing is buffered, and the interpreter's own end takes a while


def _run(gateway_program: str) -> int:
    _open_missing_descriptors()
    coding = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    program, *words = (word.encode(*coding) for word in sys.argv)  # as they were given
    program = program.rpartition(b"/")[2]
    if program in (b"postqueue", b"postsuper"):
        return _manage(gateway_program, program)
    arguments = parse_arguments(program, words)
    if arguments.mode == mode.SUBMIT:
        _submit(arguments)
    elif arguments.mode == mode.SMTP:
        from relaygw.sendmail.smtp import serve

        return serve()
    elif arguments.mode == mode.VERIFY:
        return _verify(gateway_program, arguments)
    elif arguments.mode != mode.NOTHING:
        if arguments.mode == mode.LIST and not arguments.addresses:
            from relaygw.sendmail.queue import copy_report

            if copy_report():
                return 0
        return _run_gateway(gateway_program, arguments)
    return 0


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def _open_missing_descriptors() -> None:
    """See to it that no file of ours becomes stdout or stderr; a closed stdin stays an error."""
    try:
        posix.fstat(0)
    except OSError as error:
        raise Failure(EX_NOINPUT, "stdin is closed: there is no message") from error
    for descriptor in (1, 2):
        try:
            posix.fstat(descriptor)
        except OSError:
            posix.open("/dev/null", posix.O_RDWR)


def _submit(arguments: Arguments) -> None:
    recipients = [
        address for word in arguments.addresses for address in _read_all(word, "recipient")
    ]
    if not recipients and not arguments.has_header_recipients:
        raise Failure(EX_USAGE, _NO_RECIPIENTS)
    sender, full_name = _sender(arguments.sender), arguments.full_name
    if full_name is not None and not full_name.decode("utf-8", "replace").isprintable():
        raise Failure(EX_USAGE, f"control characters in the full name {shown(full_name)}")
    message = Message(read_input(stops_at_dot=arguments.stops_at_dot))
    if arguments.has_header_recipients:
        recipients += message.recipients()
    if not recipients:
        raise Failure(EX_USAGE, "No recipient addresses found in message header")
    added, name = b"", None
    if not message.has_field(b"from"):
        name = full_name
        added = compose_from(sender, name, message.line_end)
    lines = [
        (b"from", sender),
        (b"name", name),
        *((b"to", address) for address in dict.fromkeys(recipients)),
        (b"notify", arguments.notify),
        (b"ret", arguments.ret),
        (b"envid", arguments.envid),
    ]
    spool.leave(lines, message.parts(added))


def _read_all(word: bytes, role: str) -> list[bytes]:
    """Return the addresses in a word of the command line, all of which must be clean."""
    addresses, is_clean = read_addresses(word)
    if not is_clean or word.translate(None, b"\r\n\x00") != word:
        raise Failure(EX_USAGE, f"bad {role} address {shown(word)}")
    return addresses


def _sender(given: bytes | None) -> bytes:
    if given is None:
        import pwd

        uid = posix.getuid()
        try:  # the system's word, never that of USER, LOGNAME or HOME
            return pwd.getpwuid(uid).pw_name.encode("utf-8", "surrogateescape")
        except KeyError:
            return b"%d" % uid
    if given.strip() in (b"", b"<>"):
        return b""
    addresses = _read_all(given, "sender")
    if len(addresses) != 1:
        raise Failure(EX_USAGE, f"bad sender address {shown(given)}")
    return addresses[0]


def _verify(program: str, arguments: Arguments) -> int:
    """Print what would become of mail to each address; return the first exit code that is not 0."""
    recipients = [
        address for word in arguments.addresses for address in _read_all(word, "recipient")
    ]
    if not recipients:
        raise Failure(EX_USAGE, "-bv needs an address")
    from relaygw.sendmail import queue

    sender, is_stranger = _text(_sender(arguments.sender)), queue.is_stranger()
    exit_code = 0
    for recipient in map(_text, recipients):
        words = ["check", f"--sender={sender or '<>'}", f"--recipient={recipient}"]
        exit_code = (
            queue.request(drop.VERIFY, sender, recipient) if is_stranger else _call(program, words)
        ) or exit_code
    return exit_code


def _call(program: str, words: list[str]) -> int:
    try:
        child = posix.posix_spawn(program, [program, *words], posix.environ)
    except OSError as error:
        raise Failure(EX_TEMPFAIL, f"cannot run {program}: {error.strerror}") from error
    return posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])


def _manage(gateway_program: str, program: bytes) -> int:
    """Do what postqueue or postsuper is asked; return the first exit code that is not 0."""
    from relaygw.sendmail import queue

    words = sys.argv[1:]
    if queue.is_listing(program, words) and queue.copy_report():
        return 0
    flushed = queue.flushed(program, words)
    if flushed is not None and queue.is_stranger():
        return queue.request(drop.FLUSH, flushed)
    codes = [
        _call(gateway_program, gateway_word) for gateway_word in queue.gateway_words(program, words)
    ]
    return next((code for code in codes if code), 0)


def _run_gateway(program: str, arguments: Arguments) -> int:
    from relaygw.sendmail import queue

    if arguments.addresses:
        raise Failure(EX_USAGE, "this mode takes no addresses")
    if arguments.mode == mode.FLUSH and queue.is_stranger():
        return queue.request(drop.FLUSH, _text(arguments.queue_id or b""))
    if arguments.mode == mode.LIST:
        words = ["queue", "list"]
    elif arguments.queue_id is not None:
        words = ["queue", "retry", f"--id={_text(arguments.queue_id)}", "--yes"]
    else:
        words = ["queue", "retry", "--all", "--yes"]
    try:
        posix.execv(program, [program, *words])
    except OSError as error:
        raise Failure(EX_TEMPFAIL, f"cannot run {program}: {error.strerror}") from error
