"""`python -m bench.killing.controls NAME ...`: relaygw with a fault that has to be found."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

_LATER_S = 0.2


def careless() -> None:
    """Answer 250 first, and store afterwards: what is killed between the two loses mail."""
    from relaygw.inbound.committer import GroupCommitter

    def accept(self: Any, messages: Sequence[Any]) -> list[None]:
        threading.Timer(_LATER_S, self._store.intake.accept_batch, [messages]).start()
        return [None] * len(messages)

    GroupCommitter._accept = accept  # type: ignore[method-assign, assignment]


def forgetful() -> None:
    """Leave no word of what is being sent: what comes again after a kill is no recorded doubt."""
    from relaygw.store.instances import Lifeline

    Lifeline.begin = lambda *_: 0  # type: ignore[method-assign]
    Lifeline.end = lambda *_: None  # type: ignore[method-assign]


CONTROLS: dict[str, Callable[[], None]] = {"careless": careless, "forgetful": forgetful}
LOSES = {"careless": "lost", "forgetful": "unrecorded"}
"""What the checker has to find of each: mail, or the word of a doubt."""


def main() -> None:
    """Plant the fault, which forked roles inherit, and be `relaygw`."""
    CONTROLS[sys.argv.pop(1)]()
    from relaygw.cli import main as relaygw

    relaygw()


if __name__ == "__main__":
    main()
