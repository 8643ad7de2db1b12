"""Which lane goes next, and how long a provider in trouble is left alone."""

from __future__ import annotations

from relaygw.delivery.lanes import THROTTLE_LADDER_S, UNREACHABLE_LADDER_S, Gate, Lane
from relaygw.mail.outcome import Verdict
from relaygw.settings.model import Stream
from tests.builders import claimed


def lane(stream: Stream, mails: int = 100) -> Lane:
    made = Lane(route=stream.value, stream=stream, window_size=100)
    made.window.extend(claimed() for _ in range(mails))
    return made


def gate(*lanes: Lane, connections: int = 5) -> Gate:
    return Gate(provider="p", max_connections=connections, lanes=list(lanes))


def start_all(made: Gate, now_s: float = 0.0) -> list[Stream]:
    started = []
    while (chosen := made.next_lane(now_s)) is not None:
        chosen.window.popleft()
        made.start(chosen.stream)
        started.append(chosen.stream)
    return started


def test_transactional_mail_goes_first() -> None:
    made = gate(lane(Stream.PROMOTIONAL), lane(Stream.TRANSACTIONAL))
    assert start_all(made) == [Stream.TRANSACTIONAL] * 5


def test_one_connection_is_kept_for_transactional_mail() -> None:
    transactional = lane(Stream.TRANSACTIONAL, mails=0)
    made = gate(lane(Stream.PROMOTIONAL), transactional)
    assert start_all(made) == [Stream.PROMOTIONAL] * 4
    transactional.window.append(claimed())
    assert start_all(made) == [Stream.TRANSACTIONAL]


def test_a_provider_for_promotions_alone_uses_all_connections() -> None:
    assert len(start_all(gate(lane(Stream.PROMOTIONAL)))) == 5


def test_an_unreachable_provider_is_probed_by_one_at_growing_intervals() -> None:
    made = gate(lane(Stream.TRANSACTIONAL))
    now_s = 100.0
    for wait_s in (*UNREACHABLE_LADDER_S, UNREACHABLE_LADDER_S[-1]):
        assert made.note(Verdict.RETRY, now_s) == wait_s
        assert start_all(made, now_s + wait_s - 0.1) == []
        now_s += wait_s
        assert len(start_all(made, now_s)) == 1
        made.finish(Stream.TRANSACTIONAL)
    made.note(None, now_s)
    assert len(start_all(made, now_s)) == 5


def test_failures_in_flight_at_once_count_once() -> None:
    made = gate(lane(Stream.TRANSACTIONAL))
    made.note(Verdict.THROTTLE, 0.0)
    made.note(Verdict.THROTTLE, 1.0)
    assert made.throttles == 1
    assert made.note(Verdict.THROTTLE, THROTTLE_LADDER_S[0]) == THROTTLE_LADDER_S[1]


def test_a_held_provider_is_left_alone_until_its_probe() -> None:
    made = gate(lane(Stream.TRANSACTIONAL))
    made.is_held = True
    assert start_all(made) == []
    made.probe_at_s = 50.0
    assert start_all(made, 49.0) == []
    assert len(start_all(made, 50.0)) == 1


def test_a_window_asks_for_more_when_half_empty() -> None:
    made = lane(Stream.TRANSACTIONAL, mails=51)
    assert not made.wants_claim
    made.window.popleft()
    assert made.wants_claim
    made.may_have_more = False
    assert not made.wants_claim
