"""The dead-man's signal: a monitor elsewhere is called each minute, and alerts when no call comes.

Of several gateways on a queue the one with the duty of the watch calls, for all of them. The
address is a token: nothing of it is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from relaygw.errors import SettingsError
from relaygw.http_request import Unanswered, ask
from relaygw.reach import reason_of
from relaygw.settings.secrets import SecretUrl

CALL_EACH_S = 60.0


class DeadMansSignal:
    """Calls an address while all is well; for one event loop."""

    def __init__(
        self,
        url: SecretUrl,
        note: Callable[[str], None],
        *,
        each_s: float = CALL_EACH_S,
        limit_s: float = 10.0,
    ) -> None:
        self._url = url
        self._note = note
        self._each_s = each_s
        self._limit_s = limit_s
        self._due_s = self._well_s = time.monotonic()
        self.calling: asyncio.Task[None] | None = None
        self._told = ""

    def beat(self, trouble: str | None) -> None:
        """Begin a call if all is well and one is due; returns at once."""
        if trouble is not None:
            if time.monotonic() - self._well_s >= self._each_s / 4:  # a start takes a moment
                self._tell(f"warning: heartbeat_url is not called: {trouble}")
            return
        self._well_s = time.monotonic()
        is_busy = self.calling is not None and not self.calling.done()
        if is_busy or time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + self._each_s
        self.calling = asyncio.create_task(self._call())

    def stop(self) -> None:
        """End a call that is under way."""
        if self.calling is not None:
            self.calling.cancel()

    async def _call(self) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                url = await asyncio.to_thread(self._url.read)
                answer = await ask("GET", url, limit_s=None)
        except TimeoutError:
            problem = f"no answer within {self._limit_s:g} s"
        except SettingsError as error:
            problem = str(error)
        except Unanswered as error:
            problem = error.reason
        except Exception as error:  # whatever a receiver does: its own affair
            problem = reason_of(error)
        else:
            problem = "" if answer.is_success else f"the answer was {answer.status}"
        if problem:
            self._tell(f"warning: heartbeat_url was called in vain: {problem}")
        else:
            self._tell("heartbeat_url is called each minute")

    def _tell(self, line: str) -> None:
        """Write a line when it is another one than before."""
        if line != self._told:
            self._told = line
            self._note(line)


# --- whether all is well ----------------------------------------------------------------------
