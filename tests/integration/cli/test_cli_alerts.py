"""`relaygw alerts`: what an operator sees of incidents, and whether channels work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import yaml

from relaygw.mail.clock import clock_ms
from relaygw.store.watch import Incident
from tests.fakes.notice_receiver import Behaviour, NoticeReceiver
from tests.integration.cli.conftest import Desk

HOUR_MS = 3_600_000


def with_alerts(desk: Desk, *alerts: dict[str, Any], **more: Any) -> None:
    settings = yaml.safe_load(desk.config.read_text())
    desk.config.write_text(yaml.safe_dump({**settings, "alerts": list(alerts), **more}))


def add_incident(desk: Desk, number: int, *, hours_ago: int, key: str = "main") -> None:
    desk.store.watch.open_incident(
        Incident(
            incident_id=str(number),
            rule="provider_down",
            key=key,
            summary=f"provider {key} cannot be reached: connect to smtp.provider.test[192.0.2.1]"
            ":2525: Connection refused",
            remedy="relaygw check --online tests it",
            since_ms=clock_ms() - hours_ago * HOUR_MS,
        )
    )


def test_nothing_was_wrong(desk: Desk) -> None:
    result = desk.run("alerts", "list")
    assert result.stdout == "no incident in progress, and none in the last 7 days\n"
    assert desk.run("alerts", "list", "--json").stdout == ""


def test_incidents_that_last_come_first_with_their_remedy(desk: Desk) -> None:
    add_incident(desk, 1, hours_ago=5)
    desk.store.watch.end_incident("1", at_ms=clock_ms() - 3 * HOUR_MS)
    add_incident(desk, 2, hours_ago=2)
    desk.store.watch.note_told("2", "ops", is_recovery=False)
    with_alerts(
        desk,
        {"name": "ops", "command": "/bin/true"},
        {"command": "/bin/true", "on": ["provider_down", "storm"]},
        {"command": "/bin/true", "on": ["storm"]},
    )
    lines = desk.run("alerts", "list").stdout.splitlines()
    assert lines[0].split() == ["SINCE", "FOR", "RULE", "WHAT"]
    assert lines[1].split()[:3] == ["2h", "lasts", "provider_down"]
    assert lines[2].split()[:3] == ["5h", "2h", "provider_down"]
    assert any("relaygw check --online tests it" in line for line in lines)
    assert lines[-2].split() == ["notified", "ops"]
    assert lines[-1].split(maxsplit=2) == ["not", "yet", "command-2; the log says why"]
    assert max(map(len, lines)) <= 80
    one, two = desk.lines("alerts", "list", "--json")
    assert (one["state"], one["recovered_at"], one["told"]) == ("open", None, ["ops"])
    assert (two["state"], two["key"]) == ("recovered", "main")
    assert two["recovered_at"] > two["since"]


def test_what_ended_long_ago_is_not_listed(desk: Desk) -> None:
    add_incident(desk, 1, hours_ago=24 * 9)
    desk.store.watch.end_incident("1", at_ms=clock_ms() - 8 * 24 * HOUR_MS)
    assert desk.lines("alerts", "list", "--json") == []


def told(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).split())


def test_each_channel_is_tried_and_named_without_its_secret(desk: Desk) -> None:
    with NoticeReceiver() as working, NoticeReceiver(Behaviour.FAIL) as failing:
        with_alerts(
            desk,
            {"webhook": working.url, "name": "ops"},
            {"webhook": failing.url, "on": ["disk_low"]},
            {"command": ["/bin/true", "geheim"]},
            web={"url": "https://gw.test"},
        )
        result = desk.run("alerts", "test")
        assert result.exit_code == os.EX_UNAVAILABLE
        assert told(result.stdout.splitlines()) == (
            f"notified ops (webhook http://127.0.0.1:{working.port}/***): "
            f"127.0.0.1:{working.port} answered 200 "
            f"failed webhook-2 (webhook http://127.0.0.1:{failing.port}/***): "
            f"127.0.0.1:{failing.port} answered 500 "
            "notified command-3 (command /bin/true ***): true ended with exit code 0"
        )
        (body,) = working.bodies
        assert (body["rule"], body["link"]) == ("test", "https://gw.test")
        assert desk.run("alerts", "test", "--channel", "ops").exit_code == os.EX_OK
        assert desk.run("alerts", "test", "--channel", "3").exit_code == os.EX_OK
        assert len(working.bodies) == 2
        result = desk.run("alerts", "test", "--channel", "4")
        assert result.exit_code == os.EX_DATAERR
        assert "write one of: ops, webhook-2, command-3" in result.stderr


def test_without_channels_there_is_nothing_to_try(desk: Desk) -> None:
    result = desk.run("alerts", "test")
    assert result.exit_code == os.EX_CONFIG
    assert "the configuration has no alerts; add e.g." in result.stderr


def test_a_sandbox_sends_no_mail_of_its_own(desk: Desk) -> None:
    with_alerts(desk, {"email": "ops@shop.test", "sender": "gw@shop.test"}, mode="sandbox")
    result = desk.run("alerts", "test")
    assert result.exit_code == os.EX_UNAVAILABLE
    assert "mode sandbox sends no mail" in told(result.stdout.splitlines())


def test_check_tells_of_channels_and_of_those_that_cannot_work(desk: Desk) -> None:
    with_alerts(
        desk,
        {"webhook": "https://hooks.example.com/secret", "on": ["disk_low", "queue_age"]},
        {"webhook": "env:NO_SUCH_URL", "name": "ops"},
        {"email": "ops@shop.test", "sender": "gw@shop.test"},
        mode="sandbox",
    )
    result = desk.run("check")
    text = told(result.stdout.splitlines())
    assert "webhook-1: disk_low queue_age by webhook https://hooks.example.com/***" in text
    assert "ops: everything by webhook env:NO_SUCH_URL" in text
    assert "warning: alerts.2.email: mode sandbox sends no mail" in result.stderr
    assert "warning: alerts.1.webhook: env:NO_SUCH_URL: the environment has no" in result.stderr
    assert "secret" not in result.output
