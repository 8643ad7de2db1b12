"""The first page: throughput, what waits, providers with their trouble, processes, refusals."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import httpx2
import pytest

from relaygw.mail.outcome import Scope
from relaygw.settings.model import Settings, fingerprint
from relaygw.settings.section import Rate
from relaygw.store.holds import PAUSED, UNREACHABLE, Hold
from relaygw.store.instances import Instance
from relaygw.store.store import Store
from relaygw.store.watch import Incident
from relaygw.web.dashboard import overview
from tests.integration.web.conftest import sandbox
from tests.integration.web.queued import bounce, defer, gateway, now_ms, queue_mail
from tests.integration.web.test_pages_queue import hidden_fields, log_in, token

Serve = Callable[..., Awaitable[httpx2.AsyncClient]]


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def card_of(page: str, provider: str) -> str:
    """Return the words of the card of a provider."""
    start = page.index(f'data-provider="{provider}"')
    return text_of(page[start - 40 : page.index("</li>", start)].partition(">")[2])


async def test_an_empty_gateway(serve: Serve) -> None:
    page = (await (await serve()).get("/")).text
    assert "nothing leaves this gateway" in page
    assert "Nothing runs" in page
    assert "Nothing was delivered, deferred or bounced" in page
    assert "Nothing was refused" in page


async def test_what_waits_by_state_age_and_route(serve: Serve, store: Store) -> None:
    queue_mail(store, age_s=7200)
    defer(store)
    queue_mail(store)
    queue_mail(store)
    client = await log_in(await serve(gateway()), "vera")
    text = text_of((await client.get("/")).text)
    assert "2 Incoming oldest now" in text
    assert "1 Deferred oldest 2 h" in text
    assert "0 Held none" in text
    assert "under 5 min 2 under 1 h 0 under 6 h 1 under 1 d 0 older 0" in text
    assert "default transactional → main, spare 2 – 1 – 2 h" in text


async def test_what_became_of_recipients_in_the_last_hours(serve: Serve, store: Store) -> None:
    now = now_ms()
    for ago, delivered in ((0, 5), (300_000, 20), (3_600_000, 7), (86_400_000, 1000)):
        store.watch.add_history(
            now - ago, {("delivered", "main"): delivered, ("deferred", "main"): 3}
        )
    store.watch.add_history(now, {("refused", "554 5.7.1"): 12, ("in_queue", "main 500"): 99})
    store.watch.add_history(now, {("in_queue", "spare 30000"): 6})
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get("/")).text
    text = text_of(page)
    assert "32 Delivered recipients" in text
    assert "0 Deferred messages, 9 tries" in text
    assert re.search(r"[34]\d\d ms In queue, p50 105 messages 2\d s In queue, p95", text)
    chart = page[page.index('<div class="chart">') : page.index('<details class="chart-table">')]
    assert len(re.findall('class="chart-delivered"', chart)) == 3
    heights = re.findall(r'chart-(\w+)" x="[\d.]+" y="[\d.]+" width="0.8" height="([\d.]+)"', chart)
    assert max(float(height) for name, height in heights if name == "delivered") > 80
    assert re.search(r">\d+ \w+, [\d:]{5}–[\d:]{5} UTC: 20 delivered, 3 deferred</title>", chart)
    assert "20 3 –" in text_of(page[page.index('<details class="chart-table">') :])
    assert "554 5.7.1 12" in text
    assert "0 delivered" in card_of(page, "spare")
    main = card_of(page, "main")
    assert re.search(r"32 delivered , 0 deferred , 0 bounced In queue [34]\d\d ms", main)
    long = text_of((await client.get("/?hours=72")).text)
    assert "1,032 Delivered" in long
    assert "As a table, in steps of 1 h" in long


async def test_times_in_the_queue_are_of_the_span_alone(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_hour_ms, hours_ms = 1_800_000, 3 * 3_600_000
    begin_ms = now_ms() // half_hour_ms * half_hour_ms - half_hour_ms
    monkeypatch.setattr(overview, "clock_ms", lambda: begin_ms + 600_000)
    first_ms = begin_ms - hours_ms  # of a slice that begins before the span
    for at_ms, mails in ((first_ms, 100), (first_ms + half_hour_ms, 3), (begin_ms, 4)):
        store.watch.add_history(at_ms, {("in_queue", "main 10"): mails})
    client = await log_in(await serve(gateway()), "vera")
    assert "In queue, p50 7 messages" in text_of((await client.get("/")).text)


async def test_the_page_of_a_provider_has_its_numbers_alone(serve: Serve, store: Store) -> None:
    queue_mail(store)
    bounce(store, "550 5.1.1 User unknown", provider="main")
    queue_mail(store)
    bounce(store, "552 5.2.2 Mailbox full", provider="spare")
    store.watch.add_history(now_ms(), {("in_queue", "main 10"): 1, ("in_queue", "spare 100000"): 9})
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get("/providers/main")).text
    text = text_of(page)
    assert "1 Bounced recipients" in text
    assert "User unknown" in text
    assert "Mailbox full" not in text
    assert "s In queue, p50 1 message" in text
    assert "smtp.main.test:587" in text
    assert "Quota 0 of 1,000 messages a day" in text
    assert "smtp.spare.test" not in text
    assert 'href="/queue?route=default"' in page
    assert 'href="/providers/main"' in (await client.get("/")).text
    assert (await client.get("/providers/nobody")).status_code == 404


async def test_a_held_provider_says_why_and_what_to_do(serve: Serve, store: Store) -> None:
    now = now_ms()
    store.holds.put_hold(
        Hold(
            scope=Scope.CREDENTIAL.value,
            key="main",
            reason="535 5.7.8 <b>bad</b> key",
            remedy="write the right key",
            since_ms=now - 600_000,
            probe_at_ms=now + 300_000,
        )
    )
    store.holds.put_hold(
        Hold(
            scope=UNREACHABLE,
            key="spare",
            reason="connection refused",
            remedy="",
            since_ms=now,
            probe_at_ms=now,
        )
    )
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get("/")).text
    main = card_of(page, "main")
    assert (
        '<b><a href="/providers/main">main</a></b> <span class="state state-failed">held</span>'
        in page
    )
    assert "credential , 10 min ago : 535 5.7.8 &lt;b&gt;bad&lt;/b&gt; key" in main
    assert "next probe in 5 min" in main
    assert "write the right key" in main
    assert "unreachable" in card_of(page, "spare")


async def test_a_pause_is_shown_with_its_end(serve: Serve, store: Store) -> None:
    now = now_ms()
    store.holds.put_hold(
        Hold(
            scope=PAUSED,
            key="main",
            reason="454 too fast",
            remedy="lower its rate",
            since_ms=now - 60_000,
            probe_at_ms=now + 59_000,
        )
    )
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get("/")).text
    assert '<span class="state state-waiting">paused</span>' in page
    main = card_of(page, "main")
    assert "454 too fast" in main and "next probe in" in main and "lower its rate" in main


async def test_limits_their_use_and_the_last_reply(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    defer(store)
    store.limits.use_quota("main", wanted=870, quota=1000)
    store.limits.lower_rate("main", per_s=4.0, guard_s=1)
    now = now_ms()
    store.watch.add_history(now - now % 300_000 - 1000, {("delivered", "main"): 600})
    client = await log_in(await serve(gateway()), "vera")
    page = (await client.get("/")).text
    main = card_of(page, "main")
    assert "slowed" in main
    assert "it asked to slow down at 4/s" in main
    lately = re.search(r"lately (\S+/\w)", main)
    assert lately is not None
    assert 0.9 <= Rate.parse(lately[1]).per_s <= 2.1
    assert "870 of 1,000 messages a day 87 %" in main
    assert "451 4.7.1 Greylisted" in main
    assert "The recipient&#39;s server asks to try later" in main
    assert f'href="/queue/{queue_id}"' in page
    assert "Last reply" not in card_of(page, "spare")


async def test_processes_and_what_is_wrong(serve: Serve, store: Store) -> None:
    settings = gateway()
    for name, mark in (("a", fingerprint(settings)), ("b", "other")):
        store.instances.register(
            Instance(
                incarnation=name, name=f"gw-{name}.test", role="front", pid=7, version="9.9",
                fingerprint=mark,
            )
        )  # fmt: skip
    store.watch.open_incident(
        Incident(
            incident_id="i", rule="queue_age", key="", summary="oldest mail <i>waits</i> 2 h",
            remedy="look at the providers", since_ms=now_ms() - 720_000, told=("ops",),
        )
    )  # fmt: skip
    client = await log_in(await serve(settings), "vera")
    page = (await client.get("/")).text
    text = text_of(page)
    assert re.search(r"front gw-a.test 7, 9.9 now now running(?! drifted)", text)
    assert re.search(r"front gw-b.test 7, 9.9 now now running drifted", text)
    assert "front 7 on gw-b.test: routing or policy settings differ" in text
    assert "no delivery runs; start it: relaygw serve --role delivery" in text
    assert re.search(
        "&lt;i&gt;waits&lt;/i&gt; 2 h since [^,]+, [0-9:]{5} UTC , reported to ops", text
    )
    assert "look at the providers" in text
    store.watch.end_incident("i", at_ms=now_ms())
    while "over since" not in text:  # what was looked at lately is shown again
        text = text_of((await client.get("/")).text)
    assert re.search("&lt;i&gt;waits&lt;/i&gt; 2 h over since [^,]+, [0-9:]{5} UTC", text)
    assert "reported to ops" not in text


async def test_a_receiver_that_an_alert_tells_of_is_shown_once(serve: Serve, store: Store) -> None:
    shop = {"name": "shop", "url": "https://shop.test/", "secret": "env:SECRET"}
    desk = {"name": "desk", "url": "https://desk.test/", "secret": "env:SECRET"}
    settings = Settings.model_validate(
        gateway().model_dump(exclude_unset=True) | {"webhooks": [shop, desk]}
    )
    store.outbox.see_endpoints({one.endpoint: "its label" for one in settings.webhooks})
    for one in settings.webhooks:
        more = {"wait_ms": 1000, "pause_after_ms": 1000, "is_gone": True}
        store.outbox.note_refused(one.endpoint, "it answered 410", **more)
    store.watch.open_incident(
        Incident(
            incident_id="i", rule="webhook_failing", key="shop", since_ms=now_ms(),
            summary="webhook shop is gone, and 7 events wait", remedy="resume it", told=("ops",),
        )
    )  # fmt: skip
    text = text_of((await (await log_in(await serve(settings), "vera")).get("/")).text)
    assert text.count("webhook shop is gone") == 1
    assert "webhook shop is gone, and 7 events wait" in text
    assert text.count("webhook desk is gone") == 1


async def test_an_operator_holds_a_provider_and_lets_it_go(serve: Serve, store: Store) -> None:
    client = await log_in(await serve(gateway()), "otto")
    csrf = await token(client, "/")
    asked = await client.post(
        "/providers/change", data={"csrf": csrf, "provider": "main", "action": "hold"}
    )
    assert "Hold provider main?" in asked.text
    assert store.holds.in_force() == []
    fields = {"csrf": csrf, "provider": "main", "confirmed": "1"}
    held = await client.post("/providers/change", data={**fields, "action": "hold", "note": "look"})
    seen = (await client.get(held.headers["location"])).text  # at once, though it was just read
    assert 'aria-label="Release main"' in seen
    (hold,) = store.holds.in_force()
    assert (hold.key, hold.reason) == ("main", "operator: look")
    await client.post("/providers/change", data={**fields, "action": "release"})
    assert store.holds.in_force() == []
    assert [one.action for one in store.audit.entries(limit=9)] == [
        "provider.release",
        "provider.hold",
    ]
    wrong = await client.post("/providers/change", data={**fields, "provider": "x"})
    assert wrong.status_code == 400


async def test_the_page_needs_nothing_that_its_policy_forbids(serve: Serve, store: Store) -> None:
    queue_id = queue_mail(store)
    store.watch.add_history(now_ms(), {("delivered", "main"): 5})
    client = await serve(sandbox())
    for path in ("/", "/queue", f"/queue/{queue_id}", "/audit", "/api/docs"):
        page = (await client.get(path)).text
        assert not re.search(r"<[^>]*\s(style|on\w+)=", page), path
        assert not re.search(r"<script(?![^>]*\ssrc=)", page), path
        assert "hx-on" not in page
    assert hidden_fields((await client.get("/queue")).text)["csrf"]
