"""Searches over all mail as people make them: a text, a result, times; and what was looked at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, tzinfo
from functools import partial
from typing import Any

from relaygw.mail.clock import clock_ms, rfc3339_or_none, utc_text
from relaygw.mail.search import WITH_WORDS, Field, MailSearch, SearchMistake, Term, parse_find
from relaygw.operations.queue_object import queue_object
from relaygw.operations.selectors import TIMES, read_moment
from relaygw.store.find import Found
from relaygw.store.store import Store

LOOKED_AT = "queue ids, addresses, subjects, Message-IDs and providers' ids"
_FEW_WAITING = 2_000  # these are looked at themselves


def search_of(
    text: str, result: str = "", since: str = "", until: str = "", *, tz: tzinfo | None = UTC
) -> MailSearch:
    """Return the search that a text, a result and times make; raises SearchMistake.

    Times without a zone are of `tz`: see read_moment.
    """
    read_time = partial(read_moment, now_ms=clock_ms(), tz=tz)
    terms = list(parse_find(text, read_time=read_time).terms)
    if result:
        terms.append(Term(field=Field.OUTCOME, text=result))
    for field, given in ((Field.AFTER, since), (Field.BEFORE, until)):
        if given:
            at_ms = read_time(given, is_end=field is Field.BEFORE)
            if at_ms is None:
                raise SearchMistake(f"{given[:40]!r} is not a time", f"write {TIMES}")
            terms.append(Term(field=field, number=at_ms))
    return MailSearch(terms=tuple(terms))


def found_object(store: Store, search: MailSearch, *, limit: int, before: str) -> dict[str, Any]:
    """Return a page of what a search finds, in the form of JSON; raises NoPlace."""
    found = store.find.find(search, limit=limit, before=before)
    return {
        "messages": list(map(queue_object, found.entries)),
        "next": found.next or None,
        "looked": looked_words(store, found, search),
        "until": rfc3339_or_none(found.until_ms),
    }


def looked_words(store: Store, found: Found, search: MailSearch) -> str:
    """Return what a search has looked at and what it has not: beside what it found, or nothing."""
    has_text = any(term.field is Field.TEXT for term in search.terms)
    parts = [f"searched {LOOKED_AT} of" if has_text else "looked at"]
    parts[0] += " all mail, in every state"
    if found.until_ms is not None:
        parts[0] = parts[0].replace("all mail", f"mail since {utc_text(found.until_ms)}")
        parts.append("for older mail open the next page, or add a word")
    if found.read_inside:
        parts.append(f"inside words: the newest {found.read_inside:,} messages")
    return "; ".join([*parts, *unfinished(store, search)])


def unfinished(store: Store, search: MailSearch) -> Iterator[str]:
    """Yield what cannot be searched yet, and will be."""
    if not any(term.field in WITH_WORDS for term in search.terms):
        return
    progress = store.find.progress()
    if progress.older_than_ms is not None:
        since = utc_text(progress.older_than_ms)
        yield f"mail from before {since} is still being indexed"
    if progress.waiting > _FEW_WAITING:
        yield f"{progress.waiting:,} newer messages are still being indexed"
