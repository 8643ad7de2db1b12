"""Release by the API of Mailpit: to all addresses, or to none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.integration.web.people import RELAY

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

MAIL = b"From: shop@shop.test\r\nTo: ann@x.test\r\nSubject: Order\r\n\r\nhello\r\n"
ROLES = ("viewer", "operator", "admin")
STAGING = Settings.model_validate(
    {
        "mode": "staging",
        "web": {
            "tokens": [
                {"name": role, "token": f"plain:{role}-token-with-24-chars", "role": role}
                for role in ROLES
            ]
        },
        "recipients": {"allow": ["dev@x.test", "@qa.test"], "block": ["never@qa.test"]},
        **RELAY,
    }
)


@pytest.fixture
def queue_id(capture: Capture) -> str:
    return capture(MAIL)


async def release(
    client: httpx2.AsyncClient, role: str, queue_id: str, **body: Any
) -> tuple[int, str]:
    answer = await client.post(
        f"/api/v1/message/{queue_id}/release",
        json=body,
        headers={"Authorization": f"Bearer {role}-token-with-24-chars"},
    )
    return answer.status_code, answer.text


def sent_to(store: Store, queue_id: str) -> list[tuple[str, str | None]]:
    """Return who gets it, and how each was released."""
    found = store.sandbox.captured_entry(queue_id)
    assert found is not None
    released = {one.delivery_no: one.released for one in found.entry.deliveries}
    return [
        (one.address, released[one.delivery_no])
        for one in found.entry.recipients
        if released[one.delivery_no] is not None
    ]


async def test_to_the_allowed(serve: Serve, queue_id: str, store: Store) -> None:
    client = await serve(STAGING)
    to = ["dev@x.test", "DEV@x.test", "ann@qa.test"]
    assert await release(client, "operator", "latest", To=to) == (200, "ok")
    assert {one.lower(): how for one, how in sent_to(store, queue_id)} == {
        "dev@x.test": "allowed",
        "ann@qa.test": "allowed",
    }
    assert {one.action for one in store.audit.entries(limit=5)} == {"sandbox.release"}
    assert {one.actor for one in store.audit.entries(limit=5)} == {"operator"}


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("ann@x.test", "ann@x.test"),
        ("never@qa.test", "never@qa.test"),
        ("no address", "no address"),
        ("a@x.test\r\nRCPT TO:<b@x.test>", "RCPT"),
    ],
)
async def test_one_refused_address_stops_all(
    serve: Serve, queue_id: str, store: Store, to: str, words: str
) -> None:
    client = await serve(STAGING)
    status, text = await release(client, "operator", queue_id, To=["dev@x.test", to])
    assert status == 400
    assert words in text
    assert "dev@x.test:" not in text
    assert sent_to(store, queue_id) == []
    assert store.audit.entries(limit=5) == []


async def test_only_an_admin_who_says_so_reaches_anyone(
    serve: Serve, queue_id: str, store: Store
) -> None:
    client = await serve(STAGING)
    outside = ["ann@x.test", "bob@y.test"]
    assert (await release(client, "operator", queue_id, To=outside, Anyone=True))[0] == 400
    assert (await release(client, "admin", queue_id, To=outside))[0] == 400
    assert (await release(client, "admin", queue_id, To=["never@qa.test"], Anyone=True))[0] == 400
    assert sent_to(store, queue_id) == []
    assert await release(client, "admin", queue_id, To=outside, Anyone=True) == (200, "ok")
    assert sent_to(store, queue_id) == [("ann@x.test", "anyone"), ("bob@y.test", "anyone")]
    assert (await release(client, "admin", queue_id, To=outside, Anyone=True))[0] == 400  # waiting


async def test_a_viewer_releases_nothing(serve: Serve, queue_id: str, store: Store) -> None:
    client = await serve(STAGING)
    assert (await release(client, "viewer", queue_id, To=["dev@x.test"]))[0] == 403
    assert sent_to(store, queue_id) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"To": []}, 400),
        ({"To": "dev@x.test"}, 400),
        ({"To": [1]}, 400),
        ({"To": [f"a{n}@qa.test" for n in range(51)]}, 400),
        ({"To": ["dev@x.test"], "Anyone": "yes"}, 400),
    ],
)
async def test_bad_requests(
    serve: Serve, queue_id: str, store: Store, body: dict[str, Any], status: int
) -> None:
    client = await serve(STAGING)
    assert (await release(client, "admin", queue_id, **body))[0] == status
    assert sent_to(store, queue_id) == []


async def test_what_is_not_there(serve: Serve) -> None:
    client = await serve(STAGING)
    for queue_id in ("latest", "01JD0000000000000", "x"):
        assert (await release(client, "admin", queue_id, To=["dev@x.test"]))[0] == 404


async def test_a_sandbox_without_a_provider_says_so(serve: Serve, queue_id: str) -> None:
    client = await serve()
    answer = await client.post(f"/api/v1/message/{queue_id}/release", json={"To": ["dev@x.test"]})
    assert answer.status_code == 400
    assert "provider" in answer.text or "allow" in answer.text
