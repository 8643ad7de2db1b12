"""The gate: roles, programs that log in, requests of other sites, bodies."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.web.gate.access import MAX_BODY_BYTES, MAX_LOGIN_BYTES
from relaygw.web.gate.credentials import COOKIE, csrf_token, token_of
from tests.integration.web.conftest import sandbox
from tests.integration.web.people import PASSWORDS, ROLES, TOKENS, with_logins

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
MESSAGES = "/api/v1/messages"
PAST_THE_GATE = "/api/nothing"  # 404 from behind it
OWN = "http://127.0.0.1:{port}"
pytestmark = pytest.mark.usefixtures("quick_failures")


def origin_of(client: httpx2.AsyncClient) -> str:
    return str(client.base_url).rstrip("/")


async def csrf_after_login(client: httpx2.AsyncClient, name: str) -> str:
    await client.post("/login", data={"name": name, "password": PASSWORDS[name]})
    return csrf_token(token_of(client.cookies[COOKIE]), name)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PASSWORDS)
async def test_users_by_basic(serve: Serve, name: str) -> None:
    client = await serve(with_logins())
    auth = (name, PASSWORDS[name])
    for _ in range(3):
        assert (await client.get(MESSAGES, auth=auth)).status_code == 200
    status = 403 if ROLES[name] == "viewer" else 404
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await client.request(method, PAST_THE_GATE, auth=auth)
        assert answer.status_code == status
    assert (await client.get(MESSAGES, auth=(name, "wrong"))).status_code == 401


@pytest.mark.parametrize("name", TOKENS)
async def test_tokens_as_bearer_and_as_password(serve: Serve, name: str) -> None:
    client = await serve(with_logins())
    sent: list[dict[str, Any]] = [
        {"headers": bearer(TOKENS[name])},
        {"auth": (name, TOKENS[name])},
    ]
    for one in sent:
        assert (await client.get(MESSAGES, **one)).status_code == 200
        answer = await client.delete(PAST_THE_GATE, **one)
        assert answer.status_code == (403 if name == "look" else 404)


@pytest.mark.parametrize(
    "value",
    [
        *("Bearer", "Bearer x", f"Bearer {TOKENS['look']}x", f"Basic {TOKENS['look']}"),
        *("Basic", "Basic !", "Basic YW5uYQ==", "Basic /////w==", "Digest x", "x", ""),
        "Basic " + base64.b64encode(b":").decode(),
        "Basic " + base64.b64encode(b"tests:" + TOKENS["look"].encode()).decode(),
        "Basic " + base64.b64encode(b"anna:" + TOKENS["look"].encode()).decode(),
        "Basic " + base64.b64encode(b"tests:").decode(),
        "Basic " + base64.b64encode(b"anna:" + b"x" * 30_000).decode(),
        f"Bearer {PASSWORDS['vera']}",
    ],
)
async def test_what_is_no_login(serve: Serve, value: str) -> None:
    client = await serve(with_logins())
    answer = await client.get(MESSAGES, headers={"Authorization": value})
    assert answer.status_code == 401


async def test_passwords_of_a_proxy_in_front_are_neither_believed_nor_counted(serve: Serve) -> None:
    client = await serve(with_logins())
    for _ in range(15):
        answer = await client.get("/sandbox", auth=("proxy", "its own password"))
        assert answer.headers["location"].startswith("/login?")
    assert (await client.get("/sandbox", auth=("anna", PASSWORDS["anna"]))).status_code == 303
    await csrf_after_login(client, "anna")
    assert (await client.get(MESSAGES, auth=("proxy", "its own"))).status_code == 200


# --- other sites ---------------------------------------------------------------------------------

FOREIGN = [
    {"Origin": "http://evil.test"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "MOVE"])
async def test_other_sites_change_nothing(
    serve: Serve, foreign: dict[str, str], method: str
) -> None:
    """Neither with a cookie and its token nor with basic, a token or where all is open."""
    client = await serve(with_logins())
    csrf = {"X-CSRF-Token": await csrf_after_login(client, "anna")}
    answers = [await client.request(method, PAST_THE_GATE, headers=foreign | csrf)]
    client.cookies.clear()
    auth = ("anna", PASSWORDS["anna"])
    answers.append(await client.request(method, PAST_THE_GATE, headers=foreign, auth=auth))
    sent = foreign | bearer(TOKENS["tests"])
    answers.append(await client.request(method, PAST_THE_GATE, headers=sent))
    anyone = await serve(sandbox())
    answers.append(await anyone.request(method, PAST_THE_GATE, headers=foreign))
    for answer in answers:
        assert answer.status_code == 403
        assert answer.text.startswith("this was sent by a page of another site")
    assert (await anyone.request(method, PAST_THE_GATE)).status_code == 404


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_json_in_the_clothes_of_a_form(serve: Serve, content_type: str) -> None:
    """What a page of another site may send without being asked first."""
    anyone = await serve(sandbox())
    headers = {"Content-Type": content_type, "Origin": "http://evil.test"}
    body = b'{"IDs": [], "x": "="}'
    answer = await anyone.post(PAST_THE_GATE, content=body, headers=headers)
    assert answer.status_code == 403


async def test_a_session_needs_its_token_always(serve: Serve) -> None:
    client = await serve(with_logins())
    csrf = await csrf_after_login(client, "otto")
    own = {"Origin": origin_of(client)}
    wrong = csrf_token(b"x", "otto")
    for headers in ({}, own, own | {"X-CSRF-Token": wrong}, {"X-CSRF-Token": ""}):
        answer = await client.post(PAST_THE_GATE, headers=headers)
        assert (answer.status_code, answer.text[:24]) == (403, "this page is out of date")
    assert (await client.post(PAST_THE_GATE, data={"csrf": wrong})).status_code == 403
    assert (await client.post(f"{PAST_THE_GATE}?csrf={csrf}")).status_code == 403
    assert (await client.post(PAST_THE_GATE, json={"csrf": csrf})).status_code == 403
    assert (await client.post(PAST_THE_GATE, data={"csrf": csrf})).status_code == 404
    headers = own | {"X-CSRF-Token": csrf}
    assert (await client.delete(PAST_THE_GATE, headers=headers)).status_code == 404


async def test_the_token_of_one_session_is_not_anothers(serve: Serve) -> None:
    client = await serve(with_logins())
    first = await csrf_after_login(client, "otto")
    second = await csrf_after_login(client, "otto")
    assert first != second
    for csrf, status in ((first, 403), (second, 404)):
        headers = {"X-CSRF-Token": csrf}
        assert (await client.post(PAST_THE_GATE, headers=headers)).status_code == status


async def test_a_browser_needs_the_token_without_a_session_too(serve: Serve) -> None:
    """A browser also adds a password that it remembers, and to an open sandbox nothing at all."""
    for settings, auth in ((sandbox(), None), (with_logins(), ("otto", PASSWORDS["otto"]))):
        client = await serve(settings)
        for headers in ({"Origin": origin_of(client)}, {"Sec-Fetch-Site": "same-origin"}):
            answer = await client.post(PAST_THE_GATE, headers=headers, auth=auth)
            assert answer.status_code == 403
        assert (await client.post(PAST_THE_GATE, auth=auth)).status_code == 404
    headers = {"Origin": origin_of(client)} | bearer(TOKENS["tests"])
    assert (await client.post(PAST_THE_GATE, headers=headers)).status_code == 404


async def test_a_viewer_changes_nothing_with_any_token(serve: Serve) -> None:
    client = await serve(with_logins())
    headers = {"X-CSRF-Token": await csrf_after_login(client, "vera")}
    answer = await client.delete(PAST_THE_GATE, headers=headers)
    assert answer.status_code == 403
    assert answer.text == "vera has the role viewer, which changes nothing"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-HTTP-Method-Override": "DELETE"},
        {"X-Method-Override": "DELETE"},
        {"X-HTTP-Method": "PUT"},
    ],
)
async def test_a_get_stays_one(serve: Serve, headers: dict[str, str]) -> None:
    client = await serve(sandbox())
    answer = await client.get(f"{MESSAGES}?_method=DELETE", headers=headers)
    assert answer.status_code == 200
    assert answer.json()["total"] == 0


# --- bodies --------------------------------------------------------------------------------------


async def chunks(size_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(size_bytes // 65536):
        yield b"x" * 65536
    yield b"x" * (size_bytes % 65536)


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_bodies_have_a_bound(serve: Serve, is_chunked: bool) -> None:
    anyone, known = await serve(sandbox()), await serve(with_logins())

    async def status(client: httpx2.AsyncClient, path: str, size_bytes: int) -> int:
        content: Any = chunks(size_bytes) if is_chunked else b"x" * size_bytes
        return (await client.post(path, content=content)).status_code

    assert await status(anyone, PAST_THE_GATE, MAX_BODY_BYTES) == 404
    assert await status(anyone, PAST_THE_GATE, MAX_BODY_BYTES + 1) == 413
    assert await status(known, "/login", MAX_LOGIN_BYTES) == 403
    assert await status(known, "/login", MAX_LOGIN_BYTES + 1) == 413
    # whom nobody knows is not even listened to
    assert await status(known, PAST_THE_GATE, MAX_BODY_BYTES + 1) == 401
