"""Codes of a mail, as a test that registers a customer needs them; pure.

A code is what people would type: digits, or capitals with digits. Codes that stand close to a
word such as "code" come first, numbers of orders and amounts after them, years last.
"""

from __future__ import annotations

import re
from bisect import bisect_left

MAX_CODES = 20
_MAX_CHARACTERS = 64 * 1024
_NEAR_CHARACTERS = 80
_SENTENCE_END_CHARACTERS = 40  # a word of another sentence is as if it stood so far away

_CODE = re.compile(
    r"(?<![\w.,/@#:&=?%-])(?:\d{3}[ -]\d{3}|\d{4,8}|(?=[A-Z0-9-]*\d)(?=[A-Z0-9-]*[A-Z])"
    r"[A-Z0-9]{4,10}(?:-[A-Z0-9]{3,10})?)(?![\w@/%]|[.,:-]\w)"
)
_WORD = re.compile(
    r"code|kode|\bpin\b|\botp\b|\btan\b|token|verif|bestätig|confirm|kennwort|passw|"
    r"código|codice|clave|wachtwoord",
    re.IGNORECASE,
)
_OF_SOMETHING_ELSE = re.compile(
    r"(?:(?:order|invoice|customer|article|item|bestell|rechnung|auftrag|kunden|artikel|zip|plz|"
    r"tel|phone|fax)\w*|\bnr|\bno)\W{0,3}(?:(?:number|nummer|no|nr|id)\b\W{0,3})?$",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"\s?(?:€|\$|£|eur|usd|chf|gbp|euro)", re.IGNORECASE)
_AMOUNT_BEFORE = re.compile(r"(?:€|\$|£|\b(?:eur|usd|chf|gbp))\s?$", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)\d\d")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")


def codes_of(text: str) -> list[str]:
    """Return what may be codes in a text, the likely ones first, each once."""
    text = text[:_MAX_CHARACTERS]
    words = [(match.start(), match.end()) for match in _WORD.finditer(text)]
    ranked: list[tuple[int, int, str]] = []
    for match in _CODE.finditer(text):
        rank = _rank(text, match.start(), match.end(), words)
        ranked.append((rank, match.start(), re.sub(r"(?<=\d)[ -](?=\d)", "", match[0])))
    return list(dict.fromkeys(code for _, _, code in sorted(ranked)))[:MAX_CODES]


def _rank(text: str, start: int, end: int, words: list[tuple[int, int]]) -> int:
    """Return how unlikely a code is: below `_NEAR_CHARACTERS` by its distance to a word."""
    before, after = text[max(0, start - 40) : start], text[end : end + 6]
    distance = _distance(text, start, end, words)
    if _YEAR.fullmatch(text[start:end]) and distance > 3:
        return 3 * _NEAR_CHARACTERS
    if _AMOUNT.match(after) or _AMOUNT_BEFORE.search(before):
        return 2 * _NEAR_CHARACTERS
    if _OF_SOMETHING_ELSE.search(before):
        return 2 * _NEAR_CHARACTERS
    return min(distance, _NEAR_CHARACTERS)


def _distance(text: str, start: int, end: int, words: list[tuple[int, int]]) -> int:
    """Return the characters between a code and the nearest word before or after it."""
    following = bisect_left(words, (start, start))
    gaps = []
    if following > 0:
        gaps.append(text[words[following - 1][1] : start][-_NEAR_CHARACTERS:])
    if following < len(words):
        gaps.append(text[end : words[following][0]][:_NEAR_CHARACTERS])
    return min(
        (len(gap) + (_SENTENCE_END_CHARACTERS if _SENTENCE_END.search(gap) else 0) for gap in gaps),
        default=_NEAR_CHARACTERS,
    )
