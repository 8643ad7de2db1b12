"""A header of up to 4 MiB is read to its end by all who read it; a longer one is not taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaygw.inbound.content import CHUNK_BYTES, ReceivedContent
from relaygw.inbound.intake import HeaderTooLong, Intake, Origin
from relaygw.inbound.local_mail import Importer
from relaygw.inbound.screen import Screen
from relaygw.mail.content import header_end, read_header
from relaygw.mail.drop import MAX_HEADER_BYTES
from relaygw.mail.envelope import Source
from relaygw.mail.exported import Exported, NotExported
from relaygw.policy.content_check import find_in
from relaygw.policy.storms import fingerprint
from relaygw.settings.model import Settings
from tests.memory import peak_bytes

BODY = b"\r\n" + b"some text\r\n" * 200_000
PRODUCTION = {
    "mode": "production",
    "hostname": "gw.test",
    "providers": {"p": {"host": "127.0.0.1", "port": 25, "tls": "none"}},
    "routes": [{"name": "all", "providers": ["p"]}],
    "rewrite": {
        "recipients": {"root": "somebody.with.a.long.name@example.test"},
        "header": ["recipients"],
    },
}


def intake(tmp_path: Path) -> Intake:
    return Intake(Settings.model_validate(PRODUCTION), state_dir=tmp_path)


def received(tmp_path: Path, header: bytes) -> ReceivedContent:
    content, whole = ReceivedContent(tmp_path), header + BODY
    for at in range(0, len(whole), CHUNK_BYTES):
        content.add(whole[at : at + CHUNK_BYTES])
    content.read_head()
    return content


def header_of(size_bytes: int, line: bytes = b"X-Long: " + b"\xc3\xa4" * 300 + b"\r\n") -> bytes:
    """Return a header of about this size, its subject at the end."""
    return line * (size_bytes // len(line)) + b"Subject: last\r\n"


@pytest.mark.parametrize("size_bytes", [1000, CHUNK_BYTES - 700, CHUNK_BYTES, 4_000_000])
def test_the_first_chunk_has_the_whole_header(tmp_path: Path, size_bytes: int) -> None:
    header, into = header_of(size_bytes), intake(tmp_path)
    content = received(tmp_path, header)
    message, chunks = into.compose(
        sender="a@shop.test",
        recipients=into.resolve_recipients("b@cust.test"),
        content=content,
        header=into.header_of(content),
        origin=Origin(source=Source(client="127.0.0.1"), client_key="", protocol="ESMTP"),
    )
    stored = list(chunks)
    content.close()
    assert message.subject == "last"
    assert message.stored_chunks == len(stored)
    assert header_end(stored[0]) < len(stored[0])
    assert read_header(stored[0]).subject == "last"
    assert b"".join(stored).endswith(header + BODY)
    assert message.size_bytes == sum(map(len, stored))
    assert len(stored[0]) - header_end(stored[0]) <= CHUNK_BYTES


@pytest.mark.parametrize(
    ("header", "is_taken"),
    [
        (header_of(MAX_HEADER_BYTES - 20_000), True),
        (header_of(MAX_HEADER_BYTES + 20_000), False),
        (header_of(6 * 2**20), False),
        (header_of(3 * 2**20, b"To: " + b"<root>, " * 100 + b"\r\n"), False),  # once rewritten
    ],
    ids=["short", "long", "longer", "rewritten"],
)
def test_a_longer_header_is_not_taken(tmp_path: Path, header: bytes, is_taken: bool) -> None:
    into = intake(tmp_path)
    content = received(tmp_path, header)
    found = into.header_of(content, limit_bytes=MAX_HEADER_BYTES)
    assert found.is_too_long is not is_taken
    if not is_taken:
        with pytest.raises(HeaderTooLong):
            into.compose(
                sender="a@shop.test",
                recipients=into.resolve_recipients("b@cust.test"),
                content=content,
                header=found,
                origin=Origin(source=Source(), client_key="", protocol="ESMTP"),
            )
    content.close()


def test_mail_with_a_longer_header_is_not_imported(tmp_path: Path) -> None:
    listeners = [{"bind": "127.0.0.1:25", "max_header_size": "100KiB"}]
    settings = Settings.model_validate({**PRODUCTION, "listeners": listeners})
    importer = Importer(Intake(settings, state_dir=tmp_path), settings.listeners)
    mail = Exported(sender="a@x.test", recipients=("b@x.test",), content=header_of(200_000) + BODY)
    with (
        pytest.raises(NotExported, match="header longer than max_header_size, 102400 bytes"),
        importer.composed(mail),
    ):
        pass


def test_rewriting_takes_little_memory(tmp_path: Path) -> None:
    header = header_of(10**6, b"To: " + b"b@cust.test, " * 70 + b"\r\n")
    content, into = received(tmp_path, header), intake(tmp_path)
    with peak_bytes() as peak:
        into.header_of(content)
    content.close()
    assert peak() < 10 * len(header)


@pytest.mark.parametrize("size_bytes, is_long", [(60_000, False), (70_000, True)])
def test_what_copies_share_is_read_with_a_long_header(
    tmp_path: Path, size_bytes: int, is_long: bool
) -> None:
    header = header_of(size_bytes)
    content = received(tmp_path, header)
    settings, screen = Settings.model_validate(PRODUCTION), Screen([], told=print)
    Intake(settings, state_dir=tmp_path, screen=screen).header_of(content)
    expected = fingerprint(content.head, len(header)) if is_long else None
    content.close()
    assert content.fingerprint == expected


def test_the_text_behind_a_long_header_is_looked_at() -> None:
    header = header_of(600_000)
    content = header + b"\r\nYour card: 4111 1111 1111 1111\r\n"
    assert find_in(content, header_end=len(header))
