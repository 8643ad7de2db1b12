"""`relaygw drain` beside a running gateway: what is queued goes out, or is told."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.ports import free_port
from tests.e2e.sendmail_rig import Installation
from tests.fakes.scripted_provider import Action, ThreadedProvider
from tests.forked import run_relaygw

CONTENT = b"Subject: x\r\n\r\nhi\r\n"
SLOW = {"first": "1h", "max": "1h", "jitter": "0%"}


def drain(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    return run_relaygw(
        ["--config", str(gateway.config), "drain", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def told(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_deferred_mail_goes_out_at_once(command: Installation, tmp_path: Path) -> None:
    with ThreadedProvider() as provider:
        provider.script("RCPT", *[b"450 4.2.1 later\r\n"] * 3)
        settings = provider_settings(provider.port)
        with Gateway(tmp_path, providers={"main": settings}, retry=SLOW) as gateway:
            for _ in range(3):
                gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
            gateway.wait_for_log("status=deferred", count=3)
            maildrop = tmp_path / "maildrop"
            gateway.wait_until((maildrop / "wake").exists, "a maildrop")
            assert not command.run("b@cust.test", content=CONTENT, maildrop=maildrop).returncode
            ended = drain(gateway, "--wait", "60s")
            assert (ended.returncode, ended.stdout) == (0, "drained: nothing is left\n")
            assert len(provider.messages) == 4
            assert not gateway.queue()
    assert ended.stderr.endswith("0 in the maildrop, 0 waiting, 0 being sent, 0 held\n")


def test_mail_that_is_deferred_again_is_tried_again_but_not_all_the_time(tmp_path: Path) -> None:
    with ThreadedProvider() as provider:
        provider.script("RCPT", *[b"450 4.2.1 later\r\n"] * 2)
        settings = provider_settings(provider.port)
        with Gateway(tmp_path, providers={"main": settings}, retry=SLOW) as gateway:
            gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
            gateway.wait_for_log("status=deferred")
            ended = drain(gateway, "--json")
            assert ended.returncode == 0, ended
            assert told(ended)["drained"] is True
            assert told(ended)["waited_s"] > 5
            tries = [line for c in provider.connections for line in c.commands if b"RCPT" in line]
    assert len(tries) == 3


def test_a_provider_that_is_down_is_told_of(tmp_path: Path) -> None:
    settings = provider_settings(free_port())
    with Gateway(tmp_path, providers={"main": settings}, retry=SLOW) as gateway:
        gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.wait_for_log("status=deferred")
        ended = drain(gateway, "--wait", "1s", "--json")
        assert ended.returncode == os.EX_TEMPFAIL
        (reason,) = told(ended)["reasons"]
        assert (reason["route"], reason["deliveries"]) == ("default", 1)
        assert "refused" in reason["reason"].lower()


def test_mail_in_doubt_is_not_sent_again_and_again(tmp_path: Path) -> None:
    with ThreadedProvider() as provider:
        # takes the content and never says so
        provider.script("CONTENT", *[(Action.RECORD, Action.RESET)] * 9)
        settings = provider_settings(provider.port)
        with Gateway(tmp_path, providers={"main": settings}, retry=SLOW) as gateway:
            gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
            gateway.wait_for_log("more than once")
            assert drain(gateway, "--wait", "12s").returncode == os.EX_TEMPFAIL
            assert len(provider.messages) == 2
