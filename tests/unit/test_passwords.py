"""Logins: verified once, remembered by a keyed hash, bounded, and the same work for nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import argon2
import pytest

from relaygw import passwords
from relaygw.passwords import MAX_FAILURES, MAX_VERIFYING, REMEMBER_S, LoginBusy, Passwords
from tests.builders import Clock

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
    verify = passwords._fits

    def counted(password_hash: str, password: bytes) -> bool:
        work.hashes.append(password_hash)
        work.gate.wait(10)
        return verify(password_hash, password)

    monkeypatch.setattr(passwords, "_fits", counted)
    monkeypatch.setattr(passwords, "FAILURE_S", 0.05)
    return work


@pytest.fixture
def users(work: Work) -> Iterator[Passwords]:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    known = Passwords(
        {"shop1": hasher.hash("right"), "shop2": hasher.hash("pa\u00dfwort")},
    )
    yield known
    work.gate.set()
    known.close()


async def test_right_and_wrong(users: Passwords) -> None:
    assert await users.verify("shop1", b"right", guesser=GUESSER)
    assert await users.verify("shop2", "pa\u00dfwort".encode(), guesser=GUESSER)
    for name, password in (("shop1", b"Right"), ("shop2", b"right"), ("", b""), ("x", b"right")):
        assert not await users.verify(name, password, guesser=GUESSER)


async def test_what_was_verified_costs_nothing_for_a_while(
    users: Passwords, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(passwords, "time", clock)
    for _ in range(3):
        assert await users.verify("shop1", b"right", guesser=GUESSER)
    assert len(work.hashes) == 1
    assert b"right" not in b"".join(users._known_until_s)
    clock.now_s += REMEMBER_S
    for _ in range(2):
        assert await users.verify("shop1", b"right", guesser=GUESSER)
    assert len(work.hashes) == 2


async def test_nobody_costs_as_much_as_somebody(users: Passwords, work: Work) -> None:
    await users.verify("nobody", b"x", guesser=GUESSER)
    await users.verify("shop1", b"x", guesser=GUESSER)
    nobody, somebody = work.hashes
    assert nobody.rsplit("$", 2)[0] == somebody.rsplit("$", 2)[0]


async def test_a_failure_is_answered_at_a_fixed_time(users: Passwords) -> None:
    took_s = []
    for name in ("nobody", "shop1"):
        began_s = time.monotonic()
        await users.verify(name, b"x", guesser=GUESSER)
        took_s.append(time.monotonic() - began_s)
    assert all(took >= 0.05 for took in took_s)


async def test_too_many_at_once_are_put_off(users: Passwords, work: Work) -> None:
    work.gate.clear()
    waiting = [
        asyncio.create_task(users.verify("shop1", b"x%d" % number, guesser=str(number)))
        for number in range(MAX_VERIFYING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(LoginBusy):
        await users.verify("shop1", b"right", guesser=GUESSER)
    work.gate.set()
    assert await asyncio.gather(*waiting) == [False] * MAX_VERIFYING
    assert await users.verify("shop1", b"right", guesser=GUESSER)


async def test_the_lock_refuses_what_is_right_and_remembered(users: Passwords) -> None:
    """Else the answer would tell a guesser, fast, which guess was right."""
    assert await users.verify("shop1", b"right", guesser=GUESSER)
    for number in range(10):
        assert not await users.verify("shop1", b"%d" % number, guesser=GUESSER)
    with pytest.raises(LoginBusy):
        await users.verify("shop1", b"right", guesser=GUESSER)
    assert await users.verify("shop1", b"right", guesser="198.51.100.8")


async def test_guesses_beside_each_other_do_not_get_past_the_lock(
    users: Passwords, work: Work
) -> None:
    """Twelve wrong ones and a right one at once: the lock that ten bring is for all."""
    work.gate.clear()
    wrong = [
        asyncio.create_task(users.verify("shop1", b"x%d" % number, guesser=GUESSER))
        for number in range(12)
    ]
    await asyncio.sleep(0)
    right = asyncio.create_task(users.verify("shop1", b"right", guesser=GUESSER))
    await asyncio.sleep(0)
    work.gate.set()
    with pytest.raises(LoginBusy):
        await right
    answers = await asyncio.gather(*wrong, return_exceptions=True)
    assert answers.count(False) == MAX_FAILURES
    others = [answer for answer in answers if answer is not False]
    assert all(isinstance(answer, LoginBusy) for answer in others), "wrong ones stand out"


async def test_what_is_remembered_can_be_asked(users: Passwords) -> None:
    assert not users.is_remembered("shop1", b"right")
    await users.verify("shop1", b"right", guesser=GUESSER)
    assert users.is_remembered("shop1", b"right")
    assert not users.is_remembered("shop2", b"right")
