"""Providers that speak as a mail service does: greeting, extensions, AUTH, accepting reply.

The dialects are in dialects.yaml. A DialectProvider is a ScriptedProvider whose usual answers
are those of its service; what is scripted comes first, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.scripted_provider import Action, Script, ScriptedProvider


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A documented refusal, and what must become of the mail; see dialects.yaml."""

    stage: str
    reply: str
    mail: str
    hold: str | None = None

    @property
    def octets(self) -> bytes:
        """The reply on the wire."""
        code, *lines = [self.reply[:3], *self.reply[4:].split("|")]
        lines = [line.removeprefix(f"{code} ").removeprefix(f"{code}-") for line in lines]
        shown = [f"{code}-{line}" for line in lines[:-1]] + [f"{code} {lines[-1]}"]
        return ("\r\n".join(shown) + "\r\n").encode()


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one service speaks; `name` is that of its preset."""

    name: str
    said: str
    greeting: str
    size: int | None
    extensions: tuple[str, ...]
    auth: tuple[str, ...]
    accepted: str
    id: str
    refusals: tuple[Refusal, ...]


def _dialect(name: str, values: dict[str, Any]) -> Dialect:
    tupled: dict[str, Any] = {key: tuple(values[key]) for key in ("extensions", "auth")}
    tupled["refusals"] = tuple(Refusal(**row) for row in values["refusals"])
    return Dialect(**values | tupled | {"name": name})


DIALECTS = {
    name: _dialect(name, values)
    for name, values in yaml.load(
        Path(__file__).with_name("dialects.yaml").read_text(encoding="utf-8"),
        Loader=yaml.CSafeLoader,
    ).items()
}


class DialectProvider(ScriptedProvider):
    """A server that speaks a dialect, over STARTTLS."""

    def __init__(self, dialect: Dialect) -> None:
        size = () if dialect.size is None else (f"SIZE {dialect.size}",)
        super().__init__(
            tls="starttls",
            users={"user": "secret"},
            auth=dialect.auth,
            extensions=(*size, *dialect.extensions),
        )
        self.dialect = dialect

    async def next_action(self, verb: str) -> Script:
        """Answer in the dialect where the script says nothing; see ScriptedProvider."""
        action = await super().next_action(verb)
        if action is not Action.DEFAULT:
            return action
        usual = {"greeting": self.dialect.greeting, "CONTENT": self.dialect.accepted}
        return f"{usual[verb]}\r\n".encode() if verb in usual else action
