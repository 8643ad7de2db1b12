"""Providers without 8BITMIME get ASCII, or nothing: another provider does, or the mail is held."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.routes import Route
from relaygw.store.instances import begun_by
from relaygw.upstream import outgoing
from tests.builders import accepted
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.delivery_rig import running

SEVEN_BIT = ("PIPELINING", "SIZE 52428800")
BOTH = [Route(name="default", providers=("a", "b"))]
SIGNED = (
    b"Subject: \xc3\xbc\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/signed; boundary=b; protocol=application/pgp-signature\r\n\r\n"
    b"--b\r\n\r\n\xc3\xa4\r\n--b\r\n\r\nsignature\r\n--b--\r\n"
)


def eight_bit(content: bytes, **more: Any) -> AcceptedMessage:
    return accepted(content=content, is_8bit=True, **more)


async def test_mail_with_8_bit_bytes_arrives_in_ascii_and_reads_the_same(tmp_path: Path) -> None:
    content = (
        "Subject : Grüße\x0bBcc: victim@x.test\r\nFrom: Jörg <a@shop.test>\r\n"
        'Content-Type: application/pdf; name="Rechnung ü.pdf"\r\n\r\nä\r\n'
    ).encode()
    async with (
        ScriptedProvider(extensions=SEVEN_BIT) as a,
        running(tmp_path, {"a": a.settings()}) as rig,
    ):
        message = eight_bit(content)
        rig.accept(message)
        await rig.wait_for(message, DeliveryState.FINISHED)
        (got,) = a.messages
    assert got.content.isascii()
    assert got.mail_parameters == (f"SIZE={len(got.content)}",)
    read = message_from_bytes(got.content.replace(b"Subject :", b"Subject:"), policy=default)
    assert read["bcc"] is None
    assert read["from"].addresses[0].display_name == "Jörg"
    assert (read.get_content_type(), read.get_filename()) == ("application/pdf", "Rechnung ü.pdf")
    assert read.get_content() == "ä\r\n".encode()


async def test_what_cannot_be_rewritten_is_held_with_its_reason_and_bounces_nobody(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider(extensions=SEVEN_BIT) as a,
        running(tmp_path, {"a": a.settings()}) as rig,
    ):
        message = eight_bit(SIGNED)
        other = accepted()
        rig.accept(message, other)
        entry = await rig.wait_for(message, DeliveryState.HELD)
        await rig.wait_for(other, DeliveryState.FINISHED)
        reason = str(entry.deliveries[0].reason)
        assert reason.startswith("needs 8BITMIME, which no provider of route default has")
        assert reason.endswith("it is signed, and rewriting it would break the signature")
        assert entry.recipients[0].state is RecipientState.PENDING
        assert entry.recipients[0].attempts == 0
        assert len(a.messages) == 1
        assert "needs 8BITMIME" in rig.log.getvalue()
        # let go, it is asked about again
        cause = entry.deliveries[0].hold
        assert cause is not None
        assert rig.store.holds.release_held(cause, limit=10).due == 1
        rig.worker.wake()
        await rig.wait_until(lambda: rig.log.getvalue().count("needs 8BITMIME") >= 2)


async def test_a_provider_with_8bitmime_later_gets_what_was_held(tmp_path: Path) -> None:
    message = eight_bit(SIGNED)
    async with ScriptedProvider(extensions=SEVEN_BIT) as a:
        async with running(tmp_path, {"a": a.settings()}) as rig:
            rig.accept(message)
            await rig.wait_for(message, DeliveryState.HELD)
        a.extensions.append("8BITMIME")
        async with running(tmp_path, {"a": a.settings()}) as rig:
            await rig.wait_for(message, DeliveryState.FINISHED)
        assert [got.content for got in a.messages] == [SIGNED]


async def test_what_cannot_be_rewritten_goes_by_the_next_provider_as_it_is(tmp_path: Path) -> None:
    async with (
        ScriptedProvider(extensions=SEVEN_BIT) as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}, routes=BOTH) as rig,
    ):
        message, plain = eight_bit(SIGNED), eight_bit(b"Subject: \xc3\xbc\r\n\r\nx\r\n")
        rig.accept(message, plain)
        entry = await rig.wait_for(message, DeliveryState.FINISHED)
        await rig.wait_for(plain, DeliveryState.FINISHED)
        assert entry.recipients[0].provider == "b"
        assert [got.content for got in b.messages] == [SIGNED]
        assert [got.content.isascii() for got in a.messages] == [True]


async def test_where_no_provider_can_carry_it_all_are_asked_and_it_is_held(tmp_path: Path) -> None:
    async with (
        ScriptedProvider(extensions=SEVEN_BIT) as a,
        ScriptedProvider(extensions=SEVEN_BIT) as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}, routes=BOTH) as rig,
    ):
        message = eight_bit(SIGNED)
        rig.accept(message)
        entry = await rig.wait_for(message, DeliveryState.HELD)
        assert str(entry.deliveries[0].reason).startswith("needs 8BITMIME")
        assert entry.recipients[0].state is RecipientState.PENDING
        assert not a.messages and not b.messages
        assert a.connections and b.connections


async def test_mail_with_many_fields_stops_no_other_mail(tmp_path: Path) -> None:
    content = "X-Note: Grüße aus Köln am Rhein\r\n".encode() * 2000 + b"\r\nx\r\n"
    async with (
        ScriptedProvider(extensions=SEVEN_BIT) as a,
        running(tmp_path, {"a": a.settings(max_connections=5)}) as rig,
    ):
        heavy = [eight_bit(content) for _ in range(10)]
        other = accepted()
        rig.accept(*heavy, other)
        for message in (other, *heavy):
            await rig.wait_for(message, DeliveryState.FINISHED)
        assert len(a.messages) == 11


async def test_an_attempt_is_noted_before_content_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that mail which kills its worker here is found, and set aside after three times."""
    noted: list[list[tuple[str, int, str]]] = []
    rewrite = outgoing.to_seven_bit

    def watched(content: bytes) -> bytes:
        noted.append(begun_by(tmp_path, "w"))
        return rewrite(content)

    monkeypatch.setattr(outgoing, "to_seven_bit", watched)
    async with (
        ScriptedProvider(extensions=SEVEN_BIT) as a,
        running(tmp_path, {"a": a.settings(chain_transactions=True, max_connections=1)}) as rig,
    ):
        messages = [eight_bit(b"Subject: \xc3\xbc\r\n\r\nx\r\n") for _ in range(4)]
        rig.accept(*messages)
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)
    assert sorted(noted) == sorted([(message.queue_id, 0, "a")] for message in messages)
