"""How long a provider in trouble is left alone, and how fast one is sent to that complained."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from relaygw.delivery.gate import (
    PAUSE_LONGEST_S,
    THROTTLE_LADDER_S,
    THROTTLED_WAIT_S,
    UNREACHABLE_LADDER_S,
    Gate,
)
from relaygw.mail.outcome import Limit, Meaning, Scope, Verdict
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Stream
from relaygw.store.limits import Account
from tests.builders import claimed

PACKAGE = Path(__file__).parents[3] / "relaygw"
THROTTLE = Meaning(verdict=Verdict.THROTTLE, scope=Scope.PROVIDER, limit=Limit.RATE)
TOO_MANY = Meaning(verdict=Verdict.THROTTLE, scope=Scope.PROVIDER, limit=Limit.CONNECTIONS)


@pytest.fixture
def gate() -> Gate:
    return Gate(provider="p", settings=Provider(host="smtp.example.com", max_connections=20))


def test_an_unreachable_provider_is_left_alone_for_growing_times(gate: Gate) -> None:
    now_s = 100.0
    for wait_s in (*UNREACHABLE_LADDER_S, UNREACHABLE_LADDER_S[-1]):
        gate.note_failure(now_s)
        gate.note_failure(now_s + wait_s / 2)  # in flight with the first: one trouble
        assert gate.blocked_until_s == now_s + wait_s
        assert not gate.wants_probe(now_s + wait_s - 0.1)
        now_s += wait_s
        assert gate.wants_probe(now_s)
        assert not gate.is_open(now_s), "mail waits until a connection was made"
    gate.is_reached = True
    assert gate.is_open(now_s)
    assert gate.limit() == 1
    gate.note_success(1, now_s)
    assert gate.limit() == 20


def test_it_is_down_after_three_failures_over_three_seconds(gate: Gate) -> None:
    gate.note_failure(0.0)
    gate.note_failure(1.0)
    assert not gate.is_down(3.0)
    gate.note_failure(2.9)
    gate.note_failure(3.0)
    assert gate.is_down(3.0)


def test_a_silent_provider_is_suspected_where_another_could_help(gate: Gate) -> None:
    gate.start(Stream.TRANSACTIONAL, 10.0, claimed())
    assert not gate.wants_probe(20.0)
    gate.has_alternative = True
    assert not gate.wants_probe(11.9)
    assert gate.wants_probe(12.0)
    gate.finish(Stream.TRANSACTIONAL, 12.5)
    assert not gate.wants_probe(20.0)


def test_a_held_provider_is_left_alone_until_its_probe(gate: Gate) -> None:
    gate.is_held = True
    assert not gate.is_open(1e9), "an operator ends it"
    gate.probe_at_s = 50.0
    assert not gate.is_open(49.0)
    assert gate.is_open(50.0)
    assert gate.limit() == 1
    gate.is_probed_by_mail = False
    assert not gate.is_open(50.0), "a refused key is tried without mail"
    assert gate.wants_probe(50.0)


def test_a_held_provider_that_cannot_be_reached_is_probed_before_mail_tries_it(gate: Gate) -> None:
    gate.is_held, gate.probe_at_s = True, 50.0
    gate.note_failure(50.0)
    assert not gate.is_open(60.0)
    assert not gate.wants_probe(50.5), "a second after the failure"
    assert gate.wants_probe(51.0)
    gate.probe_at_s = 70.0
    assert not gate.wants_probe(60.0)


def test_a_throttle_while_others_get_through_blocks_nothing(gate: Gate) -> None:
    gate.note_success(5, 99.5)
    assert gate.note_throttle(THROTTLE, 100.0) == THROTTLED_WAIT_S
    assert gate.is_open(100.0)
    assert gate.limit() == 20


def test_a_throttle_of_everything_goes_by_the_ladder(gate: Gate) -> None:
    now_s = 100.0
    for wait_s in (*THROTTLE_LADDER_S, THROTTLE_LADDER_S[-1]):
        assert gate.note_throttle(THROTTLE, now_s) == wait_s
        assert gate.note_throttle(THROTTLE, now_s + 0.5) <= wait_s
        assert not gate.is_open(now_s + wait_s - 0.1)
        now_s += wait_s
        assert gate.is_open(now_s)
        assert gate.limit() == 1
    gate.note_success(1, now_s)
    assert gate.limit() == 20


def test_a_row_of_the_catalogue_brings_its_own_ladder(gate: Gate) -> None:
    meaning = Meaning(verdict=Verdict.THROTTLE, scope=Scope.PROVIDER, wait_s=(7.0, 600.0))
    assert gate.note_throttle(meaning, 100.0) == 7.0
    assert gate.note_throttle(meaning, 107.0) == PAUSE_LONGEST_S < 60
    assert max(THROTTLE_LADDER_S) <= PAUSE_LONGEST_S


def test_a_pause_is_probed_by_one_worker_and_waits_its_longest_time_each_time(gate: Gate) -> None:
    gate.is_held = gate.is_paused = True
    gate.probe_at_s = 50.0
    assert not gate.is_open(60.0), "another worker may be chosen"
    assert [gate.lacks_prober(now_s) for now_s in (49.0, 50.0)] == [False, True]
    gate.probing_until_s = gate.probe_at_s = 105.0
    assert gate.is_open(60.0)
    assert gate.limit() == 1
    assert not gate.lacks_prober(60.0)
    assert not gate.is_open(105.0), "it had its time"
    assert gate.lacks_prober(105.0)
    assert gate.note_throttle(THROTTLE, 60.0) == THROTTLE_LADDER_S[-1]
    gate.end_pause(61.0)
    gate.is_held = False
    assert gate.is_open(61.0)
    assert gate.note_throttle(THROTTLE, 62.0) == THROTTLE_LADDER_S[0], "the ladder begins again"


def test_too_many_connections_block_only_when_there_are_no_others(gate: Gate) -> None:
    assert gate.note_too_many(TOO_MANY, 100.0, others=4) == THROTTLED_WAIT_S
    assert gate.is_open(100.0)
    assert gate.limit() == 4
    assert gate.note_too_many(TOO_MANY, 100.1, others=3) == THROTTLED_WAIT_S
    assert gate.limit() == 3
    assert gate.note_too_many(TOO_MANY, 102.0, others=0) > THROTTLED_WAIT_S
    assert not gate.is_open(102.0)


def test_what_a_provider_taught_limits_rate_and_connections(gate: Gate) -> None:
    now_ms = int(time.time() * 1000)
    assert gate.rate_per_s() is None
    gate.account = Account(
        ceiling_per_s=100.0,
        ceiling_at_ms=now_ms,
        ceiling_connections=3,
        connections_at_ms=now_ms,
    )
    rate = gate.rate_per_s()
    assert rate is not None
    assert 80 < rate < 100
    assert gate.limit() == gate.max_connections() == 3


def test_what_was_learnt_before_the_clock_was_set_back_is_of_now(gate: Gate) -> None:
    ahead_ms = int((time.time() + 3600) * 1000)
    gate.account = Account(
        ceiling_per_s=40.0,
        ceiling_at_ms=ahead_ms,
        ceiling_connections=12,
        connections_at_ms=ahead_ms,
        wanted_at_ms=ahead_ms,
    )
    assert gate.max_connections() == 12
    assert gate.rate_per_s() == pytest.approx(34.0)
    assert not gate.is_wanted()


def test_the_configured_rate_is_never_exceeded() -> None:
    gate = Gate(provider="p", settings=Provider(host="smtp.example.com", rate="14/s"))
    assert gate.rate_per_s() == 14
    gate.account = Account(ceiling_per_s=100.0, ceiling_at_ms=0)
    assert gate.rate_per_s() == 14


def test_offers_are_counted_as_the_rate_is() -> None:
    counted = Provider(host="smtp.example.com", rate_counts="recipients")
    gate = Gate(provider="p", settings=counted)
    many = claimed(*(f"r{number}@x.test" for number in range(10)))
    for tenth in range(20):
        gate.start(Stream.TRANSACTIONAL, tenth / 10, many)
        gate.note_success(10, tenth / 10)
    assert gate.shown_ceiling(1.9) > 90


def test_a_provider_that_answers_again_is_not_left_alone_for_the_rest_of_its_ladder(
    gate: Gate,
) -> None:
    now_s = 0.0
    while not gate.is_down(now_s):
        gate.note_failure(now_s)
        now_s = gate.blocked_until_s
    assert gate.note_silence(now_s)
    gate.note_success(1, now_s + 0.1)
    assert gate.is_open(now_s + 0.1)


def test_one_refusal_among_few_messages_halves_nothing() -> None:
    gate = Gate(provider="p", settings=Provider.model_validate({"host": "x.test", "rate": "2/s"}))
    for second in range(2):
        gate.start(Stream.TRANSACTIONAL, float(second), claimed())
    gate.note_success(1, 1.0)
    assert gate.shown_ceiling(1.5) == 2


def test_silence_is_the_provider_s_trouble_after_three_in_a_row(gate: Gate) -> None:
    assert not gate.note_silence(1.0)
    assert not gate.note_silence(2.0)
    gate.note_success(1, 3.0)
    assert not gate.note_silence(4.0)
    assert not gate.note_silence(5.0)
    assert gate.note_silence(6.0)
    assert not gate.is_open(6.5)


def test_only_a_gate_changes_itself() -> None:
    """Its state changes by named transitions, so that each change has one place."""
    changes = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            changes += [
                f"{file.name}:{node.lineno}"  # type: ignore[attr-defined]
                for target in targets
                if isinstance(target, ast.Attribute) and ast.unparse(target.value).endswith("gate")
            ]
    assert changes == []
