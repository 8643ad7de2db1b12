"""Mail that comes again by SMTP and through the maildrop: held as a storm, or taken once."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Any

from relaygw.inbound.content import MEMORY_BYTES
from relaygw.inbound.screen import Screen
from relaygw.inbound.storms import StormCheck
from relaygw.mail.state import DeliveryState
from relaygw.operations.story import tell_story
from relaygw.settings.model import Settings
from relaygw.settings.storms import Storms
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.integration.inbound.front_rig import Client, running_front, until
from tests.unit.inbound.test_drop_file import drop_bytes

SETTINGS: dict[str, Any] = {
    "mode": "production",
    "providers": {"main": {"host": "smtp.provider.test"}},
    "routes": [{"name": "default", "providers": ["main"]}],
}
MAIL = b"Subject: Order 1\r\nMessage-ID: <%d@shop.test>\r\n\r\nThank you\r\n"
HELD = Selection(states=frozenset({DeliveryState.HELD}))


async def send(client: Client, content: bytes, *, sender: str = "a@shop.test") -> str:
    """Send a message; return its queue id."""
    await client.command(f"MAIL FROM:<{sender}>".encode())
    await client.command(b"RCPT TO:<b@cust.test>")
    await client.command(b"DATA")
    reply = await client.command(content + b".")
    assert reply.startswith("250 2.0.0 "), reply
    return reply.split()[-1]


def story_of(store: Store, directory: Path, queue_id: str) -> str:
    """Return the labels and texts of what is told of a message's acceptance."""
    loaded = Settings.model_validate({**SETTINGS, "listeners": [{"bind": "127.0.0.1:0"}]})
    story = tell_story(store, loaded, queue_id, now_ms=store.clock_ms())
    assert story is not None
    return "\n".join(f"{one.label}: {one.text}" for one in story.events[0].notes)


async def test_a_storm_is_held_and_told_of_in_the_story_of_each(tmp_path: Path) -> None:
    def screened(store: Store) -> Screen:
        check = StormCheck(Storms(same=2, action="hold"), store, told=print)
        return Screen([check], told=print)

    async with running_front(tmp_path, settings=SETTINGS, screened=screened) as rig:
        store = open_store(f"sqlite:///{tmp_path}/queue.db")
        client = await rig.greeted()
        sent = [await send(client, MAIL % number) for number in (1, 2, 2, 3)]
        assert [one.queue_id for one in store.queue.search(HELD, limit=9)] == sent[2:]
        (part,) = store.queue.entries(sent[3:])[0].deliveries
        assert part.reason is not None
        assert "the same mail went to the same recipient more than 2 times within 1h" in part.reason
    told = [story_of(store, tmp_path, one) for one in sent]
    store.close()
    assert "same mail: the same mail came to the same recipient again within 1h" in told[0]
    assert (
        f"number 2 of the same mail to the same recipient within 1h; the first was {sent[0]}"
        in (told[1])
    )
    assert f"same id: its Message-ID is that of {sent[1]}, minutes before" in told[2]
    assert "same id" not in told[3]


async def test_a_mailing_with_an_archive_is_held_for_the_archive_alone(tmp_path: Path) -> None:
    def screened(store: Store) -> Screen:
        check = StormCheck(Storms(same=2, action="hold"), store, told=print)
        return Screen([check], told=print)

    async with running_front(tmp_path, settings=SETTINGS, screened=screened) as rig:
        client = await rig.greeted()
        ids = []
        for number in range(3):
            await client.command(b"MAIL FROM:<a@shop.test>")
            await client.command(b"RCPT TO:<%d@cust.test>" % number)
            await client.command(b"RCPT TO:<archive@shop.test>")
            await client.command(b"DATA")
            ids.append((await client.command(MAIL % number + b".")).split()[-1])
        store = open_store(f"sqlite:///{tmp_path}/queue.db")
        entries = store.queue.entries(ids)
        assert [len(one.deliveries) for one in entries] == [1, 1, 2]
        states = [part.state.value for part in entries[2].deliveries]
        people = [(states[one.delivery_no], one.address) for one in entries[2].recipients]
        assert people == [("held", "archive@shop.test"), ("incoming", "2@cust.test")]
        assert "within 1h (not for 1 other recipient)" in rig.log.getvalue()
        store.close()


async def test_who_gets_a_mail_by_another_address_is_not_held_beside_it(tmp_path: Path) -> None:
    """One mailbox gets one mail once, now; not one now and one with a release."""

    def screened(store: Store) -> Screen:
        check = StormCheck(Storms(same=2, action="hold"), store, told=print, counted=counted.append)
        return Screen([check], told=print)

    counted: list[str] = []
    rewrite = {"recipients": {"root@shop.test": "ops@shop.test", "web@shop.test": "Ops@shop.test"}}
    settings = {**SETTINGS, "rewrite": rewrite}
    async with running_front(tmp_path, settings=settings, screened=screened) as rig:
        client = await rig.greeted()
        ids = []
        for people in (
            *(["root@shop.test", "archive@shop.test"],) * 3,
            ["web@shop.test", "root@shop.test"],
            ["web@shop.test", "root@shop.test", "archive@shop.test"],
        ):
            await client.command(b"MAIL FROM:<a@shop.test>")
            for one in people:
                await client.command(b"RCPT TO:<%s>" % one.encode())
            await client.command(b"DATA")
            ids.append((await client.command(MAIL % 1 + b".")).split()[-1])
        store = open_store(f"sqlite:///{tmp_path}/queue.db")
        found = [
            sorted(
                (entry.deliveries[one.delivery_no].state.value, one.original or one.address)
                for one in entry.recipients
            )
            for entry in store.queue.entries(ids[2:])
        ]
        parts = [len(entry.deliveries) for entry in store.queue.entries(ids[2:])]
        store.close()
    assert found == [
        [("held", "archive@shop.test"), ("held", "root@shop.test")],
        [("incoming", "root@shop.test"), ("incoming", "web@shop.test")],
        [
            ("held", "archive@shop.test"),
            ("incoming", "root@shop.test"),
            ("incoming", "web@shop.test"),
        ],
    ]
    assert parts == [1, 1, 2], "one attempt has both, and sends once"
    assert counted.count("held") == 3, "who is told to be held is"


async def test_an_exact_duplicate_is_taken_once_whichever_way_it_comes(tmp_path: Path) -> None:
    settings = {**SETTINGS, "duplicates": "once"}
    large = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n"
    large += b"0123456789abcdef\r\n" * (MEMORY_BYTES // 18)
    async with running_front(tmp_path, settings=settings) as rig:
        store = open_store(f"sqlite:///{tmp_path}/queue.db")
        client, other = await rig.greeted(), await rig.greeted()
        first = await send(client, MAIL % 1)
        assert await send(client, MAIL % 1) == first
        assert await send(other, MAIL % 1) == first, "of one client, by another connection"
        big = await send(client, large)
        assert await send(client, large) == big
        changed = large[:-3] + b"!\r\n"  # at its very end
        different = [
            await send(client, MAIL % 2),
            await send(client, MAIL % 1, sender="c@shop.test"),
            await send(client, changed),
        ]
        now_s = time.time()
        for word, age_s in ((b"x", 0), (b"x", 0), (b"y", 0), (b"x", 70), (b"x", 140)):
            path = tmp_path / f"{secrets.token_hex(16)}.drop"
            path.write_bytes(drop_bytes(b"Subject: cron\n\n%s\n" % word))
            os.utime(path, (now_s, now_s - age_s))
            path.rename(tmp_path / "maildrop" / path.name)
        await until(lambda: not list((tmp_path / "maildrop").glob("*.drop")))
        known = store.queue.search(Selection(states=frozenset(DeliveryState)), limit=99)
        crons = [one.queue_id for one in known if one.subject == "cron"]
        assert {one.queue_id for one in known} == {first, big, *different, *crons}
        assert len(crons) == 4, "two of them waited in the maildrop for longer"
        log = rig.log.getvalue()
        again = "the same message came again from"
        assert log.count(f"{first}: {again}") == 2
        assert log.count(again) == 4
        told = story_of(store, tmp_path, first)
        assert "it came again 2 times within a minute and was not accepted twice" in told
        store.close()
