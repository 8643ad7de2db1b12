"""The page of who sends what shows hostile subjects as text and leads to the mail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx2

from relaygw.mail.clock import clock_ms
from relaygw.mail.mail_class import ClassCount, MailClass, elsewhere
from relaygw.store.store import Store
from tests.integration.web.people import PASSWORDS, with_logins

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
HOSTILE = "<script>alert(1)</script>"


async def test_the_page_shows_who_sends_what(serve: Serve, store: Store) -> None:
    client = await serve(with_logins())
    assert (await client.get("/sources")).status_code != 200, "it names hosts and subjects"
    await client.post("/login", data={"name": "vera", "password": PASSWORDS["vera"]})
    assert "No mail was counted" in (await client.get("/sources")).text
    now_ms = clock_ms()
    spam = MailClass.of(
        ("10.0.0.5", "", "", 33, "60:up.php"),
        sender_domain="shop.test",
        template=HOSTILE,
        stream="transactional",
    )
    store.sources.count_mail(
        [
            ClassCount(spam, now_ms, now_ms, 1234, 1300),
            ClassCount(elsewhere("transactional"), now_ms, now_ms, 7, 7),
        ]
    )
    page = (await client.get("/sources")).text
    assert HOSTILE not in page and "&lt;script&gt;" in page and "1,234" in page
    listed = "/queue?state=all&amp;since=1d&amp;script=60%3Aup.php&amp;host=10.0.0.5"
    assert listed in page and "host=%28other" not in page
    by_uid = (await client.get("/sources?by=uid&days=7")).text
    assert "/queue?state=all&amp;since=7d&amp;uid=33" in by_uid and ">none<" in by_uid
    for wrong in ("by=x", "days=2", "by=%00"):
        assert (await client.get(f"/sources?{wrong}")).status_code == 400
