from __future__ import annotations

from relaygw.delivery.in_hand import InHand
from tests.builders import claimed


def test_what_is_claimed_is_in_hand_until_it_is_let_go() -> None:
    in_hand = InHand()
    first, second, promo = claimed(), claimed(delivery_no=3), claimed(route="promo")
    in_hand.take([first, second, promo])
    before = in_hand.of("default")
    in_hand.let_go([first])
    assert in_hand.of("default") == {(second.queue_id, 3)}
    assert before == {(first.queue_id, 0), (second.queue_id, 3)}, "what it was stays as it was"
    assert in_hand.of("promo") == {(promo.queue_id, 0)}
    in_hand.let_go([first])
    assert in_hand.of("other") == frozenset()
