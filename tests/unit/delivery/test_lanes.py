"""Which provider takes which mail, and whose turn it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relaygw.delivery.gate import Gate
from relaygw.delivery.lanes import Lane, build_lanes, clogging, next_lane, window_size
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.hold import HoldCause, HoldCode, sender_refused
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Stream
from tests.builders import claimed


def gate(name: str = "a", **settings: Any) -> Gate:
    return Gate(provider=name, settings=Provider(host="smtp.example.com", **settings))


def lane(*gates: Gate, stream: Stream = Stream.TRANSACTIONAL, mails: int = 100) -> Lane:
    made = Lane(route=stream.value, stream=stream, gates=list(gates), window_size=100)
    made.window.extend(claimed() for _ in range(mails))
    return made


def start_all(made: Gate, *lanes: Lane, now_s: float = 0.0) -> list[Stream]:
    started = []
    while (chosen := next_lane(made, list(lanes), now_s)) is not None:
        taken = chosen[0].window[chosen[1]]
        del chosen[0].window[chosen[1]]
        made.start(chosen[0].stream, now_s, taken)
        started.append(chosen[0].stream)
    return started


def bring_down(made: Gate, now_s: float = 0.0) -> float:
    """Let a provider fail until it is down; return the time then."""
    while not made.is_down(now_s):
        made.note_failure(now_s)
        now_s = made.blocked_until_s if not made.is_down(now_s) else now_s
    return now_s


def test_transactional_mail_goes_first() -> None:
    made = gate()
    made.is_shared = True
    lanes = (lane(made), lane(made, stream=Stream.PROMOTIONAL))
    assert start_all(made, *lanes) == [Stream.TRANSACTIONAL] * 5


def test_what_a_provider_cannot_carry_goes_by_the_next_one_of_its_route() -> None:
    first, second, small = gate("a"), gate("b"), gate("c", max_message_size="1KiB")
    mail, other = claimed(size_bytes=2000), claimed()
    made = lane(first, second, small, mails=0)
    assert made.pass_by(first, mail, "why") is None
    assert (made.gate_for(mail, 0.0), made.gate_for(other, 0.0)) == (second, first)
    reason = made.pass_by(second, mail, "why")  # the third one takes nothing of that size
    assert reason == HoldCause(HoldCode.NEEDS_8BITMIME, "transactional why")
    assert made.gate_for(mail, 0.0) is first, "once it is released all are asked again"
    for number in range(20_000):
        assert made.pass_by(first, claimed(queue_id=f"{number}"), "why") is None
    assert len(made.unfit) == 10_000


def test_what_is_too_large_for_all_bounces_at_the_first() -> None:
    first, second = gate("a", max_message_size="1KiB"), gate("b", max_message_size="2KiB")
    made = lane(first, second, mails=0)
    now_s = bring_down(first)
    assert made.gate_for(claimed(size_bytes=3000), now_s) is first
    assert made.gate_for(claimed(size_bytes=2000), now_s) is second
    assert made.gate_for(claimed(size_bytes=1000), now_s) is second


def test_a_window_full_of_what_must_wait_makes_room_for_what_can_go() -> None:
    first, second = gate("a", senders=("@a.test",)), gate("b", senders=("@b.test",))
    both = lane(first, second, mails=0)
    both.window.extend(sends_as(f"{number}@a.test") for number in range(60))
    assert clogging(both, 0.0) == [], "the first provider takes them"
    first.in_flight = first.settings.max_connections
    assert clogging(both, 0.0) == list(both.window)[25:]
    both.window.append(sends_as("x@b.test"))
    assert clogging(both, 0.0) == [], "there is some for the second"
    for _ in range(11):
        both.window.pop()
    assert clogging(both, 0.0) == [], "half of it is empty: more is claimed anyway"


def test_mail_in_doubt_goes_by_no_other_provider_whatever_it_lacks() -> None:
    made = lane(gate("a"), gate("b"), mails=0)
    bound = claimed(doubts=1, provider="a")
    reason = made.pass_by(made.gates[0], bound, "why")
    assert reason == HoldCause(HoldCode.NEEDS_8BITMIME, "transactional why")


def test_one_connection_is_kept_for_transactional_mail() -> None:
    made = gate()
    made.is_shared = True
    lanes = (lane(made, mails=0), lane(made, stream=Stream.PROMOTIONAL))
    assert start_all(made, *lanes) == [Stream.PROMOTIONAL] * 4
    lanes[0].window.append(claimed())
    assert start_all(made, *lanes) == [Stream.TRANSACTIONAL]


def test_a_provider_for_promotions_alone_uses_all_connections() -> None:
    made = gate()
    assert len(start_all(made, lane(made, stream=Stream.PROMOTIONAL))) == 5


def test_a_window_asks_for_more_when_half_empty() -> None:
    made = lane(gate(), mails=51)
    assert not made.wants_claim
    made.window.popleft()
    assert made.wants_claim
    made.may_have_more = False
    assert not made.wants_claim


def test_the_next_provider_takes_over_only_while_the_first_is_down() -> None:
    first, second = gate("a"), gate("b")
    both = lane(first, second)
    assert start_all(second, both) == []
    first.note_failure(0.0)
    assert start_all(second, both, now_s=0.5) == [], "one failure is no outage"
    now_s = bring_down(first, 1.0)
    assert now_s >= 3.0
    assert len(start_all(second, both, now_s=now_s)) == 5
    assert start_all(first, both, now_s=now_s) == []
    first.is_reached = True
    assert len(start_all(first, both, now_s=first.blocked_until_s)) == 1, "one proves it"
    first.note_success(1, now_s)
    assert len(start_all(first, both, now_s=first.blocked_until_s)) == 4
    assert start_all(second, both, now_s=now_s) == []


def test_the_next_provider_takes_over_while_the_first_is_held() -> None:
    first, second = gate("a"), gate("b")
    first.is_held = True
    assert len(start_all(second, lane(first, second))) == 5


def test_one_message_probes_a_held_provider_when_its_time_has_come() -> None:
    first, second = gate("a"), gate("b")
    first.is_held, first.probe_at_s = True, 50.0
    both = lane(first, second)
    assert start_all(first, both, now_s=49.0) == []
    assert len(start_all(first, both, now_s=50.0)) == 1


@pytest.mark.parametrize("more", [{"doubts": 1}, {"reclaims": 1}])
def test_mail_in_doubt_stays_with_its_provider(more: dict[str, int]) -> None:
    first, second = gate("a"), gate("b")
    both = lane(first, second, mails=0)
    both.window.append(claimed(provider="a", **more))
    now_s = bring_down(first)
    assert start_all(second, both, now_s=now_s) == []
    both.window[0] = claimed(provider="b", **more)
    first.note_success(1, now_s)
    assert start_all(first, both, now_s=now_s) == []
    assert len(start_all(second, both, now_s=now_s)) == 1


def test_mail_in_doubt_with_a_provider_of_another_time_is_held() -> None:
    only = lane(gate("b"), mails=0)
    lost = claimed(provider="a", doubts=1)
    assert only.obstacle(lost) == HoldCause(HoldCode.LOST_PROVIDER, "a transactional")
    only.window.append(lost)
    assert not only.is_plain


def test_a_provider_gets_only_the_senders_that_it_may_send_as() -> None:
    first, second = gate("a"), gate("b", senders=("@shop.test",))
    both = lane(first, second, mails=0)
    both.window.append(claimed(sender="a@other.test"))
    now_s = bring_down(first)
    assert start_all(second, both, now_s=now_s) == []
    both.window.append(claimed(sender="a@shop.test"))
    assert len(start_all(second, both, now_s=now_s)) == 1
    assert [one.sender for one in both.window] == ["a@other.test"]


def sends_as(sender: str) -> ClaimedDelivery:
    return claimed(sender=sender)


def test_a_sender_that_no_provider_takes_has_an_obstacle() -> None:
    both = lane(gate("a", senders=("@one.test",)), gate("b", senders=("@two.test",)))
    assert both.obstacle(sends_as("x@two.test")) is None
    assert both.obstacle(sends_as("")) is None
    problem = HoldCause(HoldCode.NO_SENDER, "transactional x@three.test")
    assert both.obstacle(sends_as("x@three.test")) == problem


def test_a_held_sender_domain_goes_to_the_next_provider_or_waits() -> None:
    first, second = gate("a"), gate("b")
    first.held_senders["shop.test"] = 100.0
    both, only = lane(first, second), lane(first)
    assert both.gate_for(sends_as("x@SHOP.test"), 0.0) is second
    assert both.gate_for(sends_as("x@sub.shop.test"), 0.0) is first
    assert only.obstacle(sends_as("x@shop.test")) == sender_refused("shop.test", ["a"])
    assert only.obstacle(replace(sends_as("x@shop.test"), probes="a")) is None
    assert only.obstacle(replace(sends_as("x@shop.test"), probes="b")) is not None


def test_lanes_and_gates_of_a_configuration() -> None:
    settings = Settings.model_validate(
        {
            "mode": "production",
            "providers": {name: {"host": "smtp.example.com"} for name in ("a", "b", "c")},
            "routes": [
                {
                    "name": "promo",
                    "sender": ["@promo.test"],
                    "stream": "promotional",
                    "providers": ["a"],
                },
                {"name": "default", "providers": ["b", "a"]},
            ],
        }
    )
    lanes, gates = build_lanes(settings)
    assert [one.route for one in lanes] == [
        "default", "provider:a", "provider:b", "provider:c",
        "promo", "provider:a:promotional", "provider:b:promotional", "provider:c:promotional",
    ]  # fmt: skip
    assert lanes[1].gates == lanes[5].gates == [gates["a"]]
    assert [one.is_hinted for one in lanes] == [True, False, False, False] * 2
    assert set(gates) == {"a", "b", "c"}  # mail may be moved to one that no route names
    assert lanes[0].gates == [gates["b"], gates["a"]]
    assert (gates["a"].is_shared, gates["a"].has_alternative) == (True, True)
    assert (gates["b"].is_shared, gates["b"].has_alternative) == (True, True)


def test_a_lane_for_moved_mail_reserves_nothing() -> None:
    settings = Settings.model_validate(
        {
            "mode": "production",
            "providers": {"a": {"host": "smtp.example.com"}},
            "routes": [{"name": "promo", "stream": "promotional", "providers": ["a"]}],
        }
    )
    _, gates = build_lanes(settings)
    assert not any(one.is_shared or one.has_alternative for one in gates.values())


def test_mail_is_claimed_for_whatever_provider_could_send_it() -> None:
    first, second, third = gate("a"), gate("b"), gate("c")
    all_three = lane(first, second, third)
    assert [all_three.leads_to(one, 0.0) for one in (first, second, third)] == [True, False, False]
    now_s = bring_down(first)
    assert all_three.leads_to(second, now_s)
    assert not all_three.leads_to(third, now_s)
    now_s = bring_down(second, now_s)
    second.is_reached = True
    assert all_three.leads_to(second, now_s), "the second is back while the first is down"


def test_lanes_of_a_stream_take_turns() -> None:
    made = gate()
    first, second = lane(made), lane(made, mails=2)
    for lanes in ([first, second], [second, first]):
        chosen = next_lane(made, lanes, 0.0)
        assert chosen is not None and chosen[0] is lanes[0]
    second.turn, first.turn = 1, 2
    assert next_lane(made, [first, second], 0.0) == (second, 0)


def test_clients_take_turns_in_a_window() -> None:
    made = lane(gate(), mails=0)
    burst = [claimed(client_key="burst", queue_id=f"B{number}") for number in range(4)]
    made.take(burst)
    orders = [claimed(client_key=shop, queue_id=shop) for shop in ("shop2", "shop3")]
    made.take(orders)
    assert [one.queue_id for one in made.window] == ["B0", "shop2", "shop3", "B1", "B2", "B3"]


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ([{"max_connections": 5}], 40),
        ([{"max_connections": 100}], 200),
        ([{"max_connections": 5, "rate": "10/s"}], 10),
        ([{"max_connections": 5, "rate": "500/s"}], 40),
        ([{"max_connections": 5, "rate": "6/m"}], 4),
        ([{"max_connections": 5, "rate": "6/m"}, {"max_connections": 2}], 18),
    ],
)
def test_a_window_has_about_a_second_of_mail(settings: list[dict[str, Any]], size: int) -> None:
    assert window_size(gate(**one) for one in settings) == size
