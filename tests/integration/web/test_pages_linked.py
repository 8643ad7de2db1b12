"""Links of other programs to mail: by the number of an order, or by a Message-ID."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.mail.state import RecipientState
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.integration.web.people import PASSWORDS, RELAY, with_logins
from tests.integration.web.queued import deliver, gateway, queue_mail
from tests.integration.web.test_pages_queue import ended, log_in, subjects

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
WEB: dict[str, Any] = {"link_header": "X-Order-Id"}


async def logged_in(serve: Serve, settings: Settings) -> httpx2.AsyncClient:
    return await log_in(await serve(settings), "vera")


def ordered(store: Store, number: str, **more: Any) -> str:
    """Put a mail about an order into the queue, as intake reads it."""
    return queue_mail(store, f"About {number}", link_value=number, **more)


@pytest.mark.parametrize("is_written", [False, True])
async def test_an_order_leads_to_its_mail(serve: Serve, store: Store, is_written: bool) -> None:
    one = ordered(store, "W-100000123")
    first, second = ordered(store, "100000124", age_s=5), ordered(store, "100000124")
    ordered(store, "1000001234")
    deliver(store)
    while is_written and store.find.index_batch(limit=100):
        pass
    client = await logged_in(serve, gateway(**WEB))
    for text in ("W-100000123", "w-100000123", " w-100000123 "):
        answer = await client.get("/mail", params={"order": text})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/queue/{one}")
    answer = await client.get("/mail?order=100000124")
    page = await client.get(answer.headers["location"])
    assert subjects(page.text) == ["About 100000124"] * 2
    assert first in page.text and second in page.text
    assert (await client.get("/mail?order=10000012")).status_code == 404  # it is not a whole one


async def test_a_message_id_leads_to_its_mail(serve: Serve, store: Store) -> None:
    one = queue_mail(store, message_id="<1.2+3@shop.test>")
    bare = queue_mail(store, message_id="bare@shop.test")
    client = await logged_in(serve, gateway())
    for text, queue_id in (
        ("<1.2+3@shop.test>", one), ("1.2+3@shop.test", one), ("<bare@shop.test>", bare)
    ):  # fmt: skip
        answer = await client.get("/mail", params={"message_id": text})
        assert answer.headers["location"] == f"/queue/{queue_id}"
    queue_mail(store, "again", message_id="<1.2+3@shop.test>")
    answer = await client.get("/mail", params={"message_id": "1.2+3@shop.test"})
    assert sorted(subjects((await client.get(answer.headers["location"])).text)) == [
        "again",
        "hello",
    ]


async def test_captured_mail_has_its_story_too(serve: Serve, store: Store) -> None:
    queue_id = ended(store, "x", RecipientState.CAPTURED, message_id="<c@shop.test>")
    answer = await (await logged_in(serve, gateway())).get("/mail?message_id=c@shop.test")
    assert answer.headers["location"] == f"/queue/{queue_id}"


async def test_none_says_where_it_looked_and_what_to_check(serve: Serve, store: Store) -> None:
    queue_mail(store)
    client = await logged_in(
        serve, with_logins(relay={**RELAY, "queue": {"retention": "9d"}}, **WEB)
    )
    answer = await client.get("/mail", params={"order": '<b>"7'})
    assert answer.status_code == 404
    assert "in the field <code>X-Order-Id</code> of all mail, in every state" in answer.text
    assert "is kept for 9d" in answer.text
    assert "Perhaps the shop has not sent it yet" in answer.text
    assert "<b>" not in answer.text
    assert 'href="/find?q=%3Cb%3E%227"' in answer.text
    page = (await client.get("/mail?message_id=gone@shop.test")).text
    assert "in the field <code>Message-ID</code>" in page


async def test_without_a_field_it_says_which_setting_is_missing(serve: Serve) -> None:
    answer = await (await logged_in(serve, gateway())).get("/mail?order=7")
    assert answer.status_code == 404
    assert "set <code>web.link_header</code>" in answer.text


@pytest.mark.parametrize(
    "query",
    [
        *("", "order=", "order=%20", "order=1&order=2", "order=1&message_id=2"),
        *("order=%FF%00x", "order=" + "1" * 999, "message_id=%3C%3E", "message_id=@"),
    ],
)
async def test_what_names_no_mail_is_an_error(serve: Serve, query: str) -> None:
    answer = await (await logged_in(serve, gateway(**WEB))).get(f"/mail?{query}")
    assert answer.status_code == 400
    assert "/mail?order=100000123 or /mail?message_id=" in answer.text


@pytest.mark.parametrize("name", ["vera", "otto", "anna"])
async def test_who_logs_in_lands_on_the_link(serve: Serve, store: Store, name: str) -> None:
    queue_id = ordered(store, "100000123")
    client = await serve(gateway(**WEB))
    answer = await client.get("/mail?order=100000123", headers={"accept": "text/html"})
    assert answer.headers["location"] == "/login?next=/mail%3Forder%3D100000123"
    assert 'value="/mail?order=100000123"' in (await client.get(answer.headers["location"])).text
    form = {"name": name, "password": PASSWORDS[name], "next": "/mail?order=100000123"}
    answer = await client.post("/login", data=form)
    answer = await client.get(answer.headers["location"])
    assert answer.headers["location"] == f"/queue/{queue_id}"
