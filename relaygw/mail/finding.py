"""What must not be mailed, as the content check finds it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Kind(StrEnum):
    """What is looked for."""

    CARD_NUMBER = "card_number"
    IBAN = "iban"
    PASSWORD = "password"
    SECRET = "secret"


_WORDS = {
    Kind.CARD_NUMBER: ("card number", "card numbers"),
    Kind.IBAN: ("IBAN", "IBANs"),
    Kind.PASSWORD: ("password", "passwords"),
    Kind.SECRET: ("key or token", "keys or tokens"),
}


def words_of(found: Mapping[Kind, int]) -> str:
    """Return findings in words: `2 card numbers, 1 IBAN`."""
    return ", ".join(f"{number} {_WORDS[kind][number > 1]}" for kind, number in found.items())
