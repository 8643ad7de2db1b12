"""Durations, sizes, shares and networks as users write them in relaygw.yaml, and printed again.

A value that does not fit raises ValueError, whose text continues a sentence that begins with it:
`is not a duration; write e.g. 30s`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PlainSerializer

from relaygw.settings.section import Written

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_BYTES = {
    **{"GiB": 2**30, "MiB": 2**20, "KiB": 2**10},
    **{"GB": 10**9, "MB": 10**6, "kB": 10**3, "KB": 10**3, "B": 1, "": 1},
}
# Beyond these no sensible setting lies, and sums with them stay far from a 64-bit overflow.
_MAX_DURATION_S = 3650 * 86_400.0
_MAX_SIZE_BYTES = 2**40
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*|%)\s*")


def _measured(value: object, units: Mapping[str, int]) -> float | None:
    """Return a number times its unit, None for what is not a number with one of `units`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    match = _NUMBER_AND_UNIT.fullmatch(str(value))
    return float(match[1]) * units[match[2]] if match and match[2] in units else None


def parse_duration(value: object) -> float:
    """Return seconds for `30s`, `5m`, `4h`, `7d` (or `250ms`); a unit is required except for 0."""
    duration_ms = _measured(value, _MILLISECONDS)
    if duration_ms is None and _measured(value, {"": 1}) != 0:
        raise ValueError("is not a duration; write e.g. 30s, 5m, 4h or 7d")
    seconds = (duration_ms or 0.0) / 1000
    if seconds > _MAX_DURATION_S:
        raise ValueError("is too long; write at most 3650d")
    return seconds


def parse_interval(value: object) -> float:
    """Return seconds as `parse_duration` does, but refuse 0."""
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than 0s; write e.g. 30s")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest form that `parse_duration` reads back as `seconds`."""
    if seconds == 0:
        return "0s"
    for unit, milliseconds in _MILLISECONDS.items():
        if (seconds * 1000) % milliseconds == 0:
            return f"{seconds * 1000 / milliseconds:.0f}{unit}"
    return f"{seconds:.9f}".rstrip("0") + "s"


def format_waits(waits_s: Sequence[float]) -> str:
    """Return waits in words, of which the last is for all that follow."""
    *first, last = map(format_duration, waits_s)
    return ", ".join([*first, f"then {last} each time" if first else f"{last} each time"])


def parse_size(value: object) -> int:
    """Return bytes for `35MiB`, `50MB` or a plain number of bytes."""
    size_bytes = _measured(value, _BYTES)
    if size_bytes is None:
        raise ValueError("is not a size; write e.g. 35MiB, 50MB or a number of bytes")
    if size_bytes > _MAX_SIZE_BYTES:
        raise ValueError("is too large; write at most 1024GiB")
    return int(size_bytes)


def format_size(size_bytes: int) -> str:
    """Return a form that `parse_size` reads back as `size_bytes`."""
    for unit, factor in _BYTES.items():
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def parse_share(value: object) -> float:
    """Return 0…1 for `0%` to `100%`."""
    percent = _measured(value, {"%": 1})
    if percent is None or percent > 100:
        raise ValueError("is not a share from 0% to 100%; write e.g. 5%")
    return percent / 100


def format_share(share: float) -> str:
    """Return the percentage for a share of 0…1."""
    return f"{share * 100:.10f}".rstrip("0").rstrip(".") + "%"


_PERIODS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*/\s*([smhd])\s*")


@dataclass(frozen=True, slots=True)
class Rate(Written):
    """So much in so many seconds, as `14/s`, `25/m`, `1000/h` or `50000/d`."""

    amount: float
    period_s: float

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read the written form; raises ValueError."""
        match = _RATE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("is not a rate; write e.g. 14/s, 25/m or 1000/h")
        rate = cls(float(match[1]), _PERIODS_S[match[2]])
        if not 0 < rate.per_s <= 100_000:
            raise ValueError("must be above 0 and at most 100000/s; omit the key for no limit")
        return rate

    @property
    def per_s(self) -> float:
        """How much a second."""
        return self.amount / self.period_s

    def __str__(self) -> str:
        unit = next(unit for unit, period_s in _PERIODS_S.items() if period_s == self.period_s)
        return f"{self.amount:.10f}".rstrip("0").rstrip(".") + f"/{unit}"


def parse_network(value: object) -> IPv4Network | IPv6Network:
    """Return the network for `10.0.0.0/8`, `::1/128` or one address."""
    if isinstance(value, (IPv4Network, IPv6Network)):
        return value
    if isinstance(value, str):
        try:
            return ip_network(value.strip())
        except ValueError as error:
            reason = " (it has host bits set)" if "host bits" in str(error) else ""
            raise ValueError(f"is not a network{reason}; write e.g. 10.0.0.0/8") from error
    raise ValueError("is not a network; write e.g. 10.0.0.0/8")


def _shown(form: Callable[[Any], str]) -> PlainSerializer:
    return PlainSerializer(form, return_type=str, when_used="json")


Duration = Annotated[float, BeforeValidator(parse_duration), _shown(format_duration)]
"""Seconds, 0 allowed."""
Interval = Annotated[float, BeforeValidator(parse_interval), _shown(format_duration)]
"""Seconds, more than 0."""
Size = Annotated[int, BeforeValidator(parse_size), _shown(format_size)]  # bytes
Share = Annotated[float, BeforeValidator(parse_share), _shown(format_share)]  # 0…1
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(parse_network)]
