"""Faults F13 to F19 at every stage: the verdict, the stage's timeout, and everybody else's mail.

Each fault has a provider and a route of its own, so that many are under way at once.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Route
from relaygw.store.holds import UNREACHABLE
from relaygw.store.queue_entry import QueueEntry
from tests.builders import accepted
from tests.e2e.ports import free_port
from tests.fakes.full_backlog import full_backlog
from tests.fakes.scripted_provider import Action, Script, ScriptedProvider, Wait
from tests.integration.delivery_rig import Rig, running

TIMEOUT_S = 1.0
TIMEOUTS = dict.fromkeys(("connect", "command", "final_reply"), f"{TIMEOUT_S:g}s")
PATIENT = dict.fromkeys(TIMEOUTS, "60s")
HANG_S = 5.0  # each stage before the one that hangs is done sooner, on a busy machine too
SECRET = "canary-19c4e2"
SMALL = b"Subject: x\r\n\r\nhello\r\n"
LARGE = SMALL + (b"x" * 70 + b"\r\n") * 100_000


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a provider does once, and what the log must say of the attempt that met it."""

    verb: str
    action: Script
    says: str
    is_doubt: bool = False
    times: int = 1
    content: bytes = SMALL


HANGS = {
    "greeting": Fault(verb="greeting", action=Action.HANG, says=f"no greeting within {HANG_S:g} s"),
    "EHLO": Fault(verb="EHLO", action=Action.HANG, says="dsn=4.4.2"),
    "STARTTLS": Fault(verb="STARTTLS", action=Action.HANG, says="dsn=4.7.5"),
    "handshake": Fault(verb="STARTTLS", action=(b"220 go\r\n", Action.HANG), says="dsn=4.7.5"),
    "AUTH": Fault(verb="AUTH", action=Action.HANG, says="dsn=4.7.0"),
    "MAIL": Fault(verb="MAIL", action=Action.HANG, says="while sending MAIL FROM"),
    "RCPT": Fault(verb="RCPT", action=Action.HANG, says="while sending RCPT TO"),
    "DATA": Fault(verb="DATA", action=Action.HANG, says="while sending DATA"),
    "content": Fault(
        verb="CONTENT", action=Action.HANG, says="may be sent more than once", is_doubt=True
    ),
}
CUTS = {
    f"{verb} {how.name}": Fault(verb=verb, action=how, says="")
    for verb in ("greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA")
    for how in (Action.DROP, Action.RESET)
} | {
    f"after the dot, {how.name}": Fault(
        verb="CONTENT",
        action=(Action.RECORD, how),
        says="may be sent more than once",
        is_doubt=True,
    )
    for how in (Action.DROP, Action.RESET)
}
CUTS |= {
    "within content": Fault(
        verb="DATA", action=(b"354 go\r\n", Action.RESET), says="", content=LARGE
    ),
}
REFUSALS = {
    f"{reply[:3].decode()} at {verb}": Fault(
        verb=verb, action=(reply, Action.DROP) if reply[:3] == b"421" else reply, says="later"
    )
    for verb in ("greeting", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "CONTENT")
    for reply in (b"421 4.3.2 later\r\n", b"451 4.3.0 later\r\n")
} | {
    f"554 at {verb}": Fault(verb=verb, action=b"554 5.7.1 later\r\n", says="later")
    for verb in ("greeting", "STARTTLS")
}
GARBAGE = {
    f"{name} at {verb}": Fault(verb=verb, action=octets, says="")
    for verb in ("greeting", "EHLO", "AUTH", "MAIL", "RCPT", "DATA")
    for name, octets in {
        "no code": b"hello there\r\n",
        "unknown code": b"999 what\r\n",
        "binary": b"\x00\xff\x80\r\n",
        "endless line": b"250-" + b"x" * 200_000 + b"\r\n",
        "two codes": b"250-one\r\n450 two\r\n",
    }.items()
}


@asynccontextmanager
async def faulty(
    directory: Path, faults: dict[str, Fault], **changes: Any
) -> AsyncIterator[tuple[Rig, dict[str, tuple[str, ScriptedProvider]]]]:
    """A worker with a provider and a route for each fault; the default route is healthy."""
    async with AsyncExitStack() as stack:
        healthy = await stack.enter_async_context(ScriptedProvider())
        servers: dict[str, tuple[str, ScriptedProvider]] = {"healthy": ("default", healthy)}
        providers = {"healthy": healthy.settings()}
        routes = []
        for number, (name, fault) in enumerate(faults.items()):
            server = ScriptedProvider(tls="starttls", users={"u": SECRET})
            await stack.enter_async_context(server)
            server.script(fault.verb, *[fault.action] * fault.times)
            label = f"p{number}"
            settings = {
                "username": "u",
                "password": f"plain:{SECRET}",
                "timeouts": PATIENT,
                "max_connections": 1,
            }
            providers[label] = server.settings(**settings | changes)
            routes.append(Route(name=label, sender=(f"@{label}.test",), providers=(label,)))
            servers[name] = (label, server)
        routes.append(Route(name="default", providers=("healthy",)))
        yield await stack.enter_async_context(running(directory, providers, routes=routes)), servers


def accept(rig: Rig, messages: Iterable[AcceptedMessage]) -> None:
    """Accept as the front does, the hint to the worker included."""
    rig.accept(*messages)
    rig.worker.wake()


def lines_of(rig: Rig, message: AcceptedMessage) -> list[str]:
    return [line for line in rig.log.getvalue().splitlines() if message.queue_id in line]


async def ended(rig: Rig, message: AcceptedMessage) -> tuple[QueueEntry, float]:
    """Wait for the end of the first attempt; return what is known then, and when it was."""
    await rig.wait_until(lambda: any("status=" in line for line in lines_of(rig, message)))
    return await asyncio.to_thread(rig.entry, message), time.monotonic()


async def check(rig: Rig, label: str, server: ScriptedProvider, fault: Fault) -> float:
    """Send one mail into a fault; return how long the attempt took, in seconds."""
    size_bytes = len(fault.content)
    message = accepted(route=label, content=fault.content, size_bytes=size_bytes)
    started_s = time.monotonic()
    accept(rig, [message])
    entry, ended_s = await ended(rig, message)
    first = next(line for line in lines_of(rig, message) if "status=" in line)
    assert "status=deferred" in first, first
    assert fault.says in first, first
    if fault.is_doubt:
        assert entry.recipients[0].state is RecipientState.PENDING
        assert entry.deliveries[0].due_at_ms > (time.time() + 250) * 1000
        assert len(server.messages) <= 1
    else:
        entry = await rig.wait_for(message, DeliveryState.FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED, first
        assert len(server.messages) == 1
        assert len(server.connections) >= 1
    return ended_s - started_s


async def check_all(rig: Rig, servers: dict[str, tuple[str, ScriptedProvider]], faults: Any) -> Any:
    """Check all faults at once; return the times by fault."""
    checks = [check(rig, *servers[name], fault) for name, fault in faults.items()]
    ends = dict(zip(faults, await asyncio.gather(*checks, return_exceptions=True), strict=True))
    problems = {name: repr(end) for name, end in ends.items() if isinstance(end, BaseException)}
    assert problems == {}
    assert rig.store.holds.in_force() == []
    return ends


async def test_a_hang_ends_at_the_stage_s_timeout_and_the_mail_is_sent_later(
    tmp_path: Path,
) -> None:
    short = dict.fromkeys(TIMEOUTS, f"{HANG_S:g}s")
    async with faulty(tmp_path, HANGS, timeouts=short) as (rig, servers):
        times_s = await check_all(rig, servers, HANGS)
        for name, took_s in times_s.items():
            assert took_s >= HANG_S * 0.9, (name, took_s)  # and it ended, before patience did


async def test_a_cut_connection_defers_and_after_the_dot_it_is_doubt(tmp_path: Path) -> None:
    async with faulty(tmp_path, CUTS) as (rig, servers):
        await check_all(rig, servers, CUTS)


async def test_a_refused_session_or_command_defers_and_bounces_nothing(tmp_path: Path) -> None:
    async with faulty(tmp_path, REFUSALS) as (rig, servers):
        await check_all(rig, servers, REFUSALS)
        for name, (_, server) in servers.items():
            if name.startswith("421"):
                assert len(server.connections) >= 2, "not reused after 421"


async def test_garbage_defers_and_the_connection_is_given_up(tmp_path: Path) -> None:
    async with faulty(tmp_path, GARBAGE) as (rig, servers):
        await check_all(rig, servers, GARBAGE)


async def test_slow_replies_within_the_limits_deliver_once(tmp_path: Path) -> None:
    verbs = ("greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "CONTENT")
    released = {verb: asyncio.Event() for verb in verbs}
    slow = {
        verb: Fault(verb=verb, action=(Wait(released[verb]), Action.DEFAULT), says="")
        for verb in verbs
        if verb != "AUTH"
    }
    async with faulty(tmp_path, slow) as (rig, servers):
        messages = {verb: accepted(route=servers[verb][0]) for verb in slow}
        accept(rig, messages.values())
        for verb in slow:
            server = servers[verb][1]
            await server.wait_until(lambda s=server, v=verb: not s.pending(v))
        for event in released.values():
            asyncio.get_running_loop().call_later(0.4, event.set)
        for verb, message in messages.items():
            entry = await rig.wait_for(message, DeliveryState.FINISHED)
            assert entry.recipients[0].attempts == 1, verb
            assert len(servers[verb][1].messages) == 1


async def test_other_routes_deliver_all_of_theirs_while_every_stage_hangs(tmp_path: Path) -> None:
    over = asyncio.Event()
    stuck = {
        name: Fault(verb=fault.verb, action=(Wait(over), Action.DROP), says="", times=50)
        for name, fault in HANGS.items()
        if name != "handshake"
    }
    minute = {"timeouts": {"command": "60s", "final_reply": "60s"}, "max_connections": 5}
    async with faulty(tmp_path, stuck, **minute) as (rig, servers):
        healthy = servers["healthy"][1]
        alone = [accepted() for _ in range(200)]
        accept(rig, alone)
        await healthy.wait_for_messages(200)
        for label, _ in (servers[name] for name in stuck):
            accept(rig, [accepted(route=label) for _ in range(40)])
        for _, server in (servers[name] for name in stuck):
            await server.wait_until(lambda s=server: len(s.connections) >= 1)
        beside = [accepted() for _ in range(200)]
        try:
            accept(rig, beside)
            await healthy.wait_for_messages(400)
            for message in beside:
                entry = await rig.wait_for(message, DeliveryState.FINISHED)
                assert entry.recipients[0].attempts == 1
            assert all(not server.messages for _, server in (servers[name] for name in stuck))
        finally:
            over.set()


async def test_ports_that_refuse_or_do_not_answer_cost_no_mail(tmp_path: Path) -> None:
    with full_backlog() as silent_port:
        here = {"host": "127.0.0.1", "tls": "none", "timeouts": TIMEOUTS}
        closed = Provider.model_validate(here | {"port": free_port()})
        silent = Provider.model_validate(here | {"port": silent_port})
        async with ScriptedProvider() as healthy:
            providers = {"closed": closed, "silent": silent, "healthy": healthy.settings()}
            routes = [
                Route(name="closed", sender=("@c.test",), providers=("closed",)),
                Route(name="silent", sender=("@s.test",), providers=("silent",)),
                Route(name="default", providers=("healthy",)),
            ]
            async with running(tmp_path, providers, routes=routes) as rig:
                refused = [accepted(route="closed") for _ in range(50)]
                unheard = [accepted(route="silent") for _ in range(50)]
                started_s = time.monotonic()
                accept(rig, refused + unheard)
                good = [accepted() for _ in range(200)]
                accept(rig, good)
                await healthy.wait_for_messages(200)
                await rig.wait_until(lambda: not rig.worker.gates["silent"].is_reached)
                assert time.monotonic() - started_s >= TIMEOUT_S * 0.9
                await rig.wait_until(lambda: not rig.worker.gates["closed"].is_reached)
                for messages in (refused, unheard):
                    entries = [rig.entry(message) for message in messages]
                    assert all(e.recipients[0].state is RecipientState.PENDING for e in entries)
                    assert sum(e.recipients[0].attempts for e in entries) <= 5
                # who cannot be reached for long enough is told of as down: no mail is held for it
                assert {hold.scope for hold in rig.store.holds.in_force()} <= {UNREACHABLE}


def in_clear(server: ScriptedProvider) -> bytes:
    """Return all that a provider was sent, decrypted where it was encrypted."""
    return b"".join(bytes(connection.transcript) for connection in server.connections)


async def send_nothing(
    directory: Path, servers: dict[str, ScriptedProvider], *, policy: str = "required"
) -> Rig:
    """Check that a worker gives these providers no MAIL and no AUTH, and keeps the mail."""
    labels = {f"p{number}": server for number, server in enumerate(servers.values())}
    providers = {}
    for label, server in labels.items():
        tls = "implicit" if server.tls == "implicit" else policy
        providers[label] = server.settings(username="u", password=f"plain:{SECRET}", tls=tls)
    first = next(iter(labels))
    routes = [Route(name=label, sender=(f"@{label}.test",), providers=(label,)) for label in labels]
    routes[0] = Route(name="default", providers=(first,))
    async with running(directory, providers, routes=[*routes[1:], routes[0]]) as rig:
        names = {label: "default" if label == first else label for label in labels}
        mail = {label: [accepted(route=names[label]) for _ in range(10)] for label in labels}
        for messages in mail.values():
            accept(rig, messages)
        gates = rig.worker.gates.values()
        # once by mail, once by a probe
        await rig.wait_until(lambda: all(gate.failures >= 2 for gate in gates))
        for messages in mail.values():
            entries = [rig.entry(message) for message in messages]
            assert all(e.recipients[0].state is RecipientState.PENDING for e in entries)
            assert 1 <= sum(e.recipients[0].attempts for e in entries) <= 5
        # a busy machine comes to more failures
        assert {hold.scope for hold in rig.store.holds.in_force()} <= {UNREACHABLE}
    for name, server in servers.items():
        if server.tls != "implicit":  # else the handshake fails before a connection is counted
            assert len(server.connections) >= 2, name
        seen = in_clear(server)
        plain = base64.b64encode(f"\0u\0{SECRET}".encode())
        for word in (b"AUTH", b"MAIL", b"RCPT", b"Subject", SECRET.encode(), plain):
            assert word not in seen, name
    assert SECRET not in rig.log.getvalue()
    return rig


async def test_a_wrong_certificate_gets_no_mail_and_no_auth(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        servers = {
            f"{certificate}, {tls}": await stack.enter_async_context(
                ScriptedProvider(tls=tls, certificate=certificate, users={"u": SECRET})
            )
            for certificate in ("wrong_host", "expired", "untrusted")
            for tls in ("starttls", "implicit")
        }
        log = (await send_nothing(tmp_path, servers)).log.getvalue()
    deferred = [line for line in log.splitlines() if "status=deferred" in line]
    assert len(deferred) >= len(servers)
    for line in deferred:
        assert "certificate not verified" in line and "dsn=4.7.5" in line


@pytest.mark.parametrize("policy", ["required", "encrypt"])
async def test_a_downgrade_gets_no_mail_and_no_auth(tmp_path: Path, policy: str) -> None:
    refusals = (b"454 4.7.0 TLS not available\r\n", b"502 5.5.1 what\r\n", b"250 no need\r\n")
    async with AsyncExitStack() as stack:
        without = await stack.enter_async_context(ScriptedProvider(users={"u": SECRET}))
        servers = {"none offered": without}
        for reply in refusals:
            server = ScriptedProvider(tls="starttls", users={"u": SECRET})
            server.script("STARTTLS", *[reply] * 20)
            servers[reply.decode()] = await stack.enter_async_context(server)
        log = (await send_nothing(tmp_path, servers, policy=policy)).log.getvalue()
    assert "STARTTLS is required and the provider offers none" in log
    assert all(reply.decode().strip() in log for reply in refusals)


async def test_encrypt_delivers_over_tls_to_a_certificate_that_nobody_vouches_for(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider(
        tls="starttls", certificate="self_signed", users={"u": SECRET}
    ) as server:
        settings = server.settings(username="u", password=f"plain:{SECRET}", tls="encrypt")
        async with running(tmp_path, {"p": settings}) as rig:
            message = accepted()
            accept(rig, [message])
            await rig.wait_for(message, DeliveryState.FINISHED)
    (received,) = server.messages
    assert (received.is_tls, received.user) == (True, "u")


async def test_what_is_said_in_clear_after_starttls_is_not_believed(tmp_path: Path) -> None:
    injected = b"220 go\r\n250-provider.test\r\n250 AUTH LOGIN\r\n"
    async with ScriptedProvider(tls="starttls", users={"u": SECRET}, auth=["PLAIN"]) as server:
        server.script("STARTTLS", injected)
        settings = server.settings(username="u", password=f"plain:{SECRET}")
        async with running(tmp_path, {"p": settings}) as rig:
            message = accepted()
            accept(rig, [message])
            await rig.wait_for(message, DeliveryState.FINISHED)
        (connection,) = server.connections
        assert connection.verbs()[:4] == ["EHLO", "STARTTLS", "EHLO", "AUTH"]
        assert connection.auth_mechanisms == ["PLAIN"]
        assert server.messages[0].is_tls


async def test_mail_goes_when_tls_is_back(tmp_path: Path) -> None:
    async with ScriptedProvider(tls="starttls", users={"u": SECRET}) as server:
        settings = server.settings(username="u", password=f"plain:{SECRET}")
        server.tls = None  # STARTTLS is stripped from its EHLO
        async with running(tmp_path, {"p": settings}) as rig:
            messages = [accepted() for _ in range(10)]
            accept(rig, messages)
            await rig.wait_until(lambda: not rig.worker.gates["p"].is_reached)
            server.tls = "starttls"
            for message in messages:
                await rig.wait_for(message, DeliveryState.FINISHED)
    assert all(message.is_tls for message in server.messages)


async def test_a_name_that_nobody_resolves_holds_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=4))  # as many as uvloop has
    over, asked = threading.Event(), Counter[str]()
    resolve = socket.getaddrinfo

    def look_up(host: Any, *more: Any, **how: Any) -> Any:
        if how.get("flags"):  # it is asked whether it is an address
            return resolve(host, *more, **how)
        asked[host] += 1
        if host == "stuck.test":
            over.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1" if host == "healthy.test" else host, *more, **how)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    stuck = Provider.model_validate({"host": "stuck.test", "tls": "none", "timeouts": TIMEOUTS})
    async with ScriptedProvider() as server:
        providers = {"stuck": stuck, "healthy": server.settings(host="healthy.test")}
        routes = [
            Route(name="stuck", sender=("@s.test",), providers=("stuck",)),
            Route(name="default", providers=("healthy",)),
        ]
        async with running(tmp_path, providers, routes=routes) as rig:
            waiting = [accepted(route="stuck") for _ in range(50)]
            accept(rig, waiting)
            try:
                for _ in range(5):  # while more and more of it is tried
                    before = asked["stuck.test"]
                    message = accepted(content=LARGE)
                    accept(rig, [message])
                    await rig.wait_for(message, DeliveryState.FINISHED)
                    await rig.wait_until(lambda n=before: bool(n) or asked["stuck.test"] > 0)
                for message in waiting:
                    assert rig.entry(message).deliveries[0].state is not DeliveryState.FINISHED
            finally:
                over.set()
