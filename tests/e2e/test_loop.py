"""A provider that is the gateway's own listener: its mail waits, and everybody is told why."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.ports import free_port
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw

MAIL = b"Subject: order\r\n\r\nhello\r\n"
WORDS = "is this gateway itself, its listener 127.0.0.1:"


def test_mail_does_not_go_round(tmp_path: Path) -> None:
    port = free_port()
    with (
        ThreadedProvider() as real,
        Gateway(
            tmp_path,
            providers={
                "main": provider_settings(port, host="localhost"),
                "real": provider_settings(real.port),
            },
            routes=[
                {"name": "real", "sender": ["@real.test"], "providers": ["main", "real"]},
                {"name": "default", "providers": ["main"]},
            ],
            listeners=[{"bind": f"127.0.0.1:{port}"}],
        ) as gateway,
    ):
        queue_id = gateway.send("a@shop.test", ["b@cust.test"], MAIL)
        gateway.wait_for_log(rf"{queue_id}: .* status=deferred \(.*{WORDS}{port}")
        gateway.wait_for_log(rf"provider main is down \(.*{WORDS}{port}\)")
        gateway.send("a@real.test", ["b@cust.test"], MAIL)
        gateway.wait_until(lambda: len(real.messages) == 1, "the next provider has it")
        assert [one.queue_id for one in gateway.queue()] == [queue_id], "no copy came back"

        asked = ["check", "--config", str(gateway.config)]
        done = run_relaygw(asked, capture_output=True, text=True, check=False)
        assert done.returncode == os.EX_CONFIG
        is_own = f"error: providers.main.host: localhost:{port} is the listener 127.0.0.1:{port}"
        assert is_own in done.stderr
        done = run_relaygw([*asked, "--online"], capture_output=True, text=True, check=False)
        assert done.returncode == os.EX_CONFIG
        (failed,) = [one for one in done.stdout.splitlines() if "FAILED" in one]
        assert failed.startswith("provider main: EHLO     FAILED ")
        assert f"{WORDS}{port}; correct host and port of the provider" in failed


def test_another_gateway_of_the_same_name_beside_it_is_none(tmp_path: Path) -> None:
    for name in ("central", "spool"):
        (tmp_path / name).mkdir()
    with (
        ThreadedProvider() as real,
        Gateway(tmp_path / "central", providers={"main": provider_settings(real.port)}) as central,
        Gateway(
            tmp_path / "spool", providers={"main": provider_settings(central.smtp_port)}
        ) as spool,
    ):
        spool.send("a@shop.test", ["b@cust.test"], MAIL)
        spool.wait_until_empty()
        central.wait_until_empty()
        assert len(real.messages) == 1
        asked = ["check", "--online", "--config", str(spool.config)]
        done = run_relaygw(asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        (warned,) = [one for one in done.stdout.splitlines() if "warning" in one]
        assert warned.startswith(
            "provider main: EHLO     warning calls itself gw.test, as this gateway does; offers "
        )
