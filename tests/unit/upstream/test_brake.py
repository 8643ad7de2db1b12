"""When refusals stop to be about recipients: alike, in a row, of many messages to many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.outcome import AttemptReport, Meaning, RecipientOutcome, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.upstream.brake import BRAKED, DOMAINS_PUT_OFF, REFUSALS_IN_A_ROW, Brake
from tests.builders import claimed

UNKNOWN = "5.1.1 <{address}>: no such user {name} (id {number}f-q)"


def mail(number: int = 0, *, address: str | None = None, **more: Any) -> ClaimedDelivery:
    return claimed(
        address or f"cust{number}x@shop{number}.test", **{"queue_id": f"Q{number}", **more}
    )


def report(
    of: ClaimedDelivery,
    text: str = UNKNOWN,
    *,
    code: int = 550,
    verdict: Verdict = Verdict.BOUNCE,
    stage: Stage = Stage.RCPT,
    number: int = 0,
) -> AttemptReport:
    outcomes = []
    for one in of.recipients:
        name = one.address.partition("@")[0]
        said = text.format(address=one.address, name=name, number=number)
        meaning = Meaning(verdict=verdict, scope=Scope.RECIPIENT)
        reply = SmtpReply(code, (said,))
        outcomes.append(
            RecipientOutcome(rcpt_no=one.rcpt_no, meaning=meaning, stage=stage, reply=reply)
        )
    return AttemptReport(provider="main", relay="mx[192.0.2.1]:25", outcomes=tuple(outcomes))


def refuse(brake: Brake, count: int, *, start: int = 0, **more: Any) -> list[AttemptReport]:
    """Let `count` messages be refused, and return what becomes of their reports."""
    found = []
    for number in range(start, start + count):
        one = mail(number)
        found.append(brake.watch(one, report(one, number=number, **more)))
    return found


def verdicts(reports: list[AttemptReport]) -> list[Verdict]:
    return [outcome.verdict for one in reports for outcome in one.outcomes]


def test_the_twentieth_in_a_row_is_kept_and_all_after_it() -> None:
    found = verdicts(refuse(Brake(), REFUSALS_IN_A_ROW + 5))
    assert found == [Verdict.BOUNCE] * (REFUSALS_IN_A_ROW - 1) + [Verdict.HOLD] * 6


def test_the_hold_names_its_remedy() -> None:
    assert BRAKED.remedy and BRAKED.scope is Scope.PROVIDER


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT])
def test_at_every_stage_and_for_what_is_tried_again(stage: Stage) -> None:
    brake = Brake()
    refuse(brake, REFUSALS_IN_A_ROW, stage=stage, verdict=Verdict.RETRY)
    assert brake.is_on


def test_what_is_taken_ends_the_row() -> None:
    brake = Brake()
    refuse(brake, REFUSALS_IN_A_ROW - 1)
    taken = mail(100)
    brake.watch(taken, report(taken, code=250, verdict=Verdict.DELIVERED))
    assert Verdict.HOLD not in verdicts(refuse(brake, REFUSALS_IN_A_ROW - 1, start=200))
    refuse(brake, 1, start=300)
    assert brake.is_on
    brake.watch(taken, report(taken, code=250, verdict=Verdict.DELIVERED))
    assert not brake.is_on


def test_one_of_several_recipients_that_is_taken_ends_the_row() -> None:
    brake = Brake()
    refuse(brake, REFUSALS_IN_A_ROW - 1)
    two = claimed("a@x.test", "b@x.test")
    refused = report(two)
    taken = replace(
        refused.outcomes[0], meaning=Meaning(verdict=Verdict.DELIVERED, scope=Scope.MESSAGE)
    )
    brake.watch(two, replace(refused, outcomes=(taken, refused.outcomes[1])))
    refuse(brake, 1, start=100)
    assert not brake.is_on


def test_other_words_begin_a_row_of_their_own() -> None:
    brake = Brake()
    for number in range(3 * REFUSALS_IN_A_ROW):
        text = UNKNOWN if number % 2 else "5.2.1 mailbox disabled"
        one = mail(number)
        brake.watch(one, report(one, text))
    assert not brake.is_on


def test_one_customer_or_one_message_is_no_row() -> None:
    brake = Brake()
    for number in range(2 * REFUSALS_IN_A_ROW):
        one = mail(number, address="same@x.test")
        brake.watch(one, report(one))
    assert not brake.is_on
    brake = Brake()
    many = claimed(*(f"a{n}@x.test" for n in range(2 * REFUSALS_IN_A_ROW)))
    brake.watch(many, report(many))
    assert not brake.is_on


def test_what_waits_for_long_is_counted_once() -> None:
    """Mail that is tried again at night, when nothing else is sent, tells nothing new."""
    brake = Brake()
    for number in range(2 * REFUSALS_IN_A_ROW):
        one = mail(number, attempts=3)
        brake.watch(one, report(one, verdict=Verdict.RETRY))
    assert not brake.is_on


def test_a_server_that_asks_its_mail_to_come_later_holds_nobody_else() -> None:
    brake = Brake()
    for number in range(2 * REFUSALS_IN_A_ROW):
        one = mail(number, address=f"c{number}@{number % (DOMAINS_PUT_OFF - 1)}.test")
        brake.watch(one, report(one, code=451, verdict=Verdict.RETRY))
    assert not brake.is_on


def test_whoever_asks_everybody_to_try_later_takes_no_mail() -> None:
    brake = Brake()
    again = refuse(brake, REFUSALS_IN_A_ROW, code=451, verdict=Verdict.RETRY)
    assert brake.is_on
    assert verdicts(again)[-1] is Verdict.HOLD


@pytest.mark.parametrize(
    "other",
    [
        {"code": 450, "verdict": Verdict.THROTTLE},
        {"code": 550, "verdict": Verdict.HOLD},
        {"code": 554, "verdict": Verdict.RETRY, "stage": Stage.GREETING},
        {"code": 552, "verdict": Verdict.BOUNCE, "stage": Stage.LOCAL},
    ],
)
def test_limits_holds_and_our_own_refusals_do_not_count(other: dict[str, Any]) -> None:
    brake = Brake()
    refuse(brake, 2 * REFUSALS_IN_A_ROW, **other)
    assert not brake.is_on


def test_while_it_is_on_no_refusal_bounces_whatever_it_says() -> None:
    brake = Brake()
    refuse(brake, REFUSALS_IN_A_ROW)
    assert (
        verdicts(refuse(brake, 3, start=100, text="5.2.1 mailbox disabled")) == [Verdict.HOLD] * 3
    )


def test_a_hold_in_force_puts_it_on_and_its_end_off() -> None:
    brake = Brake()
    brake.obey(is_held=True)
    assert verdicts(refuse(brake, 1)) == [Verdict.HOLD]
    brake.obey(is_held=False)
    assert verdicts(refuse(brake, 1)) == [Verdict.BOUNCE]


def test_a_hold_that_is_not_written_yet_does_not_put_it_off() -> None:
    brake = Brake()
    refuse(brake, REFUSALS_IN_A_ROW)
    brake.obey(is_held=False)
    assert brake.is_on


def test_a_row_stays_small() -> None:
    brake = Brake()
    for number in range(500):
        one = mail(number, address="same@x.test")
        brake.watch(one, report(one))
    assert len(brake._messages) <= REFUSALS_IN_A_ROW


@pytest.mark.parametrize("scope", [Scope.SENDER_DOMAIN, Scope.CREDENTIAL, Scope.PROVIDER])
@pytest.mark.parametrize(
    ("stage", "verdict"), [(Stage.RCPT, Verdict.RETRY), (Stage.MAIL, Verdict.HOLD)]
)
def test_who_is_refused_beside_one_that_is_taken_holds_nobody(
    scope: Scope, stage: Stage, verdict: Verdict
) -> None:
    """Login, sender and client were good enough for the other one in the same transaction."""
    two = claimed("a@x.test", "b@y.test")
    said = report(two, "5.7.1 Relaying denied. Proper authentication required.", stage=stage)
    taken, refused = said.outcomes
    outcomes = (
        replace(taken, meaning=Meaning(verdict=Verdict.DELIVERED, scope=Scope.MESSAGE)),
        replace(refused, meaning=Meaning(verdict=Verdict.HOLD, scope=scope, wait_s=(60.0,))),
    )
    found = Brake().watch(two, replace(said, outcomes=outcomes)).outcomes
    assert [one.verdict for one in found] == [Verdict.DELIVERED, verdict]
    alone = Brake().watch(two, replace(said, outcomes=(outcomes[1],))).outcomes
    assert [one.verdict for one in alone] == [Verdict.HOLD]
