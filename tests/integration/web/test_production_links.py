"""Links to the live shop in captured mail: marked in list, view, search and API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.settings.model import Settings
from relaygw.store.rules import StoreRules
from relaygw.store.store import Store, open_store
from relaygw.web.indexing import Indexer
from relaygw.web.mail.text import hosts_named
from tests.integration.web.conftest import Capture, Serve
from tests.queues import make_queue

HOSTS = ("www.example.com", "müller.example", "10.0.0.9")
HTML = b"Subject: %b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n%b\r\n"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    opened = open_store(url, rules=StoreRules(production_hosts=HOSTS))
    yield opened
    opened.close()


def test_hosts_are_known_in_all_forms_and_no_others() -> None:
    for text in (
        "https://www.example.com/cart",
        'href="//WWW.Example.COM:8443/"',
        "https:\\\\www.example.com\\x",
        "see www.example.com.",
        "https://click.test/?to=https%3A%2F%2Fwww.example.com%2Fcart",
        "https:&#47;&#47;www.example&#46;com/",
        "http://xn--mller-kva.example/, http://müller.example/",
        "http://10.0.0.9/",
        "http://a@www.example.com/ http://a:b@www.example.com/",
        "<a href='https://www.exam\r\nple.com/'>x</a>",
        "<a href='https://click.test/aHR0cHM6Ly93d3cuZXhhbXBsZS5jb20'>x</a>",
        "<a href='https://click.test/?u=aHR0cDovL3d3dy5leGFtcGxlLmNvbS9h'>x</a>",
    ):
        assert len(hosts_named(text, HOSTS)) >= 1, text
    for text in (
        "https://staging.www.example.com/",
        "https://www.example.com.evil.test/",
        "https://www.example.community/",
        "info@www.example.com",
        "https://s.test/info@www.example.com",
        "https://shop-www.example.com/",
        "http://10.0.0.99/, http://110.0.0.9/",
        "https://example.com/",
    ):
        assert hosts_named(text, HOSTS) == [], text
    assert hosts_named("https://www.example.com/", ()) == []


async def test_a_mail_with_links_to_production_is_marked_everywhere(
    store: Store, capture: Capture, serve: Serve
) -> None:
    live = capture(
        HTML
        % (
            b"Live",
            b'<a href="https://www.exam\r\nple.com/cart">cart</a> <a href="https://s.test">x</a>',
        )
    )
    picture = capture(HTML % (b"Picture", b'<img src="https://www.example.com/logo.png">'))
    clean = capture(HTML % (b"Clean", b'<a href="https://staging.example.com/">cart</a>'))
    field = b"List-Unsubscribe: <https://www.example.com/u>\r\n"
    listed = capture(field + HTML % (b"Listed", b"x"))
    long = capture(HTML % (b"Long", b"<p>xxxxxxxxxxxxxxxx</p>\r\n" * 100_000))
    store.sandbox.set_tags([live], ["a", "b", "c"])
    Indexer(store).catch_up(within_s=None)
    sandbox = {"production_hosts": list(HOSTS)}
    client = await serve(Settings.model_validate({"mode": "sandbox", "sandbox": sandbox}))
    page = (await client.get("/sandbox")).text
    assert page.count('class="tag tag-live"') == 3  # in front of all others
    found = (await client.get("/api/v1/search?query=tag:production-links")).json()
    assert {one["ID"] for one in found["messages"]} == {live, picture, listed}
    assert found["messages"][0]["Tags"] == ["production-links"]
    shown = (await client.get(f"/sandbox/{live}?view=links")).text
    assert "Links to production: www.example.com" in shown
    assert shown.count("leads to production") == 1
    assert "Links to production" in (await client.get(f"/sandbox/{picture}")).text
    assert "to production" not in (await client.get(f"/sandbox/{clean}?view=links")).text
    unread = "Only the first two million characters were searched"
    assert unread in (await client.get(f"/sandbox/{long}")).text
    assert unread not in (await client.get(f"/sandbox/{clean}")).text
    # what somebody takes off stays off
    store.sandbox.set_tags([live], ["a"])
    Indexer(store).catch_up(within_s=None)
    one = store.sandbox.captured_entry(live)
    assert one is not None
    assert one.tags == ("a",)
