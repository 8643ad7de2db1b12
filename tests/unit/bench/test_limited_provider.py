"""The provider with limits refuses what is too much, journals it, and outlives its restarts."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.rig.limited_provider import LimitedProvider
from bench.rig.limited_terms import USER, Terms

PATIENCE_S = 90.0


def kinds(provider: LimitedProvider, *wanted: str) -> list[tuple[str, str]]:
    return [(each.kind, each.bench_id) for each in provider.events() if each.kind in wanted]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def connect(provider: LimitedProvider) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", provider.port, local_hostname="test", timeout=PATIENCE_S)


def send(client: smtplib.SMTP, bench_id: str) -> int:
    """Return the code of the answer to the final dot."""
    try:
        client.sendmail("a@x.test", ["b@y.test"], f"X-Bench-Id: {bench_id}\r\n\r\n.\r\n")
    except smtplib.SMTPDataError as error:
        return error.smtp_code
    return 250


def test_what_is_over_the_rate_is_refused_at_the_dot(tmp_path: Path) -> None:
    terms = Terms(rate_per_s=0.001, reply_delay_s=0.0)
    with LimitedProvider(tmp_path, "p", terms) as provider, connect(provider) as client:
        assert [send(client, "one"), send(client, "two")] == [250, 454]
        assert kinds(provider, "taken", "accepted", "refused") == [
            ("taken", "one"),
            ("accepted", "one"),
            ("taken", "two"),
            ("refused", "two"),
        ]


def test_a_connection_too_many_is_turned_away_until_one_ends(tmp_path: Path) -> None:
    with LimitedProvider(tmp_path, "p", Terms(connections=1)) as provider:
        with connect(provider), pytest.raises(smtplib.SMTPConnectError, match="421"):
            connect(provider)
        wait_until(lambda: len(kinds(provider, "closed")) == 2)
        with connect(provider) as client:
            assert send(client, "one") == 250
        assert len(kinds(provider, "turned-away")) == 1


def test_a_revoked_key_ends_its_sessions_and_logs_in_nobody(tmp_path: Path) -> None:
    with LimitedProvider(tmp_path, "p", Terms(password="old")) as provider:
        with connect(provider) as stranger, pytest.raises(smtplib.SMTPResponseException):
            send(stranger, "one")
        client = connect(provider)
        client.login(USER, "old")
        assert send(client, "two") == 250
        provider.change(Terms(password="new"))
        wait_until(lambda: client.noop()[0] == 421)
        client.close()
        with connect(provider) as late, pytest.raises(smtplib.SMTPAuthenticationError):
            late.login(USER, "old")
        with connect(provider) as fresh:
            fresh.login(USER, "new")
            assert send(fresh, "three") == 250
        assert kinds(provider, "cut", "login-refused") == [("cut", ""), ("login-refused", "")]


def test_a_killed_provider_leaves_what_it_had_in_doubt_and_comes_back(tmp_path: Path) -> None:
    with LimitedProvider(tmp_path, "p", Terms(reply_delay_s=PATIENCE_S)) as provider:
        client = connect(provider)
        client.ehlo()
        for command in (b"MAIL FROM:<>", b"RCPT TO:<b@y.test>", b"DATA"):
            client.docmd(command.decode())
        client.send(b"X-Bench-Id: one\r\n\r\nx\r\n.\r\n")
        wait_until(lambda: bool(kinds(provider, "taken")))
        provider.kill()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.getreply()
        client.close()
        provider.start()
        with connect(provider) as again:
            assert again.noop()[0] == 250
        assert kinds(provider, "taken", "accepted") == [("taken", "one")]
