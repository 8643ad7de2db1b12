"""Of many texts the first few are named."""

from __future__ import annotations

from relaygw.mail.words import some_of


def test_the_rest_is_counted() -> None:
    assert some_of(["a", "b"], 2) == "a, b"
    assert some_of(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert some_of("abcdef") == "a, b, c, d, e and 1 more"
