"""Stories go on after a provider's 250: what was reported, in plain words, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.outcome import Stage
from relaygw.mail.verdict import BOUNCE_MAIL, Kind
from relaygw.policy.story import EventKind, as_object
from tests.builders import NOW_MS
from tests.reported import report
from tests.unit.operations.story_rig import (
    MINUTE_MS,
    StoryRig,
    advised,
    commands,
    event_of,
    kinds,
    notes,
)

TAKEN = (Stage.CONTENT, "250 2.0.0 Ok: queued as 4bX7Qz1")
REFUSED = (Stage.RCPT, "550 5.1.1 No such user")
K = Kind


def sent(rig: StoryRig, *people: str, **more: Any) -> AcceptedMessage:
    """Return mail that the provider took, a second after it was accepted."""
    message = rig.accept(*people, **more)
    rig.attempt(message, *[TAKEN] * max(1, len(people)))
    return message


def reported(rig: StoryRig, kind: Kind, **more: Any) -> AcceptedMessage:
    message = sent(rig)
    report(rig.store, message.queue_id, kind, **{"at_ms": NOW_MS + 5000, **more})
    return message


@pytest.mark.parametrize(
    ("kind", "more", "headline", "event", "advice"),
    [
        (
            K.HARD,
            {"dsn": "5.1.1", "detail": "550 5.1.1 No such user"},
            "Delivered to main, which reported: hard bounce, the address does not exist "
            "(550 5.1.1 No such user).",
            "main reports: hard bounce, the address does not exist",
            "Ask the customer for another address than b@cust.test",
        ),
        (
            K.HARD,
            {},
            "Delivered to main, which reported: hard bounce, the address cannot receive mail.",
            "main reports: hard bounce, the address cannot receive mail",
            "harms the sender's reputation",
        ),
        (
            K.SOFT,
            {"dsn": "5.2.2"},
            "Delivered to main, which reported: bounced, the mailbox is full.",
            "main reports: bounced, the mailbox is full",
            "the address may work again later",
        ),
        (
            K.SOFT,
            {"dsn": "4.4.1"},
            "Delivered to main, which reported: bounced, given up; the address may work later.",
            "main reports: bounced, given up; the address may work later",
            "the address may work again later",
        ),
        (
            K.BLOCKED,
            {},
            "Delivered to main, which reported: not sent, the address is on the provider's own "
            "suppression list.",
            "main reports: not sent, the address is on the provider's own suppression list",
            "remove it from the list there",
        ),
        (
            K.REJECTED,
            {"detail": "Bad content"},
            "Delivered to main, which reported: not sent, the provider rejected it (Bad content).",
            "main reports: not sent, the provider rejected it",
            "Check at main why it rejected the message to b@cust.test",
        ),
        (
            K.COMPLAINED,
            {},
            "Delivered by main, 1 second after it was accepted; reported since: spam complaint by "
            "the recipient.",
            "main reports: spam complaint by the recipient",
            "Send no more mail of this kind to b@cust.test",
        ),
        (
            K.UNSUBSCRIBED,
            {},
            "Delivered by main, 1 second after it was accepted; reported since: the recipient "
            "unsubscribed.",
            "main reports: the recipient unsubscribed",
            "Take b@cust.test off the list",
        ),
        (
            K.DELIVERED,
            {},
            "Delivered by main, 1 second after it was accepted; reported since: delivered, the "
            "recipient's server accepted it.",
            "main reports: delivered, the recipient's server accepted it",
            "Nothing. If it is missing, main can be asked by its id 4bX7Qz1.",
        ),
    ],
)
def test_the_last_word_comes_first(
    rig: StoryRig, kind: Kind, more: dict[str, str], headline: str, event: str, advice: str
) -> None:
    story = rig.story(reported(rig, kind, **more))
    assert story.headline == headline
    last = story.events[-1]
    assert (last.text, last.at_ms) == (event, NOW_MS + 5000)
    assert advice in advised(story)
    assert kinds(story)[:2] == ["accepted", "delivered"]
    assert as_object(story)["events"][-1]["at"].endswith("Z")


def test_a_bounce_mail_reports_as_well(rig: StoryRig) -> None:
    story = rig.story(reported(rig, K.HARD, provider=BOUNCE_MAIL, dsn="5.1.1"))
    assert story.events[-1].text == (
        "a bounce mail reports: hard bounce, the address does not exist"
    )
    assert story.headline == (
        "Delivered to main; a bounce mail reported: hard bounce, the address does not exist."
    )


def test_what_is_no_last_word_changes_nothing_but_the_events(rig: StoryRig) -> None:
    plain = rig.story(sent(rig))
    story = rig.story(reported(rig, K.DEFERRED, detail="421 try later", dsn="4.2.1"))
    assert story.headline == plain.headline
    event = event_of(story, EventKind.REPORTED)
    assert event.text == "main reports: delayed, it goes on trying"
    assert notes(event)["said"] == "421 try later [4.2.1]"


def test_a_report_that_came_late_says_when_it_was_told(rig: StoryRig) -> None:
    told = notes(event_of(rig.story(reported(rig, K.HARD, dsn="5.1.1")), EventKind.RETURNED))
    assert told["said"] == "[5.1.1]"
    assert " UTC" in told["told"]  # the clock of the queue is days later


def test_a_providers_clock_that_is_behind_puts_nothing_before_its_250(rig: StoryRig) -> None:
    story = rig.story(reported(rig, K.DELIVERED, at_ms=NOW_MS - 60_000))
    assert kinds(story) == ["accepted", "delivered", "arrived"]
    assert story.events[-1].at_ms == NOW_MS - 60_000


def test_many_that_are_alike_are_one_event(rig: StoryRig) -> None:
    message = sent(rig)
    for number in range(9):
        report(rig.store, message.queue_id, K.DEFERRED, at_ms=NOW_MS + 2000 + number)
    event = event_of(rig.story(message), EventKind.REPORTED)
    assert (event.times, event.at_ms, event.until_ms) == (9, NOW_MS + 2000, NOW_MS + 2008)


def test_several_recipients_have_each_their_own(rig: StoryRig) -> None:
    message = rig.accept("a@x.test", "b@x.test", "c@x.test", "d@x.test")
    rig.attempt(message, TAKEN, TAKEN, TAKEN, REFUSED)
    at_ms = NOW_MS + 5000
    report(rig.store, message.queue_id, K.HARD, rcpt_no=0, at_ms=at_ms, dsn="5.1.1")
    report(rig.store, message.queue_id, K.COMPLAINED, rcpt_no=1, at_ms=at_ms + 1)
    report(rig.store, message.queue_id, K.SOFT, rcpt_no=None, at_ms=at_ms + 2)
    story = rig.story(message)
    assert story.headline.startswith("2 of 4 recipients got it; d@x.test: ")
    assert "a@x.test: delivered to main, which reported: hard bounce" in story.headline
    assert "b@x.test: delivered by main, 1 second after it was accepted; reported since: spam" in (
        story.headline
    )
    assert "c@x.test" not in story.headline
    texts = [event.text for event in story.events]
    assert "main reports: hard bounce, the address does not exist, for a@x.test" in texts
    assert texts[-1].endswith("for a recipient that it does not name")
    assert f"relaygw queue resend {message.queue_id} --to ADDRESS" not in commands(story)
    assert "Its content is no longer kept" in advised(story)


@pytest.mark.parametrize(
    ("kind", "more", "answer"),
    [
        (
            K.DELIVERED,
            {},
            "was accepted by the mail server of the recipient on 25 November 2026 at",
        ),
        (K.HARD, {"dsn": "5.1.1"}, "but could not be delivered: the address does not exist"),
        (K.SOFT, {"dsn": "5.2.2"}, "could not be delivered: the mailbox of the recipient is full."),
        (K.SOFT, {}, "could not be delivered: the mail server of the recipient did not accept it."),
        (K.HARD, {"dsn": "5.7.1"}, "delivered: the mail server of the recipient did not accept it"),
        (K.BLOCKED, {}, "earlier mail to this address was returned or unwanted"),
        (K.REJECTED, {}, "the mail service that we use did not accept it"),
        (K.COMPLAINED, {}, "arrived, and was reported as spam by the recipient on"),
        (K.UNSUBSCRIBED, {}, "arrived, and the recipient unsubscribed on"),
    ],
)
def test_the_answer_to_a_customer(
    rig: StoryRig, kind: Kind, more: dict[str, str], answer: str
) -> None:
    said = rig.story(reported(rig, kind, detail="secret@words main", **more)).answer
    assert answer in said
    for word in ("main", "@", "cust.test"):
        assert word not in said


def test_words_from_outside_stay_text(rig: StoryRig) -> None:
    story = rig.story(reported(rig, K.HARD, detail="<b>no</b>\r\nX: y\u202e" + "x" * 5000))
    (said,) = [note.text for note in story.events[-1].notes if note.label == "said"]
    assert len(said) <= 1000  # the store cuts it


def test_mail_that_waits_and_was_reported_of(rig: StoryRig) -> None:
    message = rig.accept("a@x.test", "b@x.test")
    rig.attempt(message, TAKEN, (Stage.RCPT, "451 4.7.1 Greylisted, try again later"))
    report(rig.store, message.queue_id, K.HARD, at_ms=NOW_MS + 5000)
    story = rig.story(message, now_ms=NOW_MS + MINUTE_MS)
    assert story.headline.startswith("None of 2 recipients got it; b@x.test: ")
    assert "a@x.test: delivered to main, which reported: hard bounce" in story.headline
