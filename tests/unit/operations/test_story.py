"""Stories of messages: what happened, how it stands, what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relaygw.delivery.learning import SOMEBODY_ELSE_S
from relaygw.mail.envelope import NewDelivery, NewRecipient, Released, Source
from relaygw.mail.hold import HoldCause, HoldCode, sender_refused
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Event, Kind
from relaygw.operations.queue_actions import (
    DELETE,
    EXPIRE,
    HOLD,
    MOVE,
    RELEASE,
    Order,
    change_queued,
)
from relaygw.operations.story import tell_story
from relaygw.operations.story.facts import held_advice, held_words
from relaygw.policy.retry import Consequence
from relaygw.policy.story import EventKind, as_object
from relaygw.store.audit import AuditEntry
from relaygw.store.feedback import MatchedEvent
from relaygw.store.holds import UNREACHABLE, Hold
from relaygw.store.release import Release
from tests.builders import NOW_MS
from tests.unit.operations.story_rig import (
    MINUTE_MS,
    RELAY,
    StoryRig,
    advised,
    commands,
    event_of,
    instance,
    kinds,
    notes,
)

LATER = (Stage.RCPT, "451 4.7.1 Greylisted, try again later")
TAKEN = (Stage.CONTENT, "250 2.0.0 Ok: queued as 4bX7Qz1")
REFUSED = (Stage.RCPT, "550 5.1.1 No such user")
HOUR_MS = 60 * MINUTE_MS


# --- the door -----------------------------------------------------------------------------


def test_it_begins_with_who_handed_it_in(rig: StoryRig) -> None:
    source = Source(uid=33, script="33:mail.php", cwd="/srv/shop", host="web1.test")
    story = rig.story(rig.accept(source=source))
    accepted = story.events[0]
    assert (accepted.kind, accepted.at_ms) == (EventKind.ACCEPTED, NOW_MS)
    assert accepted.text == "accepted from a program of local user 33 on host web1.test"
    told = notes(accepted)
    assert (told["script"], told["directory"]) == ("33:mail.php", "/srv/shop")
    source = Source(client="10.0.0.9", helo="web2", user="shop1", listener="0.0.0.0:587")
    accepted = rig.story(rig.accept(source=source)).events[0]
    assert accepted.text == "accepted from user shop1 at 10.0.0.9"
    assert notes(accepted)["listener"] == "0.0.0.0:587"
    assert notes(accepted)["client"] == "10.0.0.9, which called itself web2"


def test_it_says_which_route_and_why(rig: StoryRig) -> None:
    told = notes(rig.story(rig.accept()).events[0])
    assert told["to"] == "b@cust.test: to be sent by route default (transactional)"
    assert told["route"] == (
        "with the present configuration: sent, by route default (transactional), "
        "number 2 of 2: no condition; providers: main"
    )
    told = notes(rig.story(rig.accept(route="promo")).events[0])
    assert told["changed"] == "it took route promo under the configuration at that time"


def test_it_looks_at_the_headers_that_decide(tmp_path: Path) -> None:
    routes = [
        {"name": "campaign", "header": {"X-Campaign": "*"}, "providers": ["other"]},
        {"name": "default", "providers": ["main"]},
    ]
    rig = StoryRig(tmp_path, routes=routes)
    content = b"X-Campaign: spring\r\nSubject: x\r\n\r\nhello\r\n"
    kept = notes(rig.story(rig.accept(route="campaign", content=content)).events[0])
    assert "by route campaign" in kept["route"] and "changed" not in kept
    message = rig.accept()
    rig.attempt(message, TAKEN)
    gone = notes(rig.story(message).events[0])
    assert (
        gone["unknown"] == "an earlier route has a condition on X-Campaign, and the content is gone"
    )
    rig.store.close()


def test_it_names_fields_that_are_left_out(tmp_path: Path) -> None:
    rig = StoryRig(tmp_path, mode="staging", recipients={"allow": ["dev@agency.test"]})
    content = (
        b'X-SMTPAPI: {"to": ["c@cust.test"]}\r\nBcc: c@cust.test\r\nSubject: x\r\n\r\nhello\r\n'
    )
    message = rig.accept("dev@agency.test", content=content, mode="staging")
    told = notes(rig.story(message).events[0])
    assert told["left out"] == "X-SMTPAPI, Bcc: names recipients (mode staging)"
    captured = NewRecipient(address="c@cust.test", state=RecipientState.CAPTURED, reason="x")
    message = rig.accept(captured, content=content, mode="staging")
    assert "left out" not in notes(rig.story(message).events[0])  # none of it was sent
    rig.store.close()


def test_what_is_held_for_a_field_says_which_and_what_to_do() -> None:
    reason = "field X-SMTPAPI names c@cust.test, on recipients.block"
    cause = HoldCause(HoldCode.HEADER, reason)
    assert held_words(cause) == reason
    (advice,) = held_advice(cause, "2KQ7ZJ4M1X", "", None)
    assert "remove the address from recipients.block and reload" in advice.text


def test_captured_on_staging(tmp_path: Path) -> None:
    rig = StoryRig(tmp_path, mode="staging", recipients={"allow": ["dev@agency.test"]})
    reason = "staging: not on the allow list"
    captured = NewRecipient(address="b@cust.test", state=RecipientState.CAPTURED, reason=reason)
    story = rig.story(rig.accept(captured, mode="staging"))
    assert (story.state, story.is_over, kinds(story)) == (
        "captured",
        True,
        ["accepted", "captured"],
    )
    assert story.events[1].text == f"captured in the sandbox, not sent ({reason})"
    assert story.headline == (
        "Its recipient is not on the allow list of staging, so it was captured: not sent unless "
        "somebody releases it."
    )
    told = notes(story.events[0])
    assert told["mode"] == "staging: only addresses on the allow list receive mail"
    assert told["to"] == f"b@cust.test: captured, not sent: {reason}"
    assert told["route"].startswith("with the present configuration: captured, 250 to the client")
    assert commands(story) == [f"relaygw sandbox release {story.queue_id} --to b@cust.test"]
    rig.store.close()


def test_blocked(rig: StoryRig) -> None:
    blocked = NewRecipient(
        address="b@spam.test", state=RecipientState.BLOCKED, reason="on the block list"
    )
    story = rig.story(rig.accept(blocked))
    assert kinds(story) == ["accepted", "blocked"]
    assert story.headline == (
        "Its recipient is on the block list, so it was dropped and not delivered."
    )
    assert "recipients.block" in advised(story)


@pytest.mark.parametrize(
    ("chunk_count", "what"),
    [
        (1, "lift it, then send the mail again:"),
        (0, "lift it, then send a new message, as its content is no longer kept:"),
    ],
)
def test_suppressed_mail_is_sent_again_as_far_as_it_is_kept(
    rig: StoryRig, monkeypatch: pytest.MonkeyPatch, chunk_count: int, what: str
) -> None:
    reason = "suppressed: asked for, an operator; relaygw suppress remove b@x.test lifts it"
    blocked = NewRecipient(address="b@x.test", state=RecipientState.BLOCKED, reason=reason)
    message = rig.accept(blocked)
    (entry,) = rig.store.queue.entries([message.queue_id])
    kept = replace(entry, chunk_count=chunk_count)
    monkeypatch.setattr(rig.store.queue, "entries", lambda _: [kept])
    assert f"Nothing; if b@x.test works again, {what}" in advised(rig.story(message))


# --- what is finished ---------------------------------------------------------------------


def test_delivered_at_the_first_try(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(message, TAKEN, at_ms=NOW_MS + 3000)
    story = rig.story(message)
    assert kinds(story) == ["accepted", "delivered"]
    assert story.headline == "Delivered by main, 3 seconds after it was accepted."
    assert (story.is_over, story.outlooks) == (True, ())
    assert notes(story.events[1])["its id"].startswith("4bX7Qz1,")
    assert advised(story) == "Nothing. If it is missing, main can be asked by its id 4bX7Qz1."


def test_deferred_twice_then_delivered(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(message, LATER, at_ms=NOW_MS + 1000)
    rig.attempt(message, LATER, at_ms=NOW_MS + 40_000)
    rig.attempt(message, TAKEN, at_ms=NOW_MS + 120_000)
    story = rig.story(message, now_ms=NOW_MS + HOUR_MS)
    assert kinds(story) == ["accepted", "deferred", "deferred", "delivered"]
    first, second, taken = story.events[1:]
    assert (first.at_ms, second.at_ms, taken.at_ms) == (
        NOW_MS + 1000, NOW_MS + 40_000, NOW_MS + 120_000
    )  # fmt: skip
    assert first.text == "deferred: main refused it for now"
    told = notes(first)
    assert told["relay"] == RELAY
    assert told["said"] == "451 4.7.1 Greylisted, try again later, at RCPT TO"
    assert "greylisting" in told["meaning"]
    assert "meaning" not in notes(second), "each explanation once"
    assert notes(taken)["relay"] == RELAY
    assert story.headline == "Delivered by main, 2 minutes after it was accepted."


def test_many_tries_that_were_told_the_same_are_one_event(rig: StoryRig) -> None:
    message = rig.accept()
    for number in range(5):
        rig.attempt(message, LATER, at_ms=NOW_MS + number * HOUR_MS)
    story = rig.story(message, now_ms=NOW_MS + 5 * HOUR_MS)
    deferred = event_of(story, EventKind.DEFERRED)
    assert (deferred.times, deferred.at_ms, deferred.until_ms) == (5, NOW_MS, NOW_MS + 4 * HOUR_MS)


def test_bounced(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(message, REFUSED)
    story = rig.story(message)
    assert story.headline == (
        "This address does not exist or cannot be used (550 5.1.1 No such user), refused "
        "permanently and not tried again."
    )
    assert notes(event_of(story, EventKind.BOUNCED))["said"].startswith("550 5.1.1 No such user")
    assert "send a new one to b@cust.test" in advised(story)


def test_what_was_not_tried_for_long_is_given_up_later(rig: StoryRig) -> None:
    """Nothing ran for a week: three tries over an hour come first, and the story says so."""
    message = rig.accept()
    week_ms = NOW_MS + 7 * 24 * HOUR_MS
    rig.attempt(message, LATER, at_ms=week_ms)
    (outlook,) = rig.story(message, now_ms=week_ms + 1).outlooks
    (told,) = (note.text for note in outlook.notes if note.label == "given up")
    assert "in 1 hour" in told, told
    assert told.endswith("after 3 tries at least")
    late_ms = week_ms + HOUR_MS + 60_000
    rig.attempt(message, LATER, at_ms=late_ms)
    (outlook,) = rig.story(message, now_ms=late_ms + 1).outlooks
    (told,) = (note.text for note in outlook.notes if note.label == "given up")
    assert told.startswith("its time is over (")


def test_a_refusal_that_holds_the_provider_is_not_told_as_the_recipients_fault(
    rig: StoryRig,
) -> None:
    """Everybody was refused with these words, so it waits; they would bounce one recipient."""
    message = rig.accept()
    rig.attempt(message, REFUSED, verdict=Verdict.HOLD)
    held = notes(event_of(rig.story(message), EventKind.HELD))
    assert held["said"].startswith("550 5.1.1 No such user")
    assert "meaning" not in held


def test_expired(rig: StoryRig) -> None:
    message = rig.accept()
    for tries in range(8):
        rig.attempt(message, LATER, at_ms=NOW_MS + tries * 12 * HOUR_MS)
    late_ms = NOW_MS + 6 * 24 * HOUR_MS
    rig.attempt(message, LATER, at_ms=late_ms, tried_since_ms=NOW_MS)
    story = rig.story(message, now_ms=NOW_MS + 7 * 24 * HOUR_MS)
    assert kinds(story)[-1] == "expired"
    assert story.headline == (
        f"The recipient's server asks to try later ({LATER[1]}), given up after 6 days and not "
        "tried again."
    )
    assert "not tried again" in advised(story)


def test_an_unknown_reply_is_told_as_such(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(message, (Stage.RCPT, "554 5.7.1 blocked as spam"))
    story = rig.story(message)
    assert story.headline.startswith(
        "The recipient's server refuses it by an unknown reply (554 5.7.1 blocked as spam); "
    )
    assert "an unknown reply is tried again" in notes(story.events[-1])["meaning"]


def test_recipients_who_end_differently(rig: StoryRig) -> None:
    message = rig.accept("b@cust.test", "c@cust.test")
    rig.attempt(message, TAKEN, REFUSED)
    story = rig.story(message)
    assert story.headline == (
        "1 of 2 recipients got it; c@cust.test: this address does not exist or cannot be used "
        "(550 5.1.1 No such user), refused permanently and not tried again."
    )
    assert (
        event_of(story, EventKind.DELIVERED).text == "delivered: main accepted it, for b@cust.test"
    )
    assert event_of(story, EventKind.BOUNCED).text.endswith("permanently, for c@cust.test")


# --- what waits ---------------------------------------------------------------------------


def test_deferred_says_when_it_is_tried_again_and_why_then(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(message, (Stage.CONTENT, "451 4.3.2 Nobody knows this reply"))
    story = rig.story(message, now_ms=NOW_MS + 2000)
    (outlook,) = story.outlooks
    assert outlook.next_at_ms == NOW_MS + 31_000
    assert story.headline == (
        "The provider cannot accept it now (451 4.3.2 Nobody knows this reply), next try "
        "2026-11-25 09:47:11 UTC."
    )
    waits = "for try 2; waits begin with 30s and grow to 1h at most"
    assert [one.text for one in outlook.notes if one.label == "waits"] == [waits]
    assert commands(story) == [f"relaygw queue retry --id {message.queue_id}"]
    assert rig.story(message, now_ms=NOW_MS + 40_000).headline == (
        "The provider cannot accept it now (451 4.3.2 Nobody knows this reply); it is due and "
        "tried as soon as a connection is free."
    )


def test_the_catalogues_wait_is_named(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(message, (Stage.RCPT, "452 4.5.3 Too many recipients"))
    story = rig.story(message, now_ms=NOW_MS + 1500)
    (told,) = (one.text for one in story.outlooks[0].notes if one.label == "waits")
    assert "after such a reply the wait is 1s, 1s, 1s, 5s, then 1m each time" in told
    assert story.outlooks[0].next_at_ms == NOW_MS + 2000
    assert "Set max_recipients lower." in advised(story)


def test_throttled(rig: StoryRig) -> None:
    message = rig.accept()
    for number in range(3):
        rig.attempt(
            message,
            (Stage.MAIL, "454 4.7.0 Throttling failure: Maximum sending rate exceeded."),
            at_ms=NOW_MS + number * 10_000,
            consequence=Consequence(wait_s=5.0),
        )
    story = rig.story(message, now_ms=NOW_MS + 21_000)
    throttled = event_of(story, EventKind.THROTTLED)
    assert (throttled.times, throttled.until_ms) == (3, NOW_MS + 20_000)
    assert notes(throttled)["count"] == "not counted as a try"
    assert story.headline.startswith("main asks to slow down (454 4.7.0 Throttling failure")


def test_a_held_sender(rig: StoryRig) -> None:
    message = rig.accept()
    refused = (Stage.MAIL, "550 5.7.1 Sender domain is not verified")
    rig.attempt(
        message, refused, consequence=Consequence(hold=sender_refused("shop.test", ["main"]))
    )
    story = rig.story(message)
    assert event_of(story, EventKind.HELD).text == "not sent: main refused the sender"
    assert story.headline == ("main refused to send for shop.test; it is held until main takes it.")
    assert "Have shop.test verified" in advised(story)
    assert commands(story) == ["relaygw provider release main"]


def test_who_is_refused_and_is_not_the_sender_holds_nothing(tmp_path: Path) -> None:
    ses = {"preset": "ses", "host": "smtp.example.com", "username": "u", "password": "env:K"}
    rig = StoryRig(tmp_path, providers={"main": ses, "other": {"host": "b.example.com"}})
    message = rig.accept()
    said = "554 Message rejected: Email address is not verified. The following identities failed "
    refused = (Stage.CONTENT, f"{said}the check in region EU-WEST-1: b@cust.test")
    rig.attempt(message, refused, consequence=Consequence(wait_s=SOMEBODY_ELSE_S))
    story = rig.story(message)
    assert "no longer held" not in story.headline
    assert story.headline.startswith("SES does not know the sender as verified")
    assert ", next try" in story.headline
    assert commands(story) == [f"relaygw queue retry --id {message.queue_id}"]
    assert "ask for production access" in advised(story)
    rig.store.close()


def test_a_refused_login_holds_the_provider(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(
        message, (Stage.AUTH, "535 5.7.8 Bad credentials"), consequence=Consequence(wait_s=1.0)
    )
    rig.store.holds.put_hold(
        Hold(
            scope="credential",
            key="main",
            reason="535 5.7.8 Bad credentials",
            remedy="check its user name and password or key",
            since_ms=NOW_MS,
            probe_at_ms=NOW_MS + 5 * MINUTE_MS,
        )
    )
    story = rig.story(message)
    assert event_of(story, EventKind.HELD).text == "not sent: main refused the login"
    assert story.headline == (
        "main is held (535 5.7.8 Bad credentials), next try 2026-11-25 09:51:40 UTC."
    )
    assert story.outlooks[0].next_at_ms == NOW_MS + 5 * MINUTE_MS
    assert commands(story) == ["relaygw provider release main"]
    assert advised(story).startswith("Check its user name and password or key.")


def test_a_provider_that_cannot_be_reached(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(message, (Stage.CONNECT, "Connection refused"))
    hold = Hold(
        scope=UNREACHABLE, key="main", reason="Connection refused", remedy="", since_ms=NOW_MS,
        probe_at_ms=NOW_MS,
    )  # fmt: skip
    rig.store.holds.put_hold(hold)
    story = rig.story(message)
    assert event_of(story, EventKind.DEFERRED).text == "deferred: main could not be reached"
    assert story.headline == (
        "main cannot be reached (Connection refused); it is sent when that is over."
    )
    assert commands(story) == ["relaygw check --online"]


def test_a_remedy_that_is_known_here_is_the_only_one(rig: StoryRig) -> None:
    message = rig.accept()
    said = "file:/k: /k cannot be read (Permission denied); run as root: chmod g+r /k"
    rig.attempt(message, (Stage.AUTH, said))
    event = event_of(rig.story(message), EventKind.DEFERRED)
    assert notes(event)["remedy"] == "run as root: chmod g+r /k"


def test_in_doubt(rig: StoryRig) -> None:
    message = rig.accept()
    lost = (Stage.CONTENT, "connection lost after the final dot")
    at_ms = NOW_MS
    for wait_ms in (5 * MINUTE_MS, 30 * MINUTE_MS, None):
        rig.attempt(message, lost, at_ms=at_ms, in_doubt=True)
        story = rig.story(message, now_ms=at_ms + 1000)
        assert story.events[-1].text == "in doubt: it is not known whether main accepted it"
        if wait_ms is not None:
            assert story.headline.startswith("main may have taken it: the connection was lost")
            assert "5 minutes and 30 minutes after" in story.outlooks[0].notes[0].text
            assert story.outlooks[0].next_at_ms == at_ms + wait_ms
            at_ms += wait_ms
    assert story.outlooks[0].next_at_ms is None
    assert "the log of main" in advised(story)
    assert commands(story) == [
        f"relaygw queue release --id {message.queue_id}",
        f"relaygw queue delete --id {message.queue_id}",
    ]


KEY = {"idempotency": {"header": "X-Key", "life": "24h"}}
MAY, ONE_KEY = "It may have arrived more than once.", "main was given the same idempotency key"


@pytest.mark.parametrize(
    ("provider", "times", "by_event", "said"),
    [
        ({}, 1, False, MAY),
        ({}, 1, True, None),
        ({}, 2, True, MAY),
        (KEY, 1, False, ONE_KEY),
        (KEY, 1, True, None),
    ],
)
def test_only_what_may_have_arrived_twice_is_said_to(
    tmp_path: Path, provider: dict[str, Any], times: int, by_event: bool, said: str | None
) -> None:
    rig = StoryRig(tmp_path, providers={"main": {"host": "a.example.com", **provider}},
                   routes=[{"name": "default", "providers": ["main"]}])  # fmt: skip
    message = rig.accept()
    for number in range(times):
        at_ms = NOW_MS + number * 5 * MINUTE_MS
        rig.attempt(message, (Stage.CONTENT, "connection lost"), at_ms=at_ms, in_doubt=True)
    is_risky = "it may arrive twice" in advised(rig.story(message, now_ms=at_ms + 1000))
    assert is_risky == (not provider)
    if by_event:
        event = Event(key="1", kind=Kind.DELIVERED, at_ms=NOW_MS)
        found = MatchedEvent(event=event, provider="main", queue_id=message.queue_id, rcpt_no=0)
        rig.store.feedback.take([found])
    else:
        rig.attempt(message, (Stage.CONTENT, "250 2.0.0 ok"), at_ms=NOW_MS + 30 * MINUTE_MS)
    text = advised(rig.story(message))
    rig.store.close()
    assert [one for one in (MAY, ONE_KEY) if one in text] == ([said] if said else [])


def test_what_is_in_doubt_waits_for_its_own_provider(tmp_path: Path) -> None:
    rig = StoryRig(tmp_path, routes=[{"name": "default", "providers": ["main", "other"]}])
    message = rig.accept()
    rig.attempt(message, (Stage.CONTENT, "connection lost"), in_doubt=True)
    hold = Hold(
        scope=UNREACHABLE, key="main", reason="no answer", remedy="", since_ms=NOW_MS, probe_at_ms=0
    )  # fmt: skip
    rig.store.holds.put_hold(hold)
    story = rig.story(message)
    assert story.headline.startswith(
        "It is in doubt: main may have taken it already; main cannot be reached (no answer), next"
    )
    assert "may have arrived already" in story.answer
    rig.store.close()


def test_taken_over_from_a_dead_instance_and_poison(rig: StoryRig) -> None:
    message = rig.accept()
    for number in range(3):
        name = f"dying{number}"
        rig.store.instances.register(instance(name))
        rig.store.leases.claim("default", limit=1, incarnation=name, now_ms=NOW_MS)
        rig.store.instances.bury(name, begun=[(message.queue_id, 0, "main")])
        if number == 0:
            story = rig.story(message)
            taken_over = event_of(story, EventKind.INTERRUPTED)
            assert taken_over.text.startswith("interrupted: the worker that was sending it by main")
            assert story.headline.startswith(
                "The worker that was sending it by main died, and main may"
            )
    story = rig.story(message)
    assert kinds(story) == ["accepted", *["interrupted"] * 3]
    assert "three times" in story.headline
    assert commands(story) == [f"relaygw queue release --id {message.queue_id}"]


def test_in_the_hands_of_a_worker(rig: StoryRig) -> None:
    message = rig.accept()
    (beat_ms,) = [one.heartbeat_at_ms for one in rig.store.instances.registered()]
    rig.store.leases.claim("default", limit=1, incarnation="w", now_ms=beat_ms)
    story = rig.story(message, now_ms=beat_ms + 1000)
    assert story.headline.startswith("A worker on gw1 has claimed it")
    rig.store.instances.heartbeat("w", state="running")
    (beat_ms,) = [one.heartbeat_at_ms for one in rig.store.instances.registered()]
    rig.store.leases.give_back([(message.queue_id, 0)], incarnation="w")
    rig.store.leases.claim("default", limit=1, incarnation="w", now_ms=beat_ms - 30_000)
    story = rig.story(message, now_ms=beat_ms)
    assert story.headline == (
        "A worker on gw1 has it in hand for 30 seconds: it waits for a connection or an answer of "
        "main."
    )
    assert [one.label for one in story.outlooks[0].notes] == ["at the latest"]
    assert commands(story) == ["relaygw check --online"]
    story = rig.story(message, now_ms=beat_ms + 60_000)
    assert "silent for 1 minute; another one takes over" in story.headline


def test_no_worker_and_no_route(rig: StoryRig) -> None:
    message, lost = rig.accept(), rig.accept(route="gone")
    assert "Route gone is not in the configuration" in rig.story(lost).headline
    rig.store.instances.bury("w")
    story = rig.story(message)
    assert story.headline == "No delivery worker runs; it is sent when that is over."
    assert commands(story) == ["relaygw status"]


def test_an_operators_actions_are_told(rig: StoryRig) -> None:
    message, other = rig.accept(), rig.accept()
    ids = [message.queue_id, other.queue_id]
    ann, bob = Order(actor="ann", note="wait for the boss"), Order(actor="bob")
    change_queued(rig.store, HOLD, ids, ann, now_ms=NOW_MS + 5000)
    story = rig.story(message)
    held = event_of(story, EventKind.OPERATOR)
    assert (held.text, notes(held)["with"]) == ("operator ann held it", "1 other message")
    assert story.headline == (
        "An operator holds it (wait for the boss); it is held until somebody releases it."
    )
    change_queued(rig.store, RELEASE, ids[:1], bob, now_ms=NOW_MS + 9000)
    story = rig.story(message)
    assert [event.text for event in story.events[1:]] == [
        "operator ann held it", "operator bob released it",
    ]  # fmt: skip
    change_queued(rig.store, DELETE, ids[:1], bob, now_ms=NOW_MS + 10_000)
    story = rig.story(message)
    assert story.headline == ("It was deleted by an operator; the trash keeps it for seven days.")
    assert commands(story) == [f"relaygw queue undelete --id {message.queue_id}"]


def test_moved_by_an_operator(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(message, LATER)
    order = Order(actor="ann", provider="other")
    change_queued(rig.store, MOVE, [message.queue_id], order, now_ms=NOW_MS + 9000)
    story = rig.story(message)
    assert kinds(story) == ["accepted", "deferred", "operator"]
    assert story.events[-1].text == "operator ann moved it to another provider"
    assert notes(story.events[0])["to"].endswith("moved to provider other since")
    assert "changed" not in notes(story.events[0])
    assert "asks to try later" in story.headline and "it is due and tried" in story.headline
    hold = Hold(
        scope="provider", key="other", reason="operator: holidays", remedy="", since_ms=NOW_MS,
        probe_at_ms=None,
    )  # fmt: skip
    rig.store.holds.put_hold(hold)
    story = rig.story(message)
    assert story.headline == (
        "An operator holds provider other (holidays); it is sent when that is over."
    )
    assert story.outlooks[0].next_at_ms is None


def test_given_up_by_an_operator(rig: StoryRig) -> None:
    message = rig.accept()
    order = Order(actor="ann")
    change_queued(rig.store, EXPIRE, [message.queue_id], order, now_ms=NOW_MS + 9000)
    story = rig.story(message)
    assert kinds(story) == ["accepted", "operator", "expired"]
    assert story.headline == "Expired by ann, not tried again."


def test_released_from_the_sandbox(rig: StoryRig) -> None:
    captured = NewRecipient(
        address="b@cust.test", state=RecipientState.CAPTURED, reason="sandbox mode"
    )
    message = rig.accept(captured)
    entry = AuditEntry(
        at_ms=NOW_MS + 5000, actor="ann", action="sandbox.release", target=message.queue_id,
        affected=1, detail="to dev@agency.test",
    )  # fmt: skip
    released = NewDelivery(
        released=Released.ANYONE,
        route="default",
        stream="transactional",
        recipients=(NewRecipient(address="dev@agency.test"),),
    )
    release = Release(queue_id=message.queue_id, deliveries=(released,), entry=entry)
    assert rig.store.sandbox.release_captured([release])
    assert "dev@agency.test" not in str(rig.story(message).events[0])
    rig.attempt(message, TAKEN, at_ms=NOW_MS + 10_000)
    story = rig.story(message)
    assert kinds(story) == ["accepted", "captured", "operator", "delivered"]
    assert story.state == "captured"
    assert story.headline == (
        "1 of 2 recipients got it; b@cust.test: nothing leaves in sandbox mode, so it was "
        "captured: not sent unless somebody releases it."
    )


def test_what_is_due_tells_what_is_before_it(tmp_path: Path) -> None:
    provider = {"host": "smtp.example.com", "rate": "14/s"}
    rig = StoryRig(tmp_path, providers={"main": provider, "other": {"host": "b.example.com"}})
    first = rig.accept()
    for _ in range(4):
        rig.accept()
    assert [(one.label, one.text) for one in rig.story(first).outlooks[0].notes] == [
        ("queue", "5 messages of its route wait"),
        ("pace", "main gets 14/s, its configured rate"),
    ]
    rig.store.limits.lower_rate("main", per_s=8.0, guard_s=0)
    (slower,) = [one for one in rig.story(first).outlooks[0].notes if one.label == "pace"]
    assert slower.text.startswith("main gets") and slower.text.endswith("since it asked for less")
    rig.store.close()


def test_what_waits_for_a_rate_is_told_until_when(tmp_path: Path) -> None:
    provider = {"host": "smtp.example.com", "rate": "2/m"}
    rig = StoryRig(tmp_path, providers={"main": provider, "other": {"host": "b.example.com"}})
    first, _ = rig.accept(), rig.accept()
    story = rig.story(first)
    turn = "it is sent when its turn comes: 2 wait for main at 2/m, the last for 1 minute"
    assert story.headline == f"I{turn[1:]}."
    assert advised(story) == "Wait, or raise the rate of main, if it allows more."
    told = {one.label: one.text for one in story.outlooks[0].notes}
    assert "in 1 min" in told["at the latest"]
    rig.store.leases.claim("default", limit=2, incarnation="w", now_ms=NOW_MS)
    (beat_ms,) = [one.heartbeat_at_ms for one in rig.store.instances.registered()]
    story = rig.story(first, now_ms=beat_ms)
    assert story.headline == f"A worker on gw1 has claimed it; {turn}."
    story = rig.story(first, now_ms=beat_ms + 12_000)
    assert "silent for 12 seconds; another one takes over, next try" in story.headline
    rig.store.close()


def test_a_used_up_quota(tmp_path: Path) -> None:
    provider = {"host": "smtp.example.com", "daily_quota": 2}
    rig = StoryRig(tmp_path, providers={"main": provider, "other": {"host": "b.example.com"}})
    message = rig.accept()
    rig.store.limits.use_quota("main", wanted=2, quota=2)
    assert rig.story(message).headline == (
        "main has used its daily_quota of 2; it is sent when that is over."
    )
    rig.store.close()


def test_a_route_with_a_provider_that_works_has_no_obstacle(tmp_path: Path) -> None:
    rig = StoryRig(tmp_path, routes=[{"name": "default", "providers": ["main", "other"]}])
    message = rig.accept()
    for name in ("main", "other"):
        hold = Hold(
            scope="provider", key=name, reason="full", remedy="raise the limit", since_ms=NOW_MS,
            probe_at_ms=NOW_MS + HOUR_MS,
        )  # fmt: skip
        rig.store.holds.put_hold(hold)
        story = rig.story(message)
        if name == "main":
            assert story.headline.startswith("It was just accepted")
    assert story.headline.startswith("main is held (full) and other is held (full), next try")
    assert commands(story) == ["relaygw provider release main", "relaygw provider release other"]
    rig.store.close()


def test_several_deliveries_are_told_apart(rig: StoryRig) -> None:
    deliveries = (
        NewDelivery(
            route="default",
            stream="transactional",
            recipients=(NewRecipient(address="b@cust.test"),),
        ),
        NewDelivery(
            route="promo",
            stream="promotional",
            recipients=(NewRecipient(address="c@cust.test"),),
        ),
    )
    message = rig.accept(deliveries=deliveries)
    rig.attempt(message, TAKEN)
    rig.attempt(message, LATER, route="promo", provider="other")
    story = rig.story(message, now_ms=NOW_MS + 2000)
    assert (
        event_of(story, EventKind.DELIVERED).text == "delivered: main accepted it, for b@cust.test"
    )
    assert event_of(story, EventKind.DEFERRED).text.endswith("refused it for now, for route promo")
    (outlook,) = story.outlooks
    assert (outlook.route, outlook.recipients) == ("promo", ("c@cust.test",))
    assert story.headline.startswith(
        "1 of 2 recipients got it; c@cust.test: the recipient's server asks to try later"
    )


# --- the whole ----------------------------------------------------------------------------


def test_an_unknown_id_has_no_story(rig: StoryRig) -> None:
    assert tell_story(rig.store, rig.settings, "NOSUCHID00", now_ms=NOW_MS) is None


def test_a_story_as_an_object(rig: StoryRig) -> None:
    message = rig.accept()
    rig.attempt(message, LATER)
    told = as_object(rig.story(message, now_ms=NOW_MS + 2000))
    assert told["queue_id"] == message.queue_id
    assert [event["kind"] for event in told["events"]] == ["accepted", "deferred"]
    assert told["events"][1]["at"].endswith("Z")
    assert told["next"][0]["next_attempt_at"] is not None
    assert told["what_to_do"][-1]["command"].startswith("relaygw queue retry")


def test_content_that_needs_8bitmime_has_its_reason_and_what_to_do() -> None:
    cause = HoldCause(HoldCode.NEEDS_8BITMIME, "default it is signed")
    assert held_words(cause) == cause.sentence
    (advice,) = held_advice(cause, "Q", "<1@x>", None)
    assert advice.text.startswith("Give the route a provider with 8BITMIME and reload")


@pytest.mark.parametrize("code", list(HoldCode))
def test_each_cause_of_a_hold_is_said_in_words_with_its_end(rig: StoryRig, code: HoldCode) -> None:
    keys = {
        HoldCode.SENDER_REFUSED: "shop.test main",
        HoldCode.NO_SENDER: "default a@shop.test",
        HoldCode.OVER_QUOTA: "default 7",
        HoldCode.NEEDS_8BITMIME: "default it is signed",
        HoldCode.LOST_PROVIDER: "main default",
        HoldCode.REFUSED_ALIKE: "20 550 no",
    }
    message = rig.accept()
    entry = AuditEntry(at_ms=NOW_MS, actor="a", action="x", target="", affected=1, detail="")
    rig.store.queue.change_state(
        [message.queue_id],
        from_states=frozenset(DeliveryState),
        to=DeliveryState.HELD,
        hold=HoldCause(code, keys.get(code, "some reason")),
        entry=entry,
    )
    story = rig.story(message)
    cause, end = story.headline.removesuffix(".").split("; it is held until ")
    assert cause and end and "{" not in story.headline
    assert "_" not in code.value or code.value not in story.headline
    assert not cause.startswith(("It is held", "Mode", "Poison"))
    assert story.answer.startswith("Our e-mail")


def test_what_the_content_check_held_is_looked_at_before_it_is_released_or_deleted() -> None:
    cause = HoldCause(HoldCode.CONTENT_CHECK, "password found in its text")
    commands = [one.command for one in held_advice(cause, "Q1", "", None)]
    assert commands == [
        "relaygw queue show Q1 --raw",
        "relaygw queue release --id Q1",
        "relaygw queue delete --id Q1",
    ]
