"""What a customer may be told of a message: plain, and nothing of ours."""

from __future__ import annotations

import re

import pytest

from relaygw.mail.envelope import NewRecipient
from relaygw.mail.outcome import Stage
from relaygw.mail.state import RecipientState
from relaygw.operations.queue_actions import DELETE, EXPIRE, HOLD, Order, change_queued
from relaygw.policy.retry import Consequence
from relaygw.policy.story import as_object
from relaygw.store.holds import Hold
from tests.builders import NOW_MS
from tests.unit.operations.story_rig import StoryRig
from tests.unit.operations.test_story import LATER, REFUSED, TAKEN

OURS = re.compile(r"main|other|example\.com|@|shop\.test|gw1|queue|provider|route|held|defer", re.I)
BEGIN = "Our e-mail “Order 7” of 25 November 2026 at 09:46 UTC "
FULL = (Stage.RCPT, "552 5.2.2 Mailbox full")
LARGE = (Stage.CONTENT, "552 5.3.4 Message too large")
KEY = (Stage.AUTH, "535 5.7.8 Bad credentials")
LOOK = "If it cannot be found, please check the spam folder and the filters of the mailbox."
STOPPED = (
    "has not been sent yet because of a problem on our side. It will be sent as soon as that is "
    "solved."
)


def told(rig: StoryRig, *said: tuple[Stage, str], now_ms: int = NOW_MS + 2000) -> str:
    message = rig.accept(subject="Order 7")
    if said:
        rig.attempt(message, *said)
    return checked(rig.story(message, now_ms=now_ms).answer)


def checked(answer: str) -> str:
    assert answer.startswith(BEGIN)
    assert OURS.search(answer) is None
    return answer.removeprefix(BEGIN)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (
            LATER,
            "has not been delivered yet: the mail server of the recipient asks to try again "
            "later. We try again automatically, next on 25 November 2026 at 09:47 UTC.",
        ),
        (TAKEN, f"was sent on 25 November 2026 at 09:46 UTC and accepted for delivery. {LOOK}"),
        (
            REFUSED,
            "could not be delivered: the address does not exist or cannot receive mail. Please "
            "check how it is written.",
        ),
        (FULL, "could not be delivered: the mailbox of the recipient is full."),
        (LARGE, "could not be delivered: it is too large for the mail server of the recipient."),
        (
            (Stage.CONNECT, "Connection refused"),
            "has not been delivered yet. We try again automatically, next on 25 November 2026 at "
            "09:47 UTC.",
        ),
    ],
    ids=["later", "delivered", "no such address", "full", "large", "unreachable"],
)
def test_what_an_attempt_came_to(rig: StoryRig, said: tuple[Stage, str], answer: str) -> None:
    assert told(rig, said) == answer


def test_what_waits_goes_or_is_stopped_here(rig: StoryRig) -> None:
    assert told(rig) == "is being sent right now. Please check again in a few minutes."
    hold = Hold(
        scope="credential", key="main", reason="535", remedy="", since_ms=NOW_MS,
        probe_at_ms=NOW_MS + 90_000,
    )  # fmt: skip
    rig.store.holds.put_hold(hold)
    assert told(rig) == STOPPED
    message = rig.accept(subject="Order 7")
    rig.attempt(message, KEY, consequence=Consequence(wait_s=1.0))
    assert checked(rig.story(message).answer) == STOPPED


def test_what_an_operator_did(rig: StoryRig) -> None:
    answers = []
    for action in (HOLD, DELETE, EXPIRE):
        message = rig.accept(subject="Order 7")
        order = Order(actor="ann", note="main@shop.test")
        change_queued(rig.store, action, [message.queue_id], order, now_ms=NOW_MS)
        answers.append(checked(rig.story(message).answer))
    withdrawn = "was not sent: it was withdrawn on our side."
    assert answers == [STOPPED, withdrawn, withdrawn]


def test_what_nobody_knows(rig: StoryRig) -> None:
    message = rig.accept(subject="Order 7")
    rig.attempt(message, (Stage.CONTENT, "connection lost"), in_doubt=True)
    perhaps = f"may have arrived already, we cannot tell for certain. {LOOK}"
    assert checked(rig.story(message).answer) == perhaps


@pytest.mark.parametrize(
    ("state", "mode", "answer"),
    [
        (RecipientState.CAPTURED, "staging", "was not sent: it comes from a test system."),
        (RecipientState.CAPTURED, "production", "was not sent because of a problem on our side."),
        (
            RecipientState.BLOCKED,
            "production",
            "was not sent: the address is on our list of blocked addresses.",
        ),
    ],
)
def test_what_was_never_sent(rig: StoryRig, state: RecipientState, mode: str, answer: str) -> None:
    one = NewRecipient(address="b@cust.test", state=state, reason="on the block list")
    message = rig.accept(one, mode=mode, subject="Order 7")
    assert checked(rig.story(message).answer) == answer


def test_several_recipients_are_counted_not_named(rig: StoryRig) -> None:
    message = rig.accept("b@cust.test", "c@cust.test", "d@cust.test", subject="Order 7")
    rig.attempt(message, TAKEN, REFUSED, TAKEN)
    answer = checked(rig.story(message).answer)
    assert answer.startswith("had 3 recipients. For 2 of them it was sent on")
    assert "For 1 of them it could not be delivered: the address does not exist" in answer


def test_given_up_says_for_how_long(rig: StoryRig) -> None:
    message = rig.accept(subject="Order 7")
    for tries in range(8):
        rig.attempt(message, LATER, at_ms=NOW_MS + tries * 12 * 3_600_000)
    late_ms = NOW_MS + 6 * 24 * 3_600_000
    rig.attempt(message, LATER, at_ms=late_ms, tried_since_ms=NOW_MS)
    answer = checked(rig.story(message, now_ms=late_ms + 1).answer)
    assert answer.startswith("could not be delivered: ") and answer.endswith("We tried for 6 days.")


def test_a_subject_gives_no_address_away(rig: StoryRig) -> None:
    message = rig.accept(subject="Cron <root@web1.internal> failed\x07")
    answer = as_object(rig.story(message))["answer"]
    assert answer.startswith("Our e-mail “Cron … failed?” of")
    assert rig.story(rig.accept(subject="")).answer.startswith("Our e-mail of 25 November")
