"""`providers.NAME.idempotency`: where a provider reads a key that it sends one message for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from relaygw.settings.addresses import is_header_name
from relaygw.settings.section import Written, format_duration, parse_duration

_SHORTEST_LIFE_S = 3600.0  # a retry has to come well before its end
_WRITE = "write auto, off, or e.g. {header: X-EE-Idempotency-Key, life: 24h}"
_TAKEN = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "resent-")
    for name in ("from", "sender", "to", "cc", "bcc", "date", "message-id", "reply-to")
) | {"received", "return-path", "subject", "references", "in-reply-to", "mime-version"}


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """The header field that has the key, and for how long the provider knows one it has seen."""

    header: str
    life_s: float


@dataclass(frozen=True, slots=True, repr=False)
class Idempotency(Written):
    """`auto`, `off`, or a header field of its own."""

    word: str = "auto"
    own: KeyHeader | None = None

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read the written form; raises ValueError."""
        if isinstance(value, str) and value in ("auto", "off"):
            return cls(value)
        if not isinstance(value, dict):
            raise ValueError(f"is not an idempotency key; {_WRITE}")
        if set(value) != {"header", "life"}:
            known = ("header", "life")
            wrong = [f"{key} is not a key of it" for key in value if key not in known]
            wrong += [f"{key} is missing" for key in known if key not in value]
            raise ValueError(f"is not right: {', '.join(wrong)}; {_WRITE}")
        return cls("", KeyHeader(_header(value["header"]), _life_s(value["life"])))

    def __str__(self) -> str:
        """Return the written form."""
        if self.own is None:
            return self.word
        return f"{{header: {self.own.header}, life: {format_duration(self.own.life_s)}}}"


def _header(name: object) -> str:
    if not isinstance(name, str) or not is_header_name(name):
        raise ValueError("has a header that is no header name; write e.g. X-EE-Idempotency-Key")
    if name.lower() in _TAKEN or name.lower().startswith("content-"):
        raise ValueError(
            f"has the header {name}, which means something else; write the one of the provider's "
            "documentation, or off"
        )
    return name


def _life_s(value: object) -> float:
    try:
        life_s = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"has a life that {error}") from error
    if life_s < _SHORTEST_LIFE_S:
        raise ValueError(
            f"has a life of {format_duration(life_s)}, too short for retries; write the provider's "
            f"own, at least {format_duration(_SHORTEST_LIFE_S)}, or off"
        )
    return life_s
