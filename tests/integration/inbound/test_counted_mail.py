"""Mail that comes by SMTP and through the maildrop is counted, and a check may hold it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.screen import Check, Screen, ScreenHold
from relaygw.mail.content import HeaderFacts
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.hold import HoldCode
from relaygw.mail.state import DeliveryState
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.integration.inbound.front_rig import Client, running_front, until
from tests.unit.inbound.test_drop_file import drop_bytes

SETTINGS: dict[str, Any] = {
    "mode": "production",
    "providers": {"main": {"host": "smtp.provider.test"}},
    "routes": [{"name": "default", "providers": ["main"]}],
    "recipients": {"block": ["@blocked.test"], "blocked": "reject"},
    "rewrite": {"recipients": {"list@cust.test": ["d@cust.test", "e@cust.test", "f@cust.test"]}},
}


class Pills(Check):
    name = "pills"

    def look(
        self, message: AcceptedMessage, _facts: HeaderFacts, _content: ReceivedContent
    ) -> Sequence[ScreenHold]:
        if "pills" not in message.subject:
            return ()
        return (ScreenHold(HoldCode.GUARD, "0f", "it sells pills"),)


async def send(client: Client, subject: str, *recipients: str) -> list[str]:
    await client.command(b"MAIL FROM:<a@shop.test>")
    replies = [await client.command(b"RCPT TO:<%s>" % one.encode()) for one in recipients]
    await client.command(b"DATA")
    return [*replies, await client.command(f"Subject: {subject}\r\n\r\nhello\r\n.".encode())]


async def test_accepted_mail_is_counted_and_what_a_check_holds_waits(tmp_path: Path) -> None:
    told: list[str] = []

    def screened(_: Store) -> Screen:
        return Screen([Pills()], told=told.append)

    async with running_front(tmp_path, settings=SETTINGS, screened=screened) as rig:
        store = open_store(f"sqlite:///{tmp_path}/queue.db")
        client = await rig.greeted()
        await send(client, "Order 1", "b@cust.test", "c@blocked.test")
        await send(client, "Order 2", "b@cust.test")
        await send(client, "Order 3", "list@cust.test", "c@blocked.test")
        held = (await send(client, "Buy pills 3", "b@cust.test"))[-1].split()[-1]
        script = b"X-PHP-Originating-Script: 33:cron.php\nSubject: Cron 4\n\nhello\n"
        (tmp_path / "maildrop" / f"{secrets.token_hex(16)}.drop").write_bytes(drop_bytes(script))
        await until(lambda: len(store.sources.known_classes()) == 3)
        known = {one.mail_class.template: one.mail_class for one in store.sources.known_classes()}
        order = known["Order #"]
        assert (order.host, order.listener) == ("127.0.0.1", ":0")
        assert (known["Cron #"].host, known["Cron #"].script) == ("local", "33:cron.php")
        sums = {one.key: one for one in store.sources.sum_mail("template", 0)}
        orders = sums["Order #"]
        assert (orders.messages, orders.recipients, orders.refused) == (3, 7, 2)
        waiting = store.queue.search(Selection(states=frozenset({DeliveryState.HELD})), limit=9)
        assert [one.queue_id for one in waiting] == [held]
        assert f"{held}: hold: held by the guard, 0f: it sells pills" in rig.log.getvalue()
        assert told == []
        await send(client, "Last 5", "b@cust.test")
    # what is counted when a front ends is written
    assert "Last #" in {one.mail_class.template for one in store.sources.known_classes()}
    store.close()
