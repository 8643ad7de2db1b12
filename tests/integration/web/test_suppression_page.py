"""Suppressed addresses in pages and API: found, added and lifted, by who may."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.suppression import Cause, Suppression
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store
from tests.integration.web.people import PASSWORDS, TOKENS, with_logins

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
API = "/api/gateway/v1/suppressions"
ANN = "ann@cust.test"
HOSTILE = "<script>alert(1)</script>"


def add(store: Store, *addresses: str, **more: Any) -> None:
    values = {"cause": Cause.BOUNCE, "source": "ses", "created_at_ms": clock_ms(), **more}
    entries = [Suppression(address=one, **values) for one in addresses]
    done = {"actor": "x", "action": "suppression.add", "target": "", "detail": ""}
    store.suppressions.suppress(entries, entry=AuditEntry(at_ms=1, affected=1, **done))


async def log_in(client: httpx2.AsyncClient, name: str) -> httpx2.AsyncClient:
    await client.post("/login", data={"name": name, "password": PASSWORDS[name]})
    return client


async def post(client: httpx2.AsyncClient, **fields: str) -> httpx2.Response:
    page = (await client.get("/suppression")).text
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    return await client.post(
        "/suppression/change",
        data={"csrf": csrf[1] if csrf else "", **fields},
        follow_redirects=True,
    )


async def test_the_page_shows_and_escapes(serve: Serve, store: Store) -> None:
    add(store, ANN, detail=HOSTILE, queue_id="1M8FC4RK90ATX")
    add(store, *(f"u{n:03}@x.test" for n in range(150)), created_at_ms=1_764_064_800_000)
    client = await log_in(await serve(with_logins()), "vera")
    page = (await client.get("/suppression")).text
    assert "151 in force, newest first" in page
    assert "&lt;script&gt;" in page and HOSTILE not in page
    assert 'href="/queue/1M8FC4RK90ATX"' in page
    assert "/suppression/change" not in page, "a viewer changes nothing"
    assert page.count('<th scope="row">') == 100
    following = re.search(r'rel="next" href="([^"]+)"', page)
    assert following
    rest = (await client.get(following[1].replace("&amp;", "&"))).text
    assert rest.count('<th scope="row">') == 51
    assert "Nothing found" in (await client.get("/suppression?q=nobody")).text
    assert (await client.get("/suppression?reason=bounce&q=ANN")).text.count('scope="row"') == 1
    assert (await client.get("/suppression?after=x")).status_code == 400


async def test_an_operator_adds_and_lifts(serve: Serve, store: Store) -> None:
    client = await log_in(await serve(with_logins()), "otto")
    done = await post(
        client, action="add", addresses=" Ann@Cust.test ", sender_domain="shop.test", note="n"
    )
    assert "The address is suppressed." in done.text
    (one,) = store.suppressions.suppressed(limit=9)
    assert (one.address, one.sender_domain) == (ANN, "shop.test")
    assert (one.source, one.detail) == ("otto", "n")
    wrong = await post(client, action="add", addresses=f"nobody{HOSTILE}")
    assert wrong.status_code == 400
    assert "is not an address" in wrong.text and HOSTILE not in wrong.text
    lifted = await post(
        client, action="remove", addresses=ANN, sender_domain="shop.test", stream=""
    )
    assert "not suppressed any more" in lifted.text
    assert store.suppressions.suppressed(limit=9) == []
    actions = [(one.actor, one.action) for one in store.audit.entries(limit=2)]
    assert actions == [("otto", "suppression.remove"), ("otto", "suppression.add")]


@pytest.mark.parametrize("way", ["page", "api"])
async def test_the_entry_of_both_streams_is_lifted_alone(
    serve: Serve, store: Store, way: str
) -> None:
    """Who bounced and has unsubscribed stays unsubscribed."""
    add(store, ANN)
    add(store, ANN, cause=Cause.UNSUBSCRIBE, stream="promotional")
    client = await serve(with_logins())
    if way == "page":
        await log_in(client, "otto")
        done = await post(client, action="remove", addresses=ANN, sender_domain="", stream="")
    else:
        headers = {"Authorization": f"Bearer {TOKENS['tests']}"}
        body = {"addresses": [ANN], "stream": ""}
        done = await client.post(f"{API}/remove", json=body, headers=headers)
    assert done.status_code == 200
    (left,) = store.suppressions.suppressed(limit=9)
    assert (left.cause, left.stream) == (Cause.UNSUBSCRIBE, "promotional")


async def test_a_form_without_an_address_lifts_nothing(serve: Serve, store: Store) -> None:
    add(store, ANN)
    client = await log_in(await serve(with_logins()), "otto")
    wrong = await post(client, action="remove", sender_domain="", stream="")
    assert (wrong.status_code, "addresses is missing" in wrong.text) == (400, True)
    assert len(store.suppressions.suppressed(limit=9)) == 1


@pytest.mark.parametrize("way", ["viewer", "no token", "other form"])
async def test_who_may_not_changes_nothing(serve: Serve, store: Store, way: str) -> None:
    client = await log_in(await serve(with_logins()), "vera" if way == "viewer" else "otto")
    data = {"action": "add", "addresses": ANN}
    if way == "viewer":
        answer = await post(client, **data)
        look = {"Authorization": f"Bearer {TOKENS['look']}"}
        by_api = await client.post(f"{API}/add", json={"addresses": [ANN]}, headers=look)
        assert by_api.status_code == 403
    elif way == "no token":
        answer = await client.post("/suppression/change", data=data)
    else:
        answer = await post(client, action="burn", addresses=ANN)
    assert answer.status_code in (400, 403)
    assert store.suppressions.suppressed(limit=9) == []


async def test_the_api_lists_adds_and_lifts(serve: Serve, store: Store) -> None:
    client = await serve(with_logins())
    client.headers["Authorization"] = f"Bearer {TOKENS['tests']}"
    body = {"addresses": ["Ann@Cust.test", "bob@cust.test"], "sender_domain": "shop.test"}
    dry = (await client.post(f"{API}/add", json={**body, "dry_run": True})).json()
    assert (dry["number"], store.suppressions.suppressed(limit=9)) == (2, [])
    done = (await client.post(f"{API}/add", json={**body, "expires": "never"})).json()
    assert done["suppressions"][0]["address"] == ANN
    assert done["suppressions"][0]["expires_at"] is None
    assert done["effects"][0].startswith("mail of shop.test: transactional mail is sent with")
    first = (await client.get(f"{API}?limit=1")).json()
    second = (await client.get(API, params={"limit": "1", "after": first["next"]})).json()
    both = [one["address"] for page in (first, second) for one in page["suppressions"]]
    assert (sorted(both), second["next"]) == ([ANN, "bob@cust.test"], None)
    gone = await client.post(f"{API}/remove", json={"addresses": [ANN, "eve@x.test"]})
    assert (gone.json()["number"], gone.json()["left"]) == (1, ["eve@x.test"])


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("add", {}, "addresses is missing"),
        ("add", {"addresses": []}, "addresses has 0 of them"),
        ("add", {"addresses": "a@x.test"}, "not a list of texts"),
        ("add", {"addresses": ["nobody"]}, "'nobody' is not an address: it has no domain"),
        (
            "add",
            {"addresses": [ANN], "sender_domain": "a b"},
            "sender_domain 'a b' is not a domain",
        ),
        ("add", {"addresses": [ANN], "stream": "both"}, "stream 'both' is not known"),
        ("add", {"addresses": [ANN], "reason": "hate"}, "reason 'hate' is not known"),
        ("add", {"addresses": [ANN], "expires": "soon"}, "expires 'soon' is not a duration"),
        ("add", {"addresses": [ANN], "x": 1}, "'x' in the body is not known"),
        ("remove", {"addresses": [ANN] * 1001}, "addresses has 1001 of them"),
        ("?after=x", None, "after is not valid"),
        ("?reason=x", None, "reason 'x' is not known"),
    ],
)
async def test_what_the_api_does_not_understand(
    serve: Serve, store: Store, path: str, body: Any, problem: str
) -> None:
    client = await serve(with_logins())
    client.headers["Authorization"] = f"Bearer {TOKENS['tests']}"
    if body is None:
        answer = await client.get(API + path)
    else:
        answer = await client.post(f"{API}/{path}", json=body)
    assert answer.status_code == 400
    assert problem in answer.json()["error"]["what"], answer.text
    assert store.suppressions.suppressed(limit=9) == []
