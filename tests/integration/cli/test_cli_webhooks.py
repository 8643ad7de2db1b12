"""`relaygw webhooks`: what operators see of receivers, test, and send again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from relaygw.mail.verdict import Kind
from relaygw.settings.load import load_settings
from relaygw.store.reports import NewVerdict
from relaygw.store.rules import StoreRules, WebhookRule
from relaygw.store.webhooks import add_verdicts
from tests.e2e.ports import free_port
from tests.fakes.event_receiver import SECRET, EventReceiver
from tests.integration.cli.conftest import Desk


@pytest.fixture
def receiver() -> Iterator[EventReceiver]:
    with EventReceiver() as receiver:
        yield receiver
        receiver.check()


@pytest.fixture
def shop(desk: Desk, receiver: EventReceiver) -> Desk:
    """Return the desk of a gateway with two receivers, one of which is not there."""
    gone = f"http://127.0.0.1:{free_port()}/hidden"
    lines = [
        f'- {{name: shop, url: "{receiver.url}", secret: "plain:{SECRET}", on: [bounced]}}',
        f'- {{url: "{gone}", secret: "plain:{SECRET}"}}',
    ]
    desk.config.write_text(desk.config.read_text() + "webhooks:\n" + "\n".join(lines) + "\n")
    desk.config.chmod(0o600)
    return desk


def endpoints(desk: Desk) -> list[str]:
    found = load_settings(config=desk.config, environ={}).settings.webhooks
    return [one.endpoint for one in found]


def happen(desk: Desk, *queue_ids: str) -> None:
    """Have events of bounces sent to the first receiver, and wait for the second."""
    ids = endpoints(desk)
    outbox = desk.store.outbox
    outbox.see_endpoints(dict.fromkeys(ids, "shop"))
    rules = StoreRules(webhooks=tuple(WebhookRule(one, frozenset({"bounced"})) for one in ids))
    values: dict[str, Any] = {"rcpt_no": 0, "address": "b@cust.test", "kind": Kind.HARD}
    values |= {"provider": "main", "dsn": None, "detail": "", "others": 0, "is_last_word": True}
    new = [NewVerdict(queue_id=one, at_ms=1, **values) for one in queue_ids]
    with desk.store.database.write() as tx:
        add_verdicts(tx, new, rules)
    post = outbox.next_post(ids[0], limit=100, fits=len)
    assert post is not None
    outbox.note_taken(ids[0], post.post_id)


def refuse(desk: Desk, **more: Any) -> None:
    values: dict[str, Any] = {"wait_ms": 60_000, "pause_after_ms": 86_400_000, "is_gone": False}
    desk.store.outbox.note_refused(endpoints(desk)[1], "127.0.0.1 answered 500", **values | more)


def test_receivers_are_listed_with_what_is_wrong(shop: Desk, receiver: EventReceiver) -> None:
    happen(shop, "Q1", "Q2")
    refuse(shop)
    shown = shop.run("webhooks", "list", columns=100).stdout
    rows = [line.split()[:3] for line in shown.splitlines()[1:3]]
    assert rows == [["shop", "ok", "0"], ["webhook-2", "failing", "2"]]
    assert f"http://127.0.0.1:{receiver.port}/***" in shown
    assert "hidden" not in shown
    assert "token-of-the-url" not in shown
    assert "webhook webhook-2 fails, and is tried again: 127.0.0.1 answered 500" in shown
    first, second = shop.lines("webhooks", "list", "--json")
    assert (first["name"], first["state"], first["on"]) == ("shop", "ok", ["bounced"])
    assert (second["state"], second["waiting"], second["failures"]) == ("failing", 2, 1)
    assert second["next_at"] > second["failing_since"]
    assert "hidden" not in json.dumps(second)


def test_more_than_is_counted_is_said(shop: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    happen(shop, "Q1", "Q2", "Q3")
    for most, shown, waiting, is_more in ((3, "3", 3, False), (2, "2+", 2, True)):
        monkeypatch.setattr("relaygw.store.outbox.MOST_COUNTED", most)
        row = shop.run("webhooks", "list", columns=100).stdout.splitlines()[2]
        assert row.split()[:3] == ["webhook-2", "ok", shown]
        one = shop.lines("webhooks", "list", "--json")[1]
        assert (one["waiting"], one["is_more_waiting"]) == (waiting, is_more)
    assert "webhook-2: ok, more than 2 events wait" in shop.run("status").stdout


def test_check_says_which_secrets_and_urls_of_receivers_cannot_be_read(shop: Desk) -> None:
    lines = [
        f'- {{url: "env:NOT_SET", secret: "plain:{SECRET}"}}',
        '- {url: "https://shop.test/", secret: "env:NOT_SET"}',
        '- {url: "https://desk.test/", secret: "plain:too-short"}',
        '- {url: "command:false", secret: "command:false"}',
    ]
    shop.config.write_text(shop.config.read_text() + "\n".join(lines) + "\n")
    result = shop.run("check", columns=200)
    assert result.exit_code == 0
    told = " ".join(result.output.split())
    for key in ("webhooks.2.url", "webhooks.3.secret"):
        assert f"{key}: env:NOT_SET: the environment has no variable NOT_SET" in told
    assert "webhooks.4.secret: plain:***: is not whsec_" in told
    assert told.count("webhooks.") == 3
    assert "too-short" not in told


def test_status_says_which_receiver_fails_and_how_it_goes_on(shop: Desk) -> None:
    assert "shop: ok, 0 events wait" in shop.run("status").stdout
    happen(shop, "Q1")
    refuse(shop, is_gone=True)
    result = shop.run("status", columns=200)
    assert "webhook-2: disabled, 1 event waits" in result.stdout
    assert "webhook webhook-2 is gone and gets nothing any more" in result.output
    assert "relaygw webhooks resume webhook-2" in result.output
    assert shop.run("webhooks", "resume", "webhook-2").exit_code == 0
    assert "webhook-2: failing, 1 event waits" in shop.run("status").stdout
    assert shop.store.audit.entries(limit=1)[0].action == "webhooks.resume"


def test_a_test_shows_what_each_receiver_answers(shop: Desk, receiver: EventReceiver) -> None:
    result = shop.run("webhooks", "test", columns=200)
    assert result.exit_code == 69
    assert f"shop: http://127.0.0.1:{receiver.port}/*** answered 200" in result.stdout
    assert "webhook-2: 127.0.0.1" in result.stdout
    assert "Connection refused" in result.stdout
    assert receiver.kinds == ["test"]
    assert shop.run("webhooks", "test", "shop").exit_code == 0
    receiver.answer = 403
    refused = shop.run("webhooks", "test", "shop")
    assert (refused.exit_code, "answered 403" in refused.stdout) == (69, True)
    (line, *_) = shop.store.audit.entries(limit=5)
    assert (line.action, line.target) == ("webhooks.test", "shop")


def test_events_are_sent_again_by_time_or_message(shop: Desk) -> None:
    happen(shop, "Q1", "Q2")
    assert shop.run("webhooks", "replay", "--since", "1h", "--dry-run").stdout == (
        "2 events would go again\n"
    )
    assert (
        "1 event will be sent again"
        in shop.run("webhooks", "replay", "shop", "--id", "Q1", "--yes").stdout
    )
    asked = shop.run("webhooks", "replay", "--since", "1h", stdin="n\n")
    assert "nothing changed" in asked.stdout
    assert shop.run("webhooks", "replay", "--since", "1h", "--yes").exit_code == 0
    post = shop.store.outbox.next_post(endpoints(shop)[0], limit=9, fits=len)
    assert post is not None
    assert [one.queue_id for one in post.events] == ["Q1", "Q2"]
    assert [(one.action, one.affected) for one in shop.store.audit.entries(limit=9)] == [
        ("webhooks.replay", 1)
    ] * 2
    trail = shop.run("audit", columns=200).stdout
    assert "sent events again" in trail


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["replay"], 64, "nothing to send again; give --since or --id"),
        (["replay", "--since", "soon"], 64, "soon"),
        (["replay", "nobody", "--since", "1h"], 65, "'nobody' is not a webhook; write one of: "),
        (["resume"], 64, "NAME"),
        (["resume", "nobody"], 65, "'nobody' is not a webhook"),
        (["test", "nobody"], 65, "'nobody' is not a webhook"),
    ],
)
def test_what_is_wrong_is_said(shop: Desk, words: list[str], code: int, told: str) -> None:
    result = shop.run("webhooks", *words)
    assert result.exit_code == code, result.output
    assert told in result.output


def test_without_webhooks_there_is_nothing_to_do(desk: Desk) -> None:
    assert desk.run("webhooks", "list").stdout == "no webhooks; see docs/webhooks.md\n"
    assert desk.run("webhooks", "test").exit_code == 78
    assert "events wait" not in desk.run("status").stdout
