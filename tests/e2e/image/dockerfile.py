"""A Dockerfile as data: its stages, and what each of their steps says.

Knows the instructions that ours uses, and raises on others, so that none is passed over.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_METADATA = frozenset({"LABEL", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"})
_STEPS = frozenset({"RUN", "COPY", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD", "ARG"})


@dataclass(frozen=True)
class Step:
    """One instruction and the rest of its line."""

    name: str
    text: str

    @property
    def argv(self) -> list[str]:
        """The words of an instruction in the form of a JSON list."""
        words = json.loads(self.text)
        assert isinstance(words, list)
        return words


@dataclass
class Stage:
    """One FROM with all that follows it."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def last(self, name: str) -> Step | None:
        """Return the instruction of that name that counts."""
        return next((step for step in reversed(self.steps) if step.name == name), None)


def read_stages(path: Path) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name, in order."""
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in _logical_lines(path.read_text()):
        name, _, text = line.partition(" ")
        text = text.strip()
        if name == "FROM":
            base, _, alias = text.partition(" AS ")
            current = stages[alias] = Stage(base, alias)
        elif name in _METADATA | _STEPS and current is not None:
            current.steps.append(Step(name, text))
        else:
            raise ValueError(f"{path}: this test does not know {name}")
    return stages


def _logical_lines(text: str) -> list[str]:
    lines: list[str] = []
    pending = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        lines.append(pending)
        pending = ""
    return lines


def environment(stages: dict[str, Stage], name: str, start: dict[str, str]) -> dict[str, str]:
    """Return the environment at the end of a stage."""
    stage = stages.get(name)
    if stage is None:
        return dict(start)
    values = environment(stages, stage.base, start)
    for step in stage.steps:
        if step.name == "ENV":
            for word in shlex.split(step.text):
                key, _, value = word.partition("=")
                for known, content in values.items():
                    value = value.replace(f"${known}", content)
                values[key] = value
    return values


def inherited(stages: dict[str, Stage], name: str, instruction: str) -> Step | None:
    """Return the instruction that counts for a stage, its own or that of its base."""
    stage = stages.get(name)
    if stage is None:
        return None
    return stage.last(instruction) or inherited(stages, stage.base, instruction)


def healthcheck(stages: dict[str, Stage], name: str) -> list[str] | None:
    """Return the words of a stage's health check, None without one."""
    step = inherited(stages, name, "HEALTHCHECK")
    if step is None or step.text == "NONE":
        return None
    return Step("CMD", step.text.partition("CMD ")[2]).argv


def json_words(stages: dict[str, Stage], name: str, instruction: str) -> list[Any]:
    """Return the list of an instruction in the form of a JSON list, empty without one."""
    step = inherited(stages, name, instruction)
    return [] if step is None else step.argv
