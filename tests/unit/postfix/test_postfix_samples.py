"""What stands for a class of addresses is shown as the class."""

from __future__ import annotations

import pytest

from relaygw_postfix.samples import PROBES, in_words, sample


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"from {sample('')}", "from anybody"),
        ("relaygw-sample.invalid is in x", "anybody's domain is in x"),
        (f"to {sample('@shop.test')} as well", "to @shop.test as well"),
        (f"to {sample('.shop.test')} as well", "to .shop.test as well"),
        ("relaygw-sample.shop.test is in x", ".shop.test is in x"),
        (" -> ".join(PROBES), "anybody -> anybody -> anybody"),
        ("relaygw-sample+x", "anybody+x"),
        (f"from {sample('www-data@*')}", "from www-data@*"),
        ("a@shop.test", "a@shop.test"),
    ],
)
def test_samples_are_shown_as_their_classes(text: str, words: str) -> None:
    assert in_words(text) == words
