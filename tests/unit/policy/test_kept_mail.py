"""Which mail standing holds keep, and what operators may write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from relaygw.mail.hold import HoldCode, cause_in
from relaygw.mail.standing_hold import HoldScope, StandingHold
from relaygw.operations.selectors import read_end
from relaygw.policy.standing_holds import StandingHolds
from tests.builders import NOW_MS, standing_hold
from tests.tables import each_of

S = HoldScope
MAIL: dict[str, Any] = {
    "route": "default",
    "sender": "Shop@Shop.test",
    "subject": "Your INVOICE 17",
    "client": "10.0.0.7",
}


def kept(holds: StandingHolds, **mail: Any) -> StandingHold | None:
    (hold,) = holds.of_each(["ann@web.test"], **mail)
    return hold


@each_of(
    "scope, value, is_kept",
    [
        (S.ROUTE, "default", True),
        (S.ROUTE, "defaul", False),
        (S.SENDER, "shop@shop.test", True),
        (S.SENDER, "op@shop.test", False),
        (S.SENDER_DOMAIN, "shop.test", True),
        (S.SENDER_DOMAIN, "hop.test", False),
        (S.SUBJECT, "invoice", True),
        (S.SUBJECT, "invoices", False),
        (S.CLIENT, "10.0.0.0/24", True),
        (S.CLIENT, "10.0.0.7/32", True),
        (S.CLIENT, "10.0.1.0/24", False),
        (S.RECIPIENT_DOMAIN, "shop.test", False),
    ],
)
def test_a_whole_message_is_kept(scope: HoldScope, value: str, is_kept: bool) -> None:
    holds = StandingHolds([standing_hold(scope, value)])
    assert (kept(holds, **MAIL) is not None) == is_kept


@each_of(
    "scope, value, address, is_kept",
    [
        (S.RECIPIENT_DOMAIN, "gmx.test", "ann@GMX.test", True),
        (S.RECIPIENT_DOMAIN, "gmx.test", "ann@mail.gmx.test", False),
        (S.RECIPIENT_DOMAIN, "xn--gmx-tla.test", "ann@gmxß.test", False),
        (S.RECIPIENT_DOMAIN, "xn--bcher-kva.test", "ann@bücher.test", True),
        (S.RECIPIENT, "ann@gmx.test", '"Ann"@gmx.test', True),
        (S.RECIPIENT, "ann@gmx.test", "bob@gmx.test", False),
        (S.RECIPIENT, "ann@gmx.test", '"broken@gmx.test', False),
    ],
)
def test_a_recipient_is_kept(scope: HoldScope, value: str, address: str, is_kept: bool) -> None:
    holds = StandingHolds([standing_hold(scope, value)])
    (hold,) = holds.of_each([address], **MAIL)
    assert (hold is not None) == is_kept


def test_the_null_sender_local_mail_and_odd_clients() -> None:
    null = StandingHolds([standing_hold(S.SENDER, ""), standing_hold(S.CLIENT, "10.0.0.0/8")])
    assert kept(null, **{**MAIL, "sender": "", "client": None}) is not None
    assert kept(null, **{**MAIL, "client": None}) is None
    assert kept(null, **{**MAIL, "client": "unknown"}) is None
    assert kept(null, **{**MAIL, "client": "::ffff:10.0.0.7"}) is not None


def test_the_cause_says_which_hold_and_is_read_again() -> None:
    hold = standing_hold(S.SUBJECT, "a “b” c", reason="the shop sends  it twice")
    cause = hold.cause
    assert cause.hold_id == hold.hold_id
    assert cause.sentence == (
        "standing hold 3f2a9c1d: mail with “a “b” c” in its subject (the shop sends  it twice)"
    )
    assert cause_in(HoldCode.STANDING, cause.key, cause.sentence) == cause


@each_of(
    "text, wanted_ms",
    [
        ("2h", NOW_MS + 7_200_000),
        ("2026-11-26", 1_795_737_599_999),  # its end
        ("2026-11-26T10:00:00Z", 1_795_687_200_000),
    ],
)
def test_ends_are_read(text: str, wanted_ms: int) -> None:
    assert read_end(text, now_ms=NOW_MS, tz=UTC) == wanted_ms


def test_a_time_of_day_is_the_next_one() -> None:
    at = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    for hour in range(24):
        end = datetime.fromtimestamp(read_end(f"{hour}:30", now_ms=NOW_MS, tz=UTC) / 1000, UTC)
        assert (end.hour, end.minute) == (hour, 30)
        assert 0 < (end - at).total_seconds() <= 86_400


@each_of("text", ["yesterday", "2020-01-01", "soon", "-2h", "0s"])
def test_what_is_no_time_to_come_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is (over already|not a time)"):
        read_end(text, now_ms=NOW_MS)
