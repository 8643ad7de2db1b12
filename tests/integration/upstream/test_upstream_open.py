"""Opening a session against a real server: TLS that protects, AUTH once, failures by stage."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from relaygw.mail.outcome import Stage
from relaygw.settings.provider import Provider
from relaygw.upstream.connection import build_tls_context, connect_socket
from relaygw.upstream.diagnosis import Step, diagnose
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.session import open_session
from tests.fakes.scripted_provider import Action, ScriptedProvider

USERS = {"shop": "s3cret"}
LOGIN = {"username": "shop", "password": "plain:s3cret"}
SHORT = {"connect": "30s", "command": "2s", "final_reply": "2s"}


async def fail_to_open(settings: Provider) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await open_session(settings, ehlo_name="gw.test")
    return caught.value


@pytest.mark.parametrize("tls", [None, "starttls", "implicit"])
async def test_opens_and_authenticates(tls: str | None) -> None:
    async with ScriptedProvider(tls=tls, users=USERS) as provider:
        session = await open_session(provider.settings(**LOGIN), ehlo_name="gw.test")
        assert session.is_usable
        assert session.relay == f"127.0.0.1[127.0.0.1]:{provider.port}"
        await session.close()
        seen = provider.connections[0]
        assert (seen.user, seen.is_tls) == ("shop", tls is not None)
        assert seen.auth_mechanisms == ["PLAIN" if tls else "CRAM-MD5"]
        assert seen.verbs()[-1] == "QUIT"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("password", ["s3cret", "wrong"])
async def test_each_mechanism_is_tried_once(mechanism: str, password: str) -> None:
    async with ScriptedProvider(tls="implicit", users=USERS, auth=[mechanism]) as provider:
        settings = provider.settings(username="shop", password=f"plain:{password}")
        if password == "wrong":
            error = await fail_to_open(settings)
            assert error.stage is Stage.AUTH
            assert error.reply is not None
            assert error.reply.code == 535
            assert error.dsn == "5.7.8"
        else:
            await (await open_session(settings, ehlo_name="gw.test")).close()
        assert provider.connections[0].auth_mechanisms == [mechanism]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("certificate", ["wrong_host", "expired", "untrusted"])
async def test_a_bad_certificate_gets_nothing(tls: str, certificate: str) -> None:
    async with ScriptedProvider(tls=tls, certificate=certificate, users=USERS) as provider:
        error = await fail_to_open(provider.settings(**LOGIN))
        assert (error.stage, error.dsn) == (Stage.TLS, "4.7.5")
        assert "certificate" in error.detail
        await provider.wait_until(lambda: all(seen.is_closed for seen in provider.connections))
        verbs = [seen.verbs() for seen in provider.connections]
        assert verbs == ([["EHLO", "STARTTLS"]] if tls == "starttls" else [])


@pytest.mark.parametrize("policy", ["required", "encrypt"])
async def test_starttls_is_required(policy: str) -> None:
    async with ScriptedProvider(users=USERS) as provider:
        error = await fail_to_open(provider.settings(tls=policy, **LOGIN))
        assert (error.stage, error.dsn) == (Stage.STARTTLS, "4.7.5")
        assert provider.connections[0].verbs() == ["EHLO"]


@pytest.mark.parametrize("reply", [b"454 4.7.0 not now\r\n", b"502 no\r\n", b"250 odd\r\n"])
async def test_a_refused_starttls_ends_it(reply: bytes) -> None:
    async with ScriptedProvider(tls="starttls", users=USERS) as provider:
        provider.script("STARTTLS", reply)
        error = await fail_to_open(provider.settings(**LOGIN))
        assert error.stage is Stage.STARTTLS
        assert provider.connections[0].verbs() == ["EHLO", "STARTTLS"]


async def test_replies_injected_before_the_handshake_are_ignored() -> None:
    async with ScriptedProvider(tls="starttls", users=USERS) as provider:
        provider.script("STARTTLS", b"220 go\r\n250-evil\r\n250 AUTH LOGIN\r\n")
        session = await open_session(provider.settings(**LOGIN), ehlo_name="gw.test")
        await session.close()
        assert provider.connections[0].auth_mechanisms == ["PLAIN"]
        assert provider.connections[0].verbs()[:3] == ["EHLO", "STARTTLS", "EHLO"]


@pytest.mark.parametrize("certificate", ["self_signed", "wrong_host", "expired", "untrusted"])
async def test_encrypt_takes_any_certificate(certificate: str) -> None:
    async with ScriptedProvider(tls="starttls", certificate=certificate, users=USERS) as provider:
        session = await open_session(provider.settings(tls="encrypt", **LOGIN), ehlo_name="gw.test")
        await session.close()
        seen = provider.connections[0]
        assert (seen.user, seen.is_tls) == ("shop", True)
        assert seen.verbs() == ["EHLO", "STARTTLS", "EHLO", "AUTH", "QUIT"]


@pytest.mark.parametrize(
    "answer", [b"454 4.7.0 no\r\n", b"250 odd\r\n", (b"220 go\r\n", b"garbage", Action.DROP)]
)
async def test_encrypt_never_goes_on_in_clear(answer: Any) -> None:
    async with ScriptedProvider(tls="starttls", users=USERS) as provider:
        provider.script("STARTTLS", answer)
        error = await fail_to_open(provider.settings(tls="encrypt", **LOGIN))
        assert error.stage in (Stage.STARTTLS, Stage.TLS)
        assert [seen.verbs() for seen in provider.connections] == [["EHLO", "STARTTLS"]]


async def test_encrypt_does_not_say_helo_to_a_provider_without_ehlo() -> None:
    async with ScriptedProvider(tls="starttls") as provider:
        provider.script("EHLO", b"502 5.5.1 what\r\n")
        error = await fail_to_open(provider.settings(tls="encrypt"))
        assert error.stage is Stage.EHLO
        assert provider.connections[0].verbs() == ["EHLO"]


async def test_opportunistic_takes_what_there_is() -> None:
    for tls, certificate in ((None, "valid"), ("starttls", "untrusted")):
        async with ScriptedProvider(tls=tls, certificate=certificate) as provider:
            session = await open_session(
                provider.settings(tls="opportunistic"), ehlo_name="gw.test"
            )
            await session.close()
            assert provider.connections[0].is_tls == (tls is not None)


@pytest.mark.parametrize(
    "answer", [b"454 4.7.0 no\r\n", (b"220 go\r\n", b"garbage, not TLS", Action.DROP)]
)
async def test_opportunistic_goes_on_when_tls_fails(answer: Any) -> None:
    async with ScriptedProvider(tls="starttls") as provider:
        provider.script("STARTTLS", answer)
        session = await open_session(provider.settings(tls="opportunistic"), ehlo_name="gw.test")
        await session.close()
        assert not provider.connections[-1].is_tls


async def test_an_echo_on_the_way_without_tls_is_masked() -> None:
    async with ScriptedProvider(tls="starttls", users=USERS) as provider:
        provider.script("STARTTLS", b"454 4.7.0 no\r\n")
        provider.script("AUTH", b"535 5.7.8 not s3cret\r\n")
        error = await fail_to_open(provider.settings(tls="opportunistic", **LOGIN))
        assert str(error.reply) == "535 5.7.8 not ***"
        assert "s3cret" not in f"{error} {error.__cause__} {error.__context__}"


async def test_a_mechanism_that_is_asked_for_is_the_only_one() -> None:
    async with ScriptedProvider(tls="starttls", users=USERS) as provider:
        session = await open_session(provider.settings(auth="login", **LOGIN), ehlo_name="gw.test")
        await session.close()
        assert provider.connections[0].auth_mechanisms == ["LOGIN"]
        provider.auth = ["PLAIN"]
        error = await fail_to_open(provider.settings(auth="login", **LOGIN))
        assert error.detail == "the provider offers PLAIN; relaygw supports: LOGIN"
        assert provider.connections[1].auth_mechanisms == []


async def test_no_greeting_in_time() -> None:
    async with ScriptedProvider() as provider:
        provider.script("greeting", Action.HANG)
        error = await fail_to_open(provider.settings(timeouts=SHORT))
        assert error.detail.startswith("no greeting within 2 s")


async def test_ehlo_refused_falls_back_to_helo() -> None:
    async with ScriptedProvider() as provider:
        provider.script("EHLO", b"500 5.5.1 what\r\n")
        session = await open_session(provider.settings(), ehlo_name="gw.test")
        await session.close()
        assert provider.connections[0].commands[:2] == [b"EHLO gw.test", b"HELO gw.test"]


async def test_no_mechanism_in_common() -> None:
    async with ScriptedProvider(users=USERS, auth=["XOAUTH2"]) as provider:
        error = await fail_to_open(provider.settings(**LOGIN))
        assert error.stage is Stage.AUTH
        assert "offers XOAUTH2; relaygw supports: CRAM-MD5, PLAIN, LOGIN" in error.detail
        assert provider.connections[0].auth_mechanisms == []


async def test_an_unreadable_password_opens_no_connection() -> None:
    async with ScriptedProvider(users=USERS) as provider:
        settings = provider.settings(username="shop", password="file:/nonexistent/key")
        assert (await fail_to_open(settings)).stage is Stage.AUTH
        assert provider.connections == []


async def test_no_server_at_all() -> None:
    async with ScriptedProvider() as provider:
        settings = provider.settings()
    error = await fail_to_open(settings)
    assert (error.stage, error.reply, error.dsn) == (Stage.CONNECT, None, "4.4.1")
    assert f"connect to 127.0.0.1[127.0.0.1]:{settings.port}: Connection refused" in error.detail


@pytest.mark.usefixtures("is_unknown")
async def test_no_such_host() -> None:
    error = await fail_to_open(Provider(host="no-such-host.invalid", tls="none"))
    assert error.stage is Stage.CONNECT
    assert error.detail.startswith("Host no-such-host.invalid not found")


@pytest.mark.parametrize("host", ["a..b", "x" * 300])
async def test_a_name_that_cannot_be_looked_up(host: str) -> None:
    with pytest.raises(OSError, match=f"Host {host!r} is not a host name"):
        await connect_socket(host, 25, timeout_s=5)


async def test_missing_ca_file() -> None:
    async with ScriptedProvider(tls="implicit") as provider:
        error = await fail_to_open(provider.settings(tls_ca="/nonexistent/ca.pem"))
        assert error.stage is Stage.TLS
        assert "/nonexistent/ca.pem" in error.detail
        assert provider.connections == []


GARBAGE = [
    Action.DROP,
    Action.RESET,
    Action.HANG,
    b"421 4.3.2 busy\r\n",
    b"450 later\r\n",
    b"554 5.7.1 go away\r\n",
    b"abc\r\n",
    b"999 x\r\n",
    b"250-x\r\n" * 10_000,
    b"2" * 1_000_000,
]


@pytest.mark.parametrize("verb", ["greeting", "EHLO", "STARTTLS", "AUTH"])
@pytest.mark.parametrize("action", GARBAGE, ids=range(len(GARBAGE)))
async def test_each_stage_fails_by_its_name(verb: str, action: Any) -> None:
    is_refusal = isinstance(action, bytes) and action[:3] in (b"421", b"450", b"554")
    async with ScriptedProvider(tls="starttls", users=USERS) as provider:
        # a refused EHLO is followed by HELO, which must not help here
        provider.script(verb, (action, Action.DROP) if verb == "EHLO" else action)
        limits = SHORT if action is Action.HANG else {}
        error = await fail_to_open(provider.settings(timeouts=limits, **LOGIN))
        if (verb, action) == ("STARTTLS", Action.RESET):
            assert error.stage in (Stage.STARTTLS, Stage.TLS)  # both begin with this command
        else:
            assert error.stage == verb
        assert (error.reply is not None) == is_refusal
        assert "s3cret" not in f"{error}{error!r}"
        assert not any(b"MAIL" in seen.transcript for seen in provider.connections)


async def test_a_hanging_handshake_ends() -> None:
    async with ScriptedProvider(tls="starttls") as provider:
        provider.script("STARTTLS", (b"220 go\r\n", Action.HANG))
        error = await fail_to_open(provider.settings(timeouts=SHORT))
        assert error.stage is Stage.TLS


async def test_a_reply_before_the_command_is_noticed() -> None:
    async with ScriptedProvider() as provider:
        provider.script("greeting", b"220 hello\r\n250 evil\r\n")
        error = await fail_to_open(provider.settings())
        assert error.stage is Stage.GREETING
        assert provider.connections[0].commands == []


async def test_cancelled_while_opening_leaves_no_connection() -> None:
    async with ScriptedProvider(tls="starttls") as provider:
        for verb in ("greeting", "EHLO", "STARTTLS"):
            provider.script(verb, Action.HANG)
            task = asyncio.create_task(open_session(provider.settings(), ehlo_name="gw.test"))
            await provider.wait_until(lambda verb=verb: not provider.pending(verb))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


def test_tls_context_is_strict() -> None:
    context = build_tls_context(Provider(host="x.test"))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.hostname_checks_common_name


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"550 5.7.1 not s3cret\r\n", "a@x.test: 550 5.7.1 not ***"),
        (b"s3cret\r\n", "a@x.test: no answer (not an SMTP reply: '***')"),
    ],
)
async def test_what_is_said_of_a_sender_online_is_masked(said: bytes, shown: str) -> None:
    async with ScriptedProvider(tls="starttls", users=USERS) as provider:
        provider.script("MAIL", said)
        findings = diagnose(provider.settings(**LOGIN), ehlo_name="gw.test", senders=["a@x.test"])
        assert [one.detail async for one in findings if one.step is Step.SENDER] == [shown]
