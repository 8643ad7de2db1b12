"""Events as a shop gets them: from a whole gateway that is killed while its receiver is away."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.store.audit import AuditEntry
from tests.campaign import times
from tests.e2e.fleet import starter
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.event_receiver import SECRET, EventReceiver
from tests.fakes.scripted_provider import ThreadedProvider

MAIL = b"Subject: order\r\nX-Order-Id: 100000123\r\n\r\nhello\r\n"


def told_to(receiver: EventReceiver, **more: Any) -> dict[str, Any]:
    return {"url": receiver.url, "secret": f"plain:{SECRET}", "name": "shop"} | more


def test_a_shop_is_told_what_became_of_its_mail(tmp_path: Path) -> None:
    with (
        ThreadedProvider() as provider,
        EventReceiver() as receiver,
        Gateway(
            tmp_path,
            providers={"main": provider_settings(provider.port)},
            webhooks=[told_to(receiver)],
            recipients={"block": ["blocked@cust.test"]},
            web={"bind": "127.0.0.1:0", "link_header": "X-Order-Id"},
        ) as gateway,
    ):
        people = ["b@cust.test", "blocked@cust.test"]
        queue_id = gateway.send("a@shop.test", people, MAIL)
        receiver.wait_for(2)
        told = {one["recipient"]: one for one in receiver.events}
        one, other = told["b@cust.test"], told["blocked@cust.test"]
        assert (one["kind"], one["provider"], one["dsn"]) == ("delivered", "main", "2.0.0")
        assert (one["queue_id"], one["order"]) == (queue_id, "100000123")
        assert (one["sender"], one["verdict"]) == ("a@shop.test", None)
        assert (other["kind"], other["reply"]) == ("blocked", "on the block list")
        assert receiver.bodies[0]["gateway"] == "gw.test"
        receiver.answer = 500
        gateway.send("a@shop.test", people[:1], MAIL)
        (line,) = gateway.wait_for_log("webhook shop fails")
        assert f"127.0.0.1:{receiver.port} answered 500" in line
        # what it was not told while everything is killed and started again
        gateway.kill_all()
        receiver.answer = 200
        gateway.start()
        try_now(gateway)
        receiver.wait_for(3)
        assert gateway.stop() == 0
        assert "token-of-the-url" not in "\n".join(gateway.lines)
        assert SECRET not in "\n".join(gateway.lines)
    receiver.check()
    assert len(receiver.events) == 3


def try_now(gateway: Gateway) -> None:
    """Do what relaygw webhooks resume does."""
    entry = AuditEntry(
        at_ms=clock_ms(), actor="a", action="webhooks.resume", target="", affected=0, detail=""
    )
    for one in gateway.store.outbox.endpoints():
        gateway.store.outbox.resume(one.endpoint, entry=entry)


def kill(gateway: Gateway, victim: str) -> None:
    """SIGKILL a process of a gateway, or all of them, and have it run again."""
    if victim == "all":
        gateway.kill_all()
        gateway.start()
        return
    gateway.wait_until(lambda: bool(gateway.pids(victim)), f"a {victim}")
    before = gateway.pids(victim)
    for pid in before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    gateway.wait_until(lambda: not set(before) >= set(gateway.pids(victim)), f"another {victim}")


@pytest.mark.campaign
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_of_kills_and_a_dead_receiver_no_event_is_lost(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    """A post may come twice, with the id that it had; no event is missing or out of its order."""
    with ExitStack() as stack:
        provider = stack.enter_context(ThreadedProvider())
        receiver = stack.enter_context(EventReceiver(503))
        more: dict[str, Any] = {
            "providers": {"main": provider_settings(provider.port)},
            "webhooks": [told_to(receiver)],
        }
        if database == "postgres":
            start = starter(tmp_path, request.getfixturevalue("queue_url"), stack)
            gateways = [start(name, **more) for name in ("one", "two")]
        else:
            gateways = [stack.enter_context(Gateway(tmp_path, **more))]
        sent: list[str] = []
        for number in range(times(3, campaign=24)):
            provider.recipients["late@cust.test"] = b"451 4.2.0 later\r\n"
            for gateway in gateways:
                people = ["b@cust.test", "late@cust.test"]
                sent += [gateway.send("a@shop.test", people, MAIL) for _ in range(10)]
            receiver.answer = 503 if number % 2 else 200
            victim = gateways[number % len(gateways)]
            kill(victim, ("web", "delivery", "all")[number % 3])
            del provider.recipients["late@cust.test"]
            try_now(gateways[0])
        receiver.answer = 200
        for gateway in gateways:
            gateway.wait_until_empty()
            try_now(gateway)
        outbox = gateways[0].store.outbox
        gateways[0].wait_until(
            lambda: not any(one.waiting for one in outbox.endpoints()), "everything told"
        )
        receiver.check()
    check_told(receiver, sent)


def check_told(receiver: EventReceiver, sent: list[str]) -> None:
    posts = defaultdict(set)
    for post_id, events in receiver.posts:
        posts[tuple(one["id"] for one in events)].add(post_id)
    assert all(len(ids) == 1 for ids in posts.values()), "a post that came twice has its id"
    taken = list({one["id"]: one for one in receiver.events}.values())  # each once, by the first
    steps: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in taken:
        steps[one["queue_id"], one["recipient"]].append(one["kind"])
    expected = {(one, who) for one in sent for who in ("b@cust.test", "late@cust.test")}
    assert set(steps) == expected
    for kinds in steps.values():  # the same after the last one is of a worker that was killed
        assert kinds == [*["deferred"] * (len(kinds) - 1), "delivered"], kinds
    twice = len(receiver.events) - len(taken)
    print(f"{len(sent)} messages, {len(taken)} events, {twice} came twice")
