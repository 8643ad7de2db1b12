"""Standing holds in pages and API: set, shown and ended, by who may."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import httpx2

from relaygw.store.store import Store
from tests.builders import accepted
from tests.integration.web.people import TOKENS, with_logins
from tests.integration.web.test_suppression_page import HOSTILE, log_in

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
API = "/api/gateway/v1/holds"


async def post(client: httpx2.AsyncClient, **fields: str) -> httpx2.Response:
    csrf = re.search(r'name="csrf" value="([^"]+)"', (await client.get("/holds")).text)
    given = {"csrf": csrf[1] if csrf else "", **fields}
    return await client.post("/holds/change", data=given, follow_redirects=True)


async def test_an_operator_sets_and_ends_one(serve: Serve, store: Store) -> None:
    store.intake.accept_batch([accepted("a@gmx.test"), accepted("b@web.test")])
    client = await log_in(await serve(with_logins()), "otto")
    assert "No mail is held so." in (await client.get("/holds")).text
    done = await post(
        client, action="add", scope="recipient_domain", value="gmx.test", until="2h", reason=HOSTILE
    )
    assert "It is held from now on; 1 message waiting." in done.text
    assert "&lt;script&gt;" in done.text and HOSTILE not in done.text
    (hold,) = store.holds.standing()
    assert (hold.by, hold.until_ms is None) == ("otto", False)
    path = re.search(r'href="(/queue\?reason=[^"]+)"', done.text)
    assert path
    listed = (await client.get(path[1])).text
    assert "a@gmx.test" in listed and "b@web.test" not in listed
    assert "mail to gmx.test" in (await client.get("/")).text
    ended = await post(client, action="end", id=hold.hold_id)
    assert "The hold has ended; 1 message due now." in ended.text
    assert store.holds.standing() == []
    gone = await post(client, action="end", id=hold.hold_id)
    assert gone.status_code == 400
    assert "is not the id of a standing hold" in gone.text


async def test_what_was_typed_stays_beside_what_is_wrong(serve: Serve, store: Store) -> None:
    client = await log_in(await serve(with_logins()), "otto")
    wrong = await post(client, action="add", scope="client", value="10.0.0", until="2h")
    assert wrong.status_code == 400
    assert "is not an IP address or network" in wrong.text
    assert 'value="10.0.0"' in wrong.text and 'value="2h"' in wrong.text
    odd = await post(client, action="add", scope=HOSTILE, value="x")
    assert odd.status_code == 400 and HOSTILE not in odd.text
    assert (await post(client, action="drop")).status_code == 400
    assert store.holds.standing() == []


async def test_who_may(serve: Serve, store: Store) -> None:
    client = await log_in(await serve(with_logins()), "vera")
    page = (await client.get("/holds")).text
    assert "/holds/change" not in page, "a viewer changes nothing"
    asked = {"action": "add", "scope": "subject", "value": "x"}
    assert (await client.post("/holds/change", data=asked)).status_code == 403
    viewer = {"Authorization": f"Bearer {TOKENS['look']}"}
    client = await serve(with_logins())
    assert (await client.get(API)).status_code == 401
    refused = await client.post(API, json={"subject": "x"}, headers=viewer)
    assert refused.status_code == 403
    assert store.holds.standing() == []


async def test_the_api(serve: Serve, store: Store) -> None:
    store.intake.accept_batch([accepted("a@gmx.test")])
    client = await serve(with_logins())
    client.headers["Authorization"] = f"Bearer {TOKENS['tests']}"
    added = (await client.post(API, json={"recipient": "A@gmx.test", "reason": "r"})).json()
    assert (added["scope"], added["value"], added["waiting"]) == ("recipient", "a@gmx.test", 1)
    assert added.pop("being_sent") == 0
    assert (await client.get(API)).json() == {"holds": [added]}
    assert (await client.get("/api/gateway/v1/status")).json()["standing_holds"] == [added]
    ended = await client.post(f"{API}/{added['id']}/end")
    assert ended.json() == {
        "id": added["id"],
        "released": 1,
        "still_held": 0,
        "held_for": [],
    }
    again = await client.post(f"{API}/{added['id']}/end")
    assert again.status_code == 404
    for given, said in (
        ({}, "about nothing"),
        ({"subject": ""}, "subject '' is empty"),
        ({"subject": "x", "until": ""}, "until '' is empty"),
        ({"subject": "x", "route": "default"}, "about subject and route"),
        ({"color": "red"}, "'color' in the body is not known"),
    ):
        wrong = await client.post(API, json=given)
        assert wrong.status_code == 400
        assert said in wrong.json()["error"]["what"]
    assert store.holds.standing() == []
