"""What forms of the pages change: marks, tags, deletion and release; and who may."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.mail.search import EVERYTHING
from relaygw.mail.state import RecipientState
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.web.indexing import Indexer
from tests.integration.web.people import PASSWORDS, RELAY, USERS

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

CONTENT = b"From: shop@x.test\r\nTo: ann@x.test\r\nSubject: %s\r\n\r\nhello\r\n"


def staging(**more: Any) -> Settings:
    return Settings.model_validate(
        {"mode": "staging", "web": {"users": USERS}, "recipients": {"allow": ["dev@x.test"]},
         **RELAY, **more}
    )  # fmt: skip


async def log_in(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.post("/login", data={"name": name, "password": PASSWORDS[name]})
    assert answer.status_code == 303


async def token(client: httpx2.AsyncClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', (await client.get("/sandbox")).text)
    assert found is not None
    return found[1]


async def send(client: httpx2.AsyncClient, path: str, **fields: Any) -> httpx2.Response:
    return await client.post(path, data={"csrf": await token(client), **fields})


def read_states(store: Store) -> dict[str, bool]:
    found = store.sandbox.find_captured(EVERYTHING, start=0, limit=100)
    return {one.entry.subject: one.entry.read_at_ms is not None for one in found}


def hidden_fields(page: str) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page):
        fields.setdefault(name, []).append(value)
    return {name: list(dict.fromkeys(values)) for name, values in fields.items()}


async def test_ticked_mail_is_marked_at_once(serve: Serve, capture: Capture, store: Store) -> None:
    client = await serve()
    one, two, _ = (capture(CONTENT % word) for word in (b"one", b"two", b"three"))
    answer = await send(client, "/sandbox/bulk", action="read", id=[one, two], query="hello")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sandbox?query=hello&did=read&number=2"
    assert "2 messages marked as read." in (await client.get(answer.headers["location"])).text
    assert read_states(store) == {"one": True, "two": True, "three": False}
    await send(client, "/sandbox/bulk", action="unread", id=[one])
    assert read_states(store) == {"one": False, "two": True, "three": False}


async def test_tags_are_added_taken_off_and_set(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve()
    queue_id = capture(CONTENT % b"one")

    def tags() -> tuple[str, ...]:
        found = store.sandbox.captured_entry(queue_id)
        assert found is not None
        return found.tags

    await send(client, "/sandbox/bulk", action="tag", id=[queue_id], tags=" eu , new  shop,eu,")
    assert tags() == ("eu", "new shop")
    await send(client, "/sandbox/bulk", action="tag", id=[queue_id], tags="x")
    await send(client, "/sandbox/bulk", action="untag", id=[queue_id], tags="EU")
    assert tags() == ("new shop", "x")
    answer = await send(
        client, "/sandbox/bulk", action="settags", id=[queue_id], tags="only", back="message"
    )
    assert answer.headers["location"].startswith(f"/sandbox/{queue_id}?")
    assert tags() == ("only",)
    # Enter in a field without a tag in it
    await send(client, "/sandbox/bulk", action="tag", id=[queue_id], tags="")
    assert tags() == ("only",)


async def test_all_that_a_search_finds_is_tagged(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve()
    for word in (b"order 1", b"order 2", b"invoice"):
        capture(CONTENT % word)
    fields = hidden_fields((await client.get("/sandbox?query=order")).text)
    asked = await client.post("/sandbox/bulk", data={**fields, "all": "tag"})
    assert "Tag 2 messages?" in asked.text
    assert '<input id="tags" name="tags"' in asked.text
    await client.post("/sandbox/bulk", data={**hidden_fields(asked.text), "tags": "eu, shop"})
    assert store.sandbox.tags() == {"eu": 2, "shop": 2}
    asked = await client.post("/sandbox/bulk", data={**fields, "all": "settags"})
    assert "Set the tags of 2 messages?" in asked.text
    await client.post("/sandbox/bulk", data={**hidden_fields(asked.text), "tags": "us"})
    assert store.sandbox.tags() == {"us": 2}


async def test_deletion_asks_first_and_says_how_many(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve()
    one, two, _ = (capture(CONTENT % word) for word in (b"one", b"two", b"three"))
    asked = await send(client, "/sandbox/bulk", action="delete", id=[one, two])
    assert asked.status_code == 200
    assert "Delete 2 messages for good?" in asked.text
    assert len(read_states(store)) == 3
    done = await client.post("/sandbox/bulk", data=hidden_fields(asked.text))
    assert done.status_code == 303
    assert list(read_states(store)) == ["three"]
    (line,) = store.audit.entries(limit=5)
    assert (line.action, line.actor, line.affected) == ("sandbox.delete", "anyone", 2)


async def test_all_that_a_search_finds_ends_at_what_was_seen(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve()
    for number in range(60):
        capture(CONTENT % (b"order %d" % number))
    other = capture(CONTENT % b"invoice")
    await asyncio.to_thread(Indexer(store).catch_up, within_s=None)
    page = (await client.get("/sandbox?query=order")).text
    fields = hidden_fields(page)
    assert fields["until"] == [other]
    asked = await client.post("/sandbox/bulk", data={**fields, "all": "delete"})
    assert "Delete 60 messages for good?" in asked.text
    capture(CONTENT % b"order that came later")
    await asyncio.to_thread(Indexer(store).catch_up, within_s=None)  # a search finds it, too
    await client.post("/sandbox/bulk", data=hidden_fields(asked.text))
    assert set(read_states(store)) == {"invoice", "order that came later"}


async def test_all_of_nothing_is_nothing(serve: Serve, capture: Capture, store: Store) -> None:
    client = await serve()
    capture(CONTENT % b"one")
    for fields in ({"all": "delete"}, {"scope": "found", "action": "delete", "confirmed": "1"}):
        await send(client, "/sandbox/bulk", **fields)
        await send(client, "/sandbox/bulk", until="' OR 1", **fields)
    assert len(read_states(store)) == 1


@pytest.mark.parametrize("queue_id", ["x", "", "../..", "A" * 21, "\x00" * 12, "0" * 17])
async def test_ids_that_are_none_change_nothing(
    serve: Serve, capture: Capture, store: Store, queue_id: str
) -> None:
    client = await serve()
    capture(CONTENT % b"one")
    for action in ("read", "delete", "tag", "release"):
        answer = await send(
            client, "/sandbox/bulk", action=action, id=[queue_id], confirmed="1", tags="x"
        )
        assert answer.status_code in (200, 303)
    assert read_states(store) == {"one": False}
    assert store.sandbox.tags() == {}


async def test_an_unknown_action_is_refused(serve: Serve) -> None:
    answer = await send(await serve(), "/sandbox/bulk", action="<b>", id=["0" * 17])
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")


async def test_reading_an_address_changes_nothing(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve()
    queue_id = capture(CONTENT % b"one")
    for path in ("/sandbox/bulk", "/sandbox/release"):
        answer = await client.get(path, params={"action": "delete", "id": queue_id, "confirmed": 1})
        assert answer.status_code in (404, 405)
    assert len(read_states(store)) == 1


async def test_a_viewer_changes_nothing(serve: Serve, capture: Capture, store: Store) -> None:
    client = await serve(staging())
    queue_id = capture(CONTENT % b"one")
    await log_in(client, "vera")
    for path in ("/sandbox/bulk", f"/sandbox/{queue_id}/release"):
        fields = {"action": "delete", "id": queue_id, "confirmed": "1"}
        assert (await client.post(path, data=fields)).status_code == 403
    assert len(read_states(store)) == 1


async def test_a_release_shows_who_gets_it_and_who_not(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve(staging())
    queue_id = capture(CONTENT % b"one", ["dev@x.test", "ann@x.test"])
    await log_in(client, "otto")
    page = (await client.get(f"/sandbox/{queue_id}/release")).text
    assert re.search(r"dev@x\.test</span>.*by route default", page)
    assert "only an admin may release" in page
    assert 'name="anyone"' not in page
    done = await client.post(
        f"/sandbox/{queue_id}/release",
        # what the form of an operator does not have is of no use to one
        data={**hidden_fields(page), "anyone": "1", "address": "ann@x.test"},
    )
    assert "1 mail of 1 message released" in done.text
    assert "is not on recipients.allow" in done.text
    found = store.sandbox.captured_entry(queue_id)
    assert found is not None
    pending = [one.address for one in found.entry.recipients if one.state is RecipientState.PENDING]
    assert pending == ["dev@x.test"]
    assert store.audit.entries(limit=1)[0].actor == "otto"


async def test_who_may_not_release_it_is_told_beside_the_button(
    serve: Serve, capture: Capture
) -> None:
    outside, mixed = (
        capture(CONTENT % b"x", to) for to in (["ann@x.test"], ["ann@x.test", "dev@x.test"])
    )
    for name, told in (("vera", False), ("otto", True), ("anna", False)):
        client = await serve(staging())
        await log_in(client, name)
        for queue_id, is_told in ((outside, told), (mixed, False)):
            page = (await client.get(f"/sandbox/{queue_id}")).text
            assert ("An admin may release it" in page) is is_told, (name, queue_id)


async def test_an_admin_confirms_the_very_addresses(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve(staging())
    queue_id = capture(CONTENT % b"one", ["ann@x.test", "bob@x.test"])
    await log_in(client, "anna")
    page = (await client.get(f"/sandbox/{queue_id}/release")).text
    fields = hidden_fields(page)
    assert fields["address"] == ["ann@x.test", "bob@x.test"]
    # the box is not ticked: nobody gets it
    done = await client.post(f"/sandbox/{queue_id}/release", data=fields)
    assert "Nothing was released" in done.text
    fields["address"] = ["ann@x.test"]
    done = await client.post(f"/sandbox/{queue_id}/release", data={**fields, "anyone": "1"})
    assert "1 mail of 1 message released" in done.text
    found = store.sandbox.captured_entry(queue_id)
    assert found is not None
    pending = [one.address for one in found.entry.recipients if one.state is RecipientState.PENDING]
    assert pending == ["ann@x.test"]


async def test_a_release_to_another_address(serve: Serve, capture: Capture, store: Store) -> None:
    client = await serve(staging())
    queue_id = capture(CONTENT % b"one")
    await log_in(client, "otto")
    path = f"/sandbox/{queue_id}/release"
    plan = await send(client, path, to="dev@x.test")
    assert "Will be sent: 1 mail" in plan.text
    bad = await send(client, path, to="a b@x.test")
    assert "is not an address that can receive mail" in bad.text
    done = await client.post(path, data=hidden_fields(plan.text))
    assert "1 mail of 1 message released" in done.text
    found = store.sandbox.captured_entry(queue_id)
    assert found is not None
    assert found.entry.recipients[-1].address == "dev@x.test"


async def test_a_release_of_what_a_search_finds(
    serve: Serve, capture: Capture, store: Store
) -> None:
    client = await serve(staging())
    for number in range(3):
        capture(CONTENT % (b"order %d" % number), ["dev@x.test"])
    capture(CONTENT % b"invoice", ["dev@x.test"])
    await log_in(client, "otto")
    fields = hidden_fields((await client.get("/sandbox?query=order")).text)
    asked = await client.post("/sandbox/bulk", data={**fields, "all": "release"})
    assert "Release 3 messages" in asked.text
    done = await client.post("/sandbox/release", data=hidden_fields(asked.text))
    assert "3 mails of 3 messages released" in done.text


async def test_without_a_provider_a_release_says_so(serve: Serve, capture: Capture) -> None:
    client = await serve()
    queue_id = capture(CONTENT % b"one")
    page = (await client.get(f"/sandbox/{queue_id}/release")).text
    assert "Will not be sent" in page
    assert re.search(r'<button class="strong" disabled', page)


@pytest.mark.parametrize("path", ["/sandbox/bulk", "/sandbox/release"])
async def test_a_form_without_the_token_of_the_page_is_refused(
    serve: Serve, capture: Capture, store: Store, path: str
) -> None:
    client = await serve(staging())
    queue_id = capture(CONTENT % b"one", ["dev@x.test"])
    await log_in(client, "anna")
    fields = {"action": "delete", "id": queue_id, "confirmed": "1"}
    for wrong in ({}, {"csrf": "x"}):
        assert (await client.post(path, data={**fields, **wrong})).status_code == 403
    assert len(read_states(store)) == 1
