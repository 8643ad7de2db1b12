"""The log in Postfix's grammar, and what the real pflogsumm makes of it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.mail.envelope import NewRecipient, Source
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Kind
from relaygw.observe.events import Accepted, Event, Level
from relaygw.observe.postfix_form import PostfixForm
from tests.builders import accepted
from tests.logs import text_log
from tests.pflogsumm import totals_of
from tests.tables import each_of
from tests.unit.observe.events import HOSTILE, events_with, judged, outcome

FORM = PostfixForm(with_subject=True)


def texts(event: Event, form: PostfixForm = FORM) -> list[str]:
    return [f"{daemon}: {text}" for daemon, _, text in form.lines(event)]


def test_an_outcome_is_one_line_with_subject_and_source() -> None:
    event = outcome(subject="Your order (7)", source=Source(client="10.0.0.5", listener="x"))
    (line,) = texts(event)
    assert line == (
        f"smtp: {event.claimed.queue_id}: to=<b@cust.test>, relay=mx.test[1.2.3.4]:587, "
        "delay=1.5, delays=0/0.014/12/0, dsn=2.0.0, status=sent (250 2.0.0 Ok), "
        'subject="Your order (7)", source="10.0.0.5"'
    )


def test_of_a_recipient_for_whom_nobody_was_asked_the_line_names_no_relay() -> None:
    (line,) = texts(outcome(RecipientState.BLOCKED, "suppressed", provider=None))
    assert "relay=none, delay=1.5, delays=0/0/0/0, dsn=2.0.0, status=blocked" in line


def test_without_subject_there_is_nothing_that_postfix_would_not_write() -> None:
    pure = PostfixForm(with_subject=False)
    message = accepted(subject="secret", source=Source(client="10.0.0.5"))
    local = accepted(source=Source(uid=33, script="33:a.php", cwd="/x"), given_sender="www-data")
    assert texts(Accepted(local), pure)[0] == f"pickup: {local.queue_id}: uid=33 from=<www-data>"
    (line,) = texts(outcome(subject="secret"), pure)
    assert line.endswith("status=sent (250 2.0.0 Ok)")
    assert texts(Accepted(message), pure) == [
        f"smtpd: {message.queue_id}: client=unknown[10.0.0.5]",
        f"cleanup: {message.queue_id}: message-id=<1@shop.test>",
        f"qmgr: {message.queue_id}: from=<a@shop.test>, size=21, nrcpt=1 (queue active)",
    ]


@pytest.mark.parametrize(
    ("source", "arrival", "origin"),
    [
        (Source(client="10.0.0.5"), "smtpd: ID: client=unknown[10.0.0.5]", "10.0.0.5"),
        (
            Source(client="10.0.0.5", user="shop"),
            "smtpd: ID: client=unknown[10.0.0.5], sasl_username=shop",
            "10.0.0.5 user=shop",
        ),
        (
            Source(uid=33, script="33:index.php", cwd="/var/www"),
            'pickup: ID: uid=33 from=<www-data> script="33:index.php" cwd="/var/www"',
            "uid=33 script=33:index.php",
        ),
        (Source(uid=0), "pickup: ID: uid=0 from=<www-data>", "uid=0"),
        (
            Source(client="10.0.0.5", host="web1", uid=33, script="33:a.php"),
            'smtpd: ID: client=unknown[10.0.0.5], source="web1 uid=33 script=33:a.php"',
            "web1 uid=33 script=33:a.php",
        ),
    ],
)
def test_who_handed_it_in_stands_at_both_ends(source: Source, arrival: str, origin: str) -> None:
    message = accepted(source=source, given_sender="www-data")
    first, *_, last = texts(Accepted(message))
    assert first == arrival.replace("ID", message.queue_id)
    assert last.endswith('(queue active), subject="x"')
    (line,) = texts(outcome(source=source))
    assert line.endswith(f'subject="x", source="{origin}"')


def test_a_notice_has_no_line_of_who_brought_it() -> None:
    """As the bounces of Postfix: its own line is that of the mail which the notice is about."""
    message = accepted(sender="", source=Source(listener="127.0.0.1:25", user="shop"))
    daemons = [line.partition(":")[0] for line in texts(Accepted(message))]
    assert set(daemons) <= {"cleanup", "qmgr"}


def test_a_subject_cannot_name_another_source() -> None:
    forged = 'hello", source="uid=0 script=none'
    source = Source(uid=33, script='33:a".php')
    (line,) = texts(outcome(subject=forged, source=source))
    assert re.findall(r'(?<!\\)source="((?:[^"\\]|\\.)*)"', line)[-1:] == [
        r"uid=33 script=33:a\".php"
    ]
    assert len(re.findall(r' source="', line)) == 1


def test_a_note_has_the_level_that_its_text_begins_with() -> None:
    levels = [line[1] for event in events_with("x") for line in FORM.lines(event)]
    assert set(levels) == {Level.INFO, Level.WARNING}


@each_of("text", HOSTILE)
def test_one_line_stays_one_line(text: str) -> None:
    for event in events_with(text):
        for line in texts(event):
            assert line.isprintable()


# --- pflogsumm ---------------------------------------------------------------------------


def summary(events: list[Event], tmp_path: Path) -> dict[str, int]:
    output = io.StringIO()
    text_log(output).write(events)
    file = tmp_path / "mail.log"
    file.write_text(output.getvalue())
    return {what: n for what, n in totals_of(file).items() if what not in DISTINCT}


DISTINCT = ("senders", "recipients", "sending hosts/domains", "recipient hosts/domains")


def test_pflogsumm_counts_what_happened(tmp_path: Path) -> None:
    captured = NewRecipient(address="c@x.test", state=RecipientState.CAPTURED, reason="staging")
    output = io.StringIO()
    log = text_log(output)
    messages = [accepted(size_bytes=1000), accepted(captured, size_bytes=500)]
    log.write(map(Accepted, messages))
    log.write(
        [
            outcome(RecipientState.DELIVERED, "250 2.0.0 Ok"),
            outcome(RecipientState.DELIVERED, "250 2.0.0 Ok"),
            outcome(RecipientState.PENDING, "451 4.3.0 later"),
            outcome(RecipientState.PENDING, None),
            outcome(RecipientState.BOUNCED, "550 5.1.1 no such user"),
        ]
    )
    file = tmp_path / "mail.log"
    file.write_text(output.getvalue())
    totals = totals_of(file)
    assert (totals["received"], totals["delivered"]) == (2, 2)
    assert (totals["deferrals"], totals["bounced"]) == (2, 1)
    assert totals["bytes received"] == 1500


def test_a_report_is_a_line_of_its_own() -> None:
    bounced = judged(Kind.HARD, dsn="5.1.1", detail="550 5.1.1 no such user")
    assert texts(bounced) == [
        "smtp: 1M8AH60XP5YKE8QBH: to=<b@cust.test>, relay=p, delay=60, delays=0/0/0/60, "
        "dsn=5.1.1, status=bounced (reported: hard bounce, the address does not exist: 550 5.1.1 "
        'no such user), subject="x"'
    ]
    (line,) = texts(judged(Kind.SOFT, dsn="odd, to=<x>"), PostfixForm(with_subject=False))
    assert line.endswith(
        "dsn=4.0.0, status=bounced (reported: bounced, given up; the address may work later)"
    )
    statuses = [re.search(r"dsn=(\S+), status=(\w+)", texts(judged(kind))[0]) for kind in LAST]
    assert [found and found.groups() for found in statuses] == [
        ("2.0.0", "arrived"),
        ("2.0.0", "complained"),
        ("2.0.0", "unsubscribed"),
        ("4.0.0", "bounced"),
    ]


LAST = (Kind.DELIVERED, Kind.COMPLAINED, Kind.UNSUBSCRIBED, Kind.BLOCKED)


def test_pflogsumm_counts_what_came_back_as_bounced_and_nothing_as_delivered_again(
    tmp_path: Path,
) -> None:
    message = accepted(size_bytes=1000)
    taken = outcome(RecipientState.DELIVERED, "250 2.0.0 Ok", queue_id=message.queue_id)
    finished = replace(taken.update, state=DeliveryState.FINISHED)
    sent: list[Event] = [Accepted(message), taken._replace(update=finished)]
    before = summary(sent, tmp_path)
    told: list[Event] = [judged(kind, queue_id=message.queue_id) for kind in LAST]
    assert (before["delivered"], before["bounced"], before["bytes delivered"]) == (1, 0, 1000)
    assert summary([*sent, *told], tmp_path) == {**before, "bounced": 1}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return summary(a_day_with("x"), tmp_path_factory.mktemp("usual"))


@each_of("text", HOSTILE)
def test_no_text_of_a_stranger_changes_what_pflogsumm_counts(
    text: str, tmp_path: Path, usual: dict[str, int]
) -> None:
    assert summary(a_day_with(text), tmp_path) == usual


def a_day_with(text: str) -> list[Event]:
    message = accepted(subject=text, message_id=text)
    taken = outcome(
        RecipientState.DELIVERED, f"250 {text}", queue_id=message.queue_id, subject=text
    )
    return [
        *events_with(text),
        Accepted(message),
        taken._replace(update=replace(taken.update, state=DeliveryState.FINISHED)),
    ]
