"""What a story's page offers: the buttons of the commands it tells, and an answer to be copied."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from relaygw.mail.state import RecipientState
from relaygw.store.holds import Hold
from relaygw.store.store import Store
from relaygw.web.queue.pages import act_of
from tests.integration.web.people import with_logins
from tests.integration.web.queued import defer, gateway, now_ms, queue_mail
from tests.integration.web.test_pages_queue import ended, log_in, send, token

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
_ADVICE = re.compile(r'<section class="advice" aria-labelledby="advice">(.*?)</section>', re.DOTALL)


async def advice(client: httpx2.AsyncClient, queue_id: str) -> str:
    """Return the part of the page that tells what to do."""
    found = _ADVICE.search((await client.get(f"/queue/{queue_id}")).text)
    assert found is not None
    return found[1]


def form_of(part: str) -> tuple[str, dict[str, str]]:
    """Return where the first form leads, and what it sends."""
    (action,) = re.findall(r'<form method="post" action="([^"]+)"', part)
    return action, dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', part))


@pytest.mark.parametrize("name", ["vera", "otto", "anna"])
async def test_who_may_change_mail_gets_buttons(serve: Serve, store: Store, name: str) -> None:
    queue_id = queue_mail(store)
    defer(store)
    client = await log_in(await serve(gateway()), name)
    part = await advice(client, queue_id)
    assert f"<code>relaygw queue retry --id {queue_id}</code>" in part
    assert ("<button" in part) == (name != "vera")
    assert ("Ask an operator, who has a button for it." in part) == (name == "vera")
    if name == "vera":
        return
    path, fields = form_of(part)
    asked = await client.post(path, data=fields)
    assert "Retry 1 message?" in asked.text
    done = await client.post(path, data={**fields, "confirmed": "1"})
    assert done.headers["location"] == f"/queue/{queue_id}?did=retried&number=1"
    assert store.audit.entries(limit=1)[0].actor == name


async def test_a_provider_is_released_and_one_is_back_at_the_message(
    serve: Serve, store: Store
) -> None:
    queue_id = queue_mail(store)
    defer(store)
    for key in ("main", "spare"):
        hold = Hold(
            scope="credential", key=key, reason="535", remedy="", since_ms=now_ms(),
            probe_at_ms=now_ms() + 300_000,
        )  # fmt: skip
        store.holds.put_hold(hold)
    client = await log_in(await serve(gateway()), "otto")
    part = await advice(client, queue_id)
    assert "Release main…" in part and "Release spare…" in part
    path, fields = form_of(part[: part.index("</form>")])
    asked = await client.post(path, data=fields)
    assert f'href="/queue/{queue_id}" data-up>Cancel' in asked.text
    back = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', asked.text))
    done = await client.post(path, data=back)
    assert done.headers["location"] == f"/queue/{queue_id}?did=provider_released&number=1"
    assert {hold.key for hold in store.holds.in_force()} == {"spare"}


@pytest.mark.parametrize("back", ["", "//evil.test", "../x", "%2f%2fevil", "A" * 40])
async def test_back_is_a_message_or_the_first_page(serve: Serve, store: Store, back: str) -> None:
    client = await log_in(await serve(gateway()), "otto")
    form = {"csrf": await token(client), "provider": "main", "action": "hold", "back": back}
    done = await client.post("/providers/change", data={**form, "confirmed": "1"})
    assert done.headers["location"] == "/?did=provider_held&number=1"


async def test_captured_trashed_and_ended_mail(serve: Serve, store: Store) -> None:
    client = await log_in(await serve(gateway()), "otto")
    captured = ended(store, "captured", RecipientState.CAPTURED)
    assert f'href="/sandbox/{captured}/release"' in await advice(client, captured)
    trashed = queue_mail(store)
    await send(client, action="delete", tick=trashed, confirmed="1")
    assert form_of(await advice(client, trashed))[1]["action"] == "undelete"


def test_commands_that_have_a_button() -> None:
    for command, label in {
        "relaygw queue release --id 1M8A85JPFC6TFQAQP": "Release…",
        "relaygw queue move --id 1M8A85JPFC6TFQAQP --to PROVIDER": "Move…",
        "relaygw queue delete --id 1M8A85JPFC6TFQAQP": "Delete…",
        "relaygw queue resend 1M8A85JPFC6TFQAQP": "Send again…",
        "relaygw provider release ses-1": "Release ses-1…",
        "relaygw status": None,
        "relaygw check --online": None,
        "": None,
    }.items():
        act = act_of(command, "1M8A85JPFC6TFQAQP")
        assert (act.label if act else None) == label


async def test_the_cause_comes_first_and_the_answer_is_text(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store, "Order <7>")
    defer(store)
    client = await log_in(await serve(with_logins("production")), "vera")
    page = (await client.get(f"/queue/{queue_id}")).text
    standing = re.search(r'<p class="standing">(.*?)</p>', page)
    assert standing is not None
    text = re.sub(r"<[^>]+>", "", standing[1])
    assert text.startswith("deferred ") and "next try" in text
    assert '<time data-time="second"' in standing[1]
    answer = re.search(r'<blockquote id="answer"[^>]*>([^<]+)</blockquote>', page)
    assert answer is not None and answer[1].startswith("Our e-mail “Order &lt;7&gt;” of ")
    assert 'data-copy="answer"' in page


async def test_what_is_not_sent_again_leads_to_what_would_send_it(
    serve: Serve, store: Store
) -> None:
    client = await log_in(await serve(gateway()), "otto")
    captured = ended(store, "captured", RecipientState.CAPTURED)
    page = (await client.get(f"/queue/{captured}/resend")).text
    assert f"relaygw sandbox release {captured}" in page
    assert f'<a class="button" href="/sandbox/{captured}/release">' in page
