"""A verb of operators: the command, the endpoint of the API and the form of a page are made of it.

Who may carry one out: operators, and whoever may open the queue on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from relaygw.errors import RelaygwError
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Where a verb is carried out, by whom, when, and through which door."""

    store: Store
    settings: Settings
    actor: str
    now_ms: int
    way: str = ""  # api or web; "": the command line

    def audited(self, action: str, target: str, affected: int = 1, detail: str = "") -> AuditEntry:
        """Return the line of the audit trail, which is written with the change."""
        return AuditEntry(
            at_ms=self.now_ms,
            actor=self.actor,
            action=action,
            target=target,
            affected=affected,
            detail=detail,
        )


class Mistake(RelaygwError):
    """Something that was given cannot be meant; nothing was changed."""

    def __init__(self, what: str, expected: str = "", name: str = "") -> None:
        super().__init__(f"{what}; write {expected}" if expected else what)
        self.what = what
        self.expected = expected
        self.name = name  # of the parameter, "" if it is about several


class Kind(Enum):
    """What is given for a parameter."""

    TEXT = auto()
    NUMBER = auto()  # from 1; a text for the API and forms
    FLAG = auto()
    LIST = auto()  # of texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Something that is given to a verb.

    An empty text is a mistake. With `takes_empty` it is a value of its own in the API and in forms,
    where every field is sent, and what `read` makes of it in a command.

    The value is made by `read`, or by `look_up` where the gateway has to be asked. Both raise
    ValueError or InvalidAddress, which continue the text, or Mistake.
    """

    name: str
    help: str = ""  # of the option
    field_help: str = ""  # of the field of the API; "": the help, and the example
    kind: Kind = Kind.TEXT
    metavar: str = ""
    example: str = ""
    option: str = ""  # its name in the command, if that is another
    choices: Sequence[str] = ()
    default: str = ""  # one of the choices
    read: Callable[[str], Any] = str
    look_up: Callable[[str, Asked], Any] | None = None
    takes_empty: bool = False
    is_target: bool = False  # what is changed: an argument, and a part of the path
    is_repeatable: bool = False  # a target of which a command takes several, one after the other
    is_for_commands: bool = False  # and not for the API
    is_syntax: bool = False  # a mistake in the option is one of the command line: 64, not 65

    @property
    def option_name(self) -> str:
        """The name of the option, or of the argument."""
        return (self.option or self.name).replace("_", "-")

    @property
    def is_argument(self) -> bool:
        """True if a command takes it without an option."""
        return self.is_target or self.kind is Kind.LIST

    def read_alone(self, text: str) -> Any:
        """Return the value of a text without a gateway. Raises Mistake."""
        return self._value(text, "", self.read)

    def read_given(self, given: Any, asked: Asked) -> Any:
        """Return the value of what is given: a text, a number, a list or a flag. Raises Mistake."""
        if self.kind is Kind.FLAG:
            return given
        look_up = self.look_up
        read = self.read if look_up is None else lambda text: look_up(text, asked)
        if self.kind is Kind.LIST:
            return list(dict.fromkeys(self._value(text, "", read) for text in given))
        if self.takes_empty and asked.way and not given.strip():
            return ""
        name = self.name if asked.way == "api" else self.option_name
        return self._value(str(given), f"{name} ", read)

    def _value(self, text: str, shown: str, read: Callable[[str], Any]) -> Any:
        word = text.strip()
        try:
            if not (word or self.takes_empty):
                raise ValueError("is empty")
            if self.choices and word not in self.choices:
                raise ValueError("is not known")
            return read(word)
        except Mistake:
            raise
        except (RelaygwError, ValueError) as error:
            expected = self.example or ", ".join(self.choices)
            raise Mistake(f"{shown}{text[:80]!r} {error}", expected, self.name) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a verb did, as each door tells it."""

    answer: dict[str, Any]  # of the API
    lines: Sequence[str]  # of the command
    objects: Sequence[dict[str, Any]] | None = None  # of its --json; None: the answer
    left: Sequence[str] = ()  # what was not done, and why: the exit code is 65
    number: int = 1  # of messages, for the notice of a page


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """Something that operators do, audited."""

    name: str  # of the command
    help: str
    endpoint_help: str = ""  # "": as of the command
    parameters: tuple[Parameter, ...]
    run: Callable[[Asked, Mapping[str, Any]], Done]
    has_json: bool = True  # the command takes --json

    def carry_out(self, given: Mapping[str, Any], asked: Asked) -> Done:
        """Read what is given, and do it. Raises Mistake, and StoreUnavailable."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                raise Mistake(f"{name[:40]!r} is not known", "one of " + ", ".join(known))
        for name, parameter in known.items():
            if parameter.is_argument and not given.get(name):
                raise Mistake(f"{name} is missing", parameter.example, name)
        return self.run(asked, {name: known[name].read_given(given[name], asked) for name in given})
