"""Where a queue lies: its URL, and what is needed to get there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from sqlalchemy.engine import make_url


def _no_password() -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database by URL; `password` is asked for each connection and never kept."""

    url: str
    password: Callable[[], str | None] = _no_password
    allow_unsafe: bool = False  # a PostgreSQL that may forget what it acknowledged

    @classmethod
    def of(cls, place: Self | str) -> Self:
        """Return `place`, or the place that a URL alone names."""
        return cls(url=place) if isinstance(place, str) else place

    @property
    def is_postgres(self) -> bool:
        """True for PostgreSQL, False for SQLite."""
        return self.url.startswith("postgresql:")

    def __str__(self) -> str:
        """Return the URL without a password, or the path of the file."""
        url = make_url(self.url)
        return url.render_as_string(hide_password=True) if self.is_postgres else str(url.database)

    def explain(self, problem: str) -> str:
        """Return a problem with its place and what to look at."""
        remedy = (
            "check that the server runs, its address, user and password"
            if self.is_postgres
            else "check the file, its owner and the space on its volume"
        )
        return f"{self}: {problem}; {remedy}"


def damage(path: str, what: str) -> str:
    """Return what is wrong with a SQLite database, and what to do."""
    return f"{path}: {what}; relaygw db check tells more, relaygw db recover saves what can be read"
