"""When an envelope may go out behind a content, by what one connection showed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from relaygw.upstream.pool import TRIAL_PATIENCE_S, Chaining
from relaygw.upstream.session import UpstreamSession

FAR_S, NEAR_S = 0.05, 0.001


@dataclass
class Connection:
    """What chaining sees of a session."""

    round_trip_s: float = FAR_S
    chain_patience_s: float = 60.0
    is_chained: bool = False
    has_lost_step: bool = False


def connection(**more: Any) -> UpstreamSession:
    return cast(UpstreamSession, Connection(**more))


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def auto(told: list[str]) -> Chaining:
    return Chaining("p", "auto", told.append)


def test_one_connection_tries_and_the_others_follow_once_it_was_answered(auto: Chaining) -> None:
    one, other = connection(), connection()
    assert auto.may_follow(one)
    assert one.chain_patience_s == TRIAL_PATIENCE_S
    assert not auto.may_follow(other), "one of them tries"
    cast(Connection, one).is_chained = True
    auto.ended(one, was_chained=False, in_step=True, is_taken=True)
    assert not auto.may_follow(other)
    assert auto.may_follow(one), "what followed was answered in step"
    assert one.chain_patience_s == 60.0
    assert auto.may_follow(other)


def test_a_trial_that_nothing_followed_leaves_it_to_the_next_connection(auto: Chaining) -> None:
    one, other = connection(), connection()
    assert auto.may_follow(one)
    auto.ended(one, was_chained=False, in_step=True, is_taken=True)
    assert one.chain_patience_s == 60.0
    assert auto.may_follow(other)
    assert not auto.may_follow(one)
    auto.given_up(one)
    assert not auto.may_follow(one), "the trial is the other's"
    auto.given_up(other)
    assert auto.may_follow(one)


def test_two_trials_that_fail_are_enough(auto: Chaining, told: list[str]) -> None:
    for _ in range(2):
        one = connection()
        assert auto.may_follow(one)
        auto.ended(one, was_chained=False, in_step=True, is_taken=False)
        assert one.chain_patience_s == 60.0
    assert told == ["provider p does not take chained transactions; none are sent"]
    assert not auto.may_follow(connection())


def test_a_provider_that_is_near_is_not_tried(auto: Chaining, told: list[str]) -> None:
    assert not auto.may_follow(connection(round_trip_s=NEAR_S))
    assert not auto.may_follow(connection()), "the shortest way counts"
    assert told == []


def test_what_was_asked_for_ends_with_a_warning(told: list[str]) -> None:
    asked = Chaining("p", True, told.append)
    one = connection(round_trip_s=NEAR_S)
    assert asked.may_follow(one)
    assert one.chain_patience_s == 60.0
    for in_step in (False, False, True, False, False, False):
        assert not told
        asked.ended(one, was_chained=True, in_step=in_step, is_taken=True)
    assert len(told) == 1
    assert told[0].startswith("warning: provider p does not handle chained transactions correctly")
    lost = connection(has_lost_step=True)
    asked.ended(lost, was_chained=True, in_step=False, is_taken=False)
    assert len(told) == 1, "once"
    assert not asked.may_follow(one)
    assert not Chaining("p", False, told.append).may_follow(one)
