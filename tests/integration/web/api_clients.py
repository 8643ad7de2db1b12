"""Clients that others wrote for Mailpit, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.npm import npm_package
from tests.pip_target import pip_target

_SCRIPTS = Path(__file__).parent / "clients"
_LINE_BYTES = 2**24


class ClientError(Exception):
    """What a client raised."""


class Client:
    """A client that takes one call after another."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self, method: str, *arguments: object) -> Any:
        """Call a method and return what it returned; raises ClientError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, arguments]).encode() + b"\n")
        await self._process.stdin.drain()
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert line, "the client has ended; its errors are above"
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(answer["error"])
        return answer.get("value")


@asynccontextmanager
async def mailpit_api(url: str, *login: str) -> AsyncIterator[Client]:
    """Run mailpit-api of npm."""
    folder = await asyncio.to_thread(npm_package, "mailpit-api", "2.1.0")
    async with _running(
        ["node", str(_SCRIPTS / "mailpit_api.mjs"), str(folder), url, *login]
    ) as it:
        yield it


@asynccontextmanager
async def cypress_mailpit(url: str, *login: str) -> AsyncIterator[Client]:
    """Run the commands of cypress-mailpit of npm."""
    folder = await asyncio.to_thread(npm_package, "cypress-mailpit", "2.0.0")
    script = str(_SCRIPTS / "cypress_mailpit.mjs")
    async with _running(["node", script, str(folder), url, *login]) as it:
        yield it


@asynccontextmanager
async def mailpit_api_client(url: str) -> AsyncIterator[Client]:
    """Run mailpit-api-client of PyPI."""
    needs = ("dataclasses-json==0.6.7", "httpx==0.28.1")
    folder = await asyncio.to_thread(pip_target, "mailpit-api-client==1.0.0", needs=needs)
    command = [sys.executable, str(_SCRIPTS / "mailpit_api_client.py"), url]
    async with _running(command, PYTHONPATH=str(folder)) as it:
        yield it


@asynccontextmanager
async def _running(command: Sequence[str], **environment: str) -> AsyncIterator[Client]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        env={**os.environ, **environment},
    )
    try:
        yield Client(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
