"""Searches put together by clicking: a filter is a word of the search, set or taken out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode

MAX_QUERY_CHARACTERS = 1000
_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter beside the list."""

    label: str
    path: str
    is_on: bool
    number: int | None = None  # of messages, None: not counted


def list_path(query: str = "", *, page: int = 1) -> str:
    """Return the path of a page of the list."""
    parameters: dict[str, str | int] = {}
    if query:
        parameters["query"] = query
    if page > 1:
        parameters["page"] = page
    return "/sandbox" + (f"?{urlencode(parameters)}" if parameters else "")


def message_path(queue_id: str, query: str = "", *, view: str = "") -> str:
    """Return the path of a message, opened from the list that `query` makes."""
    parameters = {"query": query, "view": view}
    given = urlencode({name: value for name, value in parameters.items() if value})
    return f"/sandbox/{queue_id}" + (f"?{given}" if given else "")


def tag_term(tag: str) -> str:
    """Return the search for a tag."""
    plain = tag.replace('"', " ")
    return f"tag:{plain}" if re.fullmatch(r"[\w.-]+", plain) else f'tag:"{plain}"'


def make_filter(query: str, term: str, label: str, *, number: int | None = None) -> Filter:
    """Return a filter that adds `term` to a search, or takes it out if it is there."""
    words = [match[0] for match in _WORD.finditer(query)]
    others = [word for word in words if word.lower() != term.lower()]
    is_on = len(others) < len(words)
    wanted = others if is_on else [*words, term]
    return Filter(label=label, path=list_path(" ".join(wanted)), is_on=is_on, number=number)
