"""Sending again by the page of a message and by the API: who may, what is asked, what is told."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from relaygw.mail.state import RecipientState
from relaygw.observe.history import Series
from relaygw.operations.resend import RESEND
from relaygw.store.rules import StoreRules
from relaygw.store.store import Store, open_store, read_content
from tests.integration.web.people import PASSWORDS, ROLES
from tests.integration.web.queued import CONTENT, deliver, gateway, queue_mail
from tests.integration.web.test_pages_queue import log_in
from tests.queues import make_queue

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
API = "/api/gateway/v1/queue/resend"
ANN, BOB = "ann@cust.test", "bob@cust.test"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    opened = open_store(url, rules=StoreRules(keep_content=True))
    yield opened
    opened.close()


def delivered(store: Store, *to: str) -> str:
    queue_id = queue_mail(store, "hello", *(to or (ANN,)))
    deliver(store)
    return queue_id


def copies(store: Store) -> list[str]:
    """Return the ids of the messages that were made by sending another one again."""
    entries = store.audit.entries(limit=100)
    return [one.target.split()[1] for one in entries if one.action == RESEND]


async def as_(serve: Serve, name: str) -> httpx2.AsyncClient:
    client = await serve(gateway())
    client.auth = httpx2.BasicAuth(name, PASSWORDS[name])
    return client


def fields(page: str, **changed: str) -> dict[str, str]:
    """Return what the last button of a page sends."""
    form = page[page.rindex("<form") :]
    found = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form))
    return found | {"confirmed": "1"} | changed


# --- the API --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ROLES))
async def test_who_may(serve: Serve, store: Store, name: str) -> None:
    old = delivered(store)
    client = await as_(serve, name)
    answer = await client.post(API, json={"ids": [old]})
    if ROLES[name] == "viewer":
        assert answer.status_code == 403 and copies(store) == []
        return
    assert answer.status_code == 200, answer.text
    (new,) = copies(store)
    recipient = {"address": ANN, "was": "delivered", "result": "sent again"}
    recipient |= {"route": "default", "reason": None}
    assert answer.json() == {
        "dry_run": False,
        "number": 1,
        "messages": [
            {"queue_id": old, "resent_as": new, "result": "sent again", "recipients": [recipient]}
        ],
        "left": [],
    }
    (deed,) = store.audit.entries(limit=1)
    assert (deed.actor, deed.target, deed.detail) == (name, f"{old} {new}", f"to {ANN}; api")


async def test_nobody_without_a_login(serve: Serve, store: Store) -> None:
    old = delivered(store)
    client = await serve(gateway())
    assert (await client.post(API, json={"ids": [old]})).status_code == 401
    assert (await client.post(f"/queue/{old}/resend")).status_code in (303, 401, 403)
    assert copies(store) == []


async def test_several_take_their_number(serve: Serve, store: Store) -> None:
    ids = [delivered(store), delivered(store, BOB)]
    client = await as_(serve, "otto")
    for more in ({}, {"count": 3}):
        answer = await client.post(API, json={"ids": ids, **more})
        assert answer.status_code == 400
        assert 'write "count": 2 if that is intended' in answer.json()["error"]["remedy"]
    dry = (await client.post(API, json={"ids": ids, "dry_run": True})).json()
    assert dry["number"] == 2 and dry["messages"][0]["resent_as"] is None
    assert copies(store) == []
    done = await client.post(API, json={"ids": [*ids, "NOSUCHMAIL0"], "count": 2, "to": BOB})
    assert done.json()["number"] == 2 and len(copies(store)) == 2
    assert done.json()["left"][0]["why"] == "there is no such message"


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({}, "no message is named"),
        ({"ids": []}, "no message is named"),
        ({"ids": ["x"]}, "not a queue id"),
        ({"ids": ["NOSUCHMAIL0"], "to": "x"}, "is not an address"),
        ({"ids": ["NOSUCHMAIL0"], "to": ""}, "is not an address"),
        ({"ids": ["NOSUCHMAIL0"], "to": "a\u200b@b.test"}, "invisible character, U+200B"),
        ({"ids": ["NOSUCHMAIL0"], "count": True}, "count"),
        ({"ids": ["NOSUCHMAIL0"] * 501}, "501"),
        ({"ids": "NOSUCHMAIL0"}, "ids is not a list"),
        ({"ids": ["NOSUCHMAIL0"], "all": True}, "'all' in the body is not known"),
    ],
    ids=["nothing", "empty", "id", "to", "no to", "unseen", "count", "many", "text", "unknown"],
)
async def test_what_is_no_request(
    serve: Serve, store: Store, body: dict[str, Any], what: str
) -> None:
    answer = await (await as_(serve, "otto")).post(API, json=body)
    assert answer.status_code == 400, answer.text
    assert what in answer.json()["error"]["what"]


# --- the page -------------------------------------------------------------------------------


async def test_it_asks_and_sends_what_was_shown(serve: Serve, store: Store) -> None:
    old = delivered(store)
    client = await log_in(await serve(gateway()), "otto")
    assert f"/queue/{old}/resend" in (await client.get(f"/queue/{old}")).text
    path = f"/queue/{old}/resend"
    page = (await client.get(path)).text
    assert ANN in page and "delivered before, now by route default" in page
    other = await client.post(path, data=fields(page, to=BOB, confirmed=""))
    assert BOB in other.text and copies(store) == []
    # who confirmed one address confirmed no other
    typed = await client.post(path, data=fields(page, to=BOB))
    assert BOB in typed.text and copies(store) == []
    wrong = await client.post(path, data=fields(page, to=BOB, asked=BOB))
    assert "It has changed meanwhile" in wrong.text and copies(store) == []
    done = await client.post(path, data=fields(page))
    (new,) = copies(store)
    assert done.headers["location"] == f"/queue/{new}?did=resent&number=1"
    assert f'href="/queue/{old}"' in (await client.get(f"/queue/{new}")).text
    assert f'href="/queue/{new}"' in (await client.get(f"/queue/{old}")).text
    # a double click sends one
    twice = await client.post(path, data=fields(page))
    assert twice.status_code == 200 and "It has changed meanwhile" in twice.text
    assert copies(store) == [new]
    counted = store.watch.history(0, series=[Series.MESSAGES])
    assert sum(one.amount for one in counted) == 1  # as the list of what was accepted has it
    (entry,) = store.queue.entries([new])
    assert b"".join(read_content(store, entry)).endswith(CONTENT)
    assert entry.recipients[0].state is RecipientState.PENDING


async def test_a_wrong_address_is_told(serve: Serve, store: Store) -> None:
    old = delivered(store)
    client = await log_in(await serve(gateway()), "otto")
    path = f"/queue/{old}/resend"
    page = (await client.get(path)).text
    answer = await client.post(path, data=fields(page, to="<b>x", confirmed=""))
    assert "&lt;b&gt;x is not an address" in answer.text
    answer = await client.post(path, data=fields(page, to="a\u202eb@cust.test", confirmed=""))
    assert "a\\u202eb@cust.test is not an address: it has an invisible character" in answer.text


async def test_content_that_is_gone_is_explained(serve: Serve, store: Store) -> None:
    old = delivered(store)
    while store.janitor.shed_content(-60_000):
        pass  # in pieces
    (entry,) = store.queue.entries([old])
    assert not entry.chunk_count
    client = await log_in(await serve(gateway()), "otto")
    assert f"/queue/{old}/resend" in (await client.get(f"/queue/{old}")).text
    page = (await client.get(f"/queue/{old}/resend")).text
    assert "its content is no longer kept; queue.keep_content: 7d" in page
    assert "Send again</button>" not in page


async def test_a_viewer_sees_no_button_and_no_page(serve: Serve, store: Store) -> None:
    old = delivered(store)
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get(f"/queue/{old}")).text
    assert "resend" not in page
    assert (await client.get(f"/queue/{old}/resend")).status_code == 403
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    body = {"csrf": csrf[1] if csrf else "", "confirmed": "1"}
    assert (await client.post(f"/queue/{old}/resend", data=body)).status_code == 403
    assert copies(store) == []


async def test_what_still_waits_has_no_button(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    client = await log_in(await serve(gateway()), "otto")
    assert "resend" not in (await client.get(f"/queue/{queue_id}")).text
    page = (await client.get(f"/queue/{queue_id}/resend")).text
    assert "resend is for mail that was delivered, bounced or expired" in page
