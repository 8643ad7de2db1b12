"""What is compared: the cases of `versus_postfix`, with the targets each is held to.

Cases with one setup share their rounds, since one round gives both figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_SAME_CONCURRENCY = 20  # Postfix's default_destination_concurrency_limit


@dataclass(frozen=True, slots=True)
class Case:
    """One figure, and how many times Postfix's it must be and should be.

    Both are what it is at least, or at most where the figure `is_time`. An `aim` of 0 is none.
    """

    name: str
    quantity: str  # a key of rounds.Speeds
    bound: float
    aim: float
    is_time: bool = False  # in ms, and smaller is better; else messages a second


@dataclass(frozen=True, slots=True)
class Setup:
    """How both are set up and driven for the cases it gives figures for."""

    cases: tuple[Case, ...]
    about: str
    messages: int
    size_bytes: int = 4096
    over_tls: bool = False
    round_trip_ms: float = 0.0
    is_command: bool = False  # handed over by the sendmail command, not by SMTP
    is_on_postgres: bool = False  # relaygw's queue
    is_backlog: bool = False  # held back until all is queued; needs a round trip
    rounds: int = 5
    provider: Mapping[str, Any] = field(
        default_factory=lambda: {"max_connections": _SAME_CONCURRENCY}
    )
    postfix: Mapping[str, str] = field(default_factory=dict)
    postfix_services: tuple[str, ...] = ()


_REUSE = {"smtp_tls_connection_reuse": "yes"}
_TLSPROXY = ("tlsproxy  unix  -       -       y       -       0       tlsproxy",)  # as shipped
_TEN = {"default_destination_concurrency_limit": "10", "initial_destination_concurrency": "10"}

SETUPS = (
    Setup(
        cases=(
            Case("accept-4k", "accepted", 1.8, 2.3),
            Case("end-to-end-4k", "end_to_end", 2.0, 2.5),
        ),
        about="4 KiB bodies, provider without TLS",
        messages=4000,
    ),
    Setup(
        cases=(
            Case("accept-50k", "accepted", 1.5, 1.8),
            Case("end-to-end-50k", "end_to_end", 1.7, 2.0),
        ),
        about="50 KiB bodies, provider without TLS",
        messages=2500,
        size_bytes=51200,
    ),
    Setup(
        cases=(
            Case("accept-4k-postgres", "accepted", 1.2, 1.5),
            Case("end-to-end-4k-postgres", "end_to_end", 1.2, 1.5),
        ),
        about="4 KiB bodies; relaygw's queue in PostgreSQL on this machine",
        messages=4000,
        is_on_postgres=True,
    ),
    Setup(
        cases=(Case("tls-default", "end_to_end", 3.5, 4.0),),
        about="provider with TLS; Postfix as it comes",
        messages=2000,
        over_tls=True,
    ),
    Setup(
        cases=(Case("tls-reuse", "end_to_end", 3.3, 4.0),),
        about="provider with TLS; Postfix reuses connections",
        messages=2000,
        over_tls=True,
        postfix=_REUSE,
        postfix_services=_TLSPROXY,
    ),
    Setup(
        cases=(Case("tls-backlog-40ms", "backlog", 2.2, 3.0),),
        about="backlog, TLS 40 ms away, 10 connections, reused",
        messages=5000,
        over_tls=True,
        round_trip_ms=40.0,
        is_backlog=True,
        rounds=3,
        provider={"max_connections": 10},
        postfix=_REUSE | _TEN,
        postfix_services=_TLSPROXY,
    ),
    Setup(
        cases=(Case("sendmail", "sendmail_ms", 1.1, 1.0, is_time=True),),
        about="sendmail -t -i of 45 kB, the whole process, while nothing else goes on",
        messages=1,
        size_bytes=45_000,
        is_command=True,
        rounds=50,
    ),
)


def case_names() -> list[str]:
    """Return every case's name, in the order they run."""
    return [case.name for setup in SETUPS for case in setup.cases]


def chosen(names: Iterable[str]) -> list[tuple[Setup, list[Case]]]:
    """Return the setups that the named cases need, each with those of its cases."""
    wanted = set(names)
    picked = [(setup, [case for case in setup.cases if case.name in wanted]) for setup in SETUPS]
    return [(setup, cases) for setup, cases in picked if cases]
