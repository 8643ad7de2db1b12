"""The queue as a list in a browser without scripts: searches, pages, changes, and who may."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.mail.envelope import NewDelivery, NewRecipient
from relaygw.mail.state import RecipientState
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.integration.web.conftest import sandbox
from tests.integration.web.people import PASSWORDS, RELAY
from tests.integration.web.queued import defer, gateway, now_ms, queue_mail, state_of

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

R = RecipientState
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


async def log_in(client: httpx2.AsyncClient, name: str) -> httpx2.AsyncClient:
    answer = await client.post("/login", data={"name": name, "password": PASSWORDS[name]})
    assert answer.status_code == 303
    return client


async def token(client: httpx2.AsyncClient, path: str = "/queue") -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', (await client.get(path)).text)
    assert found is not None
    return found[1]


async def send(client: httpx2.AsyncClient, **fields: Any) -> httpx2.Response:
    return await client.post("/queue/change", data={"csrf": await token(client), **fields})


def subjects(page: str) -> list[str]:
    return re.findall(r'class="mail-subject"[^>]*>([^<]*)<', page)


def hidden_fields(page: str) -> dict[str, list[str]]:
    """Return the fields that the form around the list, or a question, sends along."""
    form = page[page.index("/queue/change") :]
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form):
        fields.setdefault(name, []).append(value)
    return fields


async def test_the_oldest_first_with_state_and_reason(serve: Serve, store: Store) -> None:
    queue_mail(store, "first", age_s=7200)
    defer(store)
    queue_mail(store, "second", "ann@cust.test", "bob@cust.test")
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get("/queue")).text
    assert subjects(page) == ["first", "second"]
    assert "Greylisted, please try again" in page
    assert re.findall(r'class="state [^"]+">([^<]+)<', page) == ["deferred", "incoming"]
    assert re.search(r">ann@cust.test</span><span[^>]*>&nbsp;\+1<", page)
    assert re.search(r'Deferred <span class="rail-number">1<', page)


async def test_an_empty_queue(serve: Serve) -> None:
    client = await serve()
    assert "Nothing waits" in (await client.get("/queue")).text
    assert "Nothing found" in (await client.get("/queue?subject=x")).text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"subject": "ORDER"}, ["Order 1", "Order 2"]),
        ({"subject": "order", "recipient": "bob@"}, ["Order 2"]),
        ({"sender": "news@"}, ["Order 2"]),
        ({"sender": "<>"}, ["Bounce"]),
        ({"state": "deferred"}, ["Order 1"]),
        ({"state": ["deferred", "incoming"], "subject": "order"}, ["Order 1", "Order 2"]),
        ({"state": "finished"}, []),
        ({"provider": "main"}, ["Order 1"]),
        ({"reason": "greylisted"}, ["Order 1"]),
        ({"reply": "five minutes"}, ["Order 1"]),
        ({"route": "other"}, []),
        ({"client": "10.0.0.7", "subject": "order 1"}, ["Order 1"]),
        ({"older_than": "1h"}, ["Order 1"]),
        ({"subject": "", "state": ""}, ["Order 1", "Order 2", "Bounce"]),
    ],
)
async def test_searching_by_every_selector(
    serve: Serve, store: Store, query: dict[str, Any], found: list[str]
) -> None:
    queue_mail(store, "Order 1", age_s=7200)
    defer(store)
    queue_mail(store, "Order 2", "bob@cust.test", sender="news@shop.test")
    queue_mail(store, "Bounce", sender="")
    client = await serve()
    answer = await client.get("/queue", params=query)
    assert answer.status_code == 200
    assert subjects(answer.text) == found


@pytest.mark.parametrize(
    ("query", "words"),
    [({"state": "lost"}, "state 'lost' is not known"), ({"older_than": "x"}, "is not a duration")],
)
async def test_what_nothing_can_be_searched_by(
    serve: Serve, query: dict[str, str], words: str
) -> None:
    answer = await (await serve()).get("/queue", params=query)
    assert answer.status_code == 400
    assert words in answer.text


async def test_pages_by_id(serve: Serve, store: Store) -> None:
    for number in range(120):
        queue_mail(store, f"number {number}", age_s=1000 - number)
    client = await serve()
    seen: list[str] = []
    path = "/queue?subject=number"
    for rows in (50, 50, 20):
        page = (await client.get(path)).text
        assert len(subjects(page)) == rows
        seen += subjects(page)
        following = re.search(r'href="([^"]+)">Newer<', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert path == ""
    assert seen == [f"number {number}" for number in range(120)]


async def test_nothing_of_a_mail_becomes_html(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store, HOSTILE, f"{HOSTILE}@x.test", sender=f"{HOSTILE}@y.test")
    defer(store, reply=f"451 {HOSTILE}")
    client = await serve()
    for path in ("/queue", f"/queue?subject={HOSTILE}", f"/queue/{queue_id}", "/", "/audit"):
        answer = await client.get(path)
        assert "<img src=x" not in answer.text
        assert "<script>" not in answer.text
    asked = await send(client, action="hold", tick=queue_id)
    assert "Hold 1 message?" in asked.text
    assert "<img src=x" not in asked.text


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("retry", "deferred", "deferred"),
        ("hold", "incoming", "held"),
        ("release", "held", "deferred"),
        ("delete", "incoming", "deleted"),
        ("undelete", "deleted", "deferred"),
        ("expire", "incoming", "finished"),
    ],
)
async def test_changes_ask_first(
    serve: Serve, store: Store, action: str, before: str, after: str
) -> None:
    queue_id = queue_mail(store)
    if before == "deferred":
        defer(store)
    client = await log_in(await serve(gateway()), "otto")
    for earlier in {"held": ["hold"], "deleted": ["delete"]}.get(before, []):
        await send(client, action=earlier, tick=queue_id, confirmed="1")
    assert state_of(store, queue_id) == before
    asked = await send(client, action=action, tick=queue_id)
    assert asked.status_code == 200
    assert re.search(r"<h1>\w+ 1 message\?</h1>", asked.text)
    assert state_of(store, queue_id) == before
    done = await client.post("/queue/change", data=hidden_fields(asked.text))
    assert done.status_code == 303
    assert state_of(store, queue_id) == after
    entry = store.audit.entries(limit=1)[0]
    assert (entry.actor, entry.action, entry.target) == ("otto", f"queue.{action}", queue_id)
    assert "1 message" in (await client.get(done.headers["location"])).text


async def test_mail_is_moved_to_a_provider(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    client = await log_in(await serve(gateway()), "otto")
    asked = await send(client, action="move", tick=queue_id)
    assert "<option>spare</option>" in asked.text
    fields = hidden_fields(asked.text)
    refused = await client.post("/queue/change", data={**fields, "to": "nobody"})
    assert refused.status_code == 400
    await client.post("/queue/change", data={**fields, "to": "spare"})
    assert "spare" in store.audit.entries(limit=1)[0].detail


async def test_all_that_match_and_no_more(serve: Serve, store: Store) -> None:
    wanted = [queue_mail(store, f"Order {number}", age_s=60) for number in range(70)]
    other = queue_mail(store, "Invoice", age_s=60)
    client = await log_in(await serve(gateway()), "otto")
    fields = hidden_fields((await client.get("/queue?subject=order")).text)
    later = queue_mail(store, "Order after somebody looked", age_s=-5)
    asked = await client.post("/queue/change", data={**fields, "all": "delete"})
    assert "Delete 70 messages?" in asked.text
    assert "and 50 more" in asked.text
    assert {state_of(store, one) for one in wanted} == {"incoming"}
    await client.post("/queue/change", data=hidden_fields(asked.text))
    assert {state_of(store, one) for one in wanted} == {"deleted"}
    assert state_of(store, other) == state_of(store, later) == "incoming"
    assert store.audit.entries(limit=1)[0].detail == "web, subject='order'"


async def test_what_is_left_alone_is_named(serve: Serve, store: Store) -> None:
    fresh, tried = queue_mail(store, "fresh", age_s=-100), queue_mail(store, "tried")
    client = await log_in(await serve(gateway()), "otto")
    await send(client, action="hold", tick=tried, confirmed="1", note="look at it")
    answer = await send(client, action="release", tick=[fresh, tried], confirmed="1")
    assert "Release: 1 message done" in answer.text
    assert "release is for mail that is held" in answer.text
    assert state_of(store, tried) == "deferred"


async def test_a_viewer_looks_and_changes_nothing(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    client = await log_in(await serve(gateway()), "vera")
    for path in ("/queue", f"/queue/{queue_id}", "/"):
        page = (await client.get(path)).text
        assert 'name="action"' not in page
        assert 'name="all"' not in page
    for path in ("/queue/change", "/providers/change"):
        fields = {"csrf": await token(client), "action": "hold", "tick": queue_id,
                  "provider": "main", "confirmed": "1"}  # fmt: skip
        assert (await client.post(path, data=fields)).status_code == 403
    assert state_of(store, queue_id) == "incoming"
    assert store.holds.in_force() == []


@pytest.mark.parametrize("path", ["/", "/queue", "/queue/ABCDEFGHIJ", "/audit"])
async def test_who_gets_in(serve: Serve, path: str) -> None:
    nobody = await serve(Settings.model_validate({"mode": "production", **RELAY}))
    assert (await nobody.get(path)).status_code == 403
    client = await serve(gateway())
    answer = await client.get(path)
    assert (answer.status_code, answer.headers["location"][:11]) == (303, "/login?next")
    basic = await client.get(path, auth=("anna", PASSWORDS["anna"]))
    assert basic.status_code == 303


async def test_a_form_of_another_page_changes_nothing(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    client = await log_in(await serve(gateway()), "otto")
    fields = {"action": "delete", "tick": queue_id, "confirmed": "1"}
    assert (await client.post("/queue/change", data=fields)).status_code == 403
    assert (await client.post("/queue/change", data={**fields, "csrf": "x"})).status_code == 403
    answer = await send(client, action="burn", tick=queue_id)
    assert answer.status_code == 400
    assert state_of(store, queue_id) == "incoming"


async def test_below_a_path(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    client = await serve(sandbox(base_path="/mail"))
    for path in ("/mail/", "/mail/queue", f"/mail/queue/{queue_id}", "/mail/audit"):
        page = (await client.get(path)).text
        assert re.findall(r'(?:href|action|src)="(/[^"]*)"', page)
        outside = re.findall(r'(?:href|action|src)="(/(?!mail/)[^"]*)"', page)
        assert outside == []
    csrf = await token(client, "/mail/queue")
    answer = await client.post(
        "/mail/queue/change",
        data={"csrf": csrf, "action": "hold", "tick": queue_id, "confirmed": "1"},
    )
    assert answer.headers["location"].startswith("/mail/queue?")


# --- what became of it ------------------------------------------------------------------------


def ended(store: Store, subject: str, *results: RecipientState, **more: Any) -> str:
    """Store a message whose recipients came to results when it was accepted."""
    people = tuple(
        NewRecipient(address=f"{n}.{result}@cust.test", state=result, reason=f"it is {result}")
        for n, result in enumerate(results)
    )
    part = NewDelivery(route="default", stream="transactional", recipients=people)
    return queue_mail(store, subject, deliveries=(part,), **more)


async def test_mail_by_result(serve: Serve, store: Store) -> None:
    ended(store, "old", R.BOUNCED, age_s=3 * 86_400)
    ended(store, "young", R.BOUNCED)
    ended(store, "mixed", R.DELIVERED, R.BOUNCED, R.DELIVERED)
    ended(store, "fine", R.DELIVERED)
    client = await serve()
    page = (await client.get("/queue?result=bounced")).text
    assert subjects(page) == ["mixed", "young", "old"]
    states = re.findall(r'class="state ([^"]+)">([^<]+)<', page)
    assert states == [
        ("state-failed", "2 delivered, 1 bounced"),
        ("state-failed", "bounced"),
        ("state-failed", "bounced"),
    ]
    assert re.findall(r'title="(it is [^"]+)"', page)[0] == "it is bounced"
    assert re.findall(r'class="mail-to" dir="auto">([^<]+)<', page)[0] == "1.bounced@cust.test"
    assert page.count('class="day"') == 2
    assert subjects((await client.get("/queue?result=bounced&since=1d")).text) == ["mixed", "young"]
    turned = (await client.get("/queue?result=bounced&order=oldest")).text
    assert subjects(turned) == ["old", "young", "mixed"]
    both = (await client.get("/queue?result=bounced,delivered&until=1d")).text
    assert subjects(both) == ["old"]
    story = (await client.get(f"/queue/{ended(store, 'x', R.EXPIRED, R.BOUNCED)}")).text
    assert 'state-failed">1 bounced, 1 expired<' in story


async def test_a_list_of_a_result_names_who_came_to_it(serve: Serve, store: Store) -> None:
    ended(store, "mixed", R.PENDING, R.BOUNCED)
    client = await serve()
    for path, to, state in (
        ("/queue", "0.pending", "incoming"),
        ("/queue?result=bounced", "1.bounced", "incoming, 1 bounced"),
        ("/find?q=is:bounced", "1.bounced", "incoming, 1 bounced"),
        ("/find?q=-is:delivered", "0.pending", "incoming"),
    ):
        page = (await client.get(path)).text
        assert re.findall(r'class="mail-to" dir="auto">([^<]+)<', page) == [f"{to}@cust.test"]
        assert re.findall(r'class="state [^"]+">([^<]+)<', page) == [state]


async def test_results_of_today_are_counted_and_lead_to_their_list(
    serve: Serve, store: Store
) -> None:
    ended(store, "long ago", R.BOUNCED, age_s=3 * 86_400)
    ended(store, "a", R.BOUNCED, R.BOUNCED)
    ended(store, "b", R.EXPIRED)
    store.watch.add_history(now_ms(), {("delivered", "main"): 40, ("delivered", "spare"): 2})
    store.watch.add_history(now_ms() - 3 * 86_400_000, {("delivered", "main"): 1000})
    store.watch.add_history(now_ms(), {("captured", "sandbox"): 3})
    page = (await (await serve()).get("/queue?recipient=cust")).text
    found = re.findall(r'href="([^"]+)">(\w+) <span class="rail-number">(\d+)<', page)
    counts = {label: number for path, label, number in found if "result=" in path}
    assert counts == {
        **{"Delivered": "42", "Bounced": "2", "Expired": "1"},
        **{"Blocked": "0", "Captured": "3", "Cancelled": "0"},
    }
    (path,) = (path.replace("&amp;", "&") for path, label, _ in found if label == "Bounced")
    assert path == "/queue?recipient=cust&result=bounced&since=today"
    page = (await (await serve()).get(path)).text
    assert subjects(page) == ["a"]
    back = re.search(r'href="([^"]+)" aria-current="true">Bounced', page)
    assert back is not None and back[1] == "/queue?recipient=cust"


async def test_pages_of_results(serve: Serve, store: Store) -> None:
    for number in range(120):
        ended(store, f"number {number}", R.DELIVERED, age_s=1000 - number)
    client = await serve()
    seen: list[str] = []
    path = "/queue?result=delivered"
    for rows in (50, 50, 20):
        page = (await client.get(path)).text
        assert len(subjects(page)) == rows
        seen += subjects(page)
        following = re.search(r'href="([^"]+)">Older<', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert path == ""
    assert seen == [f"number {number}" for number in reversed(range(120))]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"state": "bounced"}, "it is a result: write result=bounced"),
        ({"result": "held"}, "it is a state: write state=held"),
        (
            {"result": "lost"},
            "Result &#39;lost&#39; is not known; expected arrived, blocked,",
        ),
        ({"order": "up"}, "Order &#39;up&#39; is not known; expected newest or oldest"),
    ],
)
async def test_what_is_no_result_and_no_time(
    serve: Serve, query: dict[str, str], words: str
) -> None:
    accept = {"Accept": "text/html"}
    answer = await (await serve()).get("/queue", params=query, headers=accept)
    assert answer.status_code == 400
    assert words in answer.text


async def test_what_is_wrong_stands_in_the_form_beside_its_error(
    serve: Serve, store: Store
) -> None:
    queue_mail(store)
    given = {"since": "soon", "until": "<late>", "uid": "root", "older_than": "x", "sender": "shop"}
    answer = await (await serve()).get("/queue", params=given)
    page = answer.text
    assert answer.status_code == 400
    for words in (
        'name="since" value="soon"',
        "since &#39;soon&#39; is not a time; expected today, 10:30",
        'name="until" value="&lt;late&gt;"',
        "until &#39;&lt;late&gt;&#39; is not a time",
        "uid &#39;root&#39; is not a user ID",
        "older_than &#39;x&#39; is not a duration",
        'name="sender" value="shop"',
    ):
        assert words in page, words
    assert subjects(page) == [] and 'id="bulk"' not in page and page.count('id="by-since"') == 1
    assert 'id="bulk"' in (await (await serve()).get("/queue?since=today")).text


async def test_all_that_match_by_result_and_no_more(serve: Serve, store: Store) -> None:
    parts = tuple(
        NewDelivery(route=route, stream="transactional", recipients=(one,))
        for route, one in (
            ("captured", NewRecipient(address="a@cust.test", state=R.BOUNCED)),
            ("default", NewRecipient(address="b@cust.test")),
        )
    )
    wanted = queue_mail(store, "in part", deliveries=parts)
    ended(store, "whole", R.BOUNCED)
    other = queue_mail(store, "other")
    client = await log_in(await serve(gateway()), "otto")
    fields = hidden_fields((await client.get("/queue?result=bounced&since=1h")).text)
    asked = await client.post("/queue/change", data={**fields, "all": "hold"})
    assert "Hold 1 message?" in asked.text
    await client.post("/queue/change", data=hidden_fields(asked.text))
    (entry,) = store.queue.entries([wanted])
    assert {part.state.value for part in entry.deliveries} == {"finished", "held"}
    assert state_of(store, other) == "incoming"
