"""`relaygw import-queue` in a process that is killed at one of its steps."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from relaygw.cli import import_run, main
from relaygw.store.intake import Intake
from relaygw_postfix.queue_directory import QueueDirectory

BATCH_MESSAGES = 7
_STEPS: tuple[tuple[type, str], ...] = (
    (Intake, "accept_batch"),
    (QueueDirectory, "set_aside"),
    (QueueDirectory, "sync"),
)


def run(words: list[str], step: int, *, is_after: bool) -> None:
    """Run the command; die before or after its step of this number, counted from 0."""
    import_run._BATCH_MESSAGES = BATCH_MESSAGES
    left = [step]

    def dying(do: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(do)
        def one(*given: Any, **more: Any) -> Any:
            is_last = not left[0]
            left[0] -= 1
            if is_last and not is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = do(*given, **more)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return one

    for owner, name in _STEPS:
        setattr(owner, name, dying(getattr(owner, name)))
    raise SystemExit(main.main(words, standalone_mode=False))
