"""The corpus through the maildrop: files that any local user may put there, without the command.

Nobody can be told no any more: what SMTP refuses is captured with its reason, what it takes
arrives as it came, and only recipients that a file names get it.
"""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from relaygw.mail.state import RecipientState
from tests.e2e.corpus.handed_over import (
    MaildropRig,
    Outcome,
    check_arrived,
    content_of,
    running_maildrop,
)
from tests.e2e.corpus.rig import Case, check_message, memory_bounded
from tests.e2e.corpus.test_addresses import REFUSED
from tests.e2e.corpus.test_content import CASES as EVERY_CONTENT
from tests.e2e.corpus.test_content import HEADER, RAW_8BIT
from tests.e2e.corpus.test_end_of_data import CASES as EVERY_END
from tests.e2e.corpus.test_relay import PATHS
from tests.e2e.corpus.test_staging import ALLOW, RELAYED, STAGED
from tests.e2e.test_sendmail_corpus import BODIES
from tests.fakes.scripted_provider import ThreadedProvider
from tests.tables import each_of

_LIMIT_BYTES = 2 * 2**20
_PLAIN = HEADER + b"A\r\n"
_MEMORY_KIB = 16 * 1024

CONTENT = [case for case in EVERY_CONTENT if case.messages]
SIZES = [case for case in EVERY_END if case.id.startswith("S12-")]
_LOOP = next(case for case in EVERY_CONTENT if case.id == "M11-60")

# id and an address as a file may name it: the path of the corpus, with its brackets and without
ADDRESSES = tuple(
    (f"{name}-{dress}", address)
    for name, path in (
        *((f"A{number}", path) for number, path in enumerate(PATHS, start=1)),
        *((name, path) for name, path, _ in REFUSED),
        ("A21", b"<r\n@rd.test>"),
        ("A21-line", b"<r@rd.test\nto x@other.test>"),
        ("A30", b"<postmaster>"),
    )
    for dress, address in (("path", path), ("bare", path.removeprefix(b"<").removesuffix(b">")))
    if address != b"r@rd.test"  # A22 without its bracket
)
# those that are addresses; to all others nothing goes
_NAMED = {"A1-bare", "A2-bare", "A3-bare", "A7-bare", "A11-bare", "A27-bare"}
# those that name somebody of this machine
_LOCAL = {"A4-bare", "A8-bare", "A10-bare", "A30-bare"}
# what a line can hold unescaped, byte for byte
_RAW = tuple((name, address) for name, address in ADDRESSES if b"\n" not in address)


def _sender(table: str, name: str) -> bytes:
    return f"{name}.{table}@ok.test".lower().encode()


@pytest.fixture(scope="module")
def seven_bit() -> Iterator[ThreadedProvider]:
    with ThreadedProvider(extensions=["PIPELINING", "SIZE 52428800"]) as provider:
        yield provider


@pytest.fixture(scope="module")
def running(
    seven_bit: ThreadedProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MaildropRig]:
    directory = tmp_path_factory.mktemp("files")
    listeners = [{"bind": "127.0.0.1:0", "max_message_size": _LIMIT_BYTES}]
    others = {"seven": (seven_bit, "@seven.test")}
    maildrop = directory / "maildrop"
    with running_maildrop(directory, maildrop, others=others, listeners=listeners) as running:
        yield running


@pytest.fixture(scope="module")
def outcome(running: MaildropRig) -> Outcome:
    """Leave a file for each case."""
    to = (b"r@rd.test",)
    for case in (*CONTENT, *SIZES, _LOOP):
        lines = content_of(case).replace(b"\r\n", b"\n")  # as programs write them
        running.leave(lines, sender=_sender("content", case.id), to=to)
    for name, body, _ in BODIES:
        running.leave(HEADER + body, sender=_sender("end", name), to=to)
    for name, address in ADDRESSES:
        running.leave(_PLAIN, sender=_sender("to", name), to=(address,))
        running.leave(_PLAIN, sender=address, to=(_sender("from", name),))
    for name, address in _RAW:
        from_line = b"from " + _sender("raw", name)
        running.leave_lines(_PLAIN, from_line, b"to " + address)
    running.leave(RAW_8BIT, sender=b"seven@ok.test", to=(b"r@seven.test",))
    for excess_bytes in (0, 1):
        content = HEADER + b"x" * (_LIMIT_BYTES + excess_bytes - len(HEADER))
        running.leave(content, sender=_sender("limit", str(excess_bytes)), to=to)
    return running.settle()


@each_of("case", [*CONTENT, *SIZES], ids=lambda case: case.id)
def test_content(outcome: Outcome, case: Case) -> None:
    """M1 to M11, M15 to M18, S12."""
    message = outcome.message(_sender("content", case.id).decode())
    assert message.recipients == ("r@rd.test",)
    check_message(message, case)


@each_of("name, _body, arrives", BODIES)
def test_bodies(outcome: Outcome, name: str, _body: bytes, arrives: bytes) -> None:
    """S1 to S10, S13, S14: no dot ends anything here."""
    message = outcome.message(_sender("end", name).decode())
    assert message.recipients == ("r@rd.test",)
    check_arrived(message, HEADER + arrives)


def test_a_loop(outcome: Outcome) -> None:
    """M11."""
    assert outcome.reason(_sender("content", _LOOP.id).decode()).startswith("mail loop")


def test_the_size_limit(outcome: Outcome) -> None:
    """M12."""
    size_bytes = _LIMIT_BYTES - len(HEADER)
    check_arrived(outcome.message("0.limit@ok.test"), HEADER + b"x" * size_bytes + b"\r\n")
    reason = outcome.reason("1.limit@ok.test")
    assert reason == f"larger than max_message_size, {_LIMIT_BYTES} bytes"


@pytest.mark.usefixtures("outcome")
def test_8bit_for_a_7bit_provider(seven_bit: ThreadedProvider) -> None:
    """M7."""
    (message,) = seven_bit.messages
    assert message.content.isascii()
    body = message_from_bytes(message.content).get_payload(decode=True)
    assert body == RAW_8BIT.partition(b"\r\n\r\n")[2]


@each_of("name, address", ADDRESSES)
def test_recipients(outcome: Outcome, name: str, address: bytes) -> None:
    """A1 to A30: the very address, or nobody."""
    for table in ("to", "raw") if (name, address) in _RAW else ("to",):
        sender = _sender(table, name).decode()
        if name in _NAMED:
            assert outcome.recipients(sender) == (address.decode(),)
        else:
            reason = outcome.reason(sender)
            wanted = "local recipient" if name in _LOCAL else "invalid address"
            assert reason.startswith(wanted), reason


@each_of("name, address", ADDRESSES)
def test_senders(outcome: Outcome, name: str, address: bytes) -> None:
    """A1 to A30 as the sender, A29 among them: told as it stands, or the mail is captured."""
    recipient = _sender("from", name).decode()
    told = [
        sender
        for sender, messages in outcome.received.items()
        for message in messages
        if message.recipients == (recipient,)
    ]
    if name in _NAMED or name == "A18-bare":
        assert told == [address.decode()]
    elif name in _LOCAL:
        assert told == [f"{address.decode()}@gw.test"]
    else:
        assert told == []
        (fate,) = [
            one
            for entries in outcome.entries.values()
            for entry in entries
            for one in entry.recipients
            if one.address == recipient
        ]
        assert fate.state is RecipientState.CAPTURED
        assert (fate.reply or "").startswith("invalid sender"), fate.reply


def test_nobody_else_gets_anything(outcome: Outcome) -> None:
    named = {address.decode() for name, address in ADDRESSES if name in _NAMED}
    of_senders = {_sender("from", name).decode() for name, _ in ADDRESSES}
    senders = [*outcome.received]
    got = {one for sender in senders for one in outcome.recipients(sender)}
    assert got <= {"r@rd.test", *named, *of_senders}
    assert not any("evil" in sender for sender in senders)


@pytest.mark.usefixtures("outcome")
def test_memory_is_bounded(running: MaildropRig) -> None:
    """M13, M14: whatever the size of a file."""
    start = len(running.rig.provider.messages)
    with memory_bounded(running.rig.pid("front"), growth_kib=_MEMORY_KIB):
        running.leave(HEADER + b"\n" * (25 * 10**6 // 2), sender=b"m13@ok.test", to=(b"r@rd.test",))
        running.leave(HEADER + b"x" * 40 * 2**20, sender=b"m14@ok.test", to=(b"r@rd.test",))
        outcome = running.settle(start)
    for sender in ("m13@ok.test", "m14@ok.test"):
        assert outcome.reason(sender).startswith("larger than max_message_size")


# --- staging ------------------------------------------------------------------------------


def test_staging(tmp_path: Path) -> None:
    """A31 to A39, and A1 to A12 for a domain that is on the list."""
    rows = [
        *STAGED,
        *(
            (f"{name}-relayed", (path.removeprefix("<").removesuffix(">"),), ())
            for name, path in RELAYED
        ),
    ]
    maildrop = tmp_path / "maildrop"
    with running_maildrop(tmp_path, maildrop, mode="staging", recipients=ALLOW) as running:
        content = b"To: dev@ok.test\n" + _PLAIN
        for name, recipients, _ in rows:
            to = tuple(one.encode() for one in recipients)
            running.leave(content, sender=_sender("staged", name), to=to)
        outcome = running.settle()
        for name, recipients, released in rows:
            sender = _sender("staged", name).decode()
            assert outcome.recipients(sender) == released, name
            (entry,) = outcome.entries[sender]
            captured = {
                one.address for one in entry.recipients if one.state is RecipientState.CAPTURED
            }
            assert captured == set(recipients) - set(released), name
