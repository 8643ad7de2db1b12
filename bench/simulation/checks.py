"""What must hold of a run at its end; what must hold at each instant is looked at in `world`."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from bench.simulation.processes import Gateway
from bench.simulation.provider import Provider, message_of
from bench.simulation.settings import BULK
from bench.simulation.world import World

_SLACK = 1.05
_AHEAD_S = 0.35
_KEEP_FROM_BEATING = ("stall", "store slow", "store away")
_WAITS = ("incoming", "active", "deferred")
_RECIPIENTS = """
    SELECT address, recipient.state, delivery.state, delivery.hold_code, delivery.reason,
        recipient.queue_id, recipient.rcpt_no, delivery.route, delivery.doubts + delivery.reclaims
    FROM recipient JOIN delivery USING (queue_id, delivery_no)
"""
_DOUBTS = """
    SELECT queue_id, rcpt_no, sum(times) FROM attempt
    WHERE state IN ('in doubt', 'interrupted') GROUP BY queue_id, rcpt_no
"""


def judge(world: World, gateways: list[Gateway], *, is_over: bool) -> None:
    """Look at queue, providers and clients."""
    rows = world.queue.rows(_RECIPIENTS)
    states = {row[0]: row for row in rows}
    takes: defaultdict[str, int] = defaultdict(int)
    for provider in world.providers.values():
        for take in provider.takes:
            takes[take.address] += 1
    _note_fates(world, rows)
    _nothing_lost(world, states)
    _truth(world, states, takes)
    _extras(world, rows, takes)
    _keys(world)
    _drained(world, states, is_over=is_over)
    for provider in world.providers.values():
        _limits(world, provider)


def _note_fates(world: World, rows: list[Any]) -> None:
    """Write into the history how the queue has each recipient, for bench/check."""
    doubts = _doubts(world)
    for address, state, *_, queue_id, rcpt_no, _route, _count in rows:
        world.history.info(
            "queue",
            "fate",
            message=message_of(address),
            recipients=(address,),
            state="queued" if state == "pending" else state,
            doubts=doubts[queue_id, None] + doubts[queue_id, rcpt_no],
        )


def _doubts(world: World) -> defaultdict[tuple[str, int | None], int]:
    doubts: defaultdict[tuple[str, int | None], int] = defaultdict(int)
    for queue_id, rcpt_no, times in world.queue.rows(_DOUBTS):
        doubts[queue_id, rcpt_no] += times
    return doubts


def _nothing_lost(world: World, states: dict[str, Any]) -> None:
    acknowledged = {
        event.message for event in world.events if event.f == "send" and event.type == "ok"
    }
    for event in world.events:
        if event.f == "send" and event.type == "invoke" and event.message in acknowledged:
            for address in event.recipients:
                if address not in states and address not in world.forgotten:
                    world.broken(f"{event.message} to {address} was acknowledged and is gone")


def _truth(world: World, states: dict[str, Any], takes: dict[str, int]) -> None:
    refused = set().union(*(one.refused for one in world.providers.values()))
    for address, (_, state, *_rest) in states.items():
        if state == "delivered" and not takes[address]:
            world.broken(f"{address} is recorded as delivered, and nobody took it")
        elif state == "bounced" and address not in refused:
            world.broken(f"{address} is recorded as bounced, and nobody refused it for good")
        elif state in ("expired", "blocked", "cancelled") and address not in world.expired:
            world.broken(f"{address} is {state}")


def _extras(world: World, rows: list[Any], takes: dict[str, int]) -> None:
    doubts = _doubts(world)
    for address, *_, queue_id, rcpt_no, _route, _count in rows:
        explained = doubts[queue_id, None] + doubts[queue_id, rcpt_no]
        if takes[address] - 1 > explained and address not in world.forgotten:
            world.broken(f"{address} was sent {takes[address]} times, with {explained} doubts")


def _keys(world: World) -> None:
    """Look at what a provider took with keys: once each, in whatever doubt, and each for one mail.

    Another provider may have it, too: where a worker of another machine sent mail nobody knows.
    """
    for provider in world.providers.values():
        for address in provider.misused_keys:
            world.broken(f"the key of the mail to {address} was another one's before")
        if provider.by_key:
            takes = Counter(take.address for take in provider.takes)
            for address in (one for one, times in takes.items() if times > 1):
                world.broken(f"{provider.name} took mail to {address} with several keys")


def _drained(world: World, states: dict[str, Any], *, is_over: bool) -> None:
    if not is_over:
        world.broken("everything stands still")
    for address, (_, state, delivery, code, reason, *_rest, route, doubts) in states.items():
        # an outcome in a part of its delivery may be one that the standby did not have
        is_forgotten = delivery == "finished" and address in world.forgotten
        if state != "pending" or is_forgotten:
            continue
        if delivery in _WAITS:
            is_tended = route in (world.route, BULK) or route.startswith("provider:")
            if doubts and not is_tended:
                _look_for_report(world, address)
            elif not _is_over_quota(world):
                world.broken(f"{address} still waits ({delivery}: {reason})")
        elif delivery != "held" or not code or not reason:
            world.broken(f"{address} is pending in a delivery that is {delivery} ({code})")
        elif code == "mode" and _mode(world) == "production":
            world.broken(f"{address} is held for a mode that has ended")
        elif code == "sender_refused" and not _is_over_quota(world):  # else nothing probes it
            world.broken(f"{address} is held for a sender that is taken again: {reason}")


def _mode(world: World) -> str:
    modes = [event.value["mode"] for event in world.events if event.f == "mode"]
    return modes[-1] if modes else "production"


def _look_for_report(world: World, address: str) -> None:
    """Look whether somebody was told of mail in doubt whose route is gone: it waits for people."""
    if not _has_line(world, "no worker sends"):
        world.broken(f"{address} waits for a route that is gone, and nobody was told")


def _has_line(world: World, words: str) -> bool:
    return any(words in text for _, _, text in world.lines)


def _is_over_quota(world: World) -> bool:
    """True when a daily quota keeps what waits until tomorrow, and rightly so."""
    held = world.queue.rows("SELECT key FROM hold WHERE reason LIKE 'daily_quota%'")
    for (name,) in held:
        provider = world.providers[name]
        doubts = sum(event.f == "doubt" for event in world.events)
        # a second worker may have some of it in hand, and gives it back within ten minutes
        is_alone = sum(event.f == "start" for event in world.events) == 1
        if is_alone and not world.lost_shares and provider.taken_mails + doubts < provider.quota:
            world.broken(f"{name} is over its quota with {provider.taken_mails} mails taken")
    return bool(held) or any(one.is_short(world.lost_shares) for one in world.providers.values())


def _limits(world: World, provider: Provider) -> None:
    """Look at rate, quota and connections, within 5 %; all that go at once may bunch on the way."""
    if any(event.f == "fault" and event.value["kind"] == "failover" for event in world.events):
        return  # what was taken of them is forgotten, too
    # who was buried alive has its connections still, while others have its permits
    most = provider.connections + world.lost_shares
    is_calm = not any(
        event.f == "fault" and event.value["kind"] in _KEEP_FROM_BEATING for event in world.events
    )
    if is_calm and provider.most_open > most * _SLACK:
        world.broken(f"{provider.name} had {provider.most_open} connections, {most} are allowed")
    if provider.quota and provider.taken_mails > provider.quota * _SLACK:
        world.broken(f"{provider.name} took {provider.taken_mails}, its quota is {provider.quota}")
    dots, per_s = provider.dots, provider.rate_per_s
    if not per_s:
        return
    for first, begin_s in enumerate(dots):
        for last in range(first + 1, len(dots)):
            span_s = dots[last] - begin_s
            # tokens are handed out ahead, and a round trip more or less moves a dot
            apart_s = _AHEAD_S + 4 * provider.latency_s[1]
            bunch = provider.connections * provider.parts + per_s * apart_s
            if last - first + 1 > per_s * span_s * _SLACK + bunch + 1:
                what = f"{last - first + 1} mails in {span_s:.2f} s, its rate is {per_s} a second"
                world.broken(f"{provider.name} was sent {what}")
                return
