"""What all sections of the model share, and how one says what its keys disagree on, all at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
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
