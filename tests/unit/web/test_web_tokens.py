"""Tokens of programs: where they are kept, and what is no token."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from relaygw.settings.web import WebToken
from relaygw.web.gate import credentials
from relaygw.web.gate.credentials import READ_AGAIN_S, Tokens
from relaygw.web.gate.identity import agent_of
from tests.builders import Clock

GOOD = "a-token-of-24-characters"
SHORT = "s3cr3t-of-19-letter"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(credentials, "time", clock)
    return clock


def token(name: str, reference: str) -> WebToken:
    return WebToken.model_validate({"name": name, "token": reference})


async def test_whose_token_it_is() -> None:
    tokens = Tokens([token("ci", f"plain:{GOOD}"), token("qa", f"plain:{GOOD}x")])
    for given, name in [(GOOD, "ci"), (GOOD + "x", "qa")]:
        holder = await tokens.holder(given.encode())
        assert holder is not None
        assert holder.name == name
    for given in ["", "x", GOOD[:-1], GOOD.upper(), GOOD + "xx"]:
        assert await tokens.holder(given.encode()) is None
    assert await Tokens([]).holder(b"") is None


async def test_what_cannot_be_read_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the empty token nor a short one; the others work."""
    tokens = Tokens(
        [
            token("gone", "env:RELAYGW_NO_SUCH_VARIABLE"),
            token("short", f"plain:{SHORT}"),
            token("ci", f"plain:{GOOD}"),
        ]
    )
    with caplog.at_level(logging.DEBUG):
        assert await tokens.holder(b"") is None
        assert await tokens.holder(SHORT.encode()) is None
        assert await tokens.holder(GOOD.encode()) is not None
    assert "web.tokens: gone lets nobody log in: env:RELAYGW_NO_SUCH_VARIABLE" in caplog.text
    assert "web.tokens: short lets nobody log in: the token has 19 characters" in caplog.text
    assert "s3cr3t" not in caplog.text


async def test_a_new_token_counts_without_a_reload(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "token"
    file.write_text(GOOD + "\n")
    file.chmod(0o600)
    tokens = Tokens([token("ci", f"file:{file}")])
    assert await tokens.holder(GOOD.encode()) is not None
    file.write_text(GOOD[::-1] + "\n")
    assert await tokens.holder(GOOD[::-1].encode()) is None  # looked at a moment ago
    clock.now_s += READ_AGAIN_S
    assert await tokens.holder(GOOD[::-1].encode()) is not None
    assert await tokens.holder(GOOD.encode()) is None


async def test_a_key_store_that_is_down_locks_nobody_out(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody can have it asked again."""
    file = tmp_path / "token"
    file.write_text(GOOD)
    file.chmod(0o600)
    tokens = Tokens([token("ci", f"file:{file}")])
    assert await tokens.holder(GOOD.encode()) is not None
    file.unlink()
    clock.now_s += READ_AGAIN_S
    assert await tokens.holder(b"a guess") is None
    assert "web.tokens: ci stays as it was: " in caplog.text
    assert await tokens.holder(GOOD.encode()) is not None


async def test_guesses_do_not_read_the_key_store_each_time(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    command = tmp_path / "key"
    command.write_text(f"#!/bin/sh\necho x >>{calls}\necho {GOOD}\n")
    command.chmod(0o700)
    tokens = Tokens([token("ci", f"command:{command}")])
    for number in range(20):
        assert await tokens.holder(b"guess %d" % number) is None
    assert calls.read_text() == "x\n"


def test_a_user_agent_is_read_as_utf_8_and_without_versions() -> None:
    header = "Grüße/1.2 (Zürich 7)".encode().decode("latin-1")  # as headers come
    assert agent_of(header) == "Grüße (Zürich #)"
    assert agent_of("caf\xe9") == "caf\ufffd"
