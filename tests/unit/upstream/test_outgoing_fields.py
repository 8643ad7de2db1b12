"""Fields in front of the content, DSN wishes and a provider's own size limit."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from relaygw.mail.envelope import Source
from relaygw.upstream.outgoing import (
    Capabilities,
    Content,
    Transaction,
    missing_fields,
    plan_transaction,
    source_field,
)
from tests.unit.upstream.test_outgoing import EVERYTHING, NOTHING, mail, refusals

CONTENT = b"Subject: x\r\nX-Tag:\r\n\r\nX-Stream: body\r\n"
ADDED = b"X-Relaygw-Source: v=1; host=gw\r\n"
FIELDS = (("x-tag", "one"), ("X-Stream", "outbound"))
WISHES = {"dsn_ret": "HDRS", "dsn_envid": "a b", "dsn_notify": ("NEVER", None)}


async def whole(plan: Transaction) -> bytes:
    if isinstance(plan.content, bytes):
        return plan.content
    return b"".join([chunk async for chunk in plan.content()])


async def pieces() -> AsyncIterator[bytes]:
    for piece in (CONTENT[:30], CONTENT[30:]):
        yield piece


@pytest.mark.parametrize("content", [CONTENT, pieces], ids=["whole", "stream"])
async def test_fields_go_in_front_of_the_content(content: Content) -> None:
    plan = await plan_transaction(
        mail(content=content, size_bytes=len(CONTENT), added=ADDED, fields=FIELDS), EVERYTHING
    )
    expected = ADDED + b"X-Stream: outbound\r\n" + CONTENT
    assert await whole(plan) == expected
    assert await whole(plan) == expected  # a second time, as a retry does
    assert plan.mail_command == b"MAIL FROM:<a@x.test> SIZE=%d\r\n" % len(expected)
    assert not plan.fold


@pytest.mark.parametrize("content", [CONTENT, pieces], ids=["whole", "stream"])
async def test_without_any_the_content_is_passed_on_as_it_is(content: Content) -> None:
    assert (await plan_transaction(mail(content=content), EVERYTHING)).content is content


async def test_fields_survive_the_rewriting_to_seven_bits() -> None:
    content = "Subject: x\r\n\r\nü\r\n".encode()
    eight_bit = mail(content=content, size_bytes=len(content), is_8bit=True, added=ADDED)
    plan = await plan_transaction(eight_bit, Capabilities(size=True))
    sent = await whole(plan)
    assert sent.startswith(ADDED + b"Subject: x\r\n") and sent.isascii()
    assert b"SIZE=%d\r\n" % len(sent) in plan.mail_command


def test_what_a_field_may_hold() -> None:
    fields = (("X-A", "a\r\nX-Evil: b"), ("X-B", "grün"))
    assert missing_fields(fields, CONTENT) == b"X-A: a X-Evil: b\r\nX-B: =?utf-8?b?Z3LDvG4=?=\r\n"
    assert missing_fields((), CONTENT) == b""


async def test_a_long_added_line_is_folded() -> None:
    plan = await plan_transaction(mail(fields=(("X-A", "a" * 2000),)), EVERYTHING)
    assert plan.fold


async def test_the_smaller_limit_counts() -> None:
    one = mail(size_bytes=800, max_size_bytes=900, added=b"X: " + b"y" * 96 + b"\r\n")
    text = "552 5.3.4 the message has 901 bytes, its max_message_size is 900"
    assert refusals(await plan_transaction(one, EVERYTHING)) == {0: text}
    assert refusals(await plan_transaction(one, NOTHING)) == {0: text}
    assert (await plan_transaction(mail(size_bytes=900, max_size_bytes=900), NOTHING)).refused == {}
    two = mail(size_bytes=1001, max_size_bytes=2000)
    text = "552 5.3.4 the message has 1001 bytes, the provider takes 1000"
    assert refusals(await plan_transaction(two, EVERYTHING)) == {0: text}


async def test_wishes_are_passed_to_a_provider_with_dsn() -> None:
    wishing = mail(recipients=("b@y.test", "c@y.test"), **WISHES)
    plan = await plan_transaction(wishing, Capabilities(dsn=True))
    assert plan.mail_command == b"MAIL FROM:<a@x.test> RET=HDRS ENVID=a+20b\r\n"
    assert plan.rcpt_commands == {
        0: b"RCPT TO:<b@y.test> NOTIFY=NEVER\r\n",
        1: b"RCPT TO:<c@y.test>\r\n",
    }
    plan = await plan_transaction(wishing, EVERYTHING)
    assert b"RET" not in plan.envelope() and b"NOTIFY" not in plan.envelope()
    plan = await plan_transaction(mail(), Capabilities(dsn=True))
    assert plan.envelope() == b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"


def test_a_relaygw_is_told_where_mail_came_from() -> None:
    here = Source(client="10.0.0.9", helo="x", uid=33, script="33:a.php", cwd="/srv")
    line = b'v=1; host=web1; uid=33; client=10.0.0.9; script="33:a.php"\r\n'
    assert source_field(here, "web1") == b"X-Relaygw-Source: " + line
    # what another relaygw told goes on; whose client that was, only that one knew
    told = Source(client="10.0.0.9", host="web7", uid=33)
    assert source_field(told, "web1") == b"X-Relaygw-Source: v=1; host=web7; uid=33\r\n"


async def test_a_long_header_is_looked_at_to_its_end() -> None:
    """Whatever the pieces that it is stored in, also those of a version before."""
    named = b'X-SMTPAPI: {"to": ["c@cust.test"]}\r\n'
    fields = b"X-Long: " + b"a" * 90 + b"\r\n"
    content = fields * 35_000 + named + b"X-Tag: own\r\n\r\n" + b"text\r\n" * 100_000

    async def stored() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 2**18):
            yield content[at : at + 2**18]

    planned = mail(content=stored, size_bytes=len(content), fields=(("x-tag", "one"),))
    plan = await plan_transaction(planned, Capabilities(size=True))
    assert not plan.refused
    assert await whole(plan) == content.replace(named, b"")
    assert b"SIZE=%d" % (len(content) - len(named)) in plan.mail_command
