"""Logins: verified once, remembered by a keyed hash, bounded, and the same work for nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import argon2
import pytest

from relaygw.inbound import authentication
from relaygw.inbound.authentication import Authenticator
from relaygw.inbound.login import LoginBusy
from relaygw.settings.model import User

GUESSER = "198.51.100.7"


class Work:
    """Counts verifications; `gate` holds them up."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.gate = threading.Event()
        self.gate.set()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()
    verify = authentication._is_right

    def counted(password_hash: str, password: bytes) -> bool:
        work.hashes.append(password_hash)
        work.gate.wait(10)
        return verify(password_hash, password)

    monkeypatch.setattr(authentication, "_is_right", counted)
    monkeypatch.setattr(authentication, "FAILURE_S", 0.05)
    return work


@pytest.fixture
def users(work: Work) -> Iterator[Authenticator]:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    authenticator = Authenticator(
        [
            User(name="shop1", password_hash=hasher.hash("right"), senders=("@shop1.test",)),
            User(name="shop2", password_hash=hasher.hash("pa\u00dfwort")),
        ]
    )
    yield authenticator
    work.gate.set()
    authenticator.close()


async def test_right_and_wrong(users: Authenticator) -> None:
    login = await users.log_in("shop1", b"right", guesser=GUESSER)
    assert login is not None
    assert login.name == "shop1"
    assert login.may_send_as("a@shop1.test")
    assert not login.may_send_as("a@shop2.test")
    assert await users.log_in("shop2", "pa\u00dfwort".encode(), guesser=GUESSER) is not None
    for name, password in (("shop1", b"Right"), ("shop2", b"right"), ("", b""), ("x", b"right")):
        assert await users.log_in(name, password, guesser=GUESSER) is None


async def test_what_was_verified_costs_nothing_for_a_while(
    users: Authenticator, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        assert await users.log_in("shop1", b"right", guesser=GUESSER) is not None
    assert len(work.hashes) == 1
    assert b"right" not in b"".join(users._known)
    monkeypatch.setattr(authentication, "REMEMBER_S", 0.0)
    users._known.clear()
    for _ in range(2):
        assert await users.log_in("shop1", b"right", guesser=GUESSER) is not None
    assert len(work.hashes) == 3


async def test_nobody_costs_as_much_as_somebody(users: Authenticator, work: Work) -> None:
    await users.log_in("nobody", b"x", guesser=GUESSER)
    await users.log_in("shop1", b"x", guesser=GUESSER)
    nobody, somebody = work.hashes
    assert nobody.rsplit("$", 2)[0] == somebody.rsplit("$", 2)[0]


async def test_a_failure_is_answered_at_a_fixed_time(users: Authenticator) -> None:
    took_s = []
    for name in ("nobody", "shop1"):
        began_s = time.monotonic()
        await users.log_in(name, b"x", guesser=GUESSER)
        took_s.append(time.monotonic() - began_s)
    assert all(took >= 0.05 for took in took_s)


async def test_too_many_at_once_are_put_off(
    users: Authenticator, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "MAX_VERIFYING", 2)
    work.gate.clear()
    waiting = [
        asyncio.create_task(users.log_in("shop1", b"x%d" % number, guesser=str(number)))
        for number in range(2)
    ]
    await asyncio.sleep(0)
    with pytest.raises(LoginBusy):
        await users.log_in("shop1", b"right", guesser=GUESSER)
    work.gate.set()
    assert await asyncio.gather(*waiting) == [None, None]
    assert await users.log_in("shop1", b"right", guesser=GUESSER) is not None


async def test_the_lock_refuses_what_is_right_and_remembered(users: Authenticator) -> None:
    """Else the answer would tell a guesser, fast, which guess was right."""
    assert await users.log_in("shop1", b"right", guesser=GUESSER) is not None
    for number in range(10):
        assert await users.log_in("shop1", b"%d" % number, guesser=GUESSER) is None
    with pytest.raises(LoginBusy):
        await users.log_in("shop1", b"right", guesser=GUESSER)
    assert await users.log_in("shop1", b"right", guesser="198.51.100.8") is not None
