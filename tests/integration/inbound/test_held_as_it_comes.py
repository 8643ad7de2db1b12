"""Standing holds by SMTP: mail that nobody may get is held as it is accepted, also of no worker."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from relaygw.inbound.screen import Screen
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.observe.history import History
from relaygw.observe.observer import FrontObserver
from relaygw.operations.standing_holds import ADD
from relaygw.operations.verb import Asked
from relaygw.roles.front import screen
from relaygw.settings.model import Settings
from relaygw.store.holds import ended_entry
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.integration.inbound.front_rig import Client, running_front
from tests.logs import text_log

D = DeliveryState
SETTINGS = {
    "mode": "production",
    "guard": {"action": "off"},
    "storms": {"action": "off"},
    "providers": {"main": {"host": "smtp.provider.test"}},
    "routes": [{"name": "default", "providers": ["main"]}],
}


async def send(client: Client, *recipients: str) -> str:
    await client.command(b"MAIL FROM:<shop@shop.test>")
    for one in recipients:
        await client.command(f"RCPT TO:<{one}>".encode())
    await client.command(b"DATA")
    return (await client.command(b"Subject: x\r\n\r\nhello\r\n.")).split()[-1]


async def test_what_comes_is_held_at_acceptance_and_after_the_end_it_is_not(tmp_path: Path) -> None:
    settings = Settings.model_validate(SETTINGS)
    screens: list[Screen] = []

    def screened(store: Store) -> Screen:
        screens.append(screen(settings, store, FrontObserver(text_log(io.StringIO()), History())))
        return screens[0]

    async with running_front(tmp_path, settings=SETTINGS, screened=screened) as rig:
        store = open_store(f"sqlite:///{tmp_path}/queue.db")
        now_ms = clock_ms()
        asked = Asked(store=store, settings=settings, actor="ann", now_ms=now_ms)
        added = ADD.carry_out({"recipient_domain": "gmx.test", "until": "1h"}, asked).answer
        screens[0].refresh()
        client = await rig.greeted()
        held = await send(client, "a@GMX.test", "b@gmx.test")
        both = await send(client, "a@gmx.test", "b@web.test")  # a worker sets one of them apart
        other = await send(client, "b@web.test")
        (hold,) = store.holds.standing()
        store.holds.put_standing(
            replace(hold, until_ms=now_ms), entry=ended_entry(hold, "a", 1, "")
        )
        screens[0].refresh()
        late = await send(client, "a@gmx.test")
    entries = store.queue.entries([held, both, other, late])
    states = {one.queue_id: one.deliveries[0].state for one in entries}
    assert states == {held: D.HELD, both: D.INCOMING, other: D.INCOMING, late: D.INCOMING}
    (entry,) = store.queue.search(Selection(states=frozenset({D.HELD})), limit=9)
    assert entry.deliveries[0].hold == hold.cause
    assert hold.hold_id == added["id"]
    store.close()
