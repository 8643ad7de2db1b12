"""The words that a search over all mail looks for, and how each database is asked about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import and_
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.search import WITH_WORDS, Field, MailSearch
from relaygw.mail.search_words import link_word, split_words
from relaygw.store.database import Transaction
from relaygw.store.terms import contains


@dataclass(frozen=True, slots=True)
class Words:
    """What has to stand in the words of a message, and what must not: phrases, words by a blank."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.wanted or self.unwanted)

    def stand_in(self, words: str) -> bool:
        """True when they do, inside of words too."""
        return all(phrase in words for phrase in self.wanted) and not any(
            f" {phrase}" in words for phrase in self.unwanted
        )

    def begin_in(self, tx: Transaction, words: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that each begins with a word."""
        wanted = (contains(tx, words, f" {phrase}") for phrase in self.wanted)
        return and_(*wanted, *self._not_in(tx, words))

    def stand_in_sql(self, tx: Transaction, words: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that `stand_in` holds."""
        wanted = (contains(tx, words, phrase) for phrase in self.wanted)
        return and_(*wanted, *self._not_in(tx, words))

    def stand_inside(self, tx: Transaction, words: ColumnElement[str]) -> ColumnElement[bool]:
        """Return the condition that each is there, and one of them inside of a word only."""
        return and_(self.stand_in_sql(tx, words), ~self.begin_in(tx, words))

    def _not_in(self, tx: Transaction, words: ColumnElement[str]) -> Iterator[ColumnElement[bool]]:
        return (~contains(tx, words, f" {phrase}") for phrase in self.unwanted)

    def for_fts5(self) -> str:
        """Return the query of FTS5; a phrase is made of letters and digits alone."""
        return " AND ".join(f'"{phrase}"*' for phrase in _long(self.wanted))

    def for_postgres(self) -> str:
        """Return the tsquery; whether words stand side by side is looked at in what it finds."""
        pieces = []
        for phrase in self.wanted:
            *whole, last = phrase.split()
            pieces += [*(f"'{word}'" for word in whole), f"'{last}':*"]
        return " & ".join(_long(pieces, more=2))


def _long(texts: Sequence[str], more: int = 0) -> Sequence[str]:
    """Return those that few words begin with, all if there are none: an index is slow with them."""
    return [text for text in texts if len(text.removesuffix(":*")) > 2 + more] or texts


def words_in(search: MailSearch) -> Words:
    """Return the words that the terms of a search want."""
    wanted, unwanted = [], []
    for term in search.terms:
        phrase = " ".join(split_words(term.text)) if term.field in WITH_WORDS else ""
        if term.field is Field.ORDER:
            phrase = link_word(term.text)
        if phrase and not term.is_negated:
            wanted.append(phrase)
        elif phrase and term.field is Field.TEXT:
            unwanted.append(phrase)
    return Words(tuple(dict.fromkeys(wanted)), tuple(dict.fromkeys(unwanted)))
