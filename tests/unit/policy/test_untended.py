"""What mail does not move by itself, at and around the limits."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.mail.hold import HoldCause, HoldCode, sender_refused
from relaygw.mail.standing_mail import HeldMail, MailInHand
from relaygw.policy.lost_gateways import LostInstance, lost_gateways
from relaygw.policy.untended import (
    KINDS,
    Lane,
    Standing,
    Untended,
    known_routes,
    longest_in_hand_s,
    shortest_in_hand_s,
    untended,
    why_held,
)
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from tests.tables import each_of

NOW_MS = 1_795_600_000_000
HOUR_MS = 3_600_000
PARKED = sender_refused("shop.test", ["main", "spare"])

SETTINGS = Settings.model_validate(
    {
        "mode": "production",
        "hostname": "gw.test",
        "providers": {
            "main": {"host": "smtp.example.com", "max_recipients": 10},
            "slow": {
                "host": "smtp.example.net",
                "rate": "10/h",
                "timeouts": {"connect": "5s", "command": "10s", "final_reply": "20s"},
            },
        },
        "routes": [
            {"name": "bulk", "sender": ["@bulk.test"], "providers": ["slow"]},
            {"name": "default", "providers": ["main"]},
        ],
    }
)


def held(cause: HoldCause, *, deliveries: int = 1, age_ms: int = HOUR_MS) -> HeldMail:
    return HeldMail(
        route="default",
        cause=cause,
        deliveries=deliveries,
        since_ms=NOW_MS - age_ms,
        examples=("A1", "Z9"),
    )


def judged(**standing: Any) -> list[Untended]:
    return untended(Standing(**standing), SETTINGS, now_ms=NOW_MS)


NOT_HELD = {HoldCode.PROVIDER_DOWN, HoldCode.REFUSED_ALIKE}
HELD = [HoldCause(code, "main x@y.test") for code in HoldCode if code not in NOT_HELD]


# --- held ---------------------------------------------------------------------------------


@each_of("code", sorted(set(HoldCode) - NOT_HELD - {HoldCode.OTHER}))
def test_every_code_of_held_mail_has_a_word(code: HoldCode) -> None:
    assert why_held(code) != HoldCode.OTHER


@each_of("cause", [*HELD, HoldCause(HoldCode.OTHER)])
def test_held_mail_is_told_whatever_it_is_held_for(cause: HoldCause) -> None:
    (one,) = judged(held=[held(cause, deliveries=3, age_ms=5 * HOUR_MS)])
    word = why_held(cause.code)
    assert (one.rule, one.kind, one.key) == (Rule.HELD, word, word)
    assert (one.deliveries, one.since_ms) == (3, NOW_MS - 5 * HOUR_MS)
    assert one.summary.startswith("3 deliveries are held, the longest for 5h (A1 Z9 and 1 more): ")
    # an alert keeps its text while more is held
    assert one.alert.startswith("mail is held since 2026-11-25 ")
    assert " UTC, at first 3 deliveries (A1 Z9 and 1 more): " in one.alert
    assert one.summary[-1] != " "
    assert one.remedy
    assert one.is_told


def test_reasons_of_one_word_are_told_together() -> None:
    words = [held(HoldCause(HoldCode.NO_SENDER, f"default {n}@x.test"), age_ms=n) for n in (5, 9)]
    (one,) = judged(held=words)
    assert (one.deliveries, one.since_ms) == (2, NOW_MS - 9)


def test_what_an_operator_holds_is_told_once_it_may_be_forgotten() -> None:
    for age_ms, is_told in ((4 * HOUR_MS, False), (4 * HOUR_MS + 1000, True)):
        (one,) = judged(held=[held(HoldCause(HoldCode.OPERATOR, "wait"), age_ms=age_ms)])
        assert one.is_told == is_told


@pytest.mark.parametrize(
    ("holds", "is_untended"),
    [
        ([], True),
        ([("sender domain", "spare shop.test")], False),
        ([("sender domain", "spare other.test")], True),
        ([("sender domain", "third shop.test")], True),
        ([("provider", "spare")], True),
    ],
)
def test_mail_of_a_refused_sender_is_untended_when_no_hold_is_about_it(
    holds: list[tuple[str, str]], is_untended: bool
) -> None:
    assert bool(judged(held=[held(PARKED)], holds=frozenset(holds))) == is_untended


# --- routes -------------------------------------------------------------------------------


def lane(route: str, *, age_ms: int = 0) -> Lane:
    return Lane(route=route, deliveries=2, accepted_at_ms=NOW_MS - age_ms)


def test_mail_of_known_routes_is_none_of_it() -> None:
    assert known_routes(SETTINGS) >= {"default", "provider:main", "provider:main:promotional"}
    assert judged(lanes=[lane(route, age_ms=HOUR_MS) for route in known_routes(SETTINGS)]) == []


def test_mail_of_a_route_that_is_gone_is_told_once_with_all_its_lanes() -> None:
    (one,) = judged(lanes=[lane("before"), lane("before"), lane("default")])
    assert (one.rule, one.key, one.deliveries) == (Rule.ROUTE_GONE, "before", 4)
    assert one.summary == (
        "no worker sends 4 deliveries of route before, which is not in the configuration"
    )
    assert "relaygw queue move --route before --to PROVIDER" in one.remedy
    (moved,) = judged(lanes=[lane("provider:gone:promotional")])
    assert "provider gone, which is not in the configuration" in moved.summary


def test_while_others_run_other_settings_mail_of_their_routes_has_its_time() -> None:
    others = ["delivery 7 on gw2"]
    for age_ms, is_told in ((900_000, False), (901_000, True)):
        (one,) = judged(lanes=[lane("before", age_ms=age_ms)], others=others)
        assert one.is_told == is_told
        assert "only delivery 7 on gw2, with other settings, may send" in one.summary


# --- in hand ------------------------------------------------------------------------------


def in_hand(route: str, *, age_s: float, recipients: int = 1, worker: str = "gw1") -> MailInHand:
    return MailInHand(
        queue_id="A1",
        delivery_no=0,
        route=route,
        recipients=recipients,
        since_ms=NOW_MS - int(age_s * 1000),
        worker=worker,
        pid=7,
    )


def test_an_attempt_lasts_as_long_as_its_timeouts_and_parts() -> None:
    main, slow = SETTINGS.providers["main"], SETTINGS.providers["slow"]
    assert longest_in_hand_s(main, 10) == 30 + 6 * 300 + 4 * 300 + 600
    assert longest_in_hand_s(main, 11) == 30 + 6 * 300 + 2 * (4 * 300 + 600)
    one_s = 5 + 6 * 10 + 4 * 10 + 20
    assert longest_in_hand_s(slow, 1) == one_s + 4 * 360, "four at hand, one each six minutes"
    assert shortest_in_hand_s(SETTINGS) == 1565


@pytest.mark.parametrize(
    ("route", "recipients", "limit_s"),
    [
        ("bulk", 1, 1565),
        ("provider:slow", 1, 1565),
        ("default", 1, 3630),
        ("default", 11, 5430),
        ("gone", 1, 3630),
    ],
)
def test_what_is_in_hand_for_longer_is_stuck(route: str, recipients: int, limit_s: float) -> None:
    def found(age_s: float) -> list[Untended]:
        return judged(in_hand=[in_hand(route, age_s=age_s, recipients=recipients)])

    assert found(limit_s) == []
    (one,) = found(limit_s + 1)
    assert (one.rule, one.key, one.examples) == (Rule.STUCK, "gw1", ("A1",))
    assert "delivery worker 7 on gw1 is sending 1 delivery for longer" in one.summary
    assert "restart the gateway on gw1" in one.remedy


def test_each_worker_with_stuck_mail_is_told() -> None:
    mine = [in_hand("default", age_s=9000, worker=worker) for worker in ("gw1", "gw2", "gw1")]
    assert [(one.key, one.deliveries) for one in judged(in_hand=mine)] == [("gw1", 2), ("gw2", 1)]


# --- instances ----------------------------------------------------------------------------


def test_the_lost_processes_of_a_host_are_told_together() -> None:
    lost = [
        LostInstance(
            incarnation=role,
            name=name,
            role=role,
            pid=1,
            heartbeat_at_ms=NOW_MS - 30_000,
            leases=leases,
        )
        for name, role, leases in (("gw2", "delivery", 3), ("gw2", "front", 0), ("gw3", "web", 0))
    ]
    first, second = lost_gateways(lost)
    assert (first.rule, first.key, second.key) == (Rule.INSTANCE_LOST, "gw2", "gw3")
    assert first.summary == (
        "gateway gw2 is lost (delivery, front): its last heartbeat was at 2026-11-25 09:46:10 "
        "UTC; 3 deliveries it was sending went back to the queue"
    )
    assert "maildrop" in first.remedy


def test_what_is_counted_has_a_name_without_addresses() -> None:
    found = judged(
        held=[held(cause) for cause in HELD],
        lanes=[lane("gone")],
        in_hand=[in_hand("default", age_s=9000)],
        home="shop1.test",
    )
    assert {one.kind for one in found} == set(KINDS)
