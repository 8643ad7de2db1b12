from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.inbound.drop_directory import DropDirectory
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.store.holds import Hold
from tests.builders import instance
from tests.integration.cli.conftest import Desk


def test_status_fits_one_screen_and_tells_what_is_wrong(desk: Desk) -> None:
    desk.add(age_s=7200)
    desk.attempt(DeliveryState.DEFERRED, reason="451 later")
    desk.add_captured()
    desk.store.holds.put_hold(
        Hold(
            scope="credential",
            key="main",
            reason="535 5.7.8 bad key",
            remedy="renew the key",
            since_ms=clock_ms(),
            probe_at_ms=None,
        )
    )
    result = desk.run("status")
    assert result.exit_code == 0
    assert "credential main" in result.stdout
    assert "renew the key" in " ".join(result.stdout.split())
    lane = next(line for line in result.stdout.splitlines() if line.startswith("default"))
    assert lane.split() == ["default", "transactional", "0", "0", "1", "0", "2h"]
    assert "1 captured, 1 unread" in result.stdout
    lines = result.stdout.splitlines()
    # a path is not folded: it could not be copied
    assert max(len(line) for line in lines if not line.startswith("queue ")) <= 80
    assert len(lines) <= 24
    assert "no front runs" in result.stderr
    assert "routing or policy settings differ" in result.stderr


def test_a_role_whose_heartbeat_stopped_is_not_said_to_be_gone(desk: Desk) -> None:
    desk.claim()
    with desk.store.database.write() as connection:
        connection.connection.exec_driver_sql("UPDATE instance SET heartbeat_at_ms = 1")
    told = desk.run("status").stderr
    assert "delivery has not renewed its heartbeat for 15 s: it died, hangs or cannot" in told
    assert "no delivery runs" not in told
    result = desk.run("drain", "--wait", "0s")
    assert result.exit_code == 69
    assert "delivery has not renewed its heartbeat" in result.stderr


def test_status_as_json(desk: Desk) -> None:
    desk.add()
    desk.claim()
    (found,) = desk.lines("status", "--json")
    assert found["mode"] == "production"
    (lane,) = found["lanes"]
    assert (lane["route"], lane["state"], lane["deliveries"]) == ("default", "active", 1)
    (instance,) = found["instances"]
    assert instance["role"] == "delivery"
    assert instance["has_drifted"] is True
    assert instance["is_silent"] is False


def test_status_tells_how_long_mail_was_in_the_queue(desk: Desk) -> None:
    assert "in queue" not in desk.run("status").stdout
    assert desk.lines("status", "--json")[0]["in_queue"] is None
    desk.store.watch.add_history(clock_ms(), {("in_queue", "main 500"): 99})
    desk.store.watch.add_history(clock_ms() - 2 * 3_600_000, {("in_queue", "main 10"): 9999})
    assert "in queue p50 400 ms, p95 490 ms" in " ".join(desk.run("status").stdout.split())
    (found,) = desk.lines("status", "--json")
    assert found["in_queue"] == found["providers"][0]["in_queue"]
    assert found["in_queue"]["mails"] == 99


def test_status_tells_which_provider_is_held_or_slowed_and_why(desk: Desk) -> None:
    text = desk.config.read_text()
    spare = "  spare: {host: smtp.spare.test, rate: 50/s}\n  third: {host: smtp.third.test}\nroutes"
    desk.config.write_text(text.replace("routes", spare))
    desk.store.limits.lower_rate("spare", per_s=29.0, guard_s=0.0)
    desk.store.holds.put_hold(
        Hold(
            scope="sender domain",
            key="main promo.test",
            reason="554 5.7.1 not verified",
            remedy="verify the domain",
            since_ms=clock_ms(),
            probe_at_ms=None,
        )
    )
    shown = desk.run("status").stdout
    assert "main: smtp.provider.test:2525, partly held\n" in shown
    assert "spare: smtp.spare.test:587, slowed\n" in shown
    assert "third: smtp.third.test:587\n" in shown
    words = " ".join(shown.split())
    assert "sender domain main promo.test since" in words and "verify the domain" in words
    assert re.search(
        r"slowed spare to 2\d(\.\d)?/s: it asked to slow down at about 29/s, 20", words
    )
    (found,) = desk.lines("status", "--json")
    states = {one["name"]: one["state"] for one in found["providers"]}
    assert states == {"main": "partly held", "spare": "slowed", "third": "ok"}
    assert found["providers"][1]["learned"]["rate_per_s"] == 29.0


def test_a_hold_of_a_provider_that_is_gone_is_not_shown(desk: Desk) -> None:
    now_ms = clock_ms()
    for scope, key in (("unreachable", "before"), ("sender domain", "before promo.test")):
        desk.store.holds.put_hold(
            Hold(
                scope=scope,
                key=key,
                reason="refused",
                remedy="it is retried automatically",
                since_ms=now_ms,
                probe_at_ms=now_ms,
            )
        )
    assert "before" not in desk.run("status").stdout
    assert desk.lines("status", "--json")[0]["holds"] == []
    desk.add()
    desk.claim()
    result = desk.run("drain", "--wait", "0s", "--json")
    assert json.loads(result.stdout)["holds"] == []
    desk.config.write_text(desk.config.read_text().replace("main", "before"))
    assert "sender domain before promo.test since" in " ".join(desk.run("status").stdout.split())


def test_status_names_files_of_the_maildrop_that_nobody_takes(desk: Desk, tmp_path: Path) -> None:
    maildrop = tmp_path / "maildrop"
    assert "0 waiting, 0 set aside\n" in desk.run("status").stdout
    directory = DropDirectory(maildrop, None)
    stuck, waiting = "a" * 32 + ".drop", "b" * 32 + ".drop"
    for name in (stuck, waiting):
        (maildrop / name).write_bytes(b"")
    directory.reasons.write({stuck: "a hard link: the file has another name"})
    directory.close()
    result = desk.run("status")
    assert re.search(r"1 waiting, 1 set aside, the oldest for \d+s\n", result.stdout)
    assert f" {stuck}: a hard link: the file has" in result.stdout
    assert waiting not in result.stdout
    said = " ".join(result.stderr.split())
    assert f"files in the maildrop {maildrop}: 1 set aside: {stuck} (a hard link" in said
    assert "fix it, and it is accepted within ten minutes, or remove it" in said
    (found,) = desk.lines("status", "--json")
    assert (found["maildrop"]["waiting"], found["maildrop"]["aside"]) == (1, 1)
    assert [one["name"] for one in found["maildrop"]["files"]] == [stuck]


def test_nothing_runs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    result = desk.run("status")
    assert "nothing is running; start it: relaygw serve" in result.stdout
    monkeypatch.setattr("relaygw.cli.setup_host.is_of_service", lambda config: config is not None)
    assert "start it: systemctl enable --now relaygw.socket" in desk.run("status").stdout


def test_db_check_and_upgrade(desk: Desk, tmp_path: Path) -> None:
    assert desk.run("db", "check").exit_code == 0
    assert "nothing to do" in desk.run("db", "upgrade").stdout
    fresh = desk.config.read_text().replace("queue.db", "fresh.db")
    desk.config.write_text(fresh)
    missing = desk.run("db", "check")
    assert missing.exit_code == 69
    assert "no queue there yet" in missing.stderr
    assert not (tmp_path / "state" / "fresh.db").exists()
    assert desk.run("db", "upgrade").stdout.startswith("schema none -> ")
    assert desk.run("db", "check").exit_code == 0


def test_looking_at_a_queue_that_is_not_there_makes_none(desk: Desk, tmp_path: Path) -> None:
    desk.config.write_text(desk.config.read_text().replace("state/queue.db", "new/queue.db"))
    for words in (("queue", "list"), ("status",), ("sandbox", "list")):
        result = desk.run(*words)
        assert result.exit_code == 69
        assert "no queue there yet; relaygw setup, or relaygw serve, creates it" in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_queue_without_schema_is_a_configuration_error(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "state" / "empty.db").touch()
    desk.config.write_text(desk.config.read_text().replace("queue.db", "empty.db"))
    result = desk.run("queue", "list")
    assert result.exit_code == 78
    assert "relaygw db upgrade" in result.stderr


def test_config_show(desk: Desk) -> None:
    lines = desk.run("config", "show", "--origin").stdout.splitlines()
    assert 'mode: "production"  # relaygw.yaml:1' in lines
    objects = [
        json.loads(line) for line in desk.run("config", "show", "--json").stdout.splitlines()
    ]
    assert {"key": "mode", "value": "production", "origin": "relaygw.yaml:1"} in objects


def test_status_tells_of_mail_that_waits_for_somebody_with_the_remedy(desk: Desk) -> None:
    held = desk.add(age_s=7200)
    desk.attempt(DeliveryState.HELD, reason="mode")
    desk.add(age_s=60, route="before")
    desk.store.instances.register(
        replace(instance("lost", role="front"), name="gw2.shop.test", pid=77)
    )
    desk.store.instances.bury("lost", is_lost=True)
    for (
        one
    ) in desk.store.instances.registered():  # its settings are others: it might know the route
        desk.store.instances.bury(one.incarnation)
    result = desk.run("status")
    assert max(map(len, result.stdout.splitlines()[3:])) <= 80
    words = " ".join(result.stdout.split())
    assert re.search(
        rf"untended 1 delivery is held, the longest for \d+s \({held}\): the mode", words
    )
    assert "correct mode and recipients and reload" in words
    assert "untended no worker sends 1 delivery of route before, which is not in the" in words
    assert "relaygw queue move --route before --to PROVIDER" in words
    assert "front gw2.shop.test 77" in words
    (line,) = [line for line in result.stdout.splitlines() if "gw2.shop.test" in line]
    assert line.split()[-1] == "lost"
    assert "warning: gateway gw2.shop.test is lost (front)" in result.stderr
    (found,) = desk.lines("status", "--json")
    assert [(one["kind"], one["rule"], one["deliveries"]) for one in found["untended"]] == [
        ("mode", "held", 1),
        ("route_gone", "route_gone", 1),
    ]
    assert found["untended"][0]["examples"] == [held]
    assert [(one["role"], one["name"], one["leases"]) for one in found["lost"]] == [
        ("front", "gw2.shop.test", 0)
    ]
