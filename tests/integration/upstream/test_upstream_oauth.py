"""XOAUTH2 against a real provider, with tokens from a real endpoint."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.outcome import Scope, Stage, Verdict
from relaygw.settings.provider import Provider
from relaygw.upstream.classifier import Classifier
from relaygw.upstream.credentials import Credentials
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.session import open_session
from tests.fakes.entra import SCOPE, TENANT, EntraEndpoint, refusal, write_certificate
from tests.fakes.scripted_provider import ScriptedProvider
from tests.fakes.token_endpoint import ECHO, HANG, TokenEndpoint

CANARY = "cAnary+refresh/7f3a=="


def xoauth2_provider(*tokens: str, **options: Any) -> ScriptedProvider:
    users = dict.fromkeys(["box@x.test"], tokens[0]) if tokens else {"box@x.test": "none"}
    return ScriptedProvider(tls="starttls", users=users, auth=["XOAUTH2", "PLAIN"], **options)


def settings_of(provider: ScriptedProvider, endpoint: TokenEndpoint, **oauth: Any) -> Provider:
    return provider.settings(username="box@x.test", oauth=endpoint.oauth(**oauth))


async def log_in(settings: Provider, credentials: Credentials | None = None) -> None:
    session = await open_session(settings, ehlo_name="gw.test", credentials=credentials)
    await session.close()


async def fail_to_log_in(
    settings: Provider, credentials: Credentials | None = None
) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await open_session(settings, ehlo_name="gw.test", credentials=credentials)
    assert caught.value.stage is Stage.AUTH
    return caught.value


@pytest.mark.parametrize(
    ("oauth", "form"),
    [
        (
            {"scope": "s x"},
            {"grant_type": "client_credentials", "client_secret": "app-key", "scope": "s x"},
        ),
        (
            {"refresh_token": f"plain:{CANARY}"},
            {"grant_type": "refresh_token", "client_secret": "app-key", "refresh_token": CANARY},
        ),
        (
            {"client_secret": None, "refresh_token": f"plain:{CANARY}"},
            {"grant_type": "refresh_token", "refresh_token": CANARY},
        ),
    ],
)
async def test_logs_in_by_a_token(oauth: dict[str, Any], form: dict[str, str]) -> None:
    with TokenEndpoint() as endpoint:
        async with xoauth2_provider("token-1") as provider:
            await log_in(settings_of(provider, endpoint, **oauth))
            assert provider.connections[0].auth_mechanisms == ["XOAUTH2"]
            assert provider.connections[0].user == "box@x.test"
        assert endpoint.requests == [{"client_id": "app", **form}]


def by_certificate(
    provider: ScriptedProvider, entra: EntraEndpoint, files: tuple[Path, Path]
) -> Provider:
    oauth = {
        "token_url": entra.url_of(TENANT),
        "client_id": entra.client_id,
        "certificate": str(files[0]),
        "key": f"file:{files[1]}",
        "scope": SCOPE,
    }
    return provider.settings(username="box@x.test", oauth=oauth)


async def test_logs_in_by_a_certificate(tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    with EntraEndpoint(certificate=files[0]) as entra:
        async with xoauth2_provider() as provider:
            credentials = Credentials(by_certificate(provider, entra, files))
            login = await credentials.read()
            assert login is not None
            assert login.secret == entra.tokens[0]
            credentials.forget(login)
            assert await credentials.read() is not None  # each assertion is another one
        (form, _) = entra.requests
        assert sorted(form) == [
            *("client_assertion", "client_assertion_type", "client_id", "grant_type", "scope")
        ]
        assert form["client_assertion_type"].endswith(":client-assertion-type:jwt-bearer")


async def test_a_certificate_that_the_endpoint_does_not_know(tmp_path: Path) -> None:
    known, other = (write_certificate(tmp_path, name=name) for name in ("known", "other"))
    with EntraEndpoint(certificate=known[0]) as entra:
        async with xoauth2_provider() as provider:
            error = await fail_to_log_in(by_certificate(provider, entra, other))
            assert "invalid_client: AADSTS700027: The certificate" in str(error.reply)
            mixed = by_certificate(provider, entra, (known[0], other[1]))
            error = await fail_to_log_in(mixed)
        assert error.reply is None
        assert error.detail == f"oauth.key is not the key of {known[0]}; store a matching pair"
        assert len(entra.requests) == 1


async def test_an_assertion_that_is_echoed_is_masked(tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    with EntraEndpoint(certificate=files[0]) as entra:
        entra.answers.append(ECHO)
        async with xoauth2_provider() as provider:
            error = await fail_to_log_in(by_certificate(provider, entra, files))
    assert str(error.said).endswith("invalid_client: no ***")


async def test_a_token_serves_many_connections_until_it_ends() -> None:
    with TokenEndpoint() as endpoint:
        ending = {"access_token": "short", "token_type": "bearer", "expires_in": "0"}
        endpoint.answers.append((200, ending))
        async with xoauth2_provider("short") as provider:
            settings = settings_of(provider, endpoint)
            credentials = Credentials(settings)
            await log_in(settings, credentials)
            provider.users["box@x.test"] = "token-1"
            opening = [log_in(settings, credentials) for _ in range(4)]
            await asyncio.gather(*opening)
        assert len(endpoint.requests) == 2


async def test_a_kept_token_that_is_refused_is_replaced_at_once() -> None:
    with TokenEndpoint() as endpoint:
        async with xoauth2_provider("token-1") as provider:
            settings = settings_of(provider, endpoint)
            credentials = Credentials(settings)
            await log_in(settings, credentials)
            provider.users["box@x.test"] = "token-2"
            await log_in(settings, credentials)
            tried = [seen.auth_mechanisms for seen in provider.connections]
            assert tried == [["XOAUTH2"]] * 3


async def test_a_fresh_token_that_is_refused_is_tried_once_and_thrown_away() -> None:
    with TokenEndpoint() as endpoint:
        async with xoauth2_provider() as provider:
            settings = settings_of(provider, endpoint)
            credentials = Credentials(settings)
            error = await fail_to_log_in(settings, credentials)
            assert error.reply is not None
            assert str(error.reply) == "535 5.7.8 no"
            coded = base64.b64encode(b"user=box@x.test\1auth=Bearer token-1\1\1")
            sent = provider.connections[0].transcript
            # the challenge with the error is answered by an empty line
            assert sent.endswith(b"AUTH XOAUTH2 " + coded + b"\r\n\r\n")
            provider.users["box@x.test"] = "token-2"
            await log_in(settings, credentials)


async def test_the_tokens_of_an_echo_are_masked() -> None:
    token = "tOken-" + "x" * 40
    coded = base64.b64encode(f"user=box@x.test\1auth=Bearer {token}\1\1".encode())
    with TokenEndpoint() as endpoint:
        endpoint.answers.append((200, {"access_token": token}))
        async with xoauth2_provider() as provider:
            provider.script(
                "AUTH", b"535 5.7.8 bad: " + coded[:40] + b" " + token.encode() + b"\r\n"
            )
            error = await fail_to_log_in(settings_of(provider, endpoint))
    assert str(error.reply) == "535 5.7.8 bad: *** ***"
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("code", ["invalid_grant", "invalid_client", "unauthorized_client"])
@pytest.mark.parametrize("status", [400, 401])
async def test_a_refusal_of_the_endpoint_is_one_of_the_credentials(code: str, status: int) -> None:
    with TokenEndpoint() as endpoint:
        said = {"error": code, "error_description": f"not with {CANARY}"}
        endpoint.answers.append((status, said))
        async with xoauth2_provider("token-1") as provider:
            settings = settings_of(provider, endpoint, refresh_token=f"plain:{CANARY}")
            error = await fail_to_log_in(settings)
            assert provider.connections == []
    meaning = Classifier(settings).meaning(error.stage, error.reply)
    assert (meaning.verdict, meaning.scope) == (Verdict.HOLD, Scope.CREDENTIAL)
    assert code in str(error.reply)
    assert CANARY not in f"{error} {error.reply}"


@pytest.mark.parametrize(
    ("code", "explained", "remedy"),
    [
        ("AADSTS7000215", "The client secret is wrong.", "Store the secret's value, not its id"),
        ("AADSTS7000222", "The client secret has expired.", "Make a new one"),
        ("AADSTS700016", "not known in this tenant", "Set oauth.client_id"),
        ("AADSTS700027", "does not accept the certificate", "Upload oauth.certificate"),
        ("AADSTS90002", "There is no such tenant.", "Write the directory (tenant) id"),
        ("AADSTS65001", "No administrator has consented", "SMTP.SendAsApp"),
        ("AADSTS70011", "The scope is wrong.", "Set oauth.scope"),
    ],
)
async def test_the_words_of_entra_are_shown_and_explained(
    code: str, explained: str, remedy: str
) -> None:
    status, body = refusal(code)
    with TokenEndpoint() as endpoint:
        endpoint.answers.append((status, body))
        async with xoauth2_provider("token-1") as provider:
            settings = settings_of(provider, endpoint).model_copy(update={"preset": "microsoft365"})
            error = await fail_to_log_in(settings)
    place = endpoint.url.removeprefix("http://").removesuffix("/token")
    said = body["error_description"].partition(". Trace ID")[0]
    words = f"535 5.7.8 {place} refused an access token: {body['error']}: {said}"
    assert str(error.reply) == words
    assert error.detail in words
    meaning = Classifier(settings).meaning(error.stage, error.said)
    assert (meaning.verdict, meaning.scope) == (Verdict.HOLD, Scope.CREDENTIAL)
    assert explained in meaning.explanation
    assert remedy in meaning.remedy


@pytest.mark.parametrize(
    ("preset", "code", "remedy"),
    [
        ("gmail", "invalid_grant", 'tokens of one in "Testing" end after seven days'),
        ("workspace", "invalid_client", "the Google Cloud console"),
        ("gmail", "unauthorized_client", "with the client that oauth.client_id names"),
        (None, "invalid_grant", "store the new refresh token in oauth.refresh_token"),
        (None, "invalid_client", "Check oauth.client_id"),
        (None, "access_denied", "Read its words in the reply"),
    ],
)
async def test_what_to_do_about_a_refusal(preset: str | None, code: str, remedy: str) -> None:
    with TokenEndpoint() as endpoint:
        endpoint.answers.append((400, {"error": code, "error_description": "Bad Request"}))
        async with xoauth2_provider() as provider:
            settings = settings_of(provider, endpoint).model_copy(update={"preset": preset})
            error = await fail_to_log_in(settings)
    assert str(error.reply).endswith(f" refused an access token: {code}: Bad Request")
    assert remedy in Classifier(settings).meaning(error.stage, error.said).remedy


async def test_the_words_of_an_endpoint_are_masked_before_they_are_cut() -> None:
    lines = [
        f"no {CANARY}, \x1b[2J\ud800" + " x" * 130 + f" {CANARY} " + "y" * 500,
        "another line",
    ]
    with TokenEndpoint() as endpoint:
        said = {"error": "invalid_client", "error_description": "\r\n".join(lines)}
        endpoint.answers.append((401, said))
        async with xoauth2_provider() as provider:
            settings = settings_of(provider, endpoint, client_secret=f"plain:{CANARY}")
            error = await fail_to_log_in(settings)
    words = str(error.said).partition("invalid_client: ")[2]
    assert words.startswith("no ***, ?[2J? x x")
    assert CANARY[:6] not in str(error.said)
    assert (len(words), words.isprintable()) == (300, True)


GARBAGE: list[tuple[int, Any]] = [
    (500, b"<html>"),
    (503, {"error": "temporarily_unavailable"}),
    (400, {"error": "temporarily_unavailable"}),
    refusal("AADSTS90033"),
    (429, {"error": "slow_down"}),
    (400, b"no json"),
    (400, {"error": "with spaces and CAPITALS"}),
    (302, b""),
    (200, b""),
    (200, b"\xff"),
    (200, b"[" * 60000),
    (200, [1]),
    (200, {"access_token": ""}),
    (200, {"access_token": "with space"}),
    (200, {"access_token": "a\1auth=Bearer b"}),
    (200, {"access_token": "line\r\nbreak"}),
    (200, {"access_token": 5}),
    (200, {"access_token": "t", "token_type": "mac"}),
    (200, b"x" * 1_000_000),
]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
async def test_an_endpoint_in_trouble_is_asked_again(answer: tuple[int, Any]) -> None:
    with TokenEndpoint() as endpoint:
        endpoint.answers.append(answer)
        async with xoauth2_provider("token-1") as provider:
            settings = settings_of(provider, endpoint)
            error = await fail_to_log_in(settings)
            assert error.reply is None
            assert "the token endpoint 127.0.0.1:" in error.detail
            meaning = Classifier(settings).meaning(error.stage, error.reply)
            assert (meaning.verdict, meaning.scope) == (Verdict.RETRY, Scope.PROVIDER)
            await log_in(settings)


async def test_an_endpoint_that_is_down() -> None:
    with TokenEndpoint() as endpoint:
        pass
    async with xoauth2_provider("token-1") as provider:
        error = await fail_to_log_in(settings_of(provider, endpoint))
    assert error.reply is None
    assert "Connection refused" in error.detail


async def test_an_endpoint_that_hangs_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaygw.upstream.credentials._LIMIT_S", 0.2)
    with TokenEndpoint() as endpoint:
        endpoint.answers.append(HANG)
        async with xoauth2_provider("token-1") as provider:
            error = await fail_to_log_in(settings_of(provider, endpoint))
    assert error.reply is None
    assert "did not answer within 0.2 s" in error.detail


async def test_cancelled_while_the_endpoint_hangs_leaves_no_thread() -> None:
    with TokenEndpoint() as endpoint:
        endpoint.answers.append(HANG)
        async with xoauth2_provider("token-1") as provider:
            opening = asyncio.create_task(log_in(settings_of(provider, endpoint)))
            assert await asyncio.to_thread(endpoint.is_asked.wait, 10)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            # the loop's threads are joined: this would wait for the endpoint otherwise
            async with asyncio.timeout(60):
                await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize("certificate", ["valid", "untrusted"])
async def test_the_endpoint_is_verified(certificate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with TokenEndpoint(certificate) as endpoint:
        monkeypatch.setenv("SSL_CERT_FILE", endpoint.ca)
        async with xoauth2_provider("token-1") as provider:
            settings = settings_of(provider, endpoint)
            if certificate == "valid":
                await log_in(settings)
            else:
                error = await fail_to_log_in(settings)
                assert "certificate not verified" in error.detail
                assert endpoint.requests == []


async def test_without_xoauth2_on_offer_nothing_is_sent() -> None:
    with TokenEndpoint() as endpoint:
        async with ScriptedProvider(tls="starttls", users={"box@x.test": "p"}) as provider:
            error = await fail_to_log_in(settings_of(provider, endpoint))
            assert "relaygw supports: XOAUTH2" in error.detail
            assert provider.connections[0].auth_mechanisms == []


async def test_a_rotated_refresh_token_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "refresh"
    file.write_text("old")
    file.chmod(0o600)
    with TokenEndpoint() as endpoint:
        endpoint.answers.append((400, {"error": "invalid_grant"}))
        async with xoauth2_provider("token-1") as provider:
            settings = settings_of(provider, endpoint, refresh_token=f"file:{file}")
            credentials = Credentials(settings)
            assert (await fail_to_log_in(settings, credentials)).reply is not None
            assert not await credentials.has_changed()
            file.write_text("new")
            assert await credentials.has_changed()
            await log_in(settings, credentials)
        assert endpoint.requests[-1]["refresh_token"] == "new"
