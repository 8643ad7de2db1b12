"""What is kept, what is read anew, and how a rotated key is noticed, with real files and logins."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.outcome import Stage
from relaygw.settings.provider import Provider
from relaygw.upstream.credentials import Credentials
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.pool import Pool
from relaygw.upstream.session import open_session
from tests.fakes.scripted_provider import ScriptedProvider


class KeyStore:
    """A file with the key, and a program that prints it and counts its runs."""

    def __init__(self, directory: Path, key: str) -> None:
        self._file = directory / "key"
        self._runs = directory / "runs"
        self._program = directory / "get-key"
        self._program.write_text(f"#!/bin/sh\necho run >> {self._runs}\ncat {self._file}\n")
        self._program.chmod(0o700)
        self.put(key)

    def put(self, key: str) -> None:
        self._file.write_text(key + "\n")
        self._file.chmod(0o600)

    def remove(self) -> None:
        self._file.unlink()

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().split()) if self._runs.exists() else 0

    def login(self, form: str) -> dict[str, Any]:
        place = self._file if form == "file" else self._program
        return {"username": "shop", "password": f"{form}:{place}"}


async def opened(settings: Provider, credentials: Credentials) -> int:
    """Return 0 after a login, else the code of the refusal."""
    try:
        session = await open_session(settings, ehlo_name="gw.test", credentials=credentials)
    except UpstreamError as error:
        assert error.stage is Stage.AUTH
        assert error.reply is not None
        return error.reply.code
    await session.close()
    return 0


async def test_a_command_is_run_once_for_many_connections(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, "right")
    async with ScriptedProvider(tls="starttls", users={"shop": "right"}) as provider:
        settings = provider.settings(**keys.login("command"))
        pool = Pool("p", settings, ehlo_name="gw.test")
        sessions = await asyncio.gather(*(pool.acquire_session() for _ in range(5)))
        for session in sessions:
            pool.release_session(session)
        await pool.aclose()
    assert keys.runs == 1


async def test_a_user_name_by_command_is_kept_too(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, "shop")
    name = keys.login("command")["password"]
    provider = Provider(host="x.test", username=name, password="plain:p")
    credentials = Credentials(provider)
    for _ in range(3):
        login = await credentials.read()
        assert login is not None
        assert (login.username, login.secret) == ("shop", "p")
    assert keys.runs == 1


async def test_a_kept_key_that_was_rotated_costs_no_login(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, "old")
    async with ScriptedProvider(tls="starttls", users={"shop": "old"}) as provider:
        settings = provider.settings(**keys.login("command"))
        credentials = Credentials(settings)
        assert await opened(settings, credentials) == 0
        keys.put("new")
        provider.users["shop"] = "new"
        assert await opened(settings, credentials) == 0
        assert len(provider.connections) == 3
    assert keys.runs == 2


async def test_a_refused_key_that_is_still_the_same_is_tried_once(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, "old")
    async with ScriptedProvider(tls="starttls", users={"shop": "old"}) as provider:
        settings = provider.settings(**keys.login("command"))
        credentials = Credentials(settings)
        assert await opened(settings, credentials) == 0
        provider.users["shop"] = "new"
        assert await opened(settings, credentials) == 535
        assert len(provider.connections) == 2
        assert not await credentials.has_changed()
        keys.put("new")
        assert await credentials.has_changed()
        runs = keys.runs
        assert await opened(settings, credentials) == 0
        assert keys.runs == runs  # what `has_changed` found is used


async def test_a_rotated_file_is_noticed_and_read(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, "old")
    async with ScriptedProvider(tls="starttls", users={"shop": "new"}) as provider:
        settings = provider.settings(**keys.login("file"))
        credentials = Credentials(settings)
        assert not await credentials.has_changed()  # nothing was refused yet
        assert await opened(settings, credentials) == 535
        assert not await credentials.has_changed()
        keys.remove()
        assert await credentials.has_changed()  # `read` says what is wrong
        with pytest.raises(UpstreamError, match="cannot be read"):
            await credentials.read()
        keys.put("new")
        assert await credentials.has_changed()
        assert await opened(settings, credentials) == 0


async def test_a_temporary_refusal_keeps_what_is_kept(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, "right")
    async with ScriptedProvider(tls="starttls", users={"shop": "right"}) as provider:
        settings = provider.settings(**keys.login("command"))
        credentials = Credentials(settings)
        provider.script("AUTH", b"454 4.7.0 later\r\n")
        assert await opened(settings, credentials) == 454
        assert await opened(settings, credentials) == 0
    assert keys.runs == 1


@pytest.mark.parametrize(
    ("password", "seconds"), [("file:/k", 5), ("env:K", 5), ("command:get k", 60)]
)
def test_how_often_it_is_looked_at(password: str, seconds: int) -> None:
    provider = Provider(host="x.test", username="shop", password=password)
    assert Credentials(provider).look_each_s == seconds


async def test_no_credentials_at_all() -> None:
    credentials = Credentials(Provider(host="x.test"))
    assert await credentials.read() is None
    assert not await credentials.has_changed()


async def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, "canary-7f3a")
    provider = Provider(host="x.test", **keys.login("file"))
    credentials = Credentials(provider)
    login = await credentials.read()
    assert login is not None
    credentials.forget(login)
    assert "canary-7f3a" not in f"{credentials!r} {login!r}"
