"""`relaygw send-test` against a real gateway and a real provider."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw


def send_test(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = ["send-test", "--config", str(config), *words]
    environ = {**os.environ, "COLUMNS": "80"}
    return run_relaygw(argv, capture_output=True, text=True, check=False, env=environ)


def test_captured_in_a_sandbox(tmp_path: Path) -> None:
    with Gateway(tmp_path, mode="sandbox") as gateway:
        done = send_test(gateway.config, "--to", "b@cust.test", "--from", "a@shop.test")
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert first.endswith(": accepted from a@shop.test to b@cust.test")
    assert last.endswith(": b@cust.test captured: sandbox mode")


@pytest.mark.parametrize(
    ("verb", "reply", "exit_code", "words", "last"),
    [
        (
            "CONTENT",
            b"250 2.0.0 Ok: queued as 4F9D195432C\r\n",
            0,
            "b@cust.test delivered by main: 250 2.0.0 Ok: queued as 4F9D195432C",
            "queue id at main: 4F9D195432C",
        ),
        (
            "CONTENT",
            b"250 Great success\r\n",
            0,
            "b@cust.test delivered by main: 250 Great success",
            "b@cust.test delivered by main: 250 Great success",
        ),
        (
            "RCPT",
            b"550 5.1.1 no such user\r\n",
            69,
            "b@cust.test bounced by main: 550 5.1.1 no such user",
            "remedy: ",
        ),
        (
            "RCPT",
            b"451 4.3.0 later\r\n",
            75,
            "deferred on route default, next try",
            ": ",
        ),
    ],
)
def test_watched_until_it_ends(
    tmp_path: Path, verb: str, reply: bytes, exit_code: int, words: str, last: str
) -> None:
    retry = {"first": "1h", "max": "1h", "jitter": "0%"}
    with ThreadedProvider() as provider:
        provider.script(verb, reply)
        providers = {"main": provider_settings(provider.port)}
        with Gateway(tmp_path, providers=providers, retry=retry) as gateway:
            done = send_test(gateway.config, "--to", "b@cust.test", "--from", "a@shop.test")
    assert done.returncode == exit_code, done.stderr
    assert words in done.stdout
    assert last in done.stdout.splitlines()[-1]
    if exit_code == 0:
        (message,) = provider.messages
        assert b"Subject: Test from relaygw on gw.test\r\n" in message.content
    else:
        assert ": meaning: " in done.stdout


def test_what_the_front_refuses(tmp_path: Path) -> None:
    recipients = {"block": ["@spam.test"], "blocked": "reject"}
    with Gateway(tmp_path, mode="sandbox", recipients=recipients) as gateway:
        done = send_test(gateway.config, "--to", "b@spam.test")
    assert done.returncode == 69
    assert "the front refused the recipient b@spam.test: 550 5.7.1" in done.stderr


def test_a_full_disk_is_no_fault_of_the_sender(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, mode="sandbox")
    gateway.settings["queue"]["min_free"] = "100%"
    with gateway:
        done = send_test(gateway.config, "--to", "b@cust.test")
    assert done.returncode == 75
    assert "the front refused the test, as it would any mail now: 452 4.3.1" in done.stderr


def test_still_queued_when_the_time_is_up(tmp_path: Path) -> None:
    with ThreadedProvider() as provider:
        providers = {"main": provider_settings(provider.port)}
        gateway = Gateway(tmp_path, providers=providers)
        try:
            gateway.start("--role", "front")
            done = send_test(gateway.config, "--to", "b@cust.test", "--timeout", "0")
        finally:
            gateway.__exit__()
    assert done.returncode == 75
    assert "still queued; check later: relaygw queue show" in done.stderr


def test_no_front(tmp_path: Path) -> None:
    with Gateway(tmp_path, mode="sandbox") as gateway:
        gateway.stop()
        done = send_test(gateway.config, "--to", "b@cust.test")
    assert done.returncode == 69
    assert "start it: relaygw serve" in done.stderr


def test_another_server_on_the_port_is_recognised(tmp_path: Path) -> None:
    with ThreadedProvider() as other:
        gateway = Gateway(tmp_path, mode="sandbox", listeners=[{"bind": f"127.0.0.1:{other.port}"}])
        gateway.write_config()
        run_relaygw(
            ["--config", str(gateway.config), "db", "upgrade"],
            check=True,
            capture_output=True,
        )
        done = send_test(gateway.config, "--to", "b@cust.test")
    assert done.returncode == 69
    assert "is not relaygw" in done.stderr


def test_a_bad_address_is_a_data_error(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, mode="sandbox")
    gateway.write_config()
    done = send_test(gateway.config, "--to", "b@")
    assert done.returncode == 65
    assert "--to 'b@' is not an address" in done.stderr
