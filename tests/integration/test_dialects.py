"""The worker, set up by preset, against providers that speak as the real services do.

For each service: mail is sent as it wants it, and each of its documented refusals has the
consequence that dialects.yaml names: for this mail, for the provider, and for other mail of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.policy import pacing
from relaygw.settings.load import load_settings
from relaygw.settings.presets import presets
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Route
from relaygw.store.holds import PAUSED, Hold
from tests.builders import accepted
from tests.fakes.dialect_provider import DIALECTS, Dialect, DialectProvider, Refusal
from tests.fakes.scripted_provider import Action
from tests.integration.delivery_rig import Rig, running

WELL = "well"
BEFORE_MAIL = {"greeting": "greeting", "ehlo": "EHLO", "auth": "AUTH"}
SINCE_MAIL = {"mail": "MAIL", "rcpt": "RCPT", "data": "DATA", "content": "CONTENT"}
VERBS = BEFORE_MAIL | SINCE_MAIL


def by_preset(
    directory: Path, dialect: Dialect, servers: dict[str, DialectProvider]
) -> dict[str, Provider]:
    """Return the providers of a configuration file that names the preset and these servers."""
    preset = presets()[dialect.name]
    written: dict[str, Any] = {"preset": dialect.name, "password": "plain:secret", "host": "x"}
    if preset.needs_region:
        written["region"] = "eu-central-1"
    if "username" in preset.asks:
        written["username"] = "user"
    local = {"max_connections": 1, "rate": "100/s", "host": "127.0.0.1"}
    file = directory / "relaygw.yaml"
    file.write_text(
        json.dumps(
            {
                "mode": "production",
                "providers": {
                    name: written | local | {"port": server.port, "tls_ca": server.tls_ca}
                    for name, server in servers.items()
                },
                "routes": [{"name": "default", "providers": [WELL]}],
            }
        )
    )
    file.chmod(0o600)
    loaded = load_settings(config=file, environ={}).settings.providers
    for name, server in servers.items():
        server.users = {str(loaded[name].username): "secret"}
        if preset.is_token_twice:
            server.users = {"secret": "secret"}
    return dict(loaded)


@asynccontextmanager
async def gateway(
    directory: Path, dialect: Dialect, names: list[str], **more: Any
) -> AsyncIterator[tuple[Rig, dict[str, DialectProvider]]]:
    """A worker with a provider of its own, and a route to it, for each of `names`."""
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(DialectProvider(dialect)) for name in names
        }
        providers = by_preset(directory, dialect, servers)
        routes = [
            Route(name=name, sender=(f"@{name}.test",), providers=(name,)) for name in names[1:]
        ]
        routes.append(Route(name="default", providers=(names[0],)))
        rig = await stack.enter_async_context(running(directory, providers, routes=routes, **more))
        yield rig, servers


def accept(rig: Rig, *messages: AcceptedMessage) -> None:
    """Accept as the front does, the hint to the worker included."""
    rig.accept(*messages)
    rig.worker.wake()


@pytest.mark.parametrize("name", DIALECTS)
async def test_mail_is_sent_as_the_service_wants_it(tmp_path: Path, name: str) -> None:
    dialect = DIALECTS[name]
    async with gateway(tmp_path, dialect, [WELL]) as (rig, servers):
        server = servers[WELL]
        message = accepted()
        accept(rig, message)
        entry = await rig.wait_for(message, DeliveryState.FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED
        assert dialect.id in (entry.recipients[0].reply or "")
        (received,) = server.messages
        assert received.is_tls
        assert received.user is not None
        has_size = any(parameter.startswith("SIZE=") for parameter in received.mail_parameters)
        assert has_size == (dialect.size is not None)
        (connection,) = server.connections
        wanted = "PLAIN" if "PLAIN" in dialect.auth else "LOGIN"
        assert connection.auth_mechanisms == [wanted]
        assert connection.is_pipelined == ("PIPELINING" in dialect.extensions)
        if name == "postmark":
            assert b"X-PM-Message-Stream: outbound\r\n" in received.content
        if dialect.size is not None:
            large = accepted(size_bytes=dialect.size + 1)
            accept(rig, large)
            entry = await rig.wait_for(large, DeliveryState.FINISHED)
            assert entry.recipients[0].state is RecipientState.BOUNCED
            assert connection.verbs().count("MAIL") == 1, "bounced without being sent"
    assert dialect.id in rig.log.getvalue()


@dataclass(frozen=True)
class Case:
    """A refusal under way at a provider of its own."""

    rig: Rig
    server: DialectProvider
    provider: str
    refusal: Refusal

    async def run(self) -> None:
        """Check what becomes of the mail, the provider, and other mail."""
        if self.refusal.stage in SINCE_MAIL:
            first = self._accept("a@first.test")
            await self.rig.wait_for(first, DeliveryState.FINISHED)
        verb = self._script()
        culprit = self._accept("a@shop.test")
        if self.refusal.stage in SINCE_MAIL:
            await self.server.wait_until(lambda: not self.server.pending(verb))
        await getattr(self, f"_{self.refusal.mail}")(culprit)
        log = self.rig.log.getvalue()
        assert log.count(f"provider {self.provider} is held") == self._is_provider_held()

    def _accept(self, sender: str) -> AcceptedMessage:
        message = accepted(route=self.provider, sender=sender)
        accept(self.rig, message)
        return message

    def _script(self) -> str:
        octets = self.refusal.octets
        verb = VERBS[self.refusal.stage]
        is_closing = octets.startswith(b"421") or verb == "greeting"
        action = (octets, Action.DROP) if is_closing else octets
        times = 30 if verb in BEFORE_MAIL.values() else 1
        if octets.startswith(b"50") and verb != "CONTENT":
            times = 2  # a used connection that says "what?" is replaced and asked once more
        self.server.script(verb, *[action] * times)
        if verb == "EHLO":
            self.server.script("HELO", *[action] * times)  # the name is as wrong there
        return verb

    def _is_provider_held(self) -> bool:
        return self.refusal.hold in ("provider", "credential")

    def _attempts(self, message: AcceptedMessage) -> int:
        return self.rig.entry(message).recipients[0].attempts

    def _holds(self) -> list[Hold]:
        return [h for h in self.rig.store.holds.in_force() if h.key.split(" ")[0] == self.provider]

    async def _others_go(self) -> None:
        other = self._accept("a@other.test")
        await self.rig.wait_for(other, DeliveryState.FINISHED)
        assert self._attempts(other) == 1

    async def _bounced(self, culprit: AcceptedMessage) -> None:
        entry = await self.rig.wait_for(culprit, DeliveryState.FINISHED)
        assert entry.recipients[0].state is RecipientState.BOUNCED
        assert self._attempts(culprit) == 1
        assert self._holds() == []
        await self._others_go()

    async def _retried(self, culprit: AcceptedMessage) -> None:
        await self._others_go()
        entry = await self.rig.wait_for(culprit, DeliveryState.FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED
        assert self._attempts(culprit) == 2
        assert self._holds() == []

    async def _slowed(self, culprit: AcceptedMessage) -> None:
        await self._others_go()
        entry = await self.rig.wait_for(culprit, DeliveryState.FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED
        assert self._attempts(culprit) == 1, "no attempt is charged for the refusal"
        assert self._holds() == []
        adapted = ("asks to slow down", "accepts fewer connections")
        log = self.rig.log.getvalue()
        assert any(f"provider {self.provider} {what}" in log for what in adapted)

    async def _parked(self, culprit: AcceptedMessage) -> None:
        await self.rig.wait_for(culprit, DeliveryState.HELD)
        (hold,) = self._holds()
        assert (hold.scope, hold.key) == ("sender domain", f"{self.provider} shop.test")
        assert hold.remedy
        assert self._attempts(culprit) == 0
        same = self._accept("b@shop.test")
        await self.rig.wait_for(same, DeliveryState.HELD)
        await self._others_go()
        assert all("shop.test" not in message.sender for message in self.server.messages)

    async def _waits(self, culprit: AcceptedMessage) -> None:
        await self.rig.wait_for(culprit, DeliveryState.DEFERRED)
        sent = len(self.server.messages)
        other = self._accept("a@other.test")
        await self._a_healthy_provider_delivers()
        for message in (culprit, other):
            entry = self.rig.entry(message)
            assert entry.recipients[0].state is RecipientState.PENDING
            assert self._attempts(message) == 0
        assert len(self.server.messages) == sent
        if self.refusal.hold is None:  # what goes on for long pauses
            assert [hold for hold in self._holds() if hold.scope != PAUSED] == []
        else:
            (hold,) = self._holds()
            assert (hold.scope, hold.key) == (self.refusal.hold, self.provider)
            assert hold.remedy
            assert hold.reason[:3] == self.refusal.reply[:3]

    async def _a_healthy_provider_delivers(self) -> None:
        proof = accepted(route="default")
        accept(self.rig, proof)
        await self.rig.wait_for(proof, DeliveryState.FINISHED)


@pytest.mark.parametrize("name", DIALECTS)
async def test_a_documented_refusal_has_the_consequence_it_deserves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(pacing, "_WINDOW_S", 600.0)  # what was taken before was taken just now
    dialect = DIALECTS[name]
    numbered = {f"p{number}": refusal for number, refusal in enumerate(dialect.refusals)}
    async with gateway(tmp_path, dialect, [WELL, *numbered]) as (rig, servers):
        cases = [Case(rig, servers[at], at, refusal) for at, refusal in numbered.items()]
        ends = await asyncio.gather(*(case.run() for case in cases), return_exceptions=True)
    problems = [
        f"{refusal.stage} {refusal.reply}: {type(end).__name__} {end}"
        for refusal, end in zip(numbered.values(), ends, strict=True)
        if end is not None
    ]
    assert problems == []


async def test_who_is_taken_and_gets_nothing_is_no_delivery(tmp_path: Path) -> None:
    """Oracle's 254 at RCPT: a bounce, whatever is said of the content; the others get theirs."""
    first = b"250 Ok\r\n"
    suppressed = b"254 4.7.1 Suppression for user ocid1.user.oc1..a to b@cust.test\r\n"
    once = {"first": "1d", "max": "1d", "jitter": "0%"}  # the next mail is nobody's second try
    async with gateway(tmp_path, DIALECTS["oci"], [WELL], retry=once) as (rig, servers):
        for end in (None, b"451 Server error\r\n", (b"", Action.DROP)):
            servers[WELL].script("RCPT", first, suppressed)
            servers[WELL].script("CONTENT", *([] if end is None else [end]))
            message = accepted("a@cust.test", "b@cust.test")
            accept(rig, message)
            ended = DeliveryState.FINISHED if end is None else DeliveryState.DEFERRED
            await rig.wait_for(message, ended)
            other, one = rig.entry(message).recipients
            assert (one.state, one.attempts, one.dsn) == (RecipientState.BOUNCED, 1, "5.0.0")
            assert (one.reply or "").startswith("254 4.7.1 Suppression")
            assert (other.state is RecipientState.DELIVERED) == (end is None)
    log = rig.log.getvalue()
    assert log.count("status=bounced (254 4.7.1 Suppression for user") == 3, log


async def test_a_2xx_that_no_row_knows_is_a_delivery(tmp_path: Path) -> None:
    async with gateway(tmp_path, DIALECTS["ses"], [WELL]) as (rig, servers):
        servers[WELL].script("RCPT", b"254 4.7.1 Suppression for user x\r\n")
        message = accepted()
        accept(rig, message)
        entry = await rig.wait_for(message, DeliveryState.FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED
        assert len(servers[WELL].messages) == 1


def test_every_preset_has_a_dialect() -> None:
    assert set(DIALECTS) == set(presets())
