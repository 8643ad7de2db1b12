"""What all sections of the model share: values as users write them, and checks of several keys.

Durations, sizes, shares and networks are printed again as they are read. A value that does not fit
raises ValueError, whose text continues a sentence that begins with it:
`is not a duration; write e.g. 30s`. What keys disagree on is said all at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from relaygw.settings.tree import Keys

# strict: without it pydantic reads `true` as the number 1
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]  # a whole number from 1
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]


def checked(is_valid: Callable[[str], object], problem: str) -> AfterValidator:
    """Return a check of a text; `problem` continues a sentence that begins with the value."""

    def check(text: str) -> str:
        if not is_valid(text):
            raise ValueError(problem)
        return text

    return AfterValidator(check)


def fits(kind: Any, value: object) -> bool:
    """Return whether a value may stand for a key of this type, as `Entry` or `Domain`."""
    return not misfit(kind, value)


def misfit(kind: Any, value: object) -> str:
    """Return why a value may not stand for a key of this type, "" where it may."""
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return str(first.get("ctx", {}).get("error") or f"is wrong: {first['msg']}")
    return ""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


class Conflict(NamedTuple):
    """One disagreement: the key to point at, within its section, and the text with its remedy."""

    path: Keys
    problem: str


class ConflictsFound(ValueError):
    """Keys that do not fit together; a ValueError, so that pydantic collects it."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, c.path))}: {c.problem}" for c in conflicts))
        self.conflicts = conflicts


def raise_conflicts(found: Iterable[Conflict]) -> None:
    """Raise ConflictsFound with everything in `found`, if there is anything."""
    conflicts = list(found)
    if conflicts:
        raise ConflictsFound(conflicts)


def unknown_names(
    keys: Keys, names: Iterable[str], section: str, known: Collection[str]
) -> Iterator[Conflict]:
    """Check that all `names`, a list at `keys`, are among those `known` in another section."""
    for position, name in enumerate(names):
        if name not in known:
            yield Conflict(
                (*keys, position),
                f'"{name}" is not one of the {section}; write one of: '
                + (", ".join(known) or "none yet"),
            )


def repeated_names(named: Iterable[tuple[Keys, str]], owner: str) -> Iterator[Conflict]:
    """Check that no two names at these keys are the same, case ignored."""
    seen: set[str] = set()
    for keys, name in named:
        if name.lower() in seen:
            yield Conflict(keys, f'"{name}" is the name of an earlier {owner}; choose another')
        seen.add(name.lower())


class Section(BaseModel):
    """Base of all sections: frozen, an unknown key is an error, null means the default."""

    # inputs stay out of exception texts: one of them may be a password in a wrong place
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if v is not None or k not in cls.model_fields}

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        found = self.conflicts()
        raise_conflicts(Conflict((key,) if key else (), problem) for key, problem in found)
        return self

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield what the keys of this section disagree on: the key, "" for all of it, and text."""
        yield from ()


class Written:
    """Base of values with a written form of their own: `parse` reads it, `str` gives it back."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read the written form; raises ValueError."""
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.to_string_ser_schema(when_used="always"),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


# --- what may leave the gateway ---------------------------------------------------------------


class Mode(StrEnum):
    """What may leave the gateway."""

    PRODUCTION = "production"  # everything, less the block list
    STAGING = "staging"  # only recipients on the allow list
    SANDBOX = "sandbox"  # nothing

    @property
    def strictness(self) -> int:
        """More for what lets less out."""
        return list(Mode).index(self)


def looser_mode(keys: Keys, mode: Mode | None, everywhere: Mode) -> Iterator[Conflict]:
    """Check that the mode of a listener or a user is no looser than that of the gateway."""
    if mode is not None and mode.strictness < everywhere.strictness:
        yield Conflict(
            keys,
            f"{mode.value} is less strict than the gateway's mode {everywhere.value}; a listener "
            "can only be stricter: production, staging, sandbox, in this order",
        )


# --- values as users write them ---------------------------------------------------------------

DAY_S = 86_400.0
_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_BYTES = {
    **{"GiB": 2**30, "MiB": 2**20, "KiB": 2**10},
    **{"GB": 10**9, "MB": 10**6, "kB": 10**3, "KB": 10**3, "B": 1, "": 1},
}
# Beyond these no sensible setting lies, and sums with them stay far from a 64-bit overflow.
_MAX_DURATION_S = 3650 * DAY_S
_MAX_SIZE_BYTES = 2**40
_NUMBER_AND_UNIT = re.compile(r"\s*+([0-9]++(?:\.[0-9]++)?+)\s*+([A-Za-z]++|%|)\s*+")


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


_PERIODS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}
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
            raise ValueError("is not a rate; write e.g. 14/s, 25/m, 1000/h or 5/d")
        rate = cls(float(match[1]), _PERIODS_S[match[2]])
        if not 0 < rate.per_s <= 100_000:
            raise ValueError("must be above 0 and at most 100000/s; omit the key for no limit")
        return rate

    @classmethod
    def readable(cls, per_s: float) -> Self:
        """Return a rate in the first unit in which three digits say it exactly, else rounded."""
        rates = [cls(float(f"{per_s * unit_s:.3g}"), unit_s) for unit_s in _PERIODS_S.values()]
        rates = [rate for rate in rates if rate.amount >= 1] or rates[-1:]
        exact = (rate for rate in rates if math.isclose(rate.per_s, per_s, rel_tol=1e-9))
        return next(exact, rates[0])

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
