"""A gateway tells who changes it, who tries to get in, and whom it told to come later."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher

from tests.e2e.gateway import Gateway
from tests.e2e.ports import fixed_binds
from tests.fakes.notice_receiver import NoticeReceiver
from tests.forked import run_relaygw
from tests.sources import ROOT

HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(b"right")
TOKEN = "a-token-of-more-than-twenty"
UNIT = ROOT / "packaging/tree/usr/lib/systemd/system/relaygw.service"
RULES = {"config_changed", "login_failures", "api_stranger"}


def test_a_refused_reload_is_told_until_one_succeeds(tmp_path: Path) -> None:
    with (
        NoticeReceiver() as receiver,
        Gateway(
            tmp_path,
            mode="sandbox",
            alerts=[{"webhook": receiver.url, "on": ["reload_refused"]}],
            alert_rules={"lasting": "1s"},
            **fixed_binds(),
        ) as gateway,
    ):
        (by_systemd,) = re.findall(r"^ExecReload=/usr/bin/relaygw (.*)$", UNIT.read_text(), re.M)
        words = by_systemd.replace("$MAINPID", str(gateway.processes()[0])).split()
        for number, is_by_systemd in enumerate((False, True)):
            gateway.settings["retry"]["first"] = "soon"
            if is_by_systemd:  # which sends no signal then
                gateway.write_config()
                words += ["--config", str(gateway.config)]
                done = run_relaygw(words, env=gateway.environment, capture_output=True, text=True)
                assert done.returncode == os.EX_CONFIG
                assert "retry.first" in done.stderr
            else:
                gateway.wait_for_log(
                    "reload refused, the old settings stay", start=gateway.reload()
                )
            receiver.wait_for(2 * number + 1)
            gateway.settings["retry"]["first"] = "100ms"
            gateway.wait_for_log("reloaded: ", start=gateway.reload())
            receiver.wait_for(2 * number + 2)
            told, over = receiver.bodies[2 * number :]
            assert (told["rule"], told["key"], told["state"]) == (
                "reload_refused",
                "gw.test reload",
                "open",
            )
            assert "runs on with the settings of before: " in told["summary"]
            assert "retry.first" in told["summary"]
            assert (over["key"], over["state"]) == (told["key"], "recovered")


def ask(gateway: Gateway, token: str, agent: str, path: str = "/status") -> int:
    url = f"http://127.0.0.1:{gateway.web_port}/api/gateway/v1{path}"
    headers = {"Authorization": f"Bearer {token}", "User-Agent": agent}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def fail_to_log_in(gateway: Gateway, times: int) -> None:
    for start in range(0, times, 4):  # a connection ends with its fifth
        with gateway.connect() as client:
            client.command(b"EHLO x.test")
            for _ in range(min(4, times - start)):
                word = base64.b64encode(b"\0shop1\0hush-hush")
                assert client.command(b"AUTH PLAIN " + word).startswith("535")


def test_what_happens_to_the_gateway_is_told(tmp_path: Path) -> None:
    binds = fixed_binds()
    binds["web"]["tokens"] = [{"name": "ci", "token": f"plain:{TOKEN}"}]
    binds["listeners"][0]["rate_per_client"] = "2/d"
    with (
        NoticeReceiver() as receiver,
        Gateway(
            tmp_path,
            mode="sandbox",
            users=[{"name": "shop1", "password_hash": HASH}],
            alerts=[{"webhook": receiver.url, "on": [*RULES]}],
            alert_rules={"lasting": "1s", "login_failures": 5},
            **binds,
        ) as gateway,
    ):
        assert ask(gateway, TOKEN, "curl/8.5.0") == 200
        gateway.wait_until(lambda: len(gateway.store.visitors.uses()) == 2, "its use is known")
        assert ask(gateway, TOKEN, "curl/8.6.1") == 200  # an update
        assert ask(gateway, TOKEN, "Scraper/1.0 (+http://x.test)") == 200
        assert ask(gateway, "wrong" + TOKEN, "curl/8.5.0") == 401
        fail_to_log_in(gateway, 6)
        with gateway.connect() as client:
            client.command(b"EHLO x.test")
            for code in ("250", "250", "450", "450"):
                assert client.command(b"MAIL FROM:<a@shop.test>").startswith(code)
                client.command(b"RSET")
        gateway.settings["mode"] = "staging"
        gateway.settings["providers"] = {
            "p": {"host": "x.test", "username": "u", "password": "env:K"}
        }
        gateway.settings["routes"] = [{"name": "default", "providers": ["p"]}]
        gateway.settings["listeners"][0]["exempt"] = ["127.0.0.0/8"]
        gateway.wait_for_log("reloaded", start=gateway.reload())
        with gateway.connect() as client:
            client.command(b"EHLO x.test")
            for _ in range(4):
                assert client.command(b"MAIL FROM:<a@shop.test>").startswith("250")
                client.command(b"RSET")
        receiver.wait_for(3)
        told: dict[str, Any] = {one["rule"]: one for one in receiver.bodies}
        assert set(told) == RULES
        assert {one["key"] for one in receiver.bodies if one["rule"] == "login_failures"} == {
            "smtp"
        }
        assert "127.0.0.0/24 (6)" in told["login_failures"]["summary"]
        assert "the user agent Scraper, " in told["api_stranger"]["summary"]
        assert "curl" not in told["api_stranger"]["summary"]
        summary = told["config_changed"]["summary"]
        for word in ("gw.test", "reload", "mode", "providers (new)", "relaygw.yaml"):
            assert word in summary
        everything = json.dumps(receiver.bodies)
        for secret in ("hush", TOKEN, HASH, 'x.test"'):
            assert secret not in everything
        listed = run_relaygw(
            ["--config", str(gateway.config), "clients", "--json"],
            capture_output=True, text=True, timeout=60, check=True, env=gateway.environment,
        )  # fmt: skip
        found = json.loads(listed.stdout)
        (throttled,) = found["throttled"]
        assert (throttled["client"], throttled["cause"]) == ("127.0.0.1", "rate")
        assert throttled["times"] == 2
        assert {"allow", "exempt"} == {one["by"] for one in found["exempt"]}
