"""What the diagnosis of a provider says: one finding a step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """What is looked at, in this order."""

    DNS = "DNS"
    TCP = "TCP"
    GREETING = "greeting"  # only when it is the trouble
    TLS = "TLS"
    EHLO = "EHLO"
    AUTH = "AUTH"
    SIZE = "SIZE"
    SENDER = "sender"


class Result(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"  # works now
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One step's end, in words; `remedy` says what to do, where there is something to do."""

    step: Step
    result: Result = Result.OK
    detail: str
    remedy: str = ""
