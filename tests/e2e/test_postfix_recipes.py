"""What the import calls the same is the same, measured: real mail by a real Postfix and by relaygw.

A recipe of each kind is in every run; a campaign has them all, and counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import IS_CAMPAIGN
from tests.e2e.postfix_measure import Measured, Providers, measure
from tests.e2e.postfix_recipes import RECIPES, Recipe
from tests.rights import needs

pytestmark = [needs("root"), pytest.mark.campaign]
_USED = [one for one in RECIPES if one.kind or IS_CAMPAIGN]
_MOST_MISSED = 0.1  # of all mail: not called the same, though it could be


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    with Providers() as providers:
        yield providers


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    """What was measured so far."""
    return []


@pytest.mark.parametrize("recipe", _USED, ids=lambda recipe: recipe.name)
def test_what_is_called_the_same_is(
    recipe: Recipe, providers: Providers, measured: list[Measured], tmp_path: Path
) -> None:
    found = measure(recipe, providers, tmp_path)
    measured.append(found)
    assert found.false == [], found.story(found.false)
    assert found.could == [] or IS_CAMPAIGN, found.story(found.could)


def test_what_could_be_the_same_is_called_so(
    measured: list[Measured], capsys: pytest.CaptureFixture[str]
) -> None:
    mails = sum(len(list(one.recipe.pairs())) for one in measured)
    true, false, could = (
        sum(len(getattr(one, name)) for one in measured) for name in ("true", "false", "could")
    )
    with capsys.disabled():
        print(
            f"\n{len(measured)} sets of Postfix, {mails} mails: {true} same and true, {false} same "
            f"and false, {could} not the same though they could be"
        )
    assert could <= _MOST_MISSED * mails
