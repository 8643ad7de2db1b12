"""Everything below `web.base_path`, as a reverse proxy shows it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from relaygw.settings.model import Settings
from relaygw.web.gate.credentials import COOKIE, csrf_token, token_of
from tests.integration.web.conftest import sandbox
from tests.integration.web.people import PASSWORDS, with_logins

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


@pytest.mark.parametrize("settings", [sandbox(base_path="/mail"), with_logins(base_path="/mail")])
async def test_nothing_but_health_is_elsewhere(serve: Serve, settings: Settings) -> None:
    client = await serve(settings)
    for path in ["/healthz", "/livez", "/mail/healthz", "/mail/livez"]:
        assert (await client.get(path)).status_code == 200
    for path in ["/", "/mail"]:
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (307, "/mail/")
    for path in ["/api/v1/messages", "/login", "/mailx/api/v1/messages", "/MAIL/"]:
        answer = await client.get(path)
        assert (answer.status_code, answer.text) == (404, "404 page not found")


async def test_an_open_sandbox_below_a_path(serve: Serve) -> None:
    client = await serve(sandbox(base_path="/a/mail"))
    assert (await client.get("/a/mail/api/v1/messages")).status_code == 200
    assert (await client.post("/a/mail/api/nothing")).status_code == 404
    own = {"Origin": str(client.base_url).rstrip("/")}
    assert (await client.post("/a/mail/api/nothing", headers=own)).status_code == 403


async def test_a_login_below_a_path(serve: Serve) -> None:
    client = await serve(with_logins(base_path="/mail"))
    answer = await client.get("/mail/sandbox?q=x")
    assert answer.headers["location"] == "/mail/login?next=/mail/sandbox%3Fq%3Dx"
    page = (await client.get(answer.headers["location"])).text
    assert 'action="/mail/login"' in page
    assert re.search('<link rel="stylesheet" href="/mail/static/', page)
    fields = {"name": "vera", "password": PASSWORDS["vera"], "next": "/mail/sandbox?q=x"}
    answer = await client.post("/mail/login", data=fields)
    assert answer.headers["location"] == "/mail/sandbox?q=x"
    assert "; Path=/mail;" in answer.headers["set-cookie"]
    assert (await client.get("/mail/api/v1/messages")).status_code == 200
    assert (await client.get("/api/v1/messages")).status_code == 404
    csrf = csrf_token(token_of(client.cookies[COOKIE]), "vera")
    answer = await client.post("/mail/logout", data={"csrf": csrf})
    assert (answer.status_code, answer.headers["location"]) == (303, "/mail/login")
    assert "; Path=/mail;" in answer.headers["set-cookie"]
    assert (await client.get("/mail/api/v1/messages")).status_code == 401


@pytest.mark.parametrize("wanted", ["/sandbox", "/mailevil/x", "//evil.test", "/mail/login", ""])
async def test_a_login_leads_nowhere_above_it(serve: Serve, wanted: str) -> None:
    client = await serve(with_logins(base_path="/mail"))
    fields = {"name": "vera", "password": PASSWORDS["vera"], "next": wanted}
    answer = await client.post("/mail/login", data=fields)
    assert answer.headers["location"] == "/mail/"
