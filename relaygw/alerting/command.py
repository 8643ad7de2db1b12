"""Hands notices to a program: JSON on its standard input, the text in its environment.

No shell is started. A program that takes too long is killed with all that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from relaygw.alerting.notifier import Notice, NotSent

LIMIT_S = 15.0
_VARIABLES = ("PATH", "HOME", "TZ", "LANG", "LANGUAGE")


class Command:
    """One program with its arguments."""

    def __init__(self, words: Sequence[str], *, limit_s: float = LIMIT_S) -> None:
        self._words = tuple(words)
        self._limit_s = limit_s

    async def send(self, notice: Notice) -> str:
        """Run the program; exit code 0 takes the notice."""
        facts = notice.as_json()
        variables = {
            f"RELAYGW_ALERT_{name.upper()}": value or ""
            for name, value in facts.items()
            if "\0" not in (value or "")
        }
        name = Path(self._words[0]).name
        code = await run_limited(
            self._words,
            given=json.dumps(facts).encode() + b"\n",
            environment=environment() | variables,
            limit_s=self._limit_s,
            name=name,
        )
        if code != 0:
            raise NotSent(f"{name} ended with {_exit_words(code)}")
        return f"{name} ended with exit code 0"


async def run_limited(
    words: Sequence[str],
    *,
    given: bytes,
    environment: Mapping[str, str],
    limit_s: float,
    name: str,
) -> int:
    """Run a program, hand it `given`, and return its exit code. Raises NotSent."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # so that its children are killed with it
            env=environment,
            cwd="/",
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NotSent(f"{name} cannot be started ({reason})") from None
    try:
        async with asyncio.timeout(limit_s):
            await _hand_over(process, given)
            return await process.wait()
    except TimeoutError:
        raise NotSent(f"{name} did not end within {limit_s:g} s and was killed") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _hand_over(process: asyncio.subprocess.Process, given: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it does not read: its own affair
        process.stdin.write(given)
        await process.stdin.drain()
    process.stdin.close()


def environment(*more: str) -> dict[str, str]:
    """Return the variables that any program needs, and those of `more`, as far as they are set.

    Keys of providers are in the environment of the gateway, too: they do not go on.
    """
    wanted = {*_VARIABLES, *more}
    return {
        name: value
        for name, value in os.environ.items()
        if name in wanted or name.startswith("LC_")
    }


def _exit_words(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {-code}"
