"""`/api/gateway/v1`: the queue, providers and what is watched, for programs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.mail.state import RecipientState
from relaygw.operations.queue_object import queue_object
from relaygw.store.holds import Hold
from relaygw.store.store import Store
from relaygw.store.watch import Incident
from tests.integration.web.people import PASSWORDS, TOKENS
from tests.integration.web.queued import defer, gateway, now_ms, queue_mail, state_of
from tests.integration.web.test_pages_queue import ended, log_in, token

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
API = "/api/gateway/v1"
OPERATOR = {"Authorization": f"Bearer {TOKENS['tests']}"}
VIEWER = {"Authorization": f"Bearer {TOKENS['look']}"}


async def client_of(serve: Serve, headers: dict[str, str] = OPERATOR) -> httpx2.AsyncClient:
    client = await serve(gateway())
    client.headers.update(headers)
    return client


async def test_a_page_of_messages_as_the_command_line_prints_them(
    serve: Serve, store: Store
) -> None:
    ids = [queue_mail(store, f"Order {number}") for number in range(3)]
    queue_mail(store, "Invoice")
    client = await client_of(serve, VIEWER)
    answer = (await client.get(f"{API}/queue?subject=order&limit=2")).json()
    assert answer["messages"] == [queue_object(entry) for entry in store.queue.entries(ids[:2])]
    assert answer["next"] == ids[1]
    rest = (await client.get(f"{API}/queue?subject=order&limit=2&after={ids[1]}")).json()
    assert [one["queue_id"] for one in rest["messages"]] == ids[2:]
    assert rest["next"] is None
    one = (await client.get(f"{API}/queue/{ids[0].lower()}")).json()
    assert one == {**answer["messages"][0], "events": []}
    story = (await client.get(f"{API}/queue/{ids[0]}/explain")).json()
    assert (story["queue_id"], story["state"]) == (ids[0], "incoming")
    assert story["events"][0]["kind"] == "accepted"


async def test_changes_by_ids(serve: Serve, store: Store) -> None:
    one, two = queue_mail(store), queue_mail(store)
    client = await client_of(serve)
    body: dict[str, Any] = {"ids": [one, two.lower(), "NOSUCHMAIL0"], "note": "look at it"}
    dry = (await client.post(f"{API}/queue/hold", json={**body, "dry_run": True})).json()
    assert (dry["dry_run"], dry["changed"]) == (True, [one, two])
    assert state_of(store, one) == "incoming"
    done = (await client.post(f"{API}/queue/hold", json=body)).json()
    assert (done["number"], done["changed"]) == (2, [one, two])
    assert done["left"] == [
        {"queue_id": "NOSUCHMAIL0", "why": "it is no longer there", "is_temporary": False}
    ]
    assert state_of(store, one) == "held"
    entry = store.audit.entries(limit=1)[0]
    assert (entry.actor, entry.action) == ("tests", "queue.hold")
    assert entry.detail == "api note='look at it'"
    again = (await client.post(f"{API}/queue/hold", json={"ids": [one]})).json()
    assert again["number"] == 0
    assert "an operator holds it already" in again["left"][0]["why"]


async def test_changes_by_conditions(serve: Serve, store: Store) -> None:
    order, invoice = queue_mail(store, "Order", age_s=5), queue_mail(store, "Invoice", age_s=5)
    client = await client_of(serve)

    async def act(action: str, body: dict[str, Any]) -> list[str]:
        answer = await client.post(f"{API}/queue/{action}", json=body)
        assert answer.status_code == 200, answer.text
        changed: list[str] = answer.json()["changed"]
        return changed

    assert await act("delete", {"select": {"subject": "order"}}) == [order]
    assert store.audit.entries(limit=1)[0].detail == "api, subject='order'"
    assert await act("undelete", {"select": {"subject": "order", "state": ["deleted"]}}) == [order]
    assert await act("move", {"all": True, "provider": "spare"}) == [order, invoice]
    assert await act("expire", {"select": {"sender": "a@shop"}, "note": "old"}) == [order, invoice]
    assert await act("retry", {"all": True}) == []


@pytest.mark.parametrize(
    ("action", "body", "words"),
    [
        ("delete", None, "the body names nothing"),
        ("delete", {}, "the body names nothing"),
        ("delete", {"ids": ["ABCDEFGHIJ"], "all": True}, "the body names ids and all"),
        ("delete", {"select": {}}, "select has no condition"),
        ("delete", {"select": {"sender": ""}}, "select.sender is empty"),
        ("delete", {"select": {"sender": None}}, "select.sender is empty or no text"),
        ("delete", {"select": {"form": "x"}}, "select.form is not known"),
        ("delete", {"select": {"state": "lost"}}, "state 'lost' is not known"),
        ("delete", {"all": False}, "all is false"),
        ("delete", {"all": 1}, "all is not true or false"),
        ("delete", {"ids": "ABCDEFGHIJ"}, "ids is not a list of texts"),
        ("delete", {"ids": ["*"]}, "'*' is not a queue id"),
        ("delete", {"all": True, "note": "x"}, "'note' in the body is not known"),
        ("delete", [], "not a JSON object"),
        ("delete", "{", "not JSON"),
        ("delete", "[" * 100_000, "not JSON"),
        ("delete", '{"select":{"subject":"\\ud800"}}', "the body has '\\ud800'"),
        ("delete", '{"ids":["\\udfff"]}', "the body has '\\udfff'"),
        ("delete", '{"\\ud800":1}', "the body has '\\ud800'"),
        ("hold", '{"all":true,"note":"x\\ud800y"}', "the body has '\\ud800'"),
        ("delete", '{"select":{"subject":"\\u0000"}}', "subject has '\\x00'"),
        ("delete", {"select": {"subject": "x" * 1001}}, "subject has 1,001 characters"),
        ("move", {"all": True}, "provider '' is not known"),
        ("move", {"all": True, "provider": "x"}, "provider 'x' is not known"),
    ],
)
async def test_what_is_not_understood_changes_nothing(
    serve: Serve, store: Store, action: str, body: Any, words: str
) -> None:
    queue_id = queue_mail(store, age_s=5)
    client = await client_of(serve)
    content = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    answer = await client.post(f"{API}/queue/{action}", content=content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert words in error["what"]
    assert set(error) == {"status", "what", "expected", "remedy"}
    assert state_of(store, queue_id) == "incoming"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/queue?form=x", 400, "parameter 'form' is not known"),
        ("/queue?sender=", 400, "sender is empty"),
        ("/queue?limit=0", 400, "limit '0' is not valid"),
        ("/queue?limit=000000001999999999999", 400, "limit '00000000199999999999' is not valid"),
        ("/queue?limit=1e9", 400, "limit '1e9' is not valid"),
        (f"/queue?subject={'x' * 1001}", 400, "subject has 1,001 characters"),
        (f"/audit?actor={'x' * 1001}", 400, "actor has 1,001 characters"),
        ("/audit?actor=%00", 400, "actor has '\\x00'"),
        ("/queue?subject=%00", 400, "subject has '\\x00'"),
        ("/queue?after=x", 400, "after 'X' is not a queue id"),
        ("/queue?since=5m&until=10m", 400, "since '5m' is not earlier than until"),
        ("/queue?state=lost", 400, "state 'lost' is not known"),
        ("/queue/NOSUCHMAIL0", 404, "there is no message NOSUCHMAIL0"),
        ("/queue/NOSUCHMAIL0/explain", 404, "there is no message NOSUCHMAIL0"),
        ("/history?series=x", 400, "series 'x' is not known"),
        ("/history?since=soon", 400, "since 'soon' is not a time"),
        ("/providers?x=1", 400, "parameter 'x' is not known"),
        ("/nothing", 404, "Not Found"),
    ],
)
async def test_errors_are_json(serve: Serve, path: str, status: int, words: str) -> None:
    client = await client_of(serve)
    answer = await client.get(API + path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert words in answer.json()["error"]["what"]


async def test_providers_are_held_and_released(serve: Serve, store: Store) -> None:
    client = await client_of(serve)
    held = await client.post(f"{API}/providers/main/hold", json={"note": "look"})
    assert held.json() == {"provider": "main", "was_held": False}
    assert (await client.post(f"{API}/providers/main/hold")).json()["was_held"] is True
    main, spare = (await client.get(f"{API}/providers")).json()["providers"]
    assert (main["name"], main["state"], spare["state"]) == ("main", "held", "ok")
    assert (main["daily_quota"], main["quota_used"], main["rate"]) == (1000, 0, "10/s")
    ended = (await client.post(f"{API}/providers/main/release")).json()["ended"]
    assert [one["reason"] for one in ended] == ["operator: tests"]
    missing = await client.post(f"{API}/providers/x/hold")
    assert missing.json()["error"]["expected"] == "one of main, spare"


async def test_a_hold_of_a_provider_that_is_gone_is_ended(serve: Serve, store: Store) -> None:
    hold = Hold(
        scope="provider", key="old", reason="r", remedy="", since_ms=now_ms(), probe_at_ms=None
    )
    store.holds.put_hold(hold)
    client = await client_of(serve)
    assert (await client.post(f"{API}/providers/old/hold")).status_code == 404
    ended = (await client.post(f"{API}/providers/old/release")).json()["ended"]
    assert [one["key"] for one in ended] == ["old"]
    assert (await client.post(f"{API}/providers/old/release")).status_code == 404


async def test_what_is_watched(serve: Serve, store: Store) -> None:
    now = now_ms()
    queue_id = queue_mail(store)
    defer(store)
    for ago_s, amount in ((0, 4), (7 * 3600, 9)):
        store.watch.add_history(now - ago_s * 1000, {("delivered", "main"): amount})
    store.watch.open_incident(
        Incident(incident_id="i", rule="queue_age", key="", summary="s", remedy="r", since_ms=now)
    )
    client = await client_of(serve)
    status = (await client.get(f"{API}/status")).json()
    assert status["lanes"][0]["state"] == "deferred"
    assert any("no front runs" in text for text in status["warnings"])
    points = (await client.get(f"{API}/history")).json()["points"]
    assert [(one["series"], one["amount"]) for one in points] == [("delivered", 4)]
    older = (await client.get(f"{API}/history?since=8h&series=delivered")).json()["points"]
    assert [one["amount"] for one in older] == [9, 4]
    incidents = (await client.get(f"{API}/incidents")).json()["incidents"]
    assert [(one["rule"], one["recovered_at"]) for one in incidents] == [("queue_age", None)]
    await client.post(f"{API}/queue/retry", json={"ids": [queue_id]})
    await client.post(f"{API}/providers/main/hold")
    entries = (await client.get(f"{API}/audit?action=queue")).json()["entries"]
    assert [(one["actor"], one["action"]) for one in entries] == [("tests", "queue.retry")]


async def test_who_may(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    client = await serve(gateway())
    nobody = await client.get(f"{API}/queue")
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"].startswith("Basic")
    assert "bearer" in nobody.json()["error"]["remedy"]
    body = {"ids": [queue_id]}
    for headers, status in ((VIEWER, 403), (OPERATOR, 200)):
        answer = await client.post(f"{API}/queue/hold", json=body, headers=headers)
        assert answer.status_code == status
        assert ("error" in answer.json()) is (status == 403)
    basic = await client.get(f"{API}/queue", auth=("vera", PASSWORDS["vera"]))
    assert basic.status_code == 200


async def test_a_browser_needs_the_token_of_a_page(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    client = await log_in(await serve(gateway()), "otto")
    body = {"ids": [queue_id]}
    without = await client.post(f"{API}/queue/hold", json=body)
    assert without.status_code == 403
    assert "out of date" in without.json()["error"]["what"]
    foreign = await client.post(
        f"{API}/queue/hold", json=body, headers={"Origin": "http://evil.test"}
    )
    assert foreign.status_code == 403
    headers = {"X-CSRF-Token": await token(client)}
    assert (await client.post(f"{API}/queue/hold", json=body, headers=headers)).status_code == 200


async def test_any_mail_is_found(serve: Serve, store: Store) -> None:
    ids = [queue_mail(store, f"Order #00{number}") for number in range(3)]
    client = await client_of(serve, VIEWER)
    answer = (await client.get(f"{API}/find?q=%2300&limit=2")).json()
    assert answer["messages"] == [queue_object(one) for one in store.queue.entries(ids[1:])[::-1]]
    rest = (await client.get(f"{API}/find?q=%2300&limit=2&before={answer['next']}")).json()
    assert [one["queue_id"] for one in rest["messages"]] == ids[:1]
    none = (await client.get(f"{API}/find?q=is:bounced&since=1h")).json()
    assert (none["messages"], none["next"], none["until"]) == ([], None, None)
    assert none["looked"] == "looked at all mail, in every state"


@pytest.mark.parametrize(
    ("query", "what"),
    [
        ("", "nothing to find"),
        ("?q=after:banana", "'after:banana' is not a time"),
        ("?q=x&since=banana", "'banana' is not a time"),
        ("?q=x&result=lost", "result 'lost' is not known"),
        ("?q=x&before=y.1", "before 'y.1' is not a position in a search"),
        ("?q=x&user=shop1", "parameter 'user' is not known"),
        (f"?q={'x' * 10_000}", "q has 10,000 characters"),
    ],
)
async def test_what_cannot_be_found_is_told(serve: Serve, query: str, what: str) -> None:
    client = await client_of(serve, VIEWER)
    answer = await client.get(f"{API}/find{query}")
    assert (answer.status_code, answer.json()["error"]["what"]) == (400, what)


async def test_messages_by_result(serve: Serve, store: Store) -> None:
    old, young = (ended(store, "x", RecipientState.BOUNCED, age_s=age_s) for age_s in (7200, 60))
    queue_mail(store)
    client = await client_of(serve, VIEWER)

    async def found(query: str) -> list[str]:
        answer = (await client.get(f"{API}/queue?{query}")).json()
        return [one["queue_id"] for one in answer["messages"]]

    assert await found("result=bounced") == [young, old]
    assert await found("result=bounced&order=oldest") == [old, young]
    assert await found("result=bounced&since=1h") == [young]
    assert await found("result=delivered&result=bounced&until=1h&uid=33") == [old]
    first = (await client.get(f"{API}/queue?result=bounced&limit=1")).json()
    assert first["next"] == young
    assert await found(f"result=bounced&limit=1&after={young}") == [old]
    told = (await client.get(f"{API}/queue?state=bounced")).json()["error"]
    assert told["remedy"] == "it is a result: write result=bounced"
    chosen = {"select": {"result": ["bounced", "expired"]}, "dry_run": True}
    client.headers.update(OPERATOR)
    done = (await client.post(f"{API}/queue/hold", json=chosen)).json()
    assert done["changed"] == []
