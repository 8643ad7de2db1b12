"""A verb of operators: the command and the endpoint of the API are made of it; pages read it.

Who may carry one out: operators, and whoever may open the queue on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relaygw.errors import RelaygwError
from relaygw.settings.model import Settings
from relaygw.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Where a verb is carried out, by whom, and when."""

    store: Store
    settings: Settings
    actor: str
    now_ms: int


class Mistake(RelaygwError):
    """Something that was given cannot be meant; nothing was changed."""

    def __init__(self, what: str, expected: str, name: str = "") -> None:
        super().__init__(f"{what}; write {expected}")
        self.what = what
        self.expected = expected
        self.name = name  # of the parameter, "" if it is about several


Read = Callable[[str, Asked], Any]
"""Makes a value of a text; raises ValueError or InvalidAddress, which continue the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Something that is given to a verb, as text."""

    name: str
    help: str  # of the option, and of the field of the API
    metavar: str
    example: str
    read: Read
    is_target: bool = False  # what is changed: an argument, and a part of the path


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """Something that operators do, audited; what it returns is for JSON."""

    name: str  # of the command
    help: str
    parameters: tuple[Parameter, ...]
    run: Callable[[Asked, Mapping[str, Any]], dict[str, Any]]
    words: Callable[[Mapping[str, Any]], str]  # of what was returned, for people

    def carry_out(self, given: Mapping[str, str], asked: Asked) -> dict[str, Any]:
        """Read what is given, and do it. Raises Mistake, and StoreUnavailable."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                raise Mistake(f"{name[:40]!r} is not known", "one of " + ", ".join(known))
        return self.run(asked, {name: _read(known[name], given[name], asked) for name in given})


def _read(parameter: Parameter, text: str, asked: Asked) -> Any:
    shown = f"{parameter.name.replace('_', '-')} {text[:80]!r}"
    try:
        if not text.strip():
            raise ValueError("is empty")
        return parameter.read(text.strip(), asked)
    except (RelaygwError, ValueError) as error:
        raise Mistake(f"{shown} {error}", parameter.example, parameter.name) from error
