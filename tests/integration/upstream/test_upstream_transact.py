"""Transactions against a real server: every end a provider can give one, per recipient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from relaygw.mail.outcome import Stage
from relaygw.upstream.outgoing import OutgoingMail, RecipientReply
from relaygw.upstream.session import UpstreamSession, open_session
from tests.fakes.scripted_provider import DEFAULT_EXTENSIONS, Action, ScriptedProvider, Wait

SHORT = {"connect": "30s", "command": "2s", "final_reply": "2s"}
UNPIPED = tuple(one for one in DEFAULT_EXTENSIONS if one != "PIPELINING")
CONTENT = b"Subject: x\r\n\r\n.hi\r\n"
LARGE = b"Subject: x\r\n\r\n" + b".0123456789abcdef\r\n" * 500_000


def mail(*recipients: str, content: Any = CONTENT, **changes: Any) -> OutgoingMail:
    fields = {
        "sender": "a@x.test",
        "recipients": recipients or ("b@y.test",),
        "content": content,
        "size_bytes": len(content) if isinstance(content, bytes) else 0,
        "is_8bit": False,
        "has_long_line": False,
        "smtputf8": False,
    }
    return OutgoingMail(**{**fields, **changes})


@asynccontextmanager
async def session_with(
    provider: ScriptedProvider, **changes: Any
) -> AsyncIterator[UpstreamSession]:
    session = await open_session(provider.settings(**changes), ehlo_name="gw.test")
    try:
        yield session
    finally:
        await session.close()


def shown(replies: tuple[RecipientReply, ...]) -> list[str]:
    return [f"{one.stage}: {one.reply}" for one in replies]


@pytest.mark.parametrize("tls", [None, "starttls", "implicit"])
@pytest.mark.parametrize("extensions", [DEFAULT_EXTENSIONS, UNPIPED, ()])
async def test_one_session_sends_many(tls: str | None, extensions: Any) -> None:
    async with (
        ScriptedProvider(tls=tls, extensions=extensions) as provider,
        session_with(provider) as session,
    ):
        for number in range(1, 4):
            replies = await session.transact(mail("b@y.test", "c@y.test"))
            assert shown(replies) == ["end of DATA: 250 2.0.0 Ok: queued"] * 2
            assert (session.uses, session.is_usable) == (number, True)
        await session.transact(mail(content=LARGE))
        assert [one.content for one in provider.messages] == [CONTENT] * 3 + [LARGE]
        assert provider.messages[0].recipients == ("b@y.test", "c@y.test")
        assert len(provider.connections) == 1
        assert provider.connections[0].is_pipelined == ("PIPELINING" in extensions)


async def test_streamed_content_and_null_sender() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), 1_000_003):
            yield LARGE[start : start + 1_000_003]

    async with ScriptedProvider() as provider, session_with(provider) as session:
        replies = await session.transact(mail(content=chunks, sender=""))
        assert replies[0].reply is not None
        assert provider.messages[0].content == LARGE
        assert provider.messages[0].sender == ""


async def test_long_lines_are_folded() -> None:
    content = b"Subject: x\r\n\r\n" + b"y" * 3000 + b"\r\n"
    async with ScriptedProvider() as provider, session_with(provider) as session:
        await session.transact(mail(content=content, has_long_line=True))
        lines = bytes(provider.connections[0].transcript).split(b"\r\n")
        assert max(map(len, lines)) == 998
        assert provider.messages[0].content.replace(b"\r\n ", b"") == content


PARTIAL = [b"250 2.1.5 Ok\r\n", b"450 4.2.1 later\r\n", b"550 5.1.1 no\r\n"]


@pytest.mark.parametrize("extensions", [DEFAULT_EXTENSIONS, UNPIPED])
async def test_each_recipient_has_its_own_reply(extensions: Any) -> None:
    async with (
        ScriptedProvider(extensions=extensions) as provider,
        session_with(provider) as session,
    ):
        provider.script("RCPT", *PARTIAL)
        replies = await session.transact(mail("b@y.test", "c@y.test", "d@y.test"))
        assert shown(replies) == [
            "end of DATA: 250 2.0.0 Ok: queued",
            "RCPT TO: 450 4.2.1 later",
            "RCPT TO: 550 5.1.1 no",
        ]
        assert provider.messages[0].recipients == ("b@y.test",)
        assert session.is_usable


@pytest.mark.parametrize("extensions", [DEFAULT_EXTENSIONS, UNPIPED])
@pytest.mark.parametrize(
    ("verb", "reply", "expected"),
    [
        ("MAIL", b"450 4.7.1 slow\r\n", "MAIL FROM: 450 4.7.1 slow"),
        ("MAIL", b"550 5.7.1 no\r\n", "MAIL FROM: 550 5.7.1 no"),
        ("RCPT", b"550 5.1.1 no\r\n", "RCPT TO: 550 5.1.1 no"),
        ("DATA", b"451 4.3.0 later\r\n", "DATA: 451 4.3.0 later"),
        (
            "CONTENT",
            b"554-5.7.1 spam\r\n554 5.7.1 see\r\n",
            "end of DATA: 554 5.7.1 spam 5.7.1 see",
        ),
    ],
)
async def test_a_refusal_leaves_the_session_clean(
    extensions: Any, verb: str, reply: bytes, expected: str
) -> None:
    async with (
        ScriptedProvider(extensions=extensions) as provider,
        session_with(provider) as session,
    ):
        provider.script(verb, reply)
        assert shown(await session.transact(mail())) == [expected]
        assert session.is_usable
        for _ in range(2):
            replies = await session.transact(mail("c@y.test"))
            assert shown(replies) == ["end of DATA: 250 2.0.0 Ok: queued"]
        assert [one.recipients for one in provider.messages] == [("c@y.test",)] * 2
        assert len(provider.connections) == 1


async def test_354_with_no_recipient_left_gets_a_lone_dot() -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script("RCPT", b"550 5.1.1 no\r\n")
        provider.script("DATA", b"354 go on then\r\n")
        provider.script("CONTENT", b"554 5.5.1 no valid recipients\r\n")
        assert shown(await session.transact(mail())) == ["RCPT TO: 550 5.1.1 no"]
        assert CONTENT not in provider.connections[0].transcript
        assert provider.connections[0].transcript.endswith(b"DATA\r\n.\r\n")
        assert session.is_usable


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "CONTENT"])
async def test_421_ends_the_session(stage: str) -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script(stage, (b"421 4.3.2 closing\r\n", Action.DROP))
        replies = await session.transact(mail("b@y.test", "c@y.test"))
        assert {str(one.reply) for one in replies} == {"421 4.3.2 closing"}
        assert not any(one.in_doubt for one in replies)
        assert not session.is_usable


async def test_421_keeps_refusals_that_came_before() -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script("RCPT", b"250 ok\r\n", b"550 5.1.1 no\r\n", b"421 closing\r\n")
        replies = await session.transact(mail("b@y.test", "c@y.test", "d@y.test"))
        assert [str(one.reply) for one in replies] == ["421 closing", "550 5.1.1 no", "421 closing"]


BROKEN = [
    Action.DROP,
    Action.RESET,
    Action.HANG,
    b"abc\r\n",  # U3
    b"99 x\r\n",  # U4
    b"999 x\r\n",
    b"250_ok\r\n",
    (b"250", Action.DROP),
    b"250-a\r\n550 b\r\n",  # U5
    b"250 ok\n",  # U6
    b"250-x\r\n" * 20_000,  # U1
    b"2" * 1_000_000,  # U2
]


@pytest.mark.parametrize("tls", [None, "implicit"])
@pytest.mark.parametrize("action", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "CONTENT"])
async def test_what_is_no_reply_ends_the_session(tls: Any, verb: str, action: Any) -> None:
    async with (
        ScriptedProvider(tls=tls) as provider,
        session_with(provider, timeouts=SHORT if action is Action.HANG else {}) as session,
    ):
        provider.script(verb, action)
        (answer,) = await session.transact(mail())
        expected = {"MAIL": Stage.MAIL, "RCPT": Stage.RCPT, "DATA": Stage.DATA}
        assert answer.stage is expected.get(verb, Stage.CONTENT)
        assert answer.reply is None
        assert session.relay in answer.detail
        assert answer.in_doubt == (verb == "CONTENT")
        assert not answer.stale_session
        assert not session.is_usable


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("MAIL", b"354 go\r\n"),  # U9
        ("RCPT", b"354 go\r\n"),
        ("DATA", b"250 ok\r\n"),  # U10
        ("DATA", b"350 ok\r\n"),
        ("DATA", b"354 go\r\n354 go\r\n"),  # U11
        ("DATA", b"354 go\r\n250 ok\r\n"),
        ("MAIL", b"250 ok\r\n250 ok\r\n"),
    ],
)
async def test_a_wrong_reply_is_never_delivery(verb: str, reply: bytes) -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script(verb, reply)
        (answer,) = await session.transact(mail())
        assert (answer.reply, answer.in_doubt) == (None, False)
        assert "protocol error" in answer.detail
        assert CONTENT not in provider.connections[0].transcript
        assert not session.is_usable


async def test_354_after_the_content_is_in_doubt() -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script("CONTENT", b"354 more\r\n")
        (answer,) = await session.transact(mail())
        assert (answer.reply, answer.in_doubt) == (None, True)


async def test_one_reply_too_many_ends_the_session_but_not_the_delivery() -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script("CONTENT", b"250 ok\r\n250 ok\r\n")
        assert shown(await session.transact(mail())) == ["end of DATA: 250 ok"]
        assert not session.is_usable


async def test_a_reply_before_the_command_is_not_taken_for_its_answer() -> None:  # U8
    is_open = asyncio.Event()
    async with ScriptedProvider() as provider:
        early = b"250 early\r\n" * 2
        provider.script("EHLO", (b"250-x\r\n250 PIPELINING\r\n", Wait(is_open), early))
        async with session_with(provider) as session:
            is_open.set()
            await session.wire.read_reply(timeout_s=30)  # both have arrived then
            assert not session.is_usable
            (answer,) = await session.transact(mail())
            assert (answer.stage, answer.reply) == (Stage.MAIL, None)
            assert not answer.stale_session
            assert b"MAIL" not in provider.connections[0].transcript


@pytest.mark.parametrize("tls", [None, "implicit"])
@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
async def test_a_refusal_while_content_streams_counts(tls: Any, content: bytes) -> None:  # U14
    async with ScriptedProvider(tls=tls) as provider, session_with(provider) as session:
        provider.script("DATA", (b"354 go\r\n", b"550 5.7.1 no\r\n", Action.DROP))
        assert shown(await session.transact(mail(content=content))) == ["end of DATA: 550 5.7.1 no"]
        assert not session.is_usable


@pytest.mark.parametrize("tls", [None, "implicit"])
async def test_a_refusal_in_mid_stream_counts(tls: Any) -> None:  # U14, later
    refuse = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(1000):
            if number == 20:
                refuse.set()
            yield b"x" * 998 + b"\r\n"
            await asyncio.sleep(0)

    async with ScriptedProvider(tls=tls) as provider, session_with(provider) as session:
        provider.script("DATA", (b"354 go\r\n", Wait(refuse), b"552 5.3.4 no\r\n", Action.DROP))
        replies = await session.transact(mail(content=chunks))
        assert shown(replies) == ["end of DATA: 552 5.3.4 no"]


@pytest.mark.parametrize("action", [Action.DROP, Action.RESET, Action.HANG])
async def test_lost_before_the_dot_is_not_in_doubt(action: Action) -> None:
    limits = SHORT if action is Action.HANG else {}
    async with ScriptedProvider() as provider, session_with(provider, timeouts=limits) as session:
        provider.script("DATA", (b"354 go\r\n", action))
        (answer,) = await session.transact(mail(content=LARGE))
        assert (answer.stage, answer.reply, answer.in_doubt) == (Stage.DATA, None, False)
        assert provider.messages == []


async def test_taken_but_never_said_is_in_doubt() -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script("CONTENT", (Action.RECORD, Action.RESET))
        (answer,) = await session.transact(mail())
        assert (answer.stage, answer.in_doubt) == (Stage.CONTENT, True)
        assert len(provider.messages) == 1


async def test_a_slow_final_reply_is_waited_for() -> None:
    late = asyncio.Event()
    async with (
        ScriptedProvider() as provider,
        session_with(provider, timeouts={**SHORT, "final_reply": "60s"}) as session,
    ):
        provider.script("CONTENT", (Action.RECORD, Wait(late), b"250 2.0.0 at last\r\n"))
        sending = asyncio.create_task(session.transact(mail()))
        await provider.wait_for_messages(1)
        late.set()
        assert shown(await sending) == ["end of DATA: 250 2.0.0 at last"]


async def test_a_lost_lease_sends_nothing() -> None:
    asked: list[int] = []

    def check_lease() -> bool:
        asked.append(len(provider.connections[0].commands))
        return False

    async with ScriptedProvider() as provider, session_with(provider) as session:
        (answer,) = await session.transact(mail(), check_lease=check_lease)
        assert (answer.stage, answer.reply, answer.in_doubt) == (Stage.LOCAL, None, False)
        assert not session.is_usable
        assert asked == [4]  # EHLO, MAIL, RCPT and DATA were answered when it was asked
        await provider.wait_until(lambda: provider.connections[0].is_closed)
        assert CONTENT not in provider.connections[0].transcript
        assert provider.messages == []


async def test_no_dot_waits_behind_content_that_a_slow_provider_has_not_taken() -> None:
    untaken: list[int] = []

    def left_bytes() -> int:
        return session.wire._transport.get_write_buffer_size()

    def check_lease() -> bool:
        untaken.append(left_bytes())
        return len(untaken) == 1  # lost while the provider took its time

    async def chunks() -> AsyncIterator[bytes]:
        while not left_bytes():  # until nobody takes any more
            yield (b"z" * 98 + b"\r\n") * 100
        untaken.append(left_bytes())
        asyncio.get_running_loop().call_soon(go_on.set)

    async with ScriptedProvider() as provider, session_with(provider) as session:
        go_on = asyncio.Event()
        provider.script("DATA", (b"354 go\r\n", Wait(go_on)))
        (answer,) = await session.transact(
            mail(content=chunks, field_rule=None), check_lease=check_lease
        )
        assert untaken[1] > 0
        assert untaken[2] == 0
        assert answer.detail == "lease lost, nothing sent"
        assert b"\r\n.\r\n" not in provider.connections[0].transcript
        assert provider.messages == []


async def test_a_late_answer_to_the_mail_before_refuses_nobody() -> None:
    two = mail(recipients=("gone@x.test", "good@x.test"))
    async with ScriptedProvider() as provider, session_with(provider) as session:
        await session.transact(mail())
        provider.script("MAIL", b"250 2.0.0 taken again\r\n250 2.1.0 ok\r\n")
        provider.script("RCPT", b"550 5.1.1 nobody\r\n")
        answers = await session.transact(two)
    assert [(one.reply, one.stale_session) for one in answers] == [(None, True)] * 2
    assert len(provider.messages) == 1


async def test_refusals_before_an_invalid_reply_of_a_new_connection_stand() -> None:
    two = mail(recipients=("gone@x.test", "good@x.test"))
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script("RCPT", b"550 5.1.1 nobody\r\n")
        provider.script("DATA", b"250 go\r\n")
        gone, good = await session.transact(two)
    assert gone.reply is not None and gone.reply.code == 550
    assert (good.reply, good.stale_session) == (None, False)


async def test_a_dead_idle_session_is_reported_as_stale() -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        await session.transact(mail())
        provider.script("MAIL", Action.DROP)
        (answer,) = await session.transact(mail())
        assert (answer.stage, answer.reply, answer.stale_session) == (Stage.MAIL, None, True)


async def test_a_session_closed_by_the_provider_is_unusable() -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script("CONTENT", (b"250 ok\r\n", Action.DROP))
        await session.transact(mail())
        await session.wire.closed
        assert not session.is_usable
        (answer,) = await session.transact(mail())
        assert answer.stale_session


async def test_a_failing_content_source_breaks_the_session() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"Subject: x\r\n"
        raise OSError("the store is gone")

    async with ScriptedProvider() as provider, session_with(provider) as session:
        with pytest.raises(OSError, match="the store is gone"):
            await session.transact(mail(content=chunks, field_rule=None))
        assert not session.is_usable
        await provider.wait_until(lambda: provider.connections[0].is_closed)
        assert provider.messages == []


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "CONTENT"])
async def test_cancelled_at_any_stage_closes(verb: str) -> None:
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.script(verb, (Wait(asyncio.Event()),))
        sending = asyncio.create_task(session.transact(mail()))
        await provider.wait_until(lambda: not provider.pending(verb))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert not session.is_usable


async def test_local_refusals_touch_no_connection() -> None:
    async with (
        ScriptedProvider(extensions=["SIZE 1", "PIPELINING"]) as provider,
        session_with(provider) as session,
    ):
        (answer,) = await session.transact(mail())  # U13
        assert (answer.stage, answer.dsn) == (Stage.LOCAL, "5.3.4")
        assert provider.connections[0].verbs() == ["EHLO"]
        assert (session.uses, session.is_usable) == (0, True)


async def test_a_thousand_recipients_in_one_write() -> None:
    recipients = tuple(f"r{number}@y.test" for number in range(1000))
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.recipients["r7@y.test"] = b"550 5.1.1 " + b"no" * 400 + b"\r\n"
        replies = await session.transact(mail(*recipients))
        assert [n for n, one in enumerate(replies) if one.stage is Stage.RCPT] == [7]
        assert len(provider.messages[0].recipients) == 999


async def test_long_replies_to_many_recipients() -> None:
    recipients = tuple(f"r{number}@y.test" for number in range(200))
    reply = b"550-5.1.1 " + b"n" * 2000 + b"\r\n550 5.1.1 end\r\n"
    async with ScriptedProvider() as provider, session_with(provider) as session:
        provider.recipients.update(dict.fromkeys(recipients, reply))
        replies = await session.transact(mail(*recipients))
        assert {one.stage for one in replies} == {Stage.RCPT}
        assert session.is_usable
