"""Killed, or told of an error, at the N-th system call of a kind: nothing is lost, all is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.campaign import IS_CAMPAIGN, times
from tests.e2e.call_sweep import CALLS, KINDS, SUBJECTS, Fault, Places
from tests.fakes.scripted_provider import ThreadedProvider

LAST = 100
MOST_MISSES = 3  # in a row: how often a call comes differs a little from run to run
FEW = {"front": (1, 3, 19), "pickup": (2, 9), "delivery": (2, 9), "sendmail": (1, 2, 3)}
"""Which calls are hit in every run: the first of a start, and those of mail."""


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as provider:
        yield provider


def numbers(subject: str, call: str, kind: str) -> list[int]:
    """Return which calls are hit: in a campaign each, else by turns of call and kind."""
    if IS_CAMPAIGN:
        return list(range(1, LAST + 1))
    turn = list(CALLS).index(call) + KINDS[call].index(kind)
    few = FEW[subject]
    return [few[turn % len(few)]]


def kinds(subject: str, call: str) -> Sequence[str]:
    """Return what happens at a call: in a campaign each kind, else a kill and an error."""
    if IS_CAMPAIGN:
        return KINDS[call]
    both = KINDS[call][:2]
    turn = list(CALLS).index(call)
    # what costs most meets one of them, by turns
    return {"pickup": both[turn % 2 :][:1], "delivery": both[1 - turn % 2 :][:1]}.get(subject, both)


@pytest.mark.campaign
@pytest.mark.timeout(times(300, campaign=7200))
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_nothing_is_lost_at_any_call(
    subject: str, call: str, provider: ThreadedProvider, tmp_path: Path
) -> None:
    places = Places(tmp_path, provider)
    wrong = []
    for kind in kinds(subject, call):
        hits = misses = 0
        for number in numbers(subject, call, kind):
            try:
                is_hit = SUBJECTS[subject](places, Fault(call, kind, number))
            except AssertionError as error:
                is_hit = True
                wrong.append(f"{kind} at call {number}: {error}")
            hits += is_hit
            misses = 0 if is_hit else misses + 1
            if misses == MOST_MISSES:
                break
        print(f"{subject}: {call}: {kind}: {hits} times")
    assert not wrong, "\n".join(wrong)
