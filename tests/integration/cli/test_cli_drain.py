"""`relaygw drain` without a gateway: what it makes due, what it tells, and its exit codes."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.cli.drain import Drain, Left, _Progress, count_drops
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import DeliveryUpdate, RecipientUpdate
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.load import load_settings
from relaygw.store.queue import LaneCount
from tests.integration.cli.conftest import Desk

IN_DOUBT = "lost connection while sending content; the message may be sent more than once"
DEFERRED, HELD = DeliveryState.DEFERRED, DeliveryState.HELD


def due_in_s(desk: Desk, queue_id: str) -> float:
    (part,) = desk.entry(queue_id).deliveries
    return (part.due_at_ms - clock_ms()) / 1000


def test_without_a_worker_it_says_what_to_start(desk: Desk) -> None:
    result = desk.run("drain", "--wait", "0s")
    assert result.exit_code == os.EX_UNAVAILABLE
    assert result.stderr == (
        "relaygw: no delivery worker runs, so nothing can be sent; start it: relaygw serve\n"
    )


def test_an_empty_queue_is_drained(desk: Desk) -> None:
    desk.claim()
    result = desk.run("drain")
    assert (result.exit_code, result.stdout) == (0, "drained: nothing is left\n")
    assert result.stderr == "relaygw: 0 in the maildrop, 0 waiting, 0 being sent, 0 held\n"
    assert desk.store.audit.entries(limit=9) == []


def test_deferred_mail_is_due_now_and_told(desk: Desk) -> None:
    late = desk.add("b@cust.test")
    desk.attempt(DEFERRED, reason="450 4.2.1 later")
    fresh = desk.add("c@cust.test")
    result = desk.run("drain", "--wait", "0s")
    assert result.exit_code == os.EX_TEMPFAIL
    assert due_in_s(desk, late) <= 0
    assert "0 in the maildrop, 2 waiting, 0 being sent, 0 held" in result.stdout
    assert "route default: 1 of these: 450 4.2.1 later\n" in result.stdout
    assert "route default: 1 of these: not tried yet\n" in result.stdout
    (audited,) = desk.store.audit.entries(limit=9)
    assert (audited.action, audited.target, audited.detail) == ("queue.retry", late, "drain")
    assert fresh not in audited.target


def test_held_mail_is_not_waited_for_and_named(desk: Desk) -> None:
    held = desk.add("b@cust.test")
    desk.attempt(HELD, reason="mode")
    result = desk.run("drain", "--wait", "1h")
    assert result.exit_code == os.EX_TEMPFAIL
    assert f"{held} is held on route default: mode; see: relaygw queue release\n" in result.stdout
    result = desk.run("drain", "--wait", "1h", "--json")
    assert result.exit_code == os.EX_TEMPFAIL
    told = json.loads(result.stdout)
    assert told["drained"] is False
    assert told["held"] == [{"queue_id": held, "route": "default", "reason": "mode"}]
    assert told["lanes"] == [
        {"route": "default", "stream": "transactional", "state": "held", "deliveries": 1}
    ]


def test_the_maildrop_counts(desk: Desk, tmp_path: Path) -> None:
    maildrop = tmp_path / "maildrop"
    assert count_drops(maildrop) == 0
    maildrop.mkdir()
    (maildrop / ("0" * 32 + ".drop")).touch()
    (maildrop / (".w-" + "0" * 32)).touch()
    (maildrop / "wake").touch()
    desk.claim()
    result = desk.run("drain", "--wait", "0s", "--json")
    assert result.exit_code == os.EX_TEMPFAIL
    told = json.loads(result.stdout)
    assert (told["maildrop"], told["lanes"]) == (1, [])


def test_held_mail_ends_the_waiting_only_once_the_maildrop_is_empty() -> None:
    held = LaneCount(
        route="r",
        stream="promotional",
        state=HELD,
        deliveries=1,
        recipients=1,
        oldest_accepted_at_ms=1,
        oldest_changed_at_ms=1,
    )
    assert Left(files=0, lanes=(held,)).is_over
    assert not Left(files=1, lanes=(held,)).is_over
    assert not Left(files=0, lanes=(held, replace(held, state=DEFERRED))).is_over
    assert not Left(files=1, lanes=()).is_over
    assert Left(files=0, lanes=()).is_empty


@pytest.mark.parametrize("wait", ["", "x", "-1s"])
def test_a_wrong_time_is_refused(desk: Desk, wait: str) -> None:
    assert desk.run("drain", "--wait", wait).exit_code == os.EX_USAGE


def test_mail_in_doubt_is_hurried_once_the_rest_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["relaygw.cli.drain"], "RETRY_EVERY_S", 0.02)
    monkeypatch.setattr(sys.modules["relaygw.cli.drain"], "_LOOK_S", 0.01)
    ids = {desk.add("b@cust.test"): IN_DOUBT, desk.add("c@cust.test"): "450 later"}
    desk.attempt(DEFERRED, reason="450 later")
    tries = dict.fromkeys(ids, 0)

    def defer_again(now: Left) -> None:
        """Stand for the worker: try what is due, and nobody gets it."""
        if not any(lane.state is DEFERRED for lane in now.lanes):
            return
        incarnation = desk.claim()
        for one in desk.claimed:
            tries[one.queue_id] += 1
        updates = [
            DeliveryUpdate(
                queue_id=one.queue_id,
                delivery_no=0,
                state=DEFERRED,
                due_at_ms=clock_ms() + 600_000,
                provider="main",
                reason=ids[one.queue_id],
                doubted=ids[one.queue_id] == IN_DOUBT,
                recipients=(
                    RecipientUpdate(
                        rcpt_no=0,
                        state=RecipientState.PENDING,
                        reply=ids[one.queue_id],
                        dsn="4.4.2",
                        provider="main",
                    ),
                ),
            )
            for one in desk.claimed
        ]
        assert desk.store.leases.record_batch(
            updates, incarnation=incarnation, now_ms=clock_ms()
        ).is_alive
        if tries[list(ids)[1]] >= 4:
            over.set()

    over = threading.Event()
    settings = load_settings(config=desk.config, environ={}).settings
    draining_now = Drain(desk.store, settings, maildrop=None, actor="test", wake=lambda: None)
    while not over.is_set():
        draining_now.run(0.2, show=defer_again)
    assert next(iter(tries.values())) == 1


def test_on_a_terminal_progress_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = _Progress()
    for files in (12, 12, 0):
        progress.show(Left(files=files, lanes=()))
    progress.close()
    first, rest = terminal.getvalue().removeprefix("\r").split("\r")
    assert first == "relaygw: 12 in the maildrop, 0 waiting, 0 being sent, 0 held"
    assert rest == "relaygw: 0 in the maildrop, 0 waiting, 0 being sent, 0 held \n"
