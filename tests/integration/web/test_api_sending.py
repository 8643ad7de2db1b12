"""Mailpit's send: a message given as JSON is captured, whatever the mode."""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from relaygw.mail.search import EVERYTHING
from relaygw.store.store import Store
from tests.integration.web.people import TOKENS, with_logins

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]

SHOP = {"Email": "shop@shop.test", "Name": "Shop"}
LEAST: dict[str, Any] = {"From": SHOP, "To": [{"Email": "ann@x.test"}], "Text": "hello"}


async def test_it_is_captured_and_nothing_else(serve: Serve, store: Store) -> None:
    client = await serve(with_logins())
    client.headers["Authorization"] = f"Bearer {TOKENS['tests']}"
    answer = await client.post("/api/v1/send", json=LEAST | {"Bcc": ["dev@x.test", "Ann@X.test"]})
    assert answer.status_code == 200
    (found,) = store.sandbox.find_captured(EVERYTHING, start=0, limit=9)
    assert answer.json() == {"ID": found.entry.queue_id}
    assert {(one.address, one.state.value) for one in found.entry.recipients} == {
        ("ann@x.test", "captured"),
        ("dev@x.test", "captured"),
    }
    assert {one.reply for one in found.entry.recipients} == {"sent by the API"}
    assert (found.entry.sender, found.entry.source.user) == ("shop@shop.test", "tests")


async def test_the_least_message(serve: Serve) -> None:
    client = await serve()
    queue_id = (await client.post("/api/v1/send", json=LEAST)).json()["ID"]
    shown = (await client.get("/api/v1/message/latest")).json()
    assert (shown["Subject"], shown["Text"], shown["HTML"]) == ("", "hello\r\n", "")
    assert shown["MessageID"].startswith(f"{queue_id}@")
    headers = (await client.get("/api/v1/message/latest/headers")).json()
    assert len(headers["Date"]) == 1


async def test_html_alone_and_inline_pictures(serve: Serve) -> None:
    client = await serve()
    body = {
        "from": SHOP,
        "to": [{"email": "ann@x.test"}],
        "html": '<p>Hi</p><img src="cid:logo">',
        "attachments": [
            {
                "FileName": "logo.png",
                "ContentType": "image/png",
                "ContentID": "logo",
                "Content": base64.b64encode(b"\x89PNG").decode(),
            }
        ],
    }
    assert (await client.post("/api/v1/send", json=body)).status_code == 200
    shown = (await client.get("/api/v1/message/latest")).json()
    assert (shown["Text"], shown["HTML"]) == ("Hi", body["html"] + "\r\n")
    (inline,) = shown["Inline"]
    assert (inline["ContentID"], inline["FileName"], inline["Size"]) == ("logo", "logo.png", 4)


def attached(**one: str) -> dict[str, Any]:
    return {"Attachments": [{"Filename": "a", "Content": "", **one}]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"From": None}, "From is not an object with Email and Name"),
        ({"From": {"Email": "nobody"}}, "From: 'nobody' is not an address"),
        ({"From": {"Email": "a@x.test", "Name": "a\r\nBcc: b@x.test"}}, "From: "),
        ({"To": []}, "To, Cc and Bcc name 1 to 100 recipients"),
        ({"To": [{"Email": f"a{n}@x.test"} for n in range(101)]}, "To names 101; at most 100"),
        ({"To": ["ann@x.test"]}, "To is not a list of objects"),
        ({"Bcc": ["a b"]}, "Bcc: 'a b' is not an address"),
        ({"Subject": "a\r\nX: y"}, "no message can be made of this"),
        ({"Subject": "ä" * 1001}, "Subject has 1001 characters; at most 1000"),
        ({"Headers": {"X\r\nBcc": "b@x.test"}}, "is not a field with a text"),
        ({"Headers": {"X": "a\r\nBcc: b@x.test"}}, "no message can be made of this"),
        ({"Headers": {"X": 1}}, "Headers: 'X' is not a field with a text"),
        ({"Headers": {f"X-{n}": "x" for n in range(101)}}, "at most 100 texts"),
        ({"Text": 1}, "Text is not a text"),
        ({"Tags": ["x" * 101]}, "a tag has 1 to 100 characters"),
        (attached(Content="ä"), "the Content of an attachment is not base64"),
        (attached(ContentType="multipart/mixed"), "cannot be of the type 'multipart/mixed'"),
        (attached(ContentType="text/a\r\nX: y"), "an attachment cannot be of the type"),
    ],
)
async def test_what_is_no_message_is_refused(
    serve: Serve, store: Store, changes: dict[str, Any], words: str
) -> None:
    client = await serve()
    answer = await client.post("/api/v1/send", json=LEAST | changes)
    assert answer.status_code == 400
    assert words in answer.text
    assert store.sandbox.count_captured(EVERYTHING) == (0, 0)


async def test_fields_that_are_the_body_s_own_are_left_to_it(serve: Serve) -> None:
    client = await serve()
    fields = {"Content-Type": "multipart/mixed", "mime-version": "9", "SUBJECT": "x", "X-A": "b"}
    answer = await client.post("/api/v1/send", json=LEAST | {"Headers": fields})
    assert answer.status_code == 200
    headers = (await client.get("/api/v1/message/latest/headers")).json()
    assert headers["Mime-Version"] == ["1.0"]
    assert headers["Content-Type"] == ['text/plain; charset="utf-8"']
    assert (headers["Subject"], headers["X-A"]) == ([""], ["b"])


async def test_half_characters_and_long_fields_take_no_time(serve: Serve) -> None:
    client = await serve()
    lone = b'{"From": {"Email": "a@x.test"}, "To": [{"Email": "b@x.test"}], "Text": "\\ud800"}'
    assert (await client.post("/api/v1/send", content=lone)).status_code == 400
    began_s = time.process_time()
    people = [{"Email": f"a{number}@x.test", "Name": "ä" * 80} for number in range(100)]
    longest = LEAST | {"To": people}
    assert (await client.post("/api/v1/send", json=longest)).status_code == 200
    for more in ({"Headers": {f"X-{n}": "ä " * 500 for n in range(100)}}, {"Subject": "ä" * 1000}):
        answer = await client.post("/api/v1/send", json=longest | more)
        assert answer.status_code == 400
        assert "characters; at most 10000" in answer.text
    assert time.process_time() - began_s < 10
