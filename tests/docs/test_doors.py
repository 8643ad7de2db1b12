"""Tests look through the doors of the product: how far they reach past them may only fall."""

from __future__ import annotations

from functools import cache

from bench.reach_of_tests import private_uses, replaced_constants, trees_of
from bench.structure_figures import GATEWAY, POSTFIX, TESTS

MOST_PRIVATE_USES = 38
MOST_REPLACED_CONSTANTS = 98
ADVICE = (
    "look through a verb, the store or the log instead; where a wait or a limit is too long, give "
    "its class an argument that production leaves alone"
)


@cache
def product_and_tests() -> tuple:  # type: ignore[type-arg]
    return [*trees_of(GATEWAY), *trees_of(POSTFIX)], trees_of(TESTS)


def test_tests_use_few_private_names() -> None:
    uses = private_uses(*product_and_tests())
    assert len(uses) <= MOST_PRIVATE_USES, f"{ADVICE}: {sorted(uses)}"


def test_tests_replace_few_constants() -> None:
    replaced = replaced_constants(*product_and_tests())
    assert len(replaced) <= MOST_REPLACED_CONSTANTS, f"{ADVICE}: {sorted(replaced)}"
