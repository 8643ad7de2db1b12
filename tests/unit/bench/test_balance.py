"""The balance of a load finds what is lost, bounced or sent twice, and what a doubt explains."""

from __future__ import annotations

from bench.rig.latency import Sample
from bench.rig.limited_provider import Event
from bench.rig.queue_fates import Fate
from bench.standing.balance import Balance, balance


def books(*, codes: dict[str, int], journal: str, queue: dict[str, str]) -> Balance:
    """`journal`: words `ID:KIND`; `queue`: the recipient's state by id, `pending` is open."""
    samples = [Sample(one, 0.0, 0.1, 0.2, code) for one, code in codes.items()]
    words = [word.split(":") for word in journal.split()]
    events = [Event(1.0 + at, kind, 0, one) for at, (one, kind) in enumerate(words)]
    return balance(samples, events, {one: fate(state) for one, state in queue.items()})


def fate(recipient: str) -> Fate:
    delivery = "deferred" if recipient == "pending" else "finished"
    return Fate("QUEUEID", delivery, 0, 1, recipient, "")


def test_what_was_refused_and_then_accepted_is_in_order() -> None:
    found = books(
        codes={"a": 250},
        journal="a:taken a:refused a:taken a:accepted",
        queue={"a": "delivered"},
    )
    assert found == Balance([], [], [], [], [], [])
    assert [figure.verdict for figure in found.figures] == ["aim"] * 3


def test_an_acknowledged_message_that_is_nowhere_is_lost() -> None:
    found = books(codes={"a": 250, "b": 250, "c": 451}, journal="", queue={"b": "delivered"})
    assert found.lost == ["a", "b"], "delivered, says the queue, and no provider has it"
    assert found.figures[0].verdict == "MISSED"


def test_what_waits_in_the_queue_is_not_lost() -> None:
    found = books(codes={"a": 250}, journal="a:taken a:refused", queue={"a": "pending"})
    assert (found.lost, found.queued) == ([], ["a"])


def test_a_bounce_is_found_whatever_it_is_called() -> None:
    found = books(codes={"a": 250, "b": 250}, journal="", queue={"a": "bounced", "b": "expired"})
    assert found.bounced == ["a", "b"]


def test_two_answers_are_twice_and_no_doubt() -> None:
    found = books(
        codes={"a": 250},
        journal="a:taken a:accepted a:taken a:accepted",
        queue={"a": "delivered"},
    )
    assert (found.twice, found.twice_in_doubt) == (["a"], [])


def test_a_second_arrival_after_one_without_an_answer_is_told_apart() -> None:
    found = books(
        codes={"a": 250, "b": 250},
        journal="a:taken b:taken a:taken a:accepted",
        queue={"a": "delivered", "b": "pending"},
    )
    assert (found.twice, found.twice_in_doubt, found.in_doubt) == ([], ["a"], ["a", "b"])
    assert found.lost == []
