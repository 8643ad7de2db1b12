"""The audit trail in pages and API: sentences, filters, pages; each role may read it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.mail.clock import clock_ms
from relaygw.operations.access import note_logins
from relaygw.passwords import Uses
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store
from relaygw.store.visitors import Throttled
from relaygw.web.app import create_app
from relaygw.web.queue import audit
from tests.integration.web.people import PASSWORDS, ROLES, TOKENS, with_logins
from tests.plain_http import plain_client

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
ID = "1M8FC4RK90ATX"
HOUR_MS = 3_600_000
HOSTILE = "<script>alert(1)</script>"


def note(store: Store, ago_ms: int = 0, **values: Any) -> None:
    line = {"actor": "anna", "action": "queue.hold", "target": ID, "affected": 1, "detail": ""}
    store.audit.add(AuditEntry(at_ms=clock_ms() - ago_ms, **(line | values)))


async def log_in(client: httpx2.AsyncClient, name: str) -> httpx2.AsyncClient:
    await client.post("/login", data={"name": name, "password": PASSWORDS[name]})
    return client


async def shown(client: httpx2.AsyncClient, query: str = "") -> str:
    answer = await client.get(f"/audit{query}")
    assert answer.status_code == 200
    return answer.text.partition('<ol class="deeds">')[2].partition("</ol>")[0]


async def test_lines_are_sentences_and_escaped(serve: Serve, store: Store) -> None:
    note(store, detail=f"web, recipient='@x.example' note='{HOSTILE}'", actor=HOSTILE)
    note(store, action=HOSTILE, target=HOSTILE, detail=HOSTILE)
    page = await shown(await log_in(await serve(with_logins()), "vera"))
    assert "held 1 message to @x.example in the pages because “&lt;script&gt;" in page
    assert f'<a href="/queue/{ID}">{ID}</a>' in page
    assert "<script" not in page
    assert page.count("<time ") == 2


async def test_filters_by_person_action_and_time(serve: Serve, store: Store) -> None:
    note(store, ago_ms=5 * HOUR_MS)
    note(store, actor="otto", action="queue.delete", ago_ms=3 * HOUR_MS)
    note(store, actor="otto", action="provider.hold", target="main")
    client = await log_in(await serve(with_logins()), "vera")
    key = {"Authorization": f"Bearer {TOKENS['look']}"}
    for query, number, api_query in (
        ("", 3, ""),
        ("?who=OTT", 2, "?actor=OTT"),
        ("?action=queue", 2, "?action=queue"),
        ("?action=queue.delete", 1, "?action=queue.delete"),
        ("?since=4h&until=1h", 1, "?since=4h&until=1h"),
        ("?until=4h", 1, "?until=4h"),
        ("?who=nobody", 0, "?actor=nobody"),
        ("?who=otto&action=queue&since=4h", 1, "?actor=otto&action=queue&since=4h"),
    ):
        assert (await shown(client, query)).count("<li>") == number, query
        answer = await client.get(f"/api/gateway/v1/audit{api_query}", headers=key)
        assert len(answer.json()["entries"]) == number, api_query
    entries = (await client.get("/api/gateway/v1/audit?limit=1")).json()["entries"]
    assert entries[0]["text"] == "otto held provider main"
    page = (await client.get("/audit?action=queue&who=x%22%3E&since=today")).text
    assert '<option value="queue" selected>' in page
    assert 'value="x&#34;&gt;"' in page
    assert "Nothing found." in page


@pytest.mark.parametrize("name", ["since", "until"])
async def test_what_is_no_time_is_told(serve: Serve, name: str) -> None:
    client = await log_in(await serve(with_logins()), "vera")
    answer = await client.get(f"/audit?{name}=soon")
    assert answer.status_code == 400
    assert f"{name} &#39;soon&#39; is not a time; expected today, 10:30, 2026-11-27" in answer.text
    assert f'<input name="{name}" value="soon"' in answer.text
    answer = await client.get(f"/api/gateway/v1/audit?{name}=soon")
    assert answer.json()["error"]["what"] == f"{name} 'soon' is not a time"


async def test_older_lines_are_on_the_next_page(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PAGE_ENTRIES", 2)
    at_ms = clock_ms()
    for number in range(5):  # of one moment, as of one release
        line = AuditEntry(
            at_ms=at_ms, actor=f"p{number}", action="x", target="", affected=1, detail=""
        )
        store.audit.add(line)
    client = await log_in(await serve(with_logins()), "vera")
    seen = "".join([await shown(client, f"?who=p&page={number}") for number in (1, 2, 3)])
    assert all(seen.count(f">p{number}</b>") == 1 for number in range(5))
    first = (await client.get("/audit?who=p")).text
    assert 'href="/audit?who=p&amp;page=2"' in first
    assert "Older" not in (await client.get("/audit?page=3")).text
    for odd in ("0", "-1", "x", "99999", "1" * 50):
        assert (await client.get(f"/audit?page={odd}")).status_code == 200


async def test_each_role_may_read_it_and_nobody_else(serve: Serve) -> None:
    for name in ROLES:
        client = await log_in(await serve(with_logins()), name)
        assert (await client.get("/audit?who=x")).status_code == 200
    client = await serve(with_logins())
    assert (await client.get("/audit?who=x")).status_code == 303
    assert (await client.get("/api/gateway/v1/audit?until=1h")).status_code == 401


async def test_admins_review_who_may_log_in(serve: Serve, store: Store) -> None:
    settings = with_logins(mode="production")
    at_ms = clock_ms()
    note_logins(store, settings, now_ms=at_ms - 90 * 24 * HOUR_MS)
    store.sessions.note_used({("token", "look"): at_ms - HOUR_MS})
    client = await log_in(await serve(settings), "anna")
    page = (await client.get("/access")).text
    rows = [re.sub(r"<[^>]*>", " ", row).split() for row in page.split("<tr>")[2:]]
    found = {row[0]: row[1:] for row in rows}
    assert set(found) == {"vera", "otto", "anna", "look", "tests"}
    assert found["vera"][:3] == ["person", "viewer", "never"]
    assert found["vera"][-2:] == ["90", "days"]
    assert found["look"][:2] == ["token", "viewer"]
    assert "UTC" in found["look"]
    logins = (await client.get("/api/gateway/v1/access")).json()["logins"]
    (look,) = (one for one in logins if one["name"] == "look")
    assert (look["kind"], look["role"]) == ("token", "viewer")
    assert look["since"] < look["used_at"]
    assert '<a href="/access">' in (await client.get("/audit")).text


async def test_admins_see_who_was_throttled_and_who_never_is(serve: Serve, store: Store) -> None:
    at_ms, listener = clock_ms() - HOUR_MS, "127.0.0.1:25"
    times = {"first_seen_ms": at_ms, "last_seen_ms": at_ms}
    store.visitors.note_throttled(
        Throttled(listener=listener, client=client, cause=cause, times=7, **times)
        for client, cause in (("192.0.2.7", "rate"), ("<b>x</b>", "logins"))
    )
    listeners = [{"bind": listener, "exempt": ["198.51.100.0/24"]}]
    given = {"mode": "sandbox", "listeners": listeners}
    settings = with_logins().model_copy(
        update={"listeners": Settings.model_validate(given).listeners}
    )
    client = await log_in(await serve(settings), "anna")
    page = (await client.get("/access")).text
    assert "192.0.2.7" in page
    assert "more mail than rate_per_client" in page
    assert "198.51.100.0/24" in page
    assert "<b>x" not in page
    told = (await client.get("/api/gateway/v1/clients")).json()
    assert {one["client"]: one["times"] for one in told["throttled"]} == {
        "192.0.2.7": 7,
        "<b>x</b>": 7,
    }
    (exempt,) = (one for one in told["exempt"] if one["by"] == "exempt")
    limits = ["max_connections_per_client", "rate_per_client"]
    assert (exempt["network"], exempt["limits"]) == ("198.51.100.0/24", limits)


async def test_the_review_is_for_admins_alone(serve: Serve) -> None:
    for name, role in ROLES.items():
        client = await log_in(await serve(with_logins()), name)
        status = 200 if role == "admin" else 403
        for path in ("/access", "/api/gateway/v1/access", "/api/gateway/v1/clients"):
            answer = await client.get(path, headers={"Accept": "application/json"})
            assert (answer.status_code, name, path) == (status, name, path)
        assert ("/access" in (await client.get("/audit")).text) is (role == "admin")
    client = await serve(with_logins())
    assert (await client.get("/access")).status_code == 303
    assert (await client.get("/api/gateway/v1/access")).status_code == 401
    for token in TOKENS.values():
        headers = {"Authorization": f"Bearer {token}"}
        answer = await client.get("/api/gateway/v1/access", headers=headers)
        assert answer.status_code == 403
    assert (await (await serve()).get("/access")).status_code == 403  # anyone is an operator


async def test_uses_are_noted_in_memory_by_kind(store: Store) -> None:
    uses = Uses()
    settings = with_logins()
    app = create_app(store, settings, uses=uses)
    transport = httpx2.ASGITransport(app=app)
    async with plain_client(transport=transport, base_url="http://localhost") as client:
        await client.get("/sandbox")
        assert uses == {}
        await log_in(client, "vera")
        await client.get("/sandbox")
        assert set(uses) == {("web", "vera")}
        client.cookies.clear()
        headers = {"Authorization": f"Bearer {TOKENS['look']}"}
        await client.get("/api/v1/messages", headers=headers)
        await client.get("/api/v1/messages", auth=("otto", PASSWORDS["otto"]))
        await client.get("/api/v1/messages", auth=("tests", TOKENS["tests"]))
    assert set(uses) == {("web", "vera"), ("token", "look"), ("web", "otto"), ("token", "tests")}
    assert store.sessions.known() == []
