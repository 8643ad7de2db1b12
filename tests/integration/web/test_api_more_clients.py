"""cypress-mailpit 2.0.0 (npm) and mailpit-api-client 1.0.0 (PyPI), used against relaygw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.store.store import Store
from relaygw.web.indexing import Indexer
from tests.integration.web.api_clients import (
    Client,
    ClientError,
    cypress_mailpit,
    mailpit_api_client,
)
from tests.integration.web.people import TOKENS, with_logins

Capture = Callable[..., str]
Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

FAST = {"timeout": 400, "interval": 50}
ORDER = (
    b"From: Shop <shop@shop.test>\r\nTo: Ann <ann@x.test>, b@x.test\r\nCc: cc@x.test\r\n"
    b"Subject: Order %d\r\nMessage-ID: <%d@shop.test>\r\nDelivered-To: ann@x.test\r\n"
    b"Date: Tue, 25 Nov 2025 10:00:0%d +0100\r\nX-Shop: de\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/html\r\n\r\n<p>Thanks, <b>Ann</b></p>\r\n"
    b'--b\r\nContent-Type: text/csv; name="a.csv"\r\nContent-Disposition: attachment\r\n\r\n'
    b"1,2\r\n--b--\r\n"
)
PEOPLE = ("ann@x.test", "b@x.test", "cc@x.test", "hidden@x.test")
ATTACHMENT = {
    "part_id": "2",
    "file_name": "a.csv",
    "content_type": "text/csv",
    "content_id": "",
    "size": 3,
}


def url_of(client: httpx2.AsyncClient) -> str:
    return str(client.base_url).rstrip("/")


@pytest.fixture
async def cypress(serve: Serve) -> AsyncIterator[Client]:
    """The commands of cypress-mailpit, logged in with a token as name and password."""
    client = await serve(with_logins(base_path="/mail"))
    async with cypress_mailpit(url_of(client) + "/mail", "tests", TOKENS["tests"]) as commands:
        yield commands


@pytest.fixture
async def python(serve: Serve) -> AsyncIterator[Client]:
    """mailpit-api-client at an open sandbox; it knows of no logins."""
    async with mailpit_api_client(url_of(await serve())) as client:
        yield client


async def test_cypress_sends_and_looks_at_a_mail(cypress: Client) -> None:
    await cypress.call("mailpitSendMail")
    options = {
        "subject": "Order 7",
        "to": [{"Email": "ann@x.test", "Name": "Ann"}],
        "attachments": [{"FileName": "a.txt", "Content": "aGVsbG8="}],
        "tags": ["orders"],
    }
    sent = await cypress.call("mailpitSendMail", options)
    mail = await cypress.call("mailpitGetMail")
    assert mail["ID"] == sent["ID"]
    assert mail["Tags"] == ["orders"]
    assert mail["ReplyTo"] == [{"Name": "ReplyTo", "Address": "replyto@example.com"}]
    assert mail["Bcc"] == [{"Name": "", "Address": "bcc@example.com"}]
    assert await cypress.call("mailpitGetSubject", mail) == "Order 7"
    assert await cypress.call("mailpitGetFromAddress", mail) == "from@example.com"
    assert await cypress.call("mailpitGetRecipientAddress", mail) == ["ann@x.test"]
    assert await cypress.call("mailpitGetAttachments", mail) == ["a.txt"]
    assert await cypress.call("mailpitGetMailTextBody", mail) == "hello from mailpit\r\n"
    page = await cypress.call("mailpitGetMailHTMlBody", mail)
    assert "<p>hello from mailpit</p>" in page
    listed = await cypress.call("mailpitGetAllMails")
    assert [one["Subject"] for one in listed["messages"]] == ["Order 7", "Hello Mailpit"]
    second = await cypress.call("mailpitGetAllMails", 1, 1)
    assert [one["Subject"] for one in second["messages"]] == ["Hello Mailpit"]


async def test_cypress_searches_and_waits(cypress: Client, capture: Capture, store: Store) -> None:
    for number in range(2):
        capture(ORDER % (number, number, number), PEOPLE)
    await asyncio.to_thread(Indexer(store).catch_up, within_s=None)

    async def found(command: str, *arguments: object) -> list[str]:
        answer = await cypress.call(command, *arguments)
        return [one["Subject"] for one in answer["messages"]]

    both = ["Order 1", "Order 0"]
    assert await found("mailpitSearchEmails", "from:shop@shop.test") == both
    assert await found("mailpitGetEmailsBySubject", "order") == both
    assert await found("mailpitGetEmailsByTo", "b@x.test") == both
    assert await found("mailpitHasEmailsBySearch", 'subject:"order 1"', 0, 50, FAST) == both[:1]
    assert await found("mailpitHasEmailsBySubject", "order", 0, 50, FAST) == both
    assert await found("mailpitHasEmailsByTo", "ann@x.test", 0, 50, FAST) == both
    for command, query in (
        ("mailpitNotHasEmailsBySearch", "invoice"),
        ("mailpitNotHasEmailsBySubject", "invoice"),
        ("mailpitNotHasEmailsByTo", "hidden@x.test"),
    ):
        assert await found(command, query, 0, 50, FAST) == []
    with pytest.raises(ClientError, match="Timed out after 400ms"):
        await cypress.call("mailpitNotHasEmailsByTo", "ann@x.test", 0, 50, FAST)


async def test_cypress_marks_and_deletes(cypress: Client, capture: Capture) -> None:
    for number in range(3):
        capture(ORDER % (number, number, number), PEOPLE)
    mails = (await cypress.call("mailpitGetAllMails"))["messages"]

    async def read() -> list[bool]:
        return [one["Read"] for one in (await cypress.call("mailpitGetAllMails"))["messages"]]

    assert await cypress.call("mailpitSetAllEmailStatusAsRead") == "ok"
    assert await read() == [True, True, True]
    assert await cypress.call("mailpitSetStatusAsUnRead", mails[:2]) == "ok"
    assert await read() == [False, False, True]
    assert await cypress.call("mailpitSetStatusAsRead", mails[0]) == "ok"
    assert await read() == [True, False, True]
    assert await cypress.call("mailpitSetAllEmailStatusAsUnRead") == "ok"
    assert await read() == [False, False, False]
    done = await cypress.call("mailpitDeleteEmailsBySearch", 'subject:"order 1"')
    assert done == {"status": 200, "body": "ok"}
    listed = (await cypress.call("mailpitGetAllMails"))["messages"]
    assert [one["Subject"] for one in listed] == ["Order 2", "Order 0"]
    assert await cypress.call("mailpitDeleteAllEmails") == {"status": 200, "body": "ok"}
    assert await read() == []
    with pytest.raises(ClientError, match="404"):
        await cypress.call("mailpitGetMailSpamAssassinSummary", mails[0])


async def test_the_python_client_reads_all_it_knows(python: Client, capture: Capture) -> None:
    content = ORDER % (1, 1, 1)
    queue_id = capture(content, PEOPLE)
    ann, shop = {"name": "Ann", "address": "ann@x.test"}, {"name": "Shop"}
    shared: dict[str, Any] = {
        "id": queue_id,
        "message_id": "1@shop.test",
        "from_": shop | {"address": "shop@shop.test"},
        "to": [ann, {"name": "", "address": "b@x.test"}],
        "cc": [{"name": "", "address": "cc@x.test"}],
        "bcc": [{"name": "", "address": "hidden@x.test"}],
        "subject": "Order 1",
        "size": len(content),
    }
    assert await python.call("get_messages") == {
        "total": 1,
        "unread": 1,
        "count": 1,
        "start": 0,
        "messages": [
            shared
            | {"read": False, "created": "2025-11-25 10:00:00.123000+00:00", "attachments": 1}
        ],
    }
    assert await python.call("get_message", queue_id) == shared | {
        "read": True,
        "date": "2025-11-25 10:00:01+01:00",
        "text": "Thanks, Ann",
        "html": "<p>Thanks, <b>Ann</b></p>",
        "inline": [],
        "attachments": [ATTACHMENT],
    }
    assert await python.call("get_message_attachment", queue_id, "2") == "1,2"
    headers = await python.call("get_message_headers", queue_id)
    assert headers.pop("additional") == {
        "Cc": ["cc@x.test"],
        "Subject": ["Order 1"],
        "To": ["Ann <ann@x.test>, b@x.test"],
        "X-Shop": ["de"],
    }
    assert headers == {
        "content_type": ['multipart/mixed; boundary="b"'],
        "date": ["2025-11-25 10:00:01+01:00"],
        "delivered_to": ["ann@x.test"],
        "from_": ["Shop <shop@shop.test>"],
        "message_id": ["<1@shop.test>"],
    }


async def test_the_python_client_names_ids_in_a_form(python: Client, capture: Capture) -> None:
    """Mailpit takes such a form for no ids at all, and changes everything."""
    ids = [capture(ORDER % (number, number, number), PEOPLE) for number in range(4)]

    async def listed() -> dict[str, bool]:
        return {one["id"]: one["read"] for one in (await python.call("get_messages"))["messages"]}

    await python.call("put_messages", ids[:2], "Read", True)
    assert await listed() == {ids[3]: False, ids[2]: False, ids[1]: True, ids[0]: True}
    await python.call("delete_messages", [ids[0], ids[3]])
    assert list(await listed()) == [ids[2], ids[1]]
    await python.call("delete_messages", [ids[1]])
    assert list(await listed()) == [ids[2]]
    await python.call("delete_messages", [])
    assert await listed() == {}
