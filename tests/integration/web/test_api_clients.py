"""Clients that others wrote for Mailpit, used against relaygw: mailpit-api 2.1.0 (npm)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw import __version__
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.integration.web.api_clients import Client, ClientError, mailpit_api
from tests.integration.web.people import RELAY, TOKENS

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

SHOP = {"Name": "Größe & Söhne", "Address": "shop@shop.test"}
ANN = {"Name": "Ann", "Address": "ann@x.test"}
CSV = b"sku;price\r\nA-1;12,00\r\n"
SENT: dict[str, Any] = {
    "From": {"Name": SHOP["Name"], "Email": SHOP["Address"]},
    "To": [{"Name": "Ann", "Email": "ann@x.test"}],
    "Cc": [{"Email": "cc@x.test"}],
    "Bcc": ["hidden@x.test"],
    "ReplyTo": [{"Name": "Help", "Email": "help@shop.test"}],
    "Subject": "Bestellung № 1",
    "Text": "Guten Tag\nhttps://shop.test/order?id=1",
    "HTML": '<p>Guten <b>Tag</b> <a href="https://shop.test/track?a=1&amp;b=2">Paket</a></p>',
    "Headers": {
        "X-Shop": "de",
        "Message-ID": "<order-1@shop.test>",
        "Date": "Tue, 25 Nov 2025 10:00:00 +0100",
        "List-Unsubscribe": "<mailto:off@shop.test>, <https://shop.test/off>",
    },
    "Tags": ["orders", "de"],
    "Attachments": [
        {
            "Filename": "preise.csv",
            "ContentType": "text/csv",
            "Content": base64.b64encode(CSV).decode(),
        }
    ],
}


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[Client]:
    """mailpit-api at a staging gateway, logged in with the token of a test runner."""
    settings = Settings.model_validate(
        {
            "mode": "staging",
            "web": {
                "tokens": [
                    {"name": "tests", "token": f"plain:{TOKENS['tests']}", "role": "operator"}
                ]
            },
            "recipients": {"allow": ["dev@x.test", "@qa.test"]},
            **RELAY,
        }
    )
    http = await serve(settings)
    async with mailpit_api(str(http.base_url).rstrip("/"), "tests", TOKENS["tests"]) as client:
        yield client


async def sent(client: Client, **changes: Any) -> str:
    answer = await client.call("sendMessage", SENT | changes)
    assert set(answer) == {"ID"}
    return str(answer["ID"])


async def subjects(client: Client) -> list[str]:
    return [one["Subject"] for one in (await client.call("listMessages"))["messages"]]


async def test_a_message_is_sent_listed_and_read(client: Client) -> None:
    queue_id = await sent(client)
    listed = await client.call("listMessages")
    (one,) = listed.pop("messages")
    assert listed == {
        "total": 1,
        "unread": 1,
        "count": 1,
        "messages_count": 1,
        "messages_unread": 1,
        "start": 0,
        "tags": ["de", "orders"],
    }
    shown = await client.call("getMessageSummary")
    common = {
        "ID": queue_id,
        "MessageID": "order-1@shop.test",
        "From": SHOP,
        "To": [ANN],
        "Cc": [{"Name": "", "Address": "cc@x.test"}],
        "Bcc": [{"Name": "", "Address": "hidden@x.test"}],
        "ReplyTo": [{"Name": "Help", "Address": "help@shop.test"}],
        "Subject": "Bestellung № 1",
        "Username": "tests",
        "Tags": ["de", "orders"],
        "Size": len((await client.call("getMessageSource", queue_id)).encode()),
    }
    assert one.pop("Created").endswith("Z")
    assert one == common | {
        "Read": False,
        "Attachments": 1,
        "Snippet": "Guten Tag https://shop.test/order?id=1",
    }
    assert shown == common | {
        "Read": True,
        "ReturnPath": "shop@shop.test",
        "Date": "2025-11-25T10:00:00+01:00",
        "ListUnsubscribe": {
            "Header": "<mailto:off@shop.test>, <https://shop.test/off>",
            "Links": ["mailto:off@shop.test", "https://shop.test/off"],
            "Errors": "",
            "HeaderPost": "",
        },
        "Text": "Guten Tag\r\nhttps://shop.test/order?id=1\r\n",
        "HTML": SENT["HTML"] + "\r\n",
        "Inline": [],
        "Attachments": [
            {
                "PartID": "2",
                "FileName": "preise.csv",
                "ContentType": "text/csv",
                "ContentID": "",
                "Size": len(CSV),
                "Checksums": {
                    "MD5": hashlib.md5(CSV).hexdigest(),
                    "SHA1": hashlib.sha1(CSV).hexdigest(),
                    "SHA256": hashlib.sha256(CSV).hexdigest(),
                },
            }
        ],
    }
    part = await client.call("getMessageAttachment", queue_id, "2")
    assert part == {"type": "text/csv", "base64": base64.b64encode(CSV).decode()}


async def test_headers_source_and_views(client: Client) -> None:
    queue_id = await sent(client)
    headers = await client.call("getMessageHeaders", queue_id)
    assert headers["X-Shop"] == ["de"]
    assert headers["To"] == ["Ann <ann@x.test>"]
    assert headers["Message-Id"] == ["<order-1@shop.test>"]
    assert headers["Date"] == ["Tue, 25 Nov 2025 10:00:00 +0100"]
    assert list(headers) == sorted(headers)
    source = await client.call("getMessageSource")
    assert "\r\nX-Shop: de\r\n" in source
    page = await client.call("renderMessageHTML", queue_id)
    assert '<b>Tag</b> <a href="https://shop.test/track?a=1&amp;b=2" rel=' in page
    assert (await client.call("renderMessageText")) == (
        "Guten Tag\r\nhttps://shop.test/order?id=1\r\n"
    )
    await sent(client, HTML="")
    with pytest.raises(ClientError, match="404 Not Found"):
        await client.call("renderMessageHTML")


async def test_links_are_listed_and_not_followed(client: Client) -> None:
    await sent(client)
    found = await client.call("linkCheck", "latest", True)
    assert found == {
        "Errors": 0,
        "Links": [
            {"URL": url, "StatusCode": 0, "Status": "not fetched"}
            for url in (
                "https://shop.test/track?a=1&b=2",
                "https://shop.test/order?id=1",
                "https://shop.test/off",
            )
        ],
    }


async def test_lists_searches_and_waits(client: Client) -> None:
    for number in range(3):
        await sent(client, Subject=f"Order {number}", To=[{"Email": f"c{number}@x.test"}])
    page = await client.call("listMessages", 1, 1)
    assert (page["start"], page["count"], page["total"]) == (1, 1, 3)
    assert [one["Subject"] for one in page["messages"]] == ["Order 1"]
    found = await client.call("searchMessages", {"query": "to:c2@x.test", "limit": 10})
    assert (found["messages_count"], found["messages_unread"], found["total"]) == (1, 1, 3)
    assert [one["Subject"] for one in found["messages"]] == ["Order 2"]
    late = {"query": "after:2031-01-01", "tz": "Europe/Berlin"}
    assert (await client.call("searchMessages", late))["messages"] == []
    waited = await client.call("waitForMessage", {"query": 'subject:"order 1"'})
    assert (waited["Subject"], waited["Read"]) == ("Order 1", True)
    several = await client.call("waitForMessages", {"query": "subject:order", "count": 3})
    assert several["messages_count"] == 3
    with pytest.raises(ClientError, match="Timeout waiting"):
        await client.call("waitForMessage", {"query": "subject:none"}, {"timeout": 50})


async def test_read_marks(client: Client) -> None:
    one, _ = [await sent(client, Subject=f"Order {number}") for number in range(2)]

    async def unread() -> int:
        return int((await client.call("getInfo"))["Unread"])

    assert await client.call("setReadStatus", {"IDs": [one], "Read": True}) == "ok"
    assert await unread() == 1
    assert await client.call("setReadStatus", {"Read": True}) == "ok"
    assert await unread() == 0
    search = {"Search": 'subject:"order 1"', "Read": False}
    assert await client.call("setReadStatus", search) == "ok"
    assert await unread() == 1
    late = {"Search": "after:2031-01-01", "Read": True}
    assert await client.call("setReadStatus", late, {"tz": "America/Chicago"}) == "ok"
    assert await unread() == 1
    assert await client.call("setReadStatus") == "ok"
    assert await unread() == 2


async def test_deletion(client: Client) -> None:
    ids = [await sent(client, Subject=f"Order {number}") for number in range(4)]
    assert await client.call("deleteMessages", {"IDs": [ids[0], "1"]}) == "ok"
    assert await subjects(client) == ["Order 3", "Order 2", "Order 1"]
    assert await client.call("deleteMessagesBySearch", {"query": 'subject:"order 2"'}) == "ok"
    assert await subjects(client) == ["Order 3", "Order 1"]
    assert await client.call("deleteMessages") == "ok"
    assert await subjects(client) == []


async def test_tags(client: Client) -> None:
    queue_id = await sent(client)
    assert await client.call("getTags") == ["de", "orders"]
    assert await client.call("setTags", {"IDs": [queue_id], "Tags": ["a b", "c/d"]}) == "ok"
    assert await client.call("getTags") == ["a b", "c/d"]
    assert await client.call("renameTag", "c/d", "e") == "ok"
    assert await client.call("deleteTag", "a b") == "ok"
    assert await client.call("getTags") == ["e"]
    assert await client.call("setTags", {"IDs": [queue_id]}) == "ok"
    assert await client.call("getTags") == []


async def test_release(client: Client, store: Store) -> None:
    queue_id = await sent(client)
    to = {"To": ["dev@x.test", "ann@qa.test"]}
    assert await client.call("releaseMessage", "latest", to) == "ok"
    found = store.sandbox.captured_entry(queue_id)
    assert found is not None
    assert [one.address for one in found.entry.recipients if one.state != "captured"] == [
        "dev@x.test",
        "ann@qa.test",
    ]
    with pytest.raises(ClientError, match=r"400 Bad Request.*else@x\.test"):
        await client.call("releaseMessage", queue_id, {"To": ["else@x.test"]})


async def test_info_and_chaos(client: Client) -> None:
    await sent(client)
    counters = ("MessagesDeleted", "SMTPAccepted", "SMTPAcceptedSize", "SMTPIgnored")
    info = await client.call("getInfo")
    assert info["RuntimeStats"].pop("Memory") > 2**20
    assert info["RuntimeStats"].pop("Uptime") < 60
    assert info == {
        "Version": f"relaygw {__version__}",
        "LatestVersion": "disabled",
        "Database": "",
        "DatabaseSize": 0,
        "Messages": 1,
        "Unread": 1,
        "Tags": {"de": 1, "orders": 1},
        "RuntimeStats": dict.fromkeys((*counters, "SMTPRejected"), 0),
    }
    for method in ("getChaosTriggers", "setChaosTriggers"):
        with pytest.raises(ClientError, match=r"400 Bad Request.*Chaos is not enabled"):
            await client.call(method)


@pytest.mark.parametrize(
    "method", ["spamAssassinCheck", "getConfiguration", "getAttachmentThumbnail"]
)
async def test_what_is_left_out_is_not_found(client: Client, method: str) -> None:
    queue_id = await sent(client)
    with pytest.raises(ClientError, match="404 Not Found"):
        await client.call(method, queue_id, "2")


async def test_a_wrong_password_is_refused(serve: Serve) -> None:
    settings = Settings.model_validate(
        {
            "mode": "staging",
            "web": {"tokens": [{"name": "tests", "token": f"plain:{TOKENS['tests']}"}]},
            **RELAY,
        }
    )
    url = str((await serve(settings)).base_url).rstrip("/")
    async with mailpit_api(url, "tests", "wrong") as client:
        with pytest.raises(ClientError, match="401 Unauthorized"):
            await client.call("getInfo")
