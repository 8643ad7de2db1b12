"""Mail that was sent again has an acceptance in the log, which its worker tells once."""

from __future__ import annotations

from dataclasses import replace

from relaygw.mail.envelope import Recipient, Released, Source
from relaygw.mail.state import DeliveryState
from relaygw.observe.events import Attempted
from relaygw.observe.postfix_form import PostfixForm
from tests.builders import claimed, taken
from tests.unit.observe.events import attempted
from tests.unit.observe.test_json_form import written
from tests.unit.observe.test_postfix_form import texts

PLAIN = PostfixForm(with_subject=False)


def first_try(rcpt_no: int = 0, *, is_first: bool = True, released: str | None) -> Attempted:
    people = tuple(
        Recipient(rcpt_no=number, address=f"{name}@cust.test", original=None, attempts=0)
        for number, name in enumerate("bc")
    )
    source = Source(client="10.0.0.5")
    delivery = claimed(recipients=people, released=released, source=source)
    event = attempted(delivery, DeliveryState.FINISHED, taken(rcpt_no))
    return event._replace(update=replace(event.update, is_first_try=is_first))


def test_a_copy_is_accepted_before_its_first_outcome() -> None:
    event = first_try(released=Released.RESENT)
    lines = [text.replace(event.claimed.queue_id, "ID") for text in texts(event, PLAIN)]
    assert lines[:2] == [
        "smtpd: ID: client=unknown[10.0.0.5]",
        "qmgr: ID: from=<a@shop.test>, size=21, nrcpt=2 (queue active)",
    ]
    assert "status=sent" in lines[2]
    accepted, outcome, removed = written(event)
    assert (accepted["event"], accepted["nrcpt"], accepted["from"]) == (
        "accepted",
        2,
        "a@shop.test",
    )
    assert (outcome["event"], removed["event"]) == ("outcome", "removed")
    assert outcome["status"] == "sent"


def test_nothing_else_is_accepted_by_a_worker() -> None:
    for event in (
        first_try(released=None),
        first_try(released=Released.ANYONE),
        first_try(is_first=False, released=Released.RESENT),
        first_try(1, released=Released.RESENT),  # the second part of it
    ):
        assert not any("nrcpt=" in text for text in texts(event, PLAIN))
        assert [one["event"] for one in written(event)] == ["outcome", "removed"]
