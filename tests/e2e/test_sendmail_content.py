"""The corpus of content and of senders through the sendmail command: -t, arguments and -bs.

What arrives is what was handed over, but for what the command says of itself: a From field is
added where there is none, Bcc and an mbox separator go, a header ends with an empty line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email import message_from_bytes

import pytest

from tests.e2e.corpus.handed_over import (
    MaildropRig,
    Outcome,
    check_arrived,
    content_of,
    running_maildrop,
)
from tests.e2e.corpus.rig import CLOSED, EHLO, Case, Rig
from tests.e2e.corpus.test_addresses import REFUSED
from tests.e2e.corpus.test_commands import CASES as COMMANDS
from tests.e2e.corpus.test_content import CASES as EVERY_CASE
from tests.e2e.corpus.test_content import HEADER, RAW_8BIT
from tests.e2e.corpus.test_parameters import CASES as PARAMETERS
from tests.e2e.sendmail_rig import Installation
from tests.e2e.test_sendmail_corpus import PipedClient
from tests.fakes.scripted_provider import ThreadedProvider
from tests.tables import each_of

_LIMIT_BYTES = 2 * 2**20
_LINE = b"x" * 76 + b"\r\n"
_TO = b"To: r@rd.test\r\n"

# of the network (HTTP, TLS and floods at a port), and P11, which is about a listener's limit
_OF_A_PORT = {"C1", "C2", "C3", "C15", "C18", "P11"}

_LEFT_OPEN = {"C24", "C28"}
_ANSWERED = (0, 69, 75)  # with what was refused, or ended within a transaction

CASES = [case for case in EVERY_CASE if case.messages]
_LOOP = next(case for case in EVERY_CASE if case.id == "M11-60")

# id, and how much of the content is a header; the rest becomes the body
_HEADER_ENDS = {
    "M9": b"",
    "M16-novalue": b"",
    "M16-no-colon": b"",
    "M16-late-novalue": b"Subject: t\r\n",
}


def _sender(way: str, name: str) -> bytes:
    return f"{name}.{way}@ok.test".lower().encode()


def _in_front(case: Case, to: bytes, sender: bytes) -> bytes:
    """Return what arrives of a case to whose content the caller put `to` in front."""
    content = content_of(case)
    if case.id == "M15":
        content = content.partition(b"\r\n")[2]  # the Bcc field
    header_end = _HEADER_ENDS.get(case.id)
    if case.id == "M10":  # an mbox separator goes where it is one, above all fields
        header_end = b"" if to else None
        content = content if to else content.partition(b"\r\n")[2]
    if header_end is not None:
        content = header_end + b"\r\n" + content.removeprefix(header_end)
    header = (b"\r\n" + content).partition(b"\r\n\r\n")[0]
    return (b"" if b"\r\nFrom:" in header else b"From: " + sender + b"\r\n") + to + content


# --- three ways ---------------------------------------------------------------------------

Way = Callable[[Installation, bytes, bytes], int]  # sender and content: the exit code


def _by_arguments(command: Installation, sender: bytes, content: bytes) -> int:
    done = command.run("-i", b"-f" + sender, "--", "r@rd.test", content=content)
    assert b"internal error" not in done.stderr
    return done.returncode


def _by_header(command: Installation, sender: bytes, content: bytes) -> int:
    lines = (_TO + content).replace(b"\r\n", b"\n")  # as programs write to it
    done = command.run("-t", "-i", b"-f" + sender, content=lines)
    assert b"internal error" not in done.stderr
    return done.returncode


_WAYS: dict[str, Way] = {"arguments": _by_arguments, "header": _by_header}


def _by_smtp(command: Installation, rig: Rig) -> None:
    """Hand over all cases in one session of -bs."""
    client = PipedClient(command)
    rig.do(client, (b"EHLO c.test\r\n", "250-"))  # type: ignore[arg-type]
    for case in (*CASES, _LOOP):
        _, _, *steps = case.dialogue[:5]
        mail = b"MAIL FROM:<%s>\r\n" % _sender("smtp", case.id)
        content = content_of(case) + b".\r\n"
        for step in ((mail, "250 "), *steps[:2], (content, "250 2.0.0 Ok: queued as ")):
            rig.do(client, step)  # type: ignore[arg-type]
    assert client.close() == 0


# id, what -f is given, and the sender that the provider is told; None: refused or captured
_SENDERS: tuple[tuple[str, bytes, str | None], ...] = (
    *(
        (name, path[1:-1], None)
        for name, path, _ in REFUSED
        if name in ("A13", "A14", "A23", "A24", "A25", "A26", "A28-label")
    ),
    ("A27", "jürgen@ok.test".encode(), "jürgen@ok.test"),
    ("A29", b"", ""),
)


@pytest.fixture(scope="module")
def seven_bit() -> Iterator[ThreadedProvider]:
    with ThreadedProvider(extensions=["PIPELINING", "SIZE 52428800"]) as provider:
        yield provider


@pytest.fixture(scope="module")
def running(
    installed: Installation,
    seven_bit: ThreadedProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[MaildropRig]:
    installed.clear()
    directory = tmp_path_factory.mktemp("content")
    listeners = [{"bind": "127.0.0.1:0", "max_message_size": _LIMIT_BYTES}]
    others = {"seven": (seven_bit, "@seven.test")}
    with running_maildrop(
        directory, installed.maildrop, others=others, listeners=listeners
    ) as running:
        yield running


@pytest.fixture(scope="module")
def outcome(running: MaildropRig, installed: Installation) -> Outcome:
    """Hand everything over, each case in each way."""
    for name, way in _WAYS.items():
        for case in _cases_of(name):
            assert way(installed, _sender(name, case.id), content_of(case)) == 0
    _by_smtp(installed, running.rig)
    for excess_bytes in (0, 1):
        sender = _sender("limit", str(excess_bytes))
        assert _by_arguments(installed, sender, _of_size(_LIMIT_BYTES + excess_bytes)) == 0
    words = ("-i", "-fseven@ok.test", "r@seven.test")
    assert installed.run(*words, content=RAW_8BIT).returncode == 0
    for name, word, told in _SENDERS:
        to = f"{name}@rd.test".lower()
        done = installed.run("-i", "-f", word, to, content=HEADER + b"A\r\n")
        assert done.returncode in ((0, 64) if told is None else (0,)), (name, done)
    return running.settle()


def _cases_of(way: str) -> list[Case]:
    """Return the cases of a way: by arguments those in which the header is read otherwise."""
    odd = {*_HEADER_ENDS, "M10", "M15", "M7", "M17-unclosed"}
    return [case for case in (*CASES, _LOOP) if way != "arguments" or case.id in odd]


def _of_size(size_bytes: int) -> bytes:
    count, rest = divmod(size_bytes - len(HEADER) - 2, len(_LINE))
    return HEADER + _LINE * count + b"y" * rest + b"\r\n"


@each_of(
    "way, case",
    [(way, case) for way in (*_WAYS, "smtp") for case in _cases_of(way) if case is not _LOOP],
    ids=lambda value: getattr(value, "id", value),
)
def test_content(outcome: Outcome, way: str, case: Case) -> None:
    """M1 to M11 and M15 to M18."""
    sender = _sender(way, case.id)
    message = outcome.message(sender.decode())
    by_field = ("hidden@other.test",) if (way, case.id) == ("header", "M15") else ()
    assert message.recipients == ("r@rd.test", *by_field)
    check_arrived(message, _in_front(case, _TO if way == "header" else b"", sender))


@each_of("way", ["header", "smtp"])
def test_a_loop(outcome: Outcome, way: str) -> None:
    """M11: nobody can be told no any more; it is captured."""
    assert outcome.reason(_sender(way, _LOOP.id).decode()).startswith("mail loop")


def test_the_size_limit(outcome: Outcome) -> None:
    """M12, with M14 beyond it: what a listener would refuse is captured with its reason."""
    check_arrived(outcome.message("0.limit@ok.test"), _of_size(_LIMIT_BYTES))
    reason = outcome.reason("1.limit@ok.test")
    assert reason == f"larger than max_message_size, {_LIMIT_BYTES} bytes"


@pytest.mark.usefixtures("outcome")
def test_8bit_for_a_7bit_provider(seven_bit: ThreadedProvider) -> None:
    """M7."""
    (message,) = seven_bit.messages
    assert message.content.isascii()
    body = message_from_bytes(message.content).get_payload(decode=True)
    assert body == RAW_8BIT.partition(b"\r\n\r\n")[2]


def test_senders(outcome: Outcome) -> None:
    """A13 to A29 behind -f: refused, captured, or told to the provider as they stand."""
    told = {
        message.recipients: sender
        for sender, messages in outcome.received.items()
        for message in messages
    }
    for name, _, sender in _SENDERS:
        assert told.get((f"{name}@rd.test".lower(),)) == sender, name


def test_nobody_else_gets_anything(outcome: Outcome) -> None:
    expected = {
        _sender(way, case.id).decode()
        for way in (*_WAYS, "smtp")
        for case in _cases_of(way)
        if case is not _LOOP
    }
    expected |= {"0.limit@ok.test", *(sender for _, _, sender in _SENDERS if sender is not None)}
    assert set(outcome.received) == expected
    assert all(len(messages) == 1 for messages in outcome.received.values())


@pytest.mark.usefixtures("outcome")  # what they leave behind is not mistaken for it
def test_commands_on_stdin(running: MaildropRig, installed: Installation) -> None:
    """C and P by -bs, one session for as many as leave it open."""
    start = len(running.rig.provider.messages)
    client = PipedClient(installed)
    for case in (*COMMANDS, *PARAMETERS):
        if case.id in _OF_A_PORT or any(map(callable, case.dialogue)):
            continue
        if client.is_over or case.dialogue[0] != EHLO:
            assert client.close() in _ANSWERED
            client = PipedClient(installed)
        for step in case.dialogue:
            running.rig.do(client, (EHLO[0], "250-") if step == EHLO else step)  # type: ignore[arg-type]
        # what closed, and what ends within a transaction, goes on for no other case
        client.is_over = CLOSED in case.dialogue[-1] or case.id in _LEFT_OPEN
    assert client.close() in _ANSWERED
    messages = running.settle(start).received
    assert {sender: len(found) for sender, found in messages.items()} == {"s@ok.test": 1}
