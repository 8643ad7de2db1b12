"""What a provider without an extension gets: fitting mail, or a refusal made here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from relaygw.upstream.outgoing import Capabilities, OutgoingMail, Transaction, plan_transaction

EVERYTHING = Capabilities(
    pipelining=True, eight_bit_mime=True, smtputf8=True, size=True, max_size_bytes=1000
)
NOTHING = Capabilities()


def mail(**changes: Any) -> OutgoingMail:
    fields = {
        "sender": "a@x.test",
        "recipients": ("b@y.test",),
        "content": b"Subject: x\r\n\r\nhi\r\n",
        "size_bytes": 18,
        "is_8bit": False,
        "has_long_line": False,
        "smtputf8": False,
    }
    return OutgoingMail(**{**fields, **changes})


def refusals(plan: Transaction) -> dict[int, str]:
    return {position: str(answer.reply) for position, answer in plan.refused.items()}


async def test_parameters_follow_what_is_offered() -> None:
    eight_bit = mail(is_8bit=True, smtputf8=True, sender="ä@x.test", recipients=("ö@y.test",))
    plan = await plan_transaction(eight_bit, EVERYTHING)
    expected = "MAIL FROM:<ä@x.test> SIZE=18 BODY=8BITMIME SMTPUTF8\r\n"
    assert plan.mail_command == expected.encode()
    assert plan.rcpt_commands == {0: "RCPT TO:<ö@y.test>\r\n".encode()}
    assert (await plan_transaction(mail(), EVERYTHING)).mail_command.endswith(b"> SIZE=18\r\n")
    assert (await plan_transaction(mail(sender=""), NOTHING)).mail_command == b"MAIL FROM:<>\r\n"


async def test_too_large_is_refused_here() -> None:
    plan = await plan_transaction(mail(size_bytes=1001, recipients=("b@y", "c@y")), EVERYTHING)
    assert plan.rcpt_commands == {}
    assert refusals(plan) == dict.fromkeys(
        (0, 1), "552 5.3.4 the message has 1001 bytes, the provider takes 1000"
    )
    assert (await plan_transaction(mail(size_bytes=1000), EVERYTHING)).refused == {}


async def test_eight_bit_content_is_rewritten_for_a_provider_without_8bitmime() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in (b"Subject: x\r\n\r\n\xc3", b"\xa4\r\n"):
            yield piece

    plan = await plan_transaction(mail(is_8bit=True, content=chunks), Capabilities(size=True))
    assert isinstance(plan.content, bytes)
    assert plan.content.endswith(b"\r\n\r\n=C3=A4\r\n")
    assert plan.mail_command == b"MAIL FROM:<a@x.test> SIZE=%d\r\n" % len(plan.content)


async def test_the_rewritten_size_counts() -> None:
    content = b"Subject: x\r\n\r\n" + b"\xc3\xa4" * 400 + b"\r\n"
    offered = Capabilities(size=True, max_size_bytes=1000)
    plan = await plan_transaction(mail(is_8bit=True, content=content, size_bytes=816), offered)
    assert refusals(plan)[0].startswith(
        "554 5.6.3 content not sent to a provider without 8BITMIME: rewritten, the message has "
    )


async def test_a_header_line_added_in_8_bit_counts() -> None:
    added = "X-Note: ü\r\n".encode()
    plan = await plan_transaction(mail(added=added), Capabilities(eight_bit_mime=True))
    assert plan.mail_command == b"MAIL FROM:<a@x.test> BODY=8BITMIME\r\n"
    plan = await plan_transaction(mail(is_8bit=True, added=added), NOTHING)
    assert isinstance(plan.content, bytes) and plan.content.isascii()


async def test_what_cannot_be_rewritten_is_refused() -> None:
    content = b"From: j\xc3\xb6@x.test\r\n\r\nhi\r\n"
    plan = await plan_transaction(mail(is_8bit=True, content=content), NOTHING)
    assert refusals(plan)[0].startswith("554 5.6.3")
    assert plan.rcpt_commands == {}


async def test_addresses_need_smtputf8() -> None:
    some = mail(smtputf8=True, recipients=("b@y.test", "ö@y.test"))
    plan = await plan_transaction(some, NOTHING)
    assert list(plan.rcpt_commands) == [0]
    assert refusals(plan)[1].startswith("550 5.6.7")
    plan = await plan_transaction(mail(smtputf8=True, sender="ä@x.test"), NOTHING)
    assert refusals(plan)[0].startswith("550 5.6.7")


async def test_utf8_header_fields_are_rewritten_without_smtputf8() -> None:
    content = "Subject: ü\r\n\r\nhi\r\n".encode()
    plan = await plan_transaction(
        mail(is_8bit=True, smtputf8=True, content=content), Capabilities(eight_bit_mime=True)
    )
    assert isinstance(plan.content, bytes)
    assert plan.content.isascii()
    assert plan.mail_command == b"MAIL FROM:<a@x.test>\r\n"


@pytest.mark.parametrize("address", ["a@x\r\nRCPT TO:<c@z", "a\n@x", "a\0@x", "\udcff@x"])
async def test_an_address_cannot_carry_a_command(address: str) -> None:
    with pytest.raises(ValueError):
        await plan_transaction(mail(recipients=(address,)), EVERYTHING)
