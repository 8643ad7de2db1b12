"""Templates of subjects: what stays the same when a program writes many alike.

Folded are numbers and what holds digits (`#`), addresses (`@`), names behind a salutation or
"from", quoted words, months and days of the week (`…`). Only the first letters of a subject are
looked at, so the work and the result are bounded.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_TEMPLATE = 120
_MAX_READ = 160
_MAX_WORD = 30
_MAX_QUOTED = 80
_LONGEST_NAME = 3  # words in front of a comma
_GAP, _NUMBER, _ADDRESS = "…", "#", "@"
# each is linear in the text, or nearly: a hostile subject costs no more than a long one
_QUOTES = re.compile(
    "|".join(
        f"{start}[^{start}{end}]{{0,{_MAX_QUOTED}}}{end}"
        for start, end in ('""', "„“", "“”", "»«", "«»", "‚‘", "‹›", "›‹")
    )
)
_QUOTE = re.compile('["„“«»‚‹›]')
_RUN = re.compile(r"[#№]?[A-Za-z\d_./:,-]+")
_ADDRESS_RUN = re.compile(r"[^\s<>(),;:\[\]]+")
_DIGIT = re.compile(r"\d")


_PLAIN, _SALUTED, _SAID_BY, _TITLE = range(4)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENDS = ",.!?:;-)]"
_HEX = frozenset("abcdefABCDEF")
_DATES = _words(
    # English, German, French, Spanish, Italian, Dutch
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec "
    "monday tuesday wednesday thursday friday saturday sunday "
    "januar februar märz mai juni juli oktober dezember dez okt "
    "montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag "
    "janvier février mars avril juin juillet août septembre octobre novembre décembre "
    "lundi mardi mercredi jeudi vendredi samedi dimanche "
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre "
    "lunes martes miércoles jueves viernes sábado domingo "
    "gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre "
    "lunedì martedì mercoledì giovedì venerdì sabato domenica "
    "januari februari maart mei augustus "
    "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag"
)
_SALUTATIONS = _words(
    "hello hi hey dear hallo liebe lieber geehrte geehrter moin servus bonjour salut cher chère "
    "hola estimado estimada querido querida ciao caro cara gentile beste geachte "
    "welcome willkommen bienvenue danke thanks merci"
)
_TITLES = _words("mr mrs ms dr prof herr herrn frau mme mlle sr sra dhr mevr")
_FROM = _words("from by von durch de par di da del van door")


@lru_cache(maxsize=2048)
def subject_template(subject: str) -> str:
    """Return the template of a decoded subject: at most 120 characters, "" of an empty one."""
    text = subject[:_MAX_READ]
    if len(subject) > _MAX_READ:
        text = text.rpartition(" ")[0] or text  # the last word may have been cut
    if _QUOTE.search(text):
        text = _QUOTES.sub(_GAP, text)
    folded: list[str] = []
    names = 0  # how many of the next words may be a name
    for word in text.split():
        token, kind = _folded(word)
        if names and _is_name(word, kind):
            end = word[len(word.rstrip(_ENDS)) :] if kind != _TITLE else ""
            token, names = _GAP + end, 0 if end else names - 1
        else:
            names = _NAMES_BEHIND.get(kind, 0)
        if folded and token[0] in (_GAP, _NUMBER) and folded[-1] == token[0]:
            folded[-1] = token  # names of one word and of two are alike, as are numbers
        else:
            folded.append(token)
    _fold_ends(folded)
    return " ".join(folded)[:MAX_TEMPLATE]


_NAMES_BEHIND = {_SALUTED: 4, _SAID_BY: 3, _TITLE: 2}


def _is_name(word: str, kind: int) -> bool:
    return kind == _TITLE or (kind == _PLAIN and word[0].isupper()) or word[-1] in ",!"


@lru_cache(maxsize=4096)
def _folded(word: str) -> tuple[str, int]:
    """Return a word as it stands in a template, and what it says of the next ones."""
    plain = word.strip(_ENDS + "(['").lower()
    if plain in _SALUTATIONS:
        return word, _SALUTED if word[-1] not in _ENDS or word[-1] == "," else _PLAIN
    if plain in _FROM:
        return word, _SAID_BY
    if plain in _TITLES:
        return word, _TITLE
    if plain in _DATES and word != "may":
        return _GAP, _PLAIN
    if "@" in word:
        return _ADDRESS_RUN.sub(_without_address, word), _PLAIN
    if len(word) >= 8 and _HEX.issuperset(word):
        return _NUMBER, _PLAIN
    if _DIGIT.search(word):
        word = _RUN.sub(_without_number, word)
    return (word if len(word) <= _MAX_WORD else _GAP), _PLAIN


def _without_number(run: re.Match[str]) -> str:
    text = run[0]
    if not _DIGIT.search(text):
        return text
    return _NUMBER + text[len(text.rstrip("_./:,-")) :]


def _without_address(run: re.Match[str]) -> str:
    return _ADDRESS if "@" in run[0] else run[0]


def _fold_ends(words: list[str]) -> None:
    """Fold a name that is spoken to, at begin or end: `Ann Lee, your cart`, `Come, Ann!`."""
    for number, word in enumerate(words[:_LONGEST_NAME]):
        if not word[0].isupper():
            break
        if word[-1] == "," and number + 1 < len(words):
            words[: number + 1] = [f"{_GAP},"]
            break
    if len(words) > 2 and words[-2][-1] == "," and words[-1][0].isupper():
        last = words[-1]
        words[-1] = _GAP + last[len(last.rstrip(_ENDS)) :]
