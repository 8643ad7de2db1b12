"""chain_transactions: the next envelope goes out behind the content, and no mail suffers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from relaygw.mail.state import DeliveryState
from relaygw.settings.provider import Provider, Timeouts
from relaygw.upstream import pool as pool_module
from tests.builders import NOW_MS, accepted
from tests.fakes.scripted_provider import Action, ScriptedProvider, Wait
from tests.integration.delivery_rig import running

PATIENCE_S = 90.0


class Demanding:
    """Answers content only once it has the next MAIL; records the order of what it reads."""

    def __init__(self, *, messages: int) -> None:
        self.left = messages
        self.commands: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 demanding\r\n")
        buffered = b""

        async def read_line() -> bytes:
            nonlocal buffered
            while b"\r\n" not in buffered:
                data = await reader.read(65536)
                if not data:
                    raise ConnectionResetError
                buffered += data
            line, _, buffered = buffered.partition(b"\r\n")
            return line

        try:
            while True:
                line = await read_line()
                verb = line[:4].upper()
                self.commands.append(verb)
                if verb == b"EHLO":
                    writer.write(b"250-demanding\r\n250 PIPELINING\r\n")
                elif verb == b"DATA":
                    writer.write(b"354 go\r\n")
                    while await read_line() != b".":
                        pass
                    self.left -= 1
                    while self.left and b"MAIL" not in buffered:
                        async with asyncio.timeout(PATIENCE_S):
                            buffered += await reader.read(65536)
                    writer.write(b"250 taken\r\n")
                else:
                    writer.write(b"250 ok\r\n")
        except ConnectionResetError:
            pass
        finally:
            writer.close()


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take any provider for one that is far away."""
    monkeypatch.setattr(pool_module, "WORTH_FROM_S", 0.0)


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize("asked", ["auto", True])
async def test_a_content_and_the_next_envelope_are_one_group(
    tmp_path: Path, asked: str | bool
) -> None:
    provider = Demanding(messages=4)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = Provider.model_validate(
        {
            "host": "127.0.0.1",
            "port": port,
            "tls": "none",
            "max_connections": 1,
            "chain_transactions": asked,
        }
    )
    async with server, running(tmp_path, {"p": settings}) as rig:
        messages = [accepted("a@x.test") for _ in range(4)]
        rig.accept(*messages)
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)
        connection_uses = [int(n) for n in re.findall(r"conn_use=(\d+)", rig.log.getvalue())]
    assert connection_uses == [2, 3, 4]
    assert provider.commands[1:13] == [b"MAIL", b"RCPT", b"DATA"] * 4


def chaining(provider: ScriptedProvider, **more: object) -> Provider:
    settings = provider.settings(max_connections=1)
    return settings.model_copy(update={"chain_transactions": True, **more})


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("CONTENT", b"421 4.3.2 closing\r\n"),
        ("CONTENT", b"451 4.3.0 later\r\n"),
        ("MAIL", b"451 4.3.0 later\r\n"),
        ("RCPT", b"450 4.2.0 later\r\n"),
        ("DATA", b"451 4.3.0 later\r\n"),
        ("DATA", b"421 4.3.2 closing\r\n"),
    ],
)
@pytest.mark.parametrize("position", [0, 1, 2])
async def test_a_refusal_concerns_its_own_message_only(
    tmp_path: Path, verb: str, reply: bytes, position: int
) -> None:
    async with ScriptedProvider() as provider:
        provider.script(verb, *([Action.DEFAULT] * position), reply)
        async with running(tmp_path, {"p": chaining(provider)}) as rig:
            messages = [accepted(f"r{number}@x.test") for number in range(4)]
            rig.accept(*messages)
            for message in messages:
                await rig.wait_for(message, DeliveryState.FINISHED)
        taken = sorted(message.recipients[0] for message in provider.messages)
    assert taken == [f"r{number}@x.test" for number in range(4)]


async def test_a_connection_is_replaced_after_its_messages(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        settings = chaining(provider, max_messages_per_connection=2)
        async with running(tmp_path, {"p": settings}) as rig:
            messages = [accepted("a@x.test") for _ in range(5)]
            rig.accept(*messages)
            for message in messages:
                await rig.wait_for(message, DeliveryState.FINISHED)
        mails = [
            sum(command.startswith(b"MAIL") for command in connection.commands)
            for connection in provider.connections
        ]
    assert max(mails) == 2
    assert len(provider.messages) == 5


async def test_a_throttled_provider_gets_no_content_that_was_begun(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", b"454 4.7.0 too many messages, slow down\r\n")
        async with running(tmp_path, {"p": chaining(provider)}) as rig:
            first, second = accepted("a@x.test"), accepted("b@x.test", at_ms=NOW_MS + 1)
            rig.accept(first, second)
            entry = await rig.wait_for(first, DeliveryState.DEFERRED)
            waiting = await rig.wait_for(second, DeliveryState.INCOMING)
        assert provider.messages == []
    assert entry.deliveries[0].attempts == 0
    assert waiting.deliveries[0].attempts == 0


async def test_a_stopped_worker_leaves_nothing_leased(tmp_path: Path) -> None:
    held = asyncio.Event()
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", (Wait(held), Action.DEFAULT))
        messages = [accepted("a@x.test") for _ in range(5)]
        async with running(tmp_path, {"p": chaining(provider)}) as rig:
            rig.accept(*messages)
            await provider.wait_until(
                lambda: any(b"\r\n.\r\n" in c.transcript for c in provider.connections)
            )
            asyncio.get_running_loop().call_soon(held.set)
            await rig.stop()
            states = [part.state for message in messages for part in rig.entry(message).deliveries]
    assert states.count(DeliveryState.FINISHED) == len(provider.messages)
    assert DeliveryState.ACTIVE not in states


async def log_of(
    directory: Path, provider: ScriptedProvider, settings: Provider, *, refused: int = 0
) -> str:
    """Send five mails, each of which arrives once, after so many refusals; return the log."""
    attempts = 0
    async with running(directory, {"p": settings}) as rig:
        messages = [accepted(f"r{n}@x.test", at_ms=NOW_MS + n) for n in range(5)]
        rig.accept(*messages)
        for message in messages:
            entry = await rig.wait_for(message, DeliveryState.FINISHED)
            attempts += entry.deliveries[0].attempts
    taken = sorted(message.recipients[0] for message in provider.messages)
    assert taken == [f"r{n}@x.test" for n in range(5)]
    assert attempts == 5 + refused
    return rig.log.getvalue()


@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("MAIL", b"503 5.5.1 need MAIL\r\n"),
        ("MAIL", b"500 5.5.2 what\r\n"),
        ("RCPT", b"503 5.5.1 need RCPT\r\n"),
        ("MAIL", Action.HANG),
        ("DATA", Action.HANG),
    ],
)
async def test_a_provider_that_loses_step_gets_no_more_chains_and_bounces_nothing(
    tmp_path: Path, verb: str, reply: bytes | Action
) -> None:
    async with ScriptedProvider() as provider:
        provider.script(verb, Action.DEFAULT, reply)
        quick = Timeouts.model_validate({"command": "3s"})
        log = await log_of(tmp_path, provider, chaining(provider, timeouts=quick))
    assert log.count("does not handle chained transactions") == 1
    assert "status=bounced" not in log


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize(
    ("verb", "reply"),
    [
        ("MAIL", b"503 5.5.1 need MAIL\r\n"),
        ("MAIL", Action.HANG),
        ("RCPT", b"503 5.5.1 need RCPT\r\n"),
        ("DATA", Action.HANG),
    ],
)
async def test_a_provider_that_fails_the_trial_is_sent_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, reply: bytes | Action
) -> None:
    monkeypatch.setattr(pool_module, "TRIAL_PATIENCE_S", 0.5)
    async with ScriptedProvider() as provider:
        provider.script(verb, Action.DEFAULT, reply)
        settings = provider.settings(max_connections=1, chain_transactions="auto")
        log = await log_of(tmp_path, provider, settings)
    assert log.count("provider p does not take chained transactions; none are sent") == 1
    assert "status=deferred" not in log and "status=bounced" not in log


@pytest.mark.usefixtures("far")
@pytest.mark.parametrize(
    "closes", [Action.DROP, (b"421 4.4.2 closing\r\n", Action.DROP)], ids=["silent", "421"]
)
async def test_a_provider_that_closes_on_what_is_behind_a_content(
    tmp_path: Path, closes: Action | tuple[bytes, Action]
) -> None:
    """Two trials, and each mail at its first attempt."""
    async with ScriptedProvider() as provider:
        provider.script("MAIL", Action.DEFAULT, closes, Action.DEFAULT, closes)
        settings = provider.settings(max_connections=1, chain_transactions="auto")
        log = await log_of(tmp_path, provider, settings)
    assert log.count("provider p does not take chained transactions; none are sent") == 1
    assert "status=deferred" not in log


@pytest.mark.usefixtures("far")
async def test_a_provider_that_refuses_content_with_commands_behind_it(tmp_path: Path) -> None:
    refused = b"503 5.5.1 improper pipelining\r\n"
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", refused, refused)
        settings = provider.settings(max_connections=1, chain_transactions="auto")
        log = await log_of(tmp_path, provider, settings, refused=2)
    assert log.count("status=deferred") == 2
    assert log.count("provider p does not take chained transactions; none are sent") == 1


async def test_a_near_provider_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "WORTH_FROM_S", 60.0)
    held = asyncio.Event()
    async with ScriptedProvider() as provider:
        provider.script("CONTENT", (Wait(held), Action.DEFAULT))
        settings = provider.settings(max_connections=1, chain_transactions="auto")
        async with running(tmp_path, {"p": settings}) as rig:
            messages = [accepted(f"r{n}@x.test", at_ms=NOW_MS + n) for n in range(3)]
            rig.accept(*messages)
            await provider.wait_until(
                lambda: any(b"\r\n.\r\n" in c.transcript for c in provider.connections)
            )
            assert provider.connections[-1].transcript.endswith(b"\r\n.\r\n")
            held.set()
            for message in messages:
                await rig.wait_for(message, DeliveryState.FINISHED)


async def test_a_refused_sender_is_asked_again_alone_and_chains_go_on(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        refused = b"550 5.7.1 not your sender\r\n"
        provider.script("MAIL", Action.DEFAULT, refused, refused)
        async with running(tmp_path, {"p": chaining(provider)}) as rig:
            messages = [accepted(f"r{n}@x.test", at_ms=NOW_MS + n) for n in range(4)]
            rig.accept(*messages)
            for message in messages:
                await rig.wait_for(message, DeliveryState.FINISHED)
    log = rig.log.getvalue()
    assert log.count("status=deferred") == 1
    assert "does not handle chained transactions" not in log
    assert len(provider.messages) == 4
