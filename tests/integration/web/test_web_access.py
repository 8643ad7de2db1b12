from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.settings.addresses import Bind
from relaygw.settings.model import Settings
from relaygw.web.gate.guards import host_name
from tests.tables import each_of

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

API_PATHS = ["/api/v1/messages", "/api/v1/message/latest", "/api/v1/message/latest/raw", "/api/x"]
RELAY = {
    "providers": {"p": {"host": "smtp.example.com"}},
    "routes": [{"name": "default", "providers": ["p"]}],
}
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def settings(**values: Any) -> Settings:
    return Settings.model_validate(values)


@pytest.mark.parametrize("mode", ["production", "staging"])
async def test_only_health_outside_of_the_sandbox(
    serve: Serve, capture: Capture, mode: str
) -> None:
    capture(b"Subject: secret\r\n\r\nsecret")
    client = await serve(settings(mode=mode, **RELAY))
    for path in API_PATHS:
        answer = await client.get(path)
        assert answer.status_code == 403
        assert answer.text.startswith(f"pages and API are not served in mode {mode}")
        assert "web.users" in answer.text
        assert answer.text.count("\n") == 1
    assert (await client.get("/healthz")).status_code == 200


async def test_a_sandbox_that_others_reach_serves_no_mail(serve: Serve) -> None:
    safe = settings(mode="sandbox")
    # the settings' check refuses this: the guard must hold without it
    web = safe.web.model_copy(update={"bind": Bind("0.0.0.0", 8025)})
    client = await serve(safe.model_copy(update={"web": web}))
    answer = await client.get("/api/v1/messages")
    assert answer.status_code == 403
    assert "web.open: true" in answer.text


async def test_a_sandbox_that_is_open_serves_mail(serve: Serve) -> None:
    client = await serve(settings(mode="sandbox", web={"bind": "0.0.0.0:8025", "open": True}))
    assert (await client.get("/api/v1/messages")).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "localhost.evil.test", "localhost@evil.test", "*", "[::1]x", "127.0.0.2"]
)
async def test_other_names_are_refused(serve: Serve, host: str) -> None:
    client = await serve()
    for path in ["/api/v1/messages", "/", "/nothing"]:
        answer = await client.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "web.hosts" in answer.text
        assert host not in answer.text.replace("web.hosts", "")
    for path in ["/healthz", "/livez"]:
        assert (await client.get(path, headers={"Host": host})).status_code == 200
    assert (await client.get("/readyz", headers={"Host": host})).status_code == 503


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8025", "127.0.0.1:1", "[::1]", "[::1]:80"]
)
async def test_names_in_web_hosts_are_answered(serve: Serve, host: str) -> None:
    client = await serve()
    assert (await client.get("/api/v1/messages", headers={"Host": host})).status_code == 200


async def test_web_hosts_replaces_the_names(serve: Serve) -> None:
    client = await serve(settings(mode="sandbox", web={"hosts": ["Mail.test", "[::2]"]}))
    for host, status in [("mail.test", 200), ("[::2]:9", 200), ("localhost", 421), ("a", 421)]:
        answer = await client.get("/api/v1/messages", headers={"Host": host})
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("web", "told", "status"),
    [
        ({"networks": ["192.0.2.0/24", "127.0.0.0/8"]}, "", 200),
        ({"networks": ["192.0.2.0/24"]}, "", 403),
        ({"networks": ["192.0.2.0/24"]}, "192.0.2.7", 403),  # nobody asked whoever says so
        ({"networks": ["192.0.2.0/24"], "proxies": ["127.0.0.1"]}, "192.0.2.7", 200),
        ({"networks": ["192.0.2.0/24"], "proxies": ["127.0.0.1"]}, "192.0.2.7, 8.8.8.8", 403),
        ({"networks": ["2001:db8::/32"], "proxies": ["127.0.0.1"]}, "[2001:db8::1]:4711", 200),
        ({"networks": ["127.0.0.1"], "proxies": ["127.0.0.1"]}, "198.51.100.1", 403),
    ],
)
async def test_pages_and_api_are_for_the_networks_and_health_for_all(
    serve: Serve, web: dict[str, Any], told: str, status: int
) -> None:
    client = await serve(settings(mode="sandbox", web=web))
    told_by = {"X-Forwarded-For": told} if told else {}
    for path in ("/", "/sandbox", "/api/v1/messages", "/api/gateway/v1/queue"):
        answer = await client.get(path, headers=told_by | BROWSER)
        assert answer.status_code == status, path
        if status == 403:
            assert (
                answer.text == "pages and API are not available from this network (web.networks)\n"
            )
            assert answer.headers["content-type"].startswith("text/plain")
    for path in ("/login", "/metrics", "/static/x/y", "/no"):
        answer = await client.get(path, headers=told_by)
        assert (answer.status_code == 403) is (status == 403), path
    for path in ("/healthz", "/livez"):
        assert (await client.get(path, headers=told_by)).status_code == 200


@each_of("value", ["", "a b", "a/b", "a:b", "[::1", "::1", "a:80:80", "[a]"])
def test_what_is_no_host(value: str) -> None:
    name = host_name(value)
    assert name is None or name == "a"
    assert (name == "a") is (value == "[a]")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/static/x", 404), ("/healthz", 200), ("/readyz", 503), ("/api/v1/messages", 200),
     ("/no", 404), ("/api/v1/message/latest", 404), ("/api/v1/messages?limit=x", 400)],
)  # fmt: skip
async def test_every_answer_has_the_strict_headers(serve: Serve, path: str, status: int) -> None:
    client = await serve()
    answer = await client.get(path, headers={"Origin": "http://evil.test"})
    assert answer.status_code == status
    sent = dict(answer.headers)
    assert sent["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert sent["x-content-type-options"] == "nosniff"
    assert sent["referrer-policy"] == "no-referrer"
    assert sent["cache-control"] == "no-store"
    assert "server" not in sent
    assert not [name for name in sent if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("path", "status"), [("/sandbox", 200), ("/login", 303), ("/no", 404), ("/sandbox/NO", 404)]
)
async def test_pages_may_use_what_is_ours_and_nothing_else(
    serve: Serve, path: str, status: int
) -> None:
    client = await serve()
    answer = await client.get(path, headers=BROWSER)
    assert answer.status_code == status
    if status != 303:
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "more"),
    [("/api/v1/message/latest", {}), ("/no", {"HX-Request": "true"}), ("/no", {"Accept": "*/*"})],
)
async def test_programs_and_parts_of_pages_get_a_line(
    serve: Serve, path: str, more: dict[str, str]
) -> None:
    client = await serve()
    answer = await client.get(path, headers=BROWSER | more)
    assert (answer.status_code, answer.text) == (404, "404 page not found")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; frame-")
