"""The log as JSON: every line is one object, whatever strangers write."""

from __future__ import annotations

import io
import json
import re
import time
from datetime import datetime
from typing import Any

import pytest

from relaygw.mail.envelope import NewRecipient, Source
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Kind
from relaygw.observe.events import Accepted, Event, Note
from relaygw.observe.json_form import JsonForm
from tests.builders import accepted, claimed
from tests.logs import text_log
from tests.tables import each_of
from tests.unit.observe.events import HOSTILE, attempted, events_with, judged, outcome

FORM = JsonForm(hostname="gw.example.com", with_subject=True)


def written(*events: Event, form: JsonForm = FORM) -> list[dict[str, Any]]:
    output = io.StringIO()
    text_log(output, form=form).write(events)
    return [json.loads(line) for line in output.getvalue().split("\n")[:-1]]


def test_of_a_recipient_for_whom_nobody_was_asked_no_relay_is_named() -> None:
    (record,) = written(outcome(RecipientState.BLOCKED, "suppressed", provider=None))
    assert (record["relay"], record["delay"], set(record["delays"].values())) == (
        "none",
        1.5,
        {0.0},
    )


def test_an_outcome_has_the_keys_that_collectors_are_promised() -> None:
    before = time.time()
    source = Source(client="10.0.0.5", user="shop1")
    event = outcome(subject="Your order", original="root", source=source)
    (record,) = written(event)
    at = datetime.fromisoformat(record.pop("ts"))
    assert before - 0.001 <= at.timestamp() <= time.time()
    assert record.pop("pid") > 0
    assert record == {
        "level": "info",
        "event": "outcome",
        "qid": event.claimed.queue_id,
        "from": "a@shop.test",
        "to": "b@cust.test",
        "orig_to": "root",
        "provider": "p",
        "route": "default",
        "relay": "mx.test[1.2.3.4]:587",
        "delay": 1.5,
        "delays": {"intake": 0.0, "queue": 0.014, "connect": 12.3, "transmit": 0.0},
        "dsn": "2.0.0",
        "status": "sent",
        "reply": "250 2.0.0 Ok",
        "attempt": 3,
        "subject": "Your order",
        "source": {"client": "10.0.0.5", "user": "shop1"},
        "host": "gw.example.com",
        "daemon": "smtp",
    }


def test_a_try_that_is_not_charged_is_no_attempt() -> None:
    (record,) = written(outcome(RecipientState.PENDING, "450 slow", charged=False))
    assert (record["status"], record["attempt"]) == ("deferred", 2)


def test_an_accepted_message_is_one_record() -> None:
    message = accepted("a@x.test", "b@x.test", source=Source(uid=33, script="33:a.php"))
    (record,) = written(Accepted(message))
    assert (record["event"], record["qid"], record["nrcpt"]) == ("accepted", message.queue_id, 2)
    assert (record["subject"], record["source"]) == ("x", {"uid": 33, "script": "33:a.php"})
    assert (record["routes"], record["daemon"]) == (["default"], "pickup")
    (notice,) = written(Accepted(accepted(sender="", source=Source(user="shop"))))
    assert notice["daemon"] == "bounce"


def test_who_is_settled_at_the_door_has_an_outcome() -> None:
    entry = NewRecipient(address="b@x.test", state=RecipientState.CAPTURED, reason="staging")
    _, record = written(Accepted(accepted(entry)))
    assert (record["event"], record["status"], record["reply"]) == (
        "outcome",
        "captured",
        "staging",
    )
    assert (record["route"], record["provider"]) == ("default", None)


def test_what_holds_and_ends_a_message_names_it() -> None:
    delivery = claimed()
    held, removed = written(
        attempted(delivery, DeliveryState.HELD, reason="quota"),
        attempted(delivery, DeliveryState.FINISHED),
    )
    assert (held["event"], held["reason"], held["qid"]) == ("held", "quota", delivery.queue_id)
    assert (removed["event"], removed["qid"]) == ("removed", delivery.queue_id)


@pytest.mark.parametrize(
    ("text", "queue_id", "level", "message"),
    [
        ("started", None, "info", "started"),
        ("warning: no space", None, "warning", "no space"),
        ("fatal: gone", None, "fatal", "gone"),
        ("1M891K90038VRD8B1: error: x", "1M891K90038VRD8B1", "error", "x"),
        ("1M891K90038VRD8B1: deferred", "1M891K90038VRD8B1", "info", "deferred"),
        ("SHORT: x", None, "info", "SHORT: x"),
    ],
)
def test_a_note_is_taken_apart(text: str, queue_id: str | None, level: str, message: str) -> None:
    (record,) = written(Note("qmgr", text))
    assert (record["qid"], record["level"], record["message"]) == (queue_id, level, message)


def test_without_subject_there_is_no_subject() -> None:
    form = JsonForm(hostname="gw.test", with_subject=False)
    for record in written(*events_with("canary"), form=form):
        assert "subject" not in record


def test_a_report_has_keys_of_its_own() -> None:
    (record,) = written(judged(Kind.COMPLAINED, detail="abuse"))
    told = {key: record[key] for key in ("event", "to", "provider", "status", "verdict", "reply")}
    assert told == {
        "event": "verdict",
        "to": "b@cust.test",
        "provider": "p",
        "status": "complained",
        "verdict": "complained",
        "reply": "abuse",
    }
    assert (record["delay"], record["reported_at"]) == (60.0, "2026-11-25T09:47:40.000Z")


@each_of("text", HOSTILE)
def test_every_line_is_one_object_without_control_bytes(text: str) -> None:
    output = io.StringIO()
    events = events_with(text)
    text_log(output, form=FORM).write(events)
    lines = output.getvalue().split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(events) + 1  # the recipient of the first was captured
    for line in lines:
        assert re.fullmatch(r"[ -~]+", line)
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()  # no halves of characters
        assert isinstance(record, dict)
