"""The idempotency key: the same for the same mail, another one for any other."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.delivery.sending_once import is_usable_key, sending_key

ONE: dict[str, Any] = {"queue_id": "0A", "sender": "a@x.test", "rcpt_no": 0}
ONE |= {"address": "b@x.test", "generation": 0}


def test_it_is_the_same_for_ever() -> None:
    assert sending_key(**ONE) == sending_key(**ONE)
    # a change of this ends the protection of all mail that is in doubt during an upgrade
    assert sending_key(**ONE).startswith("60c69ed7")


@pytest.mark.parametrize(
    "change",
    [
        {"queue_id": "0B"},
        {"sender": "c@x.test"},
        {"sender": ""},
        {"rcpt_no": 1},
        {"address": "B@x.test"},
        {"generation": 1},
        {"queue_id": "0A\n0"},
    ],
)
def test_it_is_another_for_anything_else(change: dict[str, object]) -> None:
    assert sending_key(**ONE | change) != sending_key(**ONE)


@pytest.mark.parametrize(
    ("key", "is_usable"),
    [("x", True), ("x" * 256, True), ("x" * 257, False), ("", False), ("a b", False), ("é", False)],
)
def test_what_a_provider_may_take(key: str, is_usable: bool) -> None:
    assert is_usable_key(key) is is_usable
    assert is_usable_key(sending_key(**ONE))
