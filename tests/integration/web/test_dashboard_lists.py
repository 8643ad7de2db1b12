"""Each number of the dashboard is a link to a list, which holds exactly what the number counts."""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable

import httpx2

from relaygw.mail.attempt_state import PUT_OFF
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Kind
from relaygw.operations.queue_actions import ACTIONS, Order, change_queued
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from tests.integration.web.queued import bounce, defer, deliver, gateway, now_ms, queue_mail
from tests.integration.web.test_pages_queue import log_in
from tests.reported import report

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]
_LINK = re.compile(r'<a href="(/queue[?][^"]*)"[^>]*>(.*?)</a>', re.DOTALL)


def numbers_of(page: str) -> list[tuple[str, int]]:
    """Return the lists that the numbers of a page lead to, and the numbers."""
    found = []
    for path, text in _LINK.findall(page):
        number = re.match(r"\s*([\d,]+)", re.sub("<[^>]*>", " ", text))
        if number is not None:
            found.append((html.unescape(path), int(number[1].replace(",", ""))))
    return found


def day_of_mail(store: Store) -> None:
    """Let mail come to all kinds of ends by two providers."""
    unknown = "550 5.1.1 <{}@cust.test>: Recipient address rejected: User unknown"
    for name in ("ann", "bob", "cid"):
        queue_mail(store, "hello", f"{name}@cust.test")
        bounce(store, unknown.format(name))
    queue_mail(store, "hello", "dan@cust.test.example")
    bounce(store, unknown.format("dan"), provider="spare")
    queue_mail(store, "hello", "eve@cust.test")
    deliver(store)
    queue_mail(store, "hello", "fay@full.test")
    defer(store, reply="452 4.2.2 Mailbox full", provider="spare")
    queue_mail(store, "hello", "gus@cust.test")
    defer(store)
    lost = queue_mail(store, "hello", "hal@cust.test")
    defer(store)
    change_queued(store, ACTIONS["expire"], [lost], Order(actor="otto"), now_ms=now_ms())
    queue_mail(store, "hello", "ida@cust.test", age_s=7200)
    reported(store)
    count(store)


def reported(store: Store) -> None:
    """Let providers report of mail that they took."""
    for number, kind in enumerate((*Kind, Kind.HARD, Kind.COMPLAINED)):
        sender = "" if kind is Kind.SOFT else f"a@{'shop' if number % 2 else 'news'}.test"
        queue_id = queue_mail(store, "hello", f"{number}@cust.test", sender=sender)
        deliver(store, provider="spare" if number % 3 else "main")
        report(store, queue_id, kind, at_ms=now_ms())


def count(store: Store) -> None:
    """Count in the history what fronts and workers would have counted, at the very times."""
    store.watch.add_history(now_ms(), {("messages", "maildrop"): 20})
    for entry in store.queue.search(Selection(states=frozenset(DeliveryState)), limit=99):
        (one,) = entry.recipients
        if one.state is RecipientState.DELIVERED:
            by, domain = one.provider or "", entry.sender.rpartition("@")[2]
            store.watch.add_history(one.changed_at_ms, {("delivered", by): 1})
            store.watch.add_history(one.changed_at_ms, {("sent", domain): 1})
        for each in store.queue.attempts(entry.queue_id):
            if each.state in PUT_OFF:
                store.watch.add_history(each.at_ms, {("deferred", each.provider or ""): 1})


async def length_of(client: httpx2.AsyncClient, path: str) -> int:
    answer = await client.get(path)
    assert answer.status_code == 200, path
    return len(re.findall('<li class="mail queued"', answer.text))


async def test_lists_hold_what_is_counted(serve: Serve, store: Store) -> None:
    day_of_mail(store)
    client = await log_in(await serve(gateway()), "vera")
    for page, least in (("/", 30), ("/?hours=336", 30), ("/providers/spare", 8)):
        numbers = numbers_of((await client.get(page)).text)
        assert len([number for _, number in numbers if number]) >= least
        for path, number in numbers:
            assert await length_of(client, path) == number, (page, path)


async def test_what_fails_most_by_domain_reply_and_provider(serve: Serve, store: Store) -> None:
    day_of_mail(store)
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get("/")).text
    start = page.index('id="failing"')
    numbers = dict(numbers_of(page[start : page.index("</section>", start)]))

    def of(selector: str) -> dict[str, int]:
        found = {}
        for path, number in numbers.items():
            given = dict(httpx2.URL(path).params)
            kind = "deferred" if "attempt" in given else "failed"
            if selector in given:
                found[f"{given[selector]} {kind}"] = number
        return found

    domains = of("domain")
    assert domains["cust.test failed"] == 4
    assert domains["cust.test.example failed"] == 1
    assert domains["full.test deferred"] == 1
    assert of("reply")["Recipient address rejected: User unknown failed"] == 4
    assert of("provider")["main failed"] == 4
    assert of("provider")["spare deferred"] == 1


async def test_what_providers_reported_by_provider_and_senders_domain(
    serve: Serve, store: Store
) -> None:
    day_of_mail(store)
    client = await log_in(await serve(gateway()), "vera")
    for path, tables in (("/", 2), ("/providers/spare", 1)):
        page = (await client.get(path)).text
        panel = page[page.index('id="reported"') :]
        panel = panel[: panel.index("</section>")]
        assert panel.count("<table") == tables
        numbers = numbers_of(panel)
        assert len(numbers) >= 5
        for of_list, number in numbers:
            assert await length_of(client, of_list) == number, of_list
    page = (await client.get("/")).text
    shares = re.findall(r'sender_domain=shop.test[^>]*>(\d)</a> <span class="muted">([^<]+)<', page)
    assert shares
    assert all(share.endswith(" %") for _, share in shares)


async def test_without_reports_there_is_no_table_of_them(serve: Serve, store: Store) -> None:
    queue_mail(store)
    deliver(store)
    client = await log_in(await serve(gateway()), "vera")
    assert 'id="reported"' not in (await client.get("/")).text


async def test_mail_that_is_deleted_has_no_list(serve: Serve, store: Store) -> None:
    now = now_ms()
    store.watch.add_history(now - 7_200_000, {("delivered", "main"): 5, ("bounced", "main"): 4})
    settings = gateway()
    short = settings.model_copy(
        update={"queue": settings.queue.model_copy(update={"retention": 3600.0})}
    )
    client = await log_in(await serve(short), "vera")
    page = (await client.get("/")).text
    assert "older numbers have no list" in page
    chart = page[page.index('<div class="chart">') : page.index("</details>")]
    assert "5 delivered, 4 bounced" in chart
    assert "<a " not in chart
