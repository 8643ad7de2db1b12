"""What people read."""

from __future__ import annotations

from dataclasses import replace

from relaygw.alerting.notice import notice_of
from relaygw.settings.model import Settings
from relaygw.store.watch import Incident

SETTINGS = Settings.model_validate(
    {"mode": "sandbox", "hostname": "gw.test", "web": {"url": "https://gw.test/mail/"}}
)
INCIDENT = Incident(
    incident_id="1",
    rule="queue_age",
    key="default",
    summary="the oldest mail of route default waits for more than 4h",
    remedy="do this",
    since_ms=1_795_600_000_000,
)
OVER = Incident(
    incident_id="1",
    rule="provider_down",
    key="main",
    summary="provider main cannot be reached",
    remedy="do this",
    since_ms=1_795_600_000_000,
    recovered_at_ms=1_795_600_000_000 + 3_723_000,
)


def test_the_text_of_trouble() -> None:
    assert notice_of(INCIDENT, SETTINGS).text == (
        "[relaygw gw.test] the oldest mail of route default waits for more than 4h\n"
        "What to do: do this\n"
        "Since 25 Nov 2026 09:46:40 UTC\n"
        "https://gw.test/mail/queue"
    )


def test_the_text_of_its_end() -> None:
    assert notice_of(OVER, SETTINGS).text == (
        "[relaygw gw.test] over: provider main cannot be reached\n"
        "It lasted 1h 2m, since 25 Nov 2026 09:46:40 UTC\n"
        "https://gw.test/mail/"
    )


def test_an_end_before_the_begin_has_no_duration() -> None:
    over = replace(OVER, recovered_at_ms=OVER.since_ms - 3_600_000)
    assert "It began at 25 Nov 2026 09:46:40 UTC, by a clock that was set back since" in (
        notice_of(over, SETTINGS).text
    )


def test_the_fields_for_programs() -> None:
    fields = notice_of(OVER, SETTINGS).as_json()
    text = fields.pop("text")
    assert text is not None and "over" in text
    assert fields == {
        "rule": "provider_down",
        "key": "main",
        "state": "recovered",
        "summary": "provider main cannot be reached",
        "remedy": "do this",
        "since": "2026-11-25T09:46:40.000Z",
        "recovered_at": "2026-11-25T10:48:43.000Z",
        "host": "gw.test",
        "link": "https://gw.test/mail/",
    }
