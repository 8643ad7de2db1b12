"""Which key an attempt uses, and when mail must not be sent with the one it has."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.delivery.attempt import Upstream
from relaygw.delivery.sending_once import KeyPlan, OwnKey, own_key, plan_at_once, plan_key
from relaygw.mail.clock import clock_ms
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.policy.recipients import Screen
from relaygw.policy.retry import DOUBT_LADDER_S
from relaygw.settings.idempotency import KeyHeader
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from tests.builders import claimed
from tests.tables import each_of
from tests.unit.delivery.worker_context import worker_context

HEADER = KeyHeader("X-Key", 86_400.0)
SPENT = len(DOUBT_LADDER_S) + 1
DAY_MS = 86_400_000


@each_of(
    "value, fields, problem",
    [
        ("order-1", 1, None),
        ("x" * 256, 1, None),
        ("x" * 257, 1, "(X-Key) is not 1 to 256 visible characters"),
        ("", 1, "(X-Key) is not 1 to 256 visible characters"),
        ("a b", 1, "(X-Key) is not 1 to 256 visible characters"),
        ("order-1", 2, "(X-Key) is in 2 fields; one is expected"),
    ],
)
def test_a_key_of_the_sender_s_own_has_to_be_one(
    value: str, fields: int, problem: str | None
) -> None:
    assert OwnKey(value, fields).problem("X-Key") == problem


def content(*keys: str) -> bytes:
    return "".join(f"X-Key: {key}\r\n" for key in keys).encode() + b"Subject: x\r\n\r\nhello\r\n"


def test_of_a_hundred_thousand_keys_the_first_hundred_are_counted() -> None:
    own = own_key(content(*["order-1"] * 100_000), "X-Key")
    assert own == OwnKey("order-1", 100)


@pytest.mark.parametrize(
    ("more", "age_ms", "code"),
    [
        ({"doubts": SPENT, "provider": "p"}, 2 * DAY_MS, HoldCode.IN_DOUBT),
        ({"doubts": SPENT, "provider": "p"}, DAY_MS // 2, None),  # it still knows the key
        ({"doubts": SPENT - 1, "provider": "p"}, 2 * DAY_MS, None),
        ({"attempts": 3, "provider": "p"}, 2 * DAY_MS, None),  # nobody may have it
        ({"content": content("a", "b")}, 0, HoldCode.HEADER),
    ],
)
async def test_mail_that_no_key_makes_harmless_is_held(
    store: Store, more: dict[str, Any], age_ms: int, code: HoldCode | None
) -> None:
    now_ms = clock_ms()
    mail = claimed(claimed_at_ms=now_ms, accepted_at_ms=now_ms - age_ms, **more)
    assert mail.content is not None
    plan = await plan_key(worker_context(store), HEADER, mail, mail.content)
    if code is None:
        assert isinstance(plan, KeyPlan)
        assert (plan.header, plan.is_own) == ("X-Key", False)
    else:
        assert isinstance(plan, HoldCause)
        assert plan.code is code


@pytest.mark.parametrize(
    ("provider", "keys", "at_once"),
    [
        ({}, KeyPlan(), 7),
        ({"idempotency": {"header": "X-Key", "life": "24h"}}, KeyPlan("X-Key"), 1),
        ({"idempotency": {"header": "X-Key", "life": "24h"}}, KeyPlan("X-Key", is_own=True), 7),
    ],
    ids=["no-key", "key-of-each", "key-of-all"],
)
def test_with_a_key_each_recipient_has_a_transaction(
    store: Store, provider: dict[str, Any], keys: KeyPlan, at_once: int
) -> None:
    settings = Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "providers": {"p": {"host": "smtp.example.com", "max_recipients": 7, **provider}},
            "routes": [{"name": "default", "providers": ["p"]}],
        }
    )
    upstream = Upstream(worker_context(store, settings=settings), "p", Screen(settings))
    assert upstream.recipients_at_once(keys) == at_once


def test_small_mail_that_is_tried_for_the_first_time_is_planned_at_once() -> None:
    now_ms = clock_ms()
    plan = plan_at_once(HEADER, claimed(claimed_at_ms=now_ms))
    assert plan == KeyPlan("X-Key", until_ms=now_ms + 77_760_000)
    assert plan_at_once(HEADER, claimed(content=None)) is None
    assert plan_at_once(HEADER, claimed(content=content("a"))) is None
    assert plan_at_once(HEADER, claimed(attempts=1)) is None
