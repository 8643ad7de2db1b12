"""The watch on both databases: told once, by one of several, over restarts, with its end."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.state import DeliveryState
from relaygw.settings.model import fingerprint
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import UNREACHABLE, Hold
from relaygw.store.store import Store
from tests.builders import accepted, instance
from tests.contract.conftest import open_store
from tests.integration.alerting.watch_rig import Recording, settings, wait_until, watching


def fail(store: Store, provider: str = "main") -> None:
    now_ms = time.time_ns() // 1_000_000
    store.holds.put_hold(
        Hold(
            scope=UNREACHABLE,
            key=provider,
            reason="Connection refused",
            remedy="",
            since_ms=now_ms,
            probe_at_ms=now_ms,
        )
    )


def recover(store: Store, provider: str = "main") -> None:
    store.holds.drop_hold(UNREACHABLE, provider)


async def test_a_file_that_lies_in_the_maildrop_is_told_until_it_is_gone(
    store: Store, tmp_path: Path
) -> None:
    maildrop = tmp_path / "maildrop"
    maildrop.mkdir()
    odd = maildrop / "no.mail"
    odd.touch()
    channel, key = Recording(), f"gw.test {maildrop}"
    rules = {"maildrop": str(maildrop)}
    async with watching(store, tmp_path, channel, incarnation="a", rules=rules):
        await wait_until(lambda: channel.states == [(key, "begun")])
        odd.unlink()
        await wait_until(lambda: channel.states == [(key, "begun"), (key, "over")])
    assert channel.notices[0].incident.rule == "maildrop_stuck"
    assert "no.mail (not a mail file name)" in channel.notices[0].incident.summary


async def test_trouble_is_told_once_and_its_end_once(store: Store, tmp_path: Path) -> None:
    channel, notes = Recording(), []
    async with watching(store, tmp_path, channel, incarnation="a", notes=notes):
        fail(store)
        await wait_until(lambda: channel.states == [("main", "begun")])
        fail(store, "spare")
        await wait_until(lambda: len(channel.notices) == 2)
        recover(store)
        await wait_until(lambda: len(channel.notices) == 3)
    assert channel.states == [("main", "begun"), ("spare", "begun"), ("main", "over")]
    found = {one.key: one for one in store.watch.incidents(0)}
    assert (found["main"].told, found["main"].recovery_told) == (("c0",), ("c0",))
    assert (found["spare"].told, found["spare"].recovered_at_ms) == (("c0",), None)
    assert sum("alert: provider main cannot be reached" in note for note in notes) == 1


async def test_an_incident_says_how_it_is_now_and_is_not_told_again(
    store: Store, tmp_path: Path
) -> None:
    maildrop = tmp_path / "maildrop"
    maildrop.mkdir()
    (maildrop / "no.mail").touch()
    channel = Recording()
    rules = {"maildrop": str(maildrop)}
    async with watching(store, tmp_path, channel, incarnation="a", rules=rules):
        await wait_until(lambda: len(channel.notices) == 1)
        (maildrop / "other.mail").touch()
        await wait_until(lambda: "other.mail" in store.watch.incidents(0)[0].summary)
    assert len(channel.notices) == 1
    assert store.watch.incidents(0)[0].told == ("c0",)


async def test_a_restart_tells_nothing_twice_and_misses_no_end(
    store: Store, tmp_path: Path
) -> None:
    first, second, third = Recording(), Recording(), Recording()
    async with watching(store, tmp_path, first, incarnation="a"):
        fail(store)
        await wait_until(lambda: len(first.notices) == 1)
    async with watching(store, tmp_path, second, incarnation="b"):
        fail(store, "spare")
        await wait_until(lambda: len(second.notices) == 1)
    recover(store)
    async with watching(store, tmp_path, third, incarnation="c"):
        await wait_until(lambda: len(third.notices) == 1)
    assert first.states == [("main", "begun")]
    assert second.states == [("spare", "begun")]
    assert third.states == [("main", "over")]


async def test_of_two_gateways_one_tells_and_the_other_takes_over(
    store: Store, url: str, tmp_path: Path
) -> None:
    other: Store = open_store(url)
    one, two = Recording(), Recording()
    async with watching(other, tmp_path, two, incarnation="b", rules={"hostname": "gw2.test"}):
        async with watching(store, tmp_path, one, incarnation="a"):
            fail(store)
            await wait_until(lambda: len(one.notices + two.notices) == 1)
            fail(store, "spare")
            await wait_until(lambda: len(one.notices + two.notices) == 2)
        told_before = len(two.notices)
        recover(store)
        await wait_until(lambda: len(two.notices) == told_before + 1)
        recover(store, "spare")
        await wait_until(lambda: len(two.notices) == told_before + 2)
    other.close()
    assert not (one.notices and told_before), "both told"
    assert sorted(one.states + two.states) == [
        *(("main", "begun"), ("main", "over")),
        *(("spare", "begun"), ("spare", "over")),
    ]


async def test_a_channel_that_refuses_is_asked_again_and_one_that_hangs_holds_up_none(
    store: Store, tmp_path: Path
) -> None:
    refusing, hanging, working = Recording(refusals=3), Recording(is_hanging=True), Recording()
    notes: list[str] = []
    channels = (refusing, hanging, working)
    async with watching(store, tmp_path, *channels, incarnation="a", notes=notes):
        fail(store)
        await wait_until(lambda: working.states == [("main", "begun")])
        await wait_until(lambda: refusing.states == [("main", "begun")])
        recover(store)
        await wait_until(lambda: len(working.notices) == 2)
        await wait_until(lambda: len(refusing.notices) == 2)
    assert refusing.asked == 5
    assert hanging.asked == 1, "it gets the next one when it is done with this one"
    assert sum("not sent to c0: not now; tried again" in note for note in notes) == 3


async def test_what_was_over_before_a_channel_took_it_is_told_in_one_notice(
    store: Store, tmp_path: Path
) -> None:
    channel = Recording(refusals=10**6)
    async with watching(store, tmp_path, channel, incarnation="a"):
        fail(store)
        await wait_until(lambda: channel.asked >= 2)
        recover(store)
        await wait_until(lambda: any(one.recovered_at_ms for one in store.watch.incidents(0)))
        channel.refusals = 0
        await wait_until(lambda: bool(channel.notices))
    assert channel.states == [("main", "over")]


async def test_a_channel_hears_only_of_its_rules(store: Store, tmp_path: Path) -> None:
    channel = Recording()
    on = frozenset({"auth_failed"})
    async with watching(store, tmp_path, channel, incarnation="a", on=on):
        fail(store)
        await wait_until(lambda: bool(store.watch.incidents(0)))
        now_ms = time.time_ns() // 1_000_000
        store.holds.put_hold(
            Hold(
                scope="credential",
                key="spare",
                reason="535 no",
                remedy="",
                since_ms=now_ms,
                probe_at_ms=now_ms,
            )
        )
        await wait_until(lambda: bool(channel.notices))
    assert channel.states == [("spare", "begun")]


async def test_what_flaps_is_not_told(store: Store, tmp_path: Path) -> None:
    channel = Recording()
    async with watching(store, tmp_path, channel, incarnation="a", rules={"lasting": "3s"}):
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            fail(store)
            await asyncio.sleep(0.1)
            recover(store)
            await asyncio.sleep(0.1)
    assert channel.notices == []
    assert store.watch.incidents(0) == []


async def test_a_full_disk_is_told_by_its_host_and_ends_with_the_host(
    store: Store, tmp_path: Path
) -> None:
    low, channel = Recording(), Recording()
    rules = {"disk_free": "100%"}
    async with watching(store, tmp_path, low, incarnation="a", rules=rules):
        await wait_until(lambda: low.states == [(f"gw.test {tmp_path}", "begun")])
    other = {"hostname": "gw2.test"}
    async with watching(store, tmp_path, channel, incarnation="b", rules=other):
        await wait_until(lambda: channel.states == [(f"gw.test {tmp_path}", "over")])


async def test_mail_that_waits_for_somebody_is_told_and_that_it_was_tended(
    store: Store, tmp_path: Path
) -> None:
    channel = Recording()
    now_ms = time.time_ns() // 1_000_000
    long_ago_ms = now_ms - 90 * 60_000
    on_hold, in_hand = accepted(at_ms=now_ms), accepted(at_ms=long_ago_ms)
    homeless = accepted(at_ms=now_ms, route="before")
    store.instances.register(
        replace(instance("one"), name="gw1", fingerprint=fingerprint(settings()))
    )
    for message, claimed_at_ms in ((on_hold, now_ms), (in_hand, long_ago_ms)):
        store.intake.accept_batch([message])
        store.leases.claim("default", limit=1, incarnation="one", now_ms=claimed_at_ms)
        if message is on_hold:
            update = DeliveryUpdate(
                queue_id=message.queue_id,
                delivery_no=0,
                state=DeliveryState.HELD,
                due_at_ms=now_ms,
                provider=None,
                reason="poison",
                recipients=(),
            )
            store.leases.record_batch([update], incarnation="one", now_ms=now_ms)
    store.intake.accept_batch([homeless])
    async with watching(store, tmp_path, channel, incarnation="a"):
        told = [("poison", "begun"), ("before", "begun"), ("gw1", "begun")]
        await wait_until(lambda: sorted(channel.states) == sorted(told))
        words = " ".join(f"{one.incident.rule}: {one.incident.summary}" for one in channel.notices)
        held = rf"mail is held since \S+ \S+ UTC, at first 1 delivery \({on_hold.queue_id}\)"
        assert re.search(held, words), words
        assert "route_gone: no worker sends 1 delivery of route before" in words
        assert "stuck: delivery worker 1 on gw1 is sending 1 delivery" in words
        store.instances.bury("one")
        await wait_until(lambda: ("gw1", "over") in channel.states)
        deed = AuditEntry(at_ms=now_ms, actor="x", action="x", target="x", affected=1, detail="")
        for message, source, to in (
            (on_hold, DeliveryState.HELD, DeliveryState.DELETED),
            (homeless, DeliveryState.INCOMING, DeliveryState.DELETED),
        ):
            store.queue.change_state(
                [message.queue_id],
                from_states=frozenset({source}),
                to=to,
                entry=deed,
            )
        await wait_until(lambda: len(channel.notices) == 6)


async def test_a_gateway_that_died_is_told_by_another_and_that_it_is_back(
    store: Store, tmp_path: Path
) -> None:
    channel = Recording()
    for role in ("front", "delivery"):
        store.instances.register(replace(instance(f"lost {role}", role=role), name="gw2.test"))
    async with watching(store, tmp_path, channel, incarnation="a"):
        for role in ("front", "delivery"):
            store.instances.bury(f"lost {role}", is_lost=True)
        await wait_until(lambda: channel.states == [("gw2.test", "begun")])
        for role in ("front", "delivery"):
            store.instances.register(replace(instance(f"new {role}", role=role), name="gw2.test"))
        await wait_until(lambda: channel.states[1:] == [("gw2.test", "over")])
    assert "gateway gw2.test is lost" in channel.notices[0].incident.summary
    assert channel.notices[0].incident.rule == "instance_lost"


class Away:
    """A store whose every call fails while it `is_away`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        return AwayPart(self, getattr(self._store, name))


class AwayPart:
    """A repository of such a store."""

    def __init__(self, away: Away, repository: Any) -> None:
        self._away, self._repository = away, repository

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._repository, name)

        def call(*given: Any, **named: Any) -> Any:
            if self._away.is_away:
                raise StoreUnavailable("the server is unreachable")
            return verb(*given, **named)

        return call

    def __call__(self) -> Any:
        return self._repository()


async def test_a_queue_that_is_away_is_told_too(store: Store, tmp_path: Path) -> None:
    channel, notes = Recording(), []
    away: Any = Away(store)
    async with watching(away, tmp_path, channel, incarnation="a", notes=notes):
        await wait_until(lambda: store.watch.duty("watch", "a"))
        away.is_away = True
        await wait_until(lambda: len(channel.notices) == 1)
        away.is_away = False
        await wait_until(lambda: len(channel.notices) == 2)
        fail(store)
        await wait_until(lambda: len(channel.notices) == 3)
    assert channel.states == [("gw.test", "begun"), ("gw.test", "over"), ("main", "begun")]
    assert "the server is unreachable" in channel.notices[0].incident.summary
    assert [one.key for one in store.watch.incidents(0)] == ["main"]


async def test_the_watch_leaves_gauges_of_the_queue_in_the_history(
    store: Store, tmp_path: Path
) -> None:
    async with watching(store, tmp_path, incarnation="a"):
        await wait_until(lambda: bool(store.watch.history(0)))
    (point,) = store.watch.history(0)
    assert (point.series, point.amount) == ("queue", 0)
