"""Where a message came from: who is believed about it, and that the field never stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaygw.inbound.content import CHUNK_BYTES, MEMORY_BYTES, ReceivedContent, without_late_fields
from relaygw.inbound.intake import Intake, Origin
from relaygw.mail.content import READ_HEADER_BYTES, normalise_line_ends
from relaygw.mail.dsn_request import NO_REQUEST, DsnRequest
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.mail.source_header import source_line
from relaygw.settings.model import Settings

LISTENERS = (
    {"bind": "127.0.0.1:25", "trust_source": ["10.0.0.0/8", "fd00::/8"]},
    {"bind": "127.0.0.1:26"},
)
TOLD = source_line(Source(host="web1", uid=33, user="shop", client="10.9.9.9", script="60:a.php"))
FORMS = (
    TOLD,
    TOLD.replace(b"X-Relaygw-Source:", b"x-rELAYGW-source \t:"),
    TOLD.replace(b"; ", b";\r\n "),
    b"X-Relaygw-Source:\r\n",
    b"X-RELAYGW-SOURCE: nonsense\r\n\tmore\r\n \r\n",
)


def intake(tmp_path: Path, **more: Any) -> Intake:
    values = {"mode": "sandbox", "hostname": "gw.test", "listeners": LISTENERS}
    return Intake(Settings.model_validate({**values, **more}), state_dir=tmp_path)


def compose(
    tmp_path: Path,
    content: bytes,
    seen: Source,
    *,
    dsn: DsnRequest = NO_REQUEST,
    is_captured: bool = False,
    **more: Any,
) -> tuple[AcceptedMessage, bytes]:
    """Return what is to be stored, and its whole content."""
    received = ReceivedContent(tmp_path)
    received.add(content)
    received.read_head()
    into = intake(tmp_path, **more)
    origin = Origin(source=seen, client_key="", protocol="ESMTP", dsn=dsn)
    message, chunks = into.compose(
        sender="a@shop.test",
        recipients=into.resolve_recipients("b@cust.test"),
        content=received,
        header=into.header_of(received),
        origin=origin,
        is_captured=is_captured,
    )
    stored = list(message.content or chunks)
    received.close()
    assert len(stored) == (message.stored_chunks or 1)
    assert sum(map(len, stored)) == message.size_bytes
    return message, b"".join(stored)


def smtp(client: str, port: int = 25) -> Source:
    return Source(client=client, helo="web1", listener=f"127.0.0.1:{port}")


def test_a_trusted_client_is_believed(tmp_path: Path) -> None:
    message, stored = compose(tmp_path, TOLD + b"Subject: x\r\n\r\nhi\r\n", smtp("10.1.2.3"))
    assert message.source == Source(
        client="10.1.2.3",
        helo="web1",
        listener="127.0.0.1:25",
        host="web1",
        uid=33,
        user="shop",
        script="60:a.php",
    )
    assert not message.has_denied_source
    assert stored.startswith(b"Received: from web1 (unknown [10.1.2.3])")
    assert stored.endswith(b"\r\nSubject: x\r\n\r\nhi\r\n")
    assert b"relaygw-source" not in stored.lower()


@pytest.mark.parametrize(
    "seen",
    [
        smtp("11.1.2.3"),
        smtp("10.1.2.3", port=26),
        smtp("10.1.2.3", port=27),
        smtp("fe80::1"),
        Source(uid=1000),
        Source(uid=1000, client="10.1.2.3"),
        Source(),
    ],
    ids=str,
)
def test_others_are_not(tmp_path: Path, seen: Source) -> None:
    message, stored = compose(tmp_path, TOLD + b"Subject: x\r\n\r\nhi\r\n", seen)
    assert message.source == seen
    assert message.has_denied_source
    assert b"relaygw-source" not in stored.lower()


def test_listeners_of_one_name_must_agree(tmp_path: Path) -> None:
    both = [{"bind": "127.0.0.1:0", "trust_source": ["10.0.0.0/8"]}, {"bind": "127.0.0.1:0"}]
    seen = Source(client="10.1.2.3", listener="127.0.0.1:0")
    for listeners, is_believed in ((both, False), (both[::-1], False), (both[:1], True)):
        message, _ = compose(tmp_path, TOLD + b"\r\nhi\r\n", seen, listeners=listeners)
        assert message.has_denied_source is not is_believed


def test_the_first_one_counts_and_only_whole(tmp_path: Path) -> None:
    forged = source_line(Source(host="other", uid=0))
    message, stored = compose(tmp_path, TOLD + forged + b"\r\nhi\r\n", smtp("10.1.2.3"))
    assert message.source.host == "web1" and b"Relaygw-Source" not in stored
    message, stored = compose(tmp_path, FORMS[-1] + TOLD + b"\r\nhi\r\n", smtp("10.1.2.3"))
    assert message.source == smtp("10.1.2.3") and message.has_denied_source
    assert b"Relaygw-Source" not in stored


def test_a_body_is_left_alone(tmp_path: Path) -> None:
    for body in (b"Subject: x\r\n\r\n" + TOLD, b"no header\r\n" + TOLD, b"\r\n" + TOLD):
        message, stored = compose(tmp_path, body, smtp("10.1.2.3"))
        assert stored.endswith(body)
        assert message.source == smtp("10.1.2.3") and not message.has_denied_source


def test_a_header_alone(tmp_path: Path) -> None:
    for content in (TOLD, b"Subject: x\r\n" + TOLD, b"From x y\r\n" + TOLD + b"Subject: x\r\n"):
        _, stored = compose(tmp_path, content, smtp("1.1.1.1"))
        assert b"Relaygw-Source" not in stored


OTHERS = (
    b"Subject: x\r\n",
    b"X-Other: X-Relaygw-Source\r\n X-Relaygw-Source: folded\r\n",
    b"X-Relaygw-Sources: y\r\n",
    b"garbage\r\n",
)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*FORMS, *OTHERS]), min_size=1))
def test_any_number_in_any_form_goes_and_the_rest_stays(fields: list[bytes]) -> None:
    if fields[0] == b"garbage\r\n":
        return  # that is no header
    _, stored = compose(Path(), b"".join(fields) + b"\r\nhi\r\n", smtp("1.1.1.1"))
    _, _, rest = stored.partition(b"for <b@cust.test>;")
    left = b"".join(field for field in fields if field not in FORMS) + b"\r\nhi\r\n"
    assert rest.endswith(left)
    assert rest.count(b"\r\n") - left.count(b"\r\n") <= 4  # Received, Date, Message-ID


def test_a_large_message(tmp_path: Path) -> None:
    body = b"\r\n" + b"x" * 70 + b"\r\n"
    content = b"Subject: x\r\n" + TOLD + body * (2 * MEMORY_BYTES // len(body))
    content = content.replace(body, b"\r\n" + body, 1)
    message, stored = compose(tmp_path, content, smtp("10.1.2.3"))
    assert message.source.uid == 33
    assert stored.endswith(content.replace(TOLD, b""))


_READ_BYTES = -(-READ_HEADER_BYTES // CHUNK_BYTES) * CHUNK_BYTES


@pytest.mark.parametrize("shift", [*range(0, 40, 3), 5000])
def test_a_header_longer_than_is_read(tmp_path: Path, shift: int) -> None:
    """Nothing is believed there, and no field of the name is left, wherever the chunks part."""
    filler = b"X-Filler: " + b"y" * 88 + b"\r\n"
    count, rest = divmod(_READ_BYTES - 300 - shift, len(filler))
    header = TOLD + b"X-F: " + b"z" * rest + b"\r\n" + filler * count
    header += b"".join(FORMS) * 3 + filler * 5000 + TOLD
    body = b"\r\n" + (b"w" * 70 + b"\r\n") * 20_000 + TOLD
    message, stored = compose(tmp_path, header + body, smtp("10.1.2.3"), is_captured=True)
    assert message.source == smtp("10.1.2.3") and message.has_denied_source
    end = stored.index(b"\r\n\r\n")
    assert b"relaygw-source" not in stored[:end].lower().replace(b"\r\n ", b"")
    assert stored.endswith(body)


def test_late_fields_in_few_chunks() -> None:
    assert list(without_late_fields(iter(()))) == [b""]
    assert list(without_late_fields(iter((b"a",)))) == [b"a"]
    split = (b"a: b\r\nX-Relaygw-", b"Source: x\r", b"\n\r\nX-Relaygw-Source: y")
    joined = b"".join(without_late_fields(iter(split)))
    assert joined == b"a: b\r\nX-Relaygw-Denied: x\r\n\r\nX-Relaygw-Source: y"


def test_a_local_mail_names_its_script_and_its_wishes(tmp_path: Path) -> None:
    content = normalise_line_ends(b"X-PHP-Originating-Script: 33:mail.php\nSubject: x\n\nhi\n")
    wishes = DsnRequest(notify="NEVER", ret="HDRS", envid="o1")
    message, _ = compose(tmp_path, content, Source(uid=33, cwd="/srv"), dsn=wishes)
    assert message.source == Source(uid=33, cwd="/srv", script="33:mail.php")
    assert (message.dsn_ret, message.dsn_envid) == ("HDRS", "o1")
    assert message.deliveries[0].recipients[0].dsn_notify == "NEVER"
