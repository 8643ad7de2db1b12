"""Digests of which days, and as what they are read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

import pytest

from relaygw.alerting.digest import Digest, Period, Table, last_period
from relaygw.alerting.digest_forms import as_html, as_mail, as_object, as_text

EVIL = '<script>alert("1")</script>'


@pytest.fixture(params=["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone().timestamp()) * 1000


@pytest.mark.usefixtures("zone")
def test_the_last_day_and_week_are_those_of_the_calendar() -> None:
    for now in ("2026-11-28T00:00:01", "2026-11-28T23:59:59"):
        day, week = last_period(ms(now), 86_400), last_period(ms(now), 7 * 86_400)
        assert day == Period(ms("2026-11-27"), ms("2026-11-28"))
        assert day.words == "Friday, 27 Nov 2026"
        assert week == Period(ms("2026-11-16"), ms("2026-11-23"))
        assert week.words == "16 Nov to 22 Nov 2026"
    monday = last_period(ms("2026-11-30T00:00:00"), 7 * 86_400)
    assert monday == Period(ms("2026-11-23"), ms("2026-11-30"))
    # days of 23 and of 25 hours
    for day_of_change in ("2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01"):
        found = last_period(ms(f"{day_of_change}T12:00:00") + 86_400_000, 86_400)
        assert found.since_ms == ms(day_of_change)
        assert found.until_ms - found.since_ms in (82_800_000, 86_400_000, 90_000_000)


def test_what_strangers_wrote_is_no_markup_and_no_line() -> None:
    table = Table("Top templates", ("subject", "messages"), [[EVIL, "1"], ["x" * 100, "2"]], 3)
    digest = Digest(
        host="gw.test",
        mode="production",
        period=Period(1_795_600_000_000, 1_795_686_400_000),
        news=[f"New subject: {EVIL}, 1 messages."],
        tables=[table],
        link="https://gw.test/",
    )
    page = as_html(digest)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2
    text = as_text(digest)
    assert text.count(EVIL) == 2
    assert "and 3 more" in text
    mail = message_from_bytes(
        as_mail(digest, sender="gw <a@b.test>", to="ops@ü.test"), policy=default
    )
    assert isinstance(mail, EmailMessage)
    assert mail["To"] == "ops@ü.test"
    parts = [one.get_content_type() for one in mail.walk()]
    assert parts == ["multipart/alternative", "text/plain", "text/html"]
    shown = mail.get_body(("html",))
    assert shown is not None
    assert shown.get_content().splitlines() == page.splitlines()
    assert as_mail(digest, sender="gw <a@b.test>", to="ops@b.test").isascii()
    assert as_object(digest)["tables"][0]["rows"][0] == [EVIL, "1"]
