"""A login of a listener: who it is to the policy."""

from __future__ import annotations

from collections.abc import Iterator

import argon2
import pytest

from relaygw.inbound.login import Authenticator
from relaygw.passwords import Uses
from relaygw.settings.model import User

GUESSER = "198.51.100.7"


@pytest.fixture
def users() -> Iterator[Authenticator]:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    authenticator = Authenticator(
        [
            User(name="shop1", password_hash=hasher.hash("right"), senders=("@shop1.test",)),
            User(name="shop2", password_hash=hasher.hash("else")),
        ],
        {},
    )
    yield authenticator
    authenticator.passwords.close()


async def test_a_login_knows_what_its_user_may(users: Authenticator) -> None:
    login = await users.log_in("shop1", b"right", guesser=GUESSER)
    assert login is not None
    assert login.name == "shop1"
    assert login.may_send_as("a@shop1.test")
    assert not login.may_send_as("a@shop2.test")


async def test_a_wrong_password_is_no_login(users: Authenticator) -> None:
    assert await users.log_in("shop1", b"else", guesser=GUESSER) is None
    assert users.passwords.is_known("shop1")
    assert not users.passwords.is_known("nobody")


async def test_a_use_is_noted_in_memory_of_a_right_password_only() -> None:
    uses = Uses()
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    users = [User(name="shop1", password_hash=hasher.hash("right"))]
    authenticator = Authenticator(users, uses)
    for password in (b"wrong", b"right", b"right"):
        await authenticator.log_in("shop1", password, guesser="192.0.2.1")
        assert set(uses) == ({("smtp", "shop1")} if password == b"right" else set())
    authenticator.passwords.close()
