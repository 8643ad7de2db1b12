"""Pages and API show what was reported after a provider's 250; as it came only to operators."""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from relaygw.mail.verdict import Kind
from relaygw.store.store import Store
from tests.integration.web.queued import deliver, gateway, now_ms, queue_mail
from tests.integration.web.test_gateway_api import API, OPERATOR, VIEWER, client_of
from tests.integration.web.test_pages_queue import log_in, subjects
from tests.reported import report

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
RAW = '{"reason": "<script>alert(1)</script> \\u202e </pre><img src=x onerror=y>"}'
DETAIL = "550 <b>no</b> such user \u202e"


def reported(store: Store, subject: str, kind: Kind = Kind.HARD, *to: str) -> str:
    queue_id = queue_mail(store, subject, *to)
    deliver(store)
    more = {"dsn": "5.1.1", "detail": DETAIL, "raw": RAW}
    report(store, queue_id, kind, at_ms=now_ms(), **more)
    return queue_id


@pytest.mark.parametrize("name", ["vera", "otto", "anna"])
async def test_a_message_tells_it_and_shows_it_raw_to_operators(
    serve: Serve, store: Store, name: str
) -> None:
    queue_id = reported(store, "late", Kind.HARD, "ann@cust.test", "bob@cust.test")
    client = await log_in(await serve(gateway()), name)
    page = (await client.get(f"/queue/{queue_id}")).text
    assert '<span class="state state-failed">1 delivered, 1 returned</span>' in page
    assert "delivered to main, which reported: hard bounce, the address does not exist" in page
    assert "main reports: hard bounce, the address does not exist, for ann@cust.test" in page
    assert "event-returned" in page
    assert re.search(
        r"Reported .*: <span[^>]*>hard bounce, the address does not exist \(550 ", page
    )
    is_shown = name != "vera"
    assert ("Reports as they came" in page) is is_shown
    assert (html.escape(RAW, quote=False).split("alert")[0] in page.replace("&#34;", '"')) is (
        is_shown
    )
    for hostile in ("<script>alert", "<img src=x", "<b>no</b>"):
        assert hostile not in page


async def test_lists_and_searches_go_by_the_last_word(serve: Serve, store: Store) -> None:
    for kind in (Kind.HARD, Kind.COMPLAINED, Kind.UNSUBSCRIBED, Kind.DELIVERED):
        reported(store, kind.value, kind)
    client = await log_in(await serve(gateway()), "vera")
    for word, expected in (
        ("returned", "hard"),
        ("bounced", "hard"),
        ("complained", "complained"),
        ("unsubscribed", "unsubscribed"),
    ):
        page = (await client.get(f"/queue?result={word}")).text
        assert subjects(page) == [expected]
        assert subjects((await client.get(f"/find?q=is:{word}")).text) == [expected]
        assert 'title="main reported: ' in page
    page = (await client.get("/queue?result=complained")).text
    assert '<span class="state state-failed">complained</span>' in page
    filters = set(re.findall(r'href="/queue\?result=(\w+)', page))
    assert filters >= {"returned", "unsubscribed"}
    arrived = (await client.get("/find?q=is:arrived")).text
    assert set(subjects(arrived)) == {"delivered", "complained", "unsubscribed"}


async def test_without_reports_no_filter_speaks_of_them(serve: Serve, store: Store) -> None:
    queue_mail(store)
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get("/queue")).text
    assert "result=bounced" in page and "result=returned" not in page


async def test_the_api_has_verdicts_and_events(serve: Serve, store: Store) -> None:
    queue_id = reported(store, "late")
    for who, raw in ((VIEWER, None), (OPERATOR, RAW)):
        client = await client_of(serve, who)
        one = (await client.get(f"{API}/queue/{queue_id}")).json()
        (person,) = one["recipients"]
        assert (person["state"], person["verdict"]) == ("delivered", "hard")
        (event,) = one["events"]
        assert (event["kind"], event["provider"], event["dsn"]) == ("hard", "main", "5.1.1")
        assert (event["address"], event["detail"], event["raw"]) == ("ann@cust.test", DETAIL, raw)
        assert person["verdict_at"] == event["at"] <= event["received_at"]
        story = (await client.get(f"{API}/queue/{queue_id}/explain")).json()
        assert story["events"][-1]["kind"] == "returned"
        assert DETAIL not in story["answer"] and "could not be delivered" in story["answer"]
        found = (await client.get(f"{API}/find?q=is:returned")).json()["messages"]
        assert [each["queue_id"] for each in found] == [queue_id]
        listed = (await client.get(f"{API}/queue?result=returned")).json()["messages"]
        assert listed == found and "events" not in listed[0]
