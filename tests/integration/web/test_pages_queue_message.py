"""One queued message: its story, what was said of its recipients, its content, its audit."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from relaygw.operations.story import tell_story
from relaygw.store.store import Store
from tests.integration.web.queued import GREYLISTED, defer, deliver, gateway, now_ms, queue_mail
from tests.integration.web.test_pages_queue import log_in, send

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


async def test_the_story_as_the_command_line_tells_it(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store, "hello", "ann@cust.test", "bob@cust.test")
    defer(store)
    settings = gateway()
    client = await log_in(await serve(settings), "otto")
    await send(client, action="hold", tick=queue_id, note="ask first", confirmed="1")
    page = (await client.get(f"/queue/{queue_id}")).text
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))
    story = tell_story(store, settings, queue_id, now_ms=now_ms())
    assert story is not None
    assert len(story.events) >= 3
    for told in (
        *(event.text for event in story.events),
        *(note.text for event in story.events for note in event.notes if "ago" not in note.text),
        *(outlook.text for outlook in story.outlooks),
        *(advice.text for advice in story.advice),
        *(advice.command for advice in story.advice),
    ):
        shown = told.replace("&", "&amp;").replace("'", "&#39;").replace('"', "&#34;")
        assert re.sub(r"\s+", " ", shown) in text or " in " in told, told
    assert GREYLISTED in text
    assert "ask first" in text
    assert text.count("pending") == 2
    assert "/srv/shop/cron.php" in text
    assert "otto held 1 message in the pages because “ask first”" in text


async def test_actions_fit_the_state(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    client = await log_in(await serve(gateway()), "otto")

    async def actions() -> set[str]:
        page = (await client.get(f"/queue/{queue_id}")).text
        return set(re.findall(r'name="action" value="(\w+)"', page))

    assert await actions() == {"retry", "hold", "move", "expire", "delete"}
    done = await send(client, action="hold", tick=queue_id, back="message", confirmed="1")
    assert done.headers["location"] == f"/queue/{queue_id}?did=held&number=1"
    assert await actions() == {"release", "hold", "move", "expire", "delete"}
    await send(client, action="delete", tick=queue_id, confirmed="1")
    assert await actions() == {"undelete"}


async def test_its_content_in_the_safe_viewer(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get(f"/queue/{queue_id}?view=html")).text
    assert f'<iframe sandbox="allow-same-origin" src="/queue/{queue_id}/html?framed' in page
    frame = await client.get(f"/queue/{queue_id}/html")
    assert frame.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert "<b>Ann</b>" in frame.text
    assert "alert" not in frame.text
    for view, words in (("text", "Hello Ann"), ("headers", "Content-Type"), ("source", "alert(1)"),
                        ("links", "no links"), ("parts", "Nothing is attached")):  # fmt: skip
        shown = (await client.get(f"/queue/{queue_id}?view={view}")).text
        assert words in shown
        assert "<script>alert" not in shown
    source = await client.get(f"/queue/{queue_id}/source")
    assert source.headers["content-disposition"] == f'attachment; filename="{queue_id}.eml"'


async def test_without_content_there_is_a_story(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    deliver(store)
    client = await serve()
    for path in (f"/queue/{queue_id}", f"/queue/{queue_id}?view=html"):
        page = (await client.get(path)).text
        assert "no longer kept" in page
        assert 'id="advice"' in page
        assert "view=html" not in page
    assert (await client.get(f"/queue/{queue_id}/source")).status_code == 404


@pytest.mark.parametrize("queue_id", ["NOTHING1234", "x", "ABCDEFGHIJ" * 3])
async def test_what_is_not_there(serve: Serve, queue_id: str) -> None:
    client = await serve()
    for rest in ("", "/html", "/source", "/part/1"):
        assert (await client.get(f"/queue/{queue_id}{rest}")).status_code == 404


async def test_the_audit_leads_to_messages(serve: Serve, store: Store) -> None:
    ids = [queue_mail(store, str(number)) for number in range(5)]
    client = await log_in(await serve(gateway()), "otto")
    await send(client, action="hold", tick=ids, confirmed="1")
    page = (await client.get("/audit")).text
    assert page.count('<a href="/queue/') == 3
    assert "and 2 more" in page
    assert "otto" in page
    assert "5 messages" in page
