"""Hands notices to programs: one of the configuration, or the package apprise.

A program gets JSON on its standard input and the text in its environment. No shell is started. One
that takes too long is killed with all that it started.

apprise knows a hundred services. It runs in a process of its own: a service that hangs can be ended
that way, its memory is not this process's, and the URL, which holds keys, goes to it by a pipe. The
package is an extra: `pip install relaygw[apprise]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from relaygw.alerting.apprise_child import MISSING, NO_URL
from relaygw.alerting.notifier import Notice, NotSent
from relaygw.errors import SettingsError
from relaygw.settings.secrets import SecretRef

LIMIT_S = 15.0
APPRISE_LIMIT_S = 30.0
NOT_INSTALLED = "the package apprise is not installed; pip install 'relaygw[apprise]'"
_MORE_VARIABLES = (
    "PYTHONPATH",
    "VIRTUAL_ENV",
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Where its packages are, how it gets out, and whom it believes."""
_CHILD = "relaygw.alerting.apprise_child"
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
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise NotSent(f"{name} ended with {how}")
        return f"{name} ended with exit code 0"


async def run_limited(
    words: Sequence[str], *, given: bytes, environment: Mapping[str, str], limit_s: float, name: str
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
    given = os.environ.items()
    return {name: value for name, value in given if name in wanted or name.startswith("LC_")}


# --- apprise ---------------------------------------------------------------------------------


def is_installed() -> bool:
    """True when the package is there."""
    return importlib.util.find_spec("apprise") is not None


class Apprise:
    """One URL of apprise's."""

    def __init__(self, url: SecretRef, *, limit_s: float = APPRISE_LIMIT_S) -> None:
        self._url = url
        self._limit_s = limit_s

    async def send(self, notice: Notice) -> str:
        """Have apprise send a notice."""
        try:
            url = await asyncio.to_thread(self._url.read)
        except SettingsError as error:
            raise NotSent(str(error)) from None
        kind = "success" if notice.is_over else "warning"
        given = {"url": url, "title": notice.title, "body": notice.text, "kind": kind}
        code = await run_limited(
            (sys.executable, "-P", "-m", _CHILD),
            given=json.dumps(given).encode(),
            environment=environment(*_MORE_VARIABLES),
            limit_s=self._limit_s,
            name="apprise",
        )
        if code == MISSING:
            raise NotSent(NOT_INSTALLED)
        if code == NO_URL:
            raise NotSent(f"{self._url}: apprise does not know this kind of URL")
        if code != 0:
            raise NotSent("apprise: the service did not take it")
        return "the service took it"
