"""No header field makes a provider send to somebody that the mode or the block list keeps out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.envelope import NewDelivery, NewRecipient, Released, Source
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.audit import AuditEntry
from relaygw.store.release import Release
from tests.builders import NOW_MS, accepted
from tests.fakes.scripted_provider import ReceivedMessage, ScriptedProvider
from tests.integration.delivery_rig import Rig, running

STAGING: dict[str, Any] = {"mode": "staging", "recipients": {"allow": ["dev@agency.test"]}}
CHAINED = {"chain_transactions": True, "max_connections": 1}
CUSTOMER = b"customer@cust.test"
AUDIT = AuditEntry(at_ms=NOW_MS, actor="a", action="x", target="", affected=1, detail="")
NAMING = [
    b'X-SMTPAPI: {"to": ["customer@cust.test", "Jo <other@cust.test>"]}',
    b'X-SMTPAPI: {"filters": {"bcc": {"settings": {"enable": 1, "email": "customer@cust.test"}}}}',
    b'x-smtpapi : {"category": "a"}\r\nX-SMTPAPI: {"to": ["customer@cust.test"]}',
    b'X-SMTPAPI:\r\n {"to":\r\n\t["customer@cust.test"]}',
    b'X-SMTPAPI\xa0: {"to": ["customer@cust.test"]}\r\n  ',
    b'=?utf-8?b?WC1TTVRQQVBJ?=: {"to": ["customer@cust.test"]}',
    b'X-MSYS-API: {"cc": [{"email": "customer@cust.test"}]}',
    b'X-MSYS-API: {"bcc": [{"email": "customer@cust.test", "name": "\xc3\xa4"}]}',
    b'X-MSYS-API: {"archive": [{"email": "customer@cust.test"}]}',
    b"X-MC-BccAddress: customer@cust.test",
    b"X-Mailgun-Archive-To: https://customer@cust.test/copy",
    b"X-MJ-TemplateErrorReporting: customer@cust.test",
    b'To: [{"name": "Jo", "email": "customer@cust.test"}]',
    b'cc: [{"email": "customer@cust.test"}]',
    b'BCC: [{"email": "customer@cust.test"}]',
    b'messageVersions: [{"to": [{"email": "customer@cust.test"}]}]',
    b"Bcc: dev@agency.test,\r\n customer@cust.test",
    b"Resent-To: customer@cust.test",
    b"Resent-Cc: customer@cust.test",
    b"Resent-Bcc: customer@cust.test",
    b"Apparently-To: customer@cust.test",
    b"X-Receiver: <customer@cust.test> NOTIFY=NEVER",
    b"X-Envelope-To: customer@cust.test",
    b"Delivered-To: customer@cust.test",
    b"Disposition-Notification-To: customer@cust.test",
    b"Return-Receipt-To: customer@cust.test",
    b"Errors-To: customer@cust.test",
    b"Return-Path: <customer@cust.test>",
]
"""Fields of the services' own pages, in the ways in which a program may write them."""


def with_field(field: bytes) -> bytes:
    return b"From: a@shop.test\r\n%b\r\nSubject: x\r\n\r\nX-SMTPAPI: a body\r\n" % field


WITHOUT = b"From: a@shop.test\r\nSubject: x\r\n\r\nX-SMTPAPI: a body\r\n"


def holding(field: bytes, **more: Any) -> dict[str, Any]:
    content = with_field(field)
    return {"content": content, "size_bytes": len(content), "is_8bit": not content.isascii()} | more


async def sent(rig: Rig, provider: ScriptedProvider, **fields: Any) -> ReceivedMessage:
    (got,) = await all_sent(rig, provider, [fields])
    return got


async def all_sent(
    rig: Rig, provider: ScriptedProvider, mails: Sequence[dict[str, Any]]
) -> list[ReceivedMessage]:
    """Send several at once; return what the provider got, in their order."""
    before = len(provider.messages)
    messages = [
        accepted("dev@agency.test", sender=f"{n}@shop.test", **fields)
        for n, fields in enumerate(mails)
    ]
    rig.accept(*messages)
    for message in messages:
        await rig.wait_for(message, DeliveryState.FINISHED)
    return sorted(provider.messages[before:], key=lambda one: int(one.sender.partition("@")[0]))


async def test_no_field_names_a_customer_to_the_provider_of_a_staging_gateway(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(**CHAINED)}, **STAGING) as rig,
    ):
        mails = [holding(field, mode="staging") for field in NAMING]
        got = await all_sent(rig, provider, mails)
    assert {one.recipients for one in got} == {("dev@agency.test",)}
    leaks = [field for field, one in zip(NAMING, got, strict=True) if CUSTOMER in one.content]
    assert leaks == []
    assert {one.content for one in got} == {WITHOUT}


@pytest.mark.parametrize(
    ("gateway", "mail"),
    [
        ("production", {"mode": "staging"}),
        ("staging", {"mode": "production"}),
        ("production", {"source": Source(listener="127.0.0.1:2525")}),
    ],
    ids=["was staging", "is staging", "listener"],
)
async def test_the_strictest_mode_of_then_and_now_keeps_fields_back(
    tmp_path: Path, gateway: str, mail: dict[str, Any]
) -> None:
    listeners = [{"bind": "127.0.0.1:25"}, {"bind": "127.0.0.1:2525", "mode": "staging"}]
    settings: dict[str, Any] = STAGING | {"mode": gateway, "listeners": listeners}
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, **settings) as rig,
    ):
        got = await sent(rig, provider, **holding(NAMING[0], **mail))
    assert CUSTOMER not in got.content


@pytest.mark.parametrize(
    ("mode", "mark"),
    [
        (mode, mark)
        for mode in ("sandbox", "staging", "production")
        for mark in Released
        if (mode, mark) != ("sandbox", Released.RESENT)  # which is held
    ],
)
async def test_released_mail_reaches_those_it_was_released_to_and_nobody_else(
    tmp_path: Path, mode: str, mark: Released
) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, **STAGING | {"mode": mode}) as rig,
    ):
        captured = NewRecipient(address="b@cust.test", state=RecipientState.CAPTURED, reason="x")
        message = accepted(captured, **holding(NAMING[0], mode=mode))
        rig.accept(message)
        part = NewDelivery(
            released=mark,
            route="default",
            stream="transactional",
            recipients=(NewRecipient(address="dev@agency.test"),),
        )
        rig.store.sandbox.release_captured(
            [Release(queue_id=message.queue_id, deliveries=(part,), entry=AUDIT)]
        )
        await provider.wait_for_messages(1)
        await rig.wait_for(message, DeliveryState.FINISHED, DeliveryState.FINISHED)
        (got,) = provider.messages
        assert got.recipients == ("dev@agency.test",)
        assert CUSTOMER not in got.content
        stored = rig.store.intake.read_chunk(message.queue_id, 0)
        assert stored is not None and CUSTOMER in stored  # people look at it as it came


async def test_a_large_message_and_one_in_parts_are_cleaned_as_well(tmp_path: Path) -> None:
    field = b"X-Long: " + b"a" * 70 + b"\r\n"
    head = field * 7000 + NAMING[0]  # over the border of two chunks
    content = with_field(head) + b"text\r\n" * 1000
    chunks = [content[at : at + 2**18] for at in range(0, len(content), 2**18)]
    assert chunks[0].find(b"\r\n\r\n") < 0
    both = STAGING | {"recipients": {"allow": ["dev@agency.test", "qa@agency.test"]}}
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(max_recipients=1)}, **both) as rig,
    ):
        message = accepted(
            "dev@agency.test",
            "qa@agency.test",
            content=content,
            size_bytes=len(content),
            mode="staging",
        )
        message = replace(message, content=(), stored_chunks=len(chunks))
        rig.store.intake.add_chunks(message.queue_id, 0, chunks)
        rig.accept(message)
        await rig.wait_for(message, DeliveryState.FINISHED)
        assert len(provider.messages) == 2
        for got in provider.messages:
            assert CUSTOMER not in got.content
            assert got.content.count(field) == 7000
            assert got.content.endswith(b"text\r\n" * 1000)


async def test_a_header_without_end_is_held_in_staging(tmp_path: Path) -> None:
    content = (b"X-Long: " + b"a" * 70 + b"\r\n") * 60_000
    chunks = [content[at : at + 2**18] for at in range(0, len(content), 2**18)]
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, **STAGING) as rig,
    ):
        message = accepted(
            "dev@agency.test", content=content, size_bytes=len(content), mode="staging"
        )
        message = replace(message, content=(), stored_chunks=len(chunks))
        rig.store.intake.add_chunks(message.queue_id, 0, chunks)
        rig.accept(message)
        entry = await rig.wait_for(message, DeliveryState.HELD)
        assert "header has no end within 4 MiB" in (entry.deliveries[0].reason or "")
        assert not provider.messages


async def test_what_is_removed_is_logged_once_and_other_fields_stay(tmp_path: Path) -> None:
    harmless = b'X-SMTPAPI: {"category": "orders", "filters": {"templates": {}}}\r\nTo: c@cust.test'
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, **STAGING) as rig,
    ):
        naming = NAMING[3] + b"\r\n" + NAMING[9]
        mails = [holding(field, mode="staging") for field in (harmless, naming)]
        kept, cleaned = await all_sent(rig, provider, mails)
        assert (kept.content, cleaned.content) == (with_field(harmless), WITHOUT)
        (line,) = [line for line in rig.log.getvalue().splitlines() if "not sent" in line]
        assert line.endswith("fields X-SMTPAPI, X-MC-BccAddress are not sent (mode staging)")


async def test_a_field_of_the_providers_own_settings_names_nobody_either(tmp_path: Path) -> None:
    headers = {"X-MC-BccAddress": "customer@cust.test", "X-PM-Message-Stream": "outbound"}
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(headers=headers)}, **STAGING) as rig,
    ):
        got = await sent(rig, provider, mode="staging")
    assert got.content.startswith(b"X-PM-Message-Stream: outbound\r\nSubject: x\r\n")


BLOCK: dict[str, Any] = {"recipients": {"block": ["customer@cust.test", "@blocked.test"]}}
HELD = [
    (NAMING[0], "field X-SMTPAPI names customer@cust.test, on recipients.block"),
    (NAMING[1], "field X-SMTPAPI names customer@cust.test"),
    (NAMING[2], "field X-SMTPAPI names customer@cust.test"),
    (NAMING[6], "field X-MSYS-API names customer@cust.test"),
    (NAMING[8], "field X-MSYS-API names customer@cust.test"),
    (NAMING[12], "field To names customer@cust.test"),
    (NAMING[15], "field messageVersions names customer@cust.test"),
    (b"X-MC-BccAddress: Jo <JO@Blocked.test>", "field X-MC-BccAddress names JO@Blocked.test"),
    (b'X-SMTPAPI: {"to": ["free@cust.test"', "field X-SMTPAPI cannot be read"),
    (b'X-SMTPAPI: {"to": 1}', "field X-SMTPAPI cannot be read"),
    (b'X-SMTPAPI: {"to": [], "To": ["customer@cust.test"]}', "field X-SMTPAPI cannot be read"),
    (b"X-SMTPAPI: " + b"[" * 100_000, "field X-SMTPAPI cannot be read"),
    (b"X-MC-BccAddress: a b c@d", "field X-MC-BccAddress cannot be read"),
]


async def test_a_blocked_address_in_a_field_holds_the_mail_in_production(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(**CHAINED)}, **BLOCK) as rig,
    ):
        messages = [accepted(**holding(field)) for field, _ in HELD]
        free = [accepted() for _ in HELD]
        rig.accept(*(one for pair in zip(messages, free, strict=True) for one in pair))
        for message, (field, reason) in zip(messages, HELD, strict=True):
            entry = await rig.wait_for(message, DeliveryState.HELD)
            assert (entry.deliveries[0].reason or "").startswith(reason), field
            assert entry.deliveries[0].hold == HoldCause(
                HoldCode.HEADER, entry.deliveries[0].reason or ""
            )
        for message in free:
            await rig.wait_for(message, DeliveryState.FINISHED)
        assert {one.content for one in provider.messages} == {free[0].content[0]}


async def test_a_field_that_only_repeats_the_envelope_is_removed_for_a_blocked_address(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, **BLOCK) as rig,
    ):
        fields = (b"Bcc: c@cust.test, x@blocked.test", b"Return-Path: <x@blocked.test>")
        got = await all_sent(rig, provider, [holding(field) for field in fields])
        assert [one.content for one in got] == [WITHOUT, WITHOUT]
        log = rig.log.getvalue()
    assert "field Bcc is not sent (names x@blocked.test, on recipients.block)" in log


@pytest.mark.parametrize("settings", [{}, BLOCK], ids=["no list", "others are blocked"])
async def test_production_sends_fields_as_they_came(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}, **settings) as rig,
    ):
        fields = [field.replace(CUSTOMER, b"free@cust.test") for field in NAMING]
        if settings:  # what cannot be read as addresses does not go past a block list
            fields = [field for field in fields if b"X-Receiver" not in field]
        got = await all_sent(rig, provider, [holding(field) for field in fields])
        assert [one.content for one in got] == [with_field(field) for field in fields]
