from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relaygw.cli import main
from relaygw.cli.classify import mail_words
from relaygw.mail.outcome import Limit, Meaning, Scope, Verdict
from relaygw.upstream.classifier import PlacedRow, catalogue, rules_by_stage

CONFIG = """\
mode: sandbox
providers:
  orders:
    host: smtp.example.net
    replies:
      - {code: "550", text: burst, verdict: throttle, wait: [10s, 1m], remedy: Send slower.}
  ses: {host: smtp.example.net}
"""


def classify(*words: str, config: Path | None = None) -> Result:
    environ = {"COLUMNS": "200", "RELAYGW_CONFIG": str(config) if config else None}
    return CliRunner().invoke(main, ["classify", *words], env=environ)


def as_object(*words: str, config: Path | None = None) -> dict[str, Any]:
    result = classify("--json", *words, config=config)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "relaygw.yaml"
    file.write_text(CONFIG)
    return file


def test_a_preset_needs_no_configuration() -> None:
    result = classify("ses", "454 Throttling failure: Maximum sending rate exceeded.")
    assert result.exit_code == 0
    lines = {line[:12].strip(): line[12:] for line in result.stdout.splitlines()}
    assert lines["reply"] == "454 Throttling failure: Maximum sending rate exceeded."
    assert lines["stage"] == "content (assumed; use --stage for another)"
    assert lines["meaning"] == "throttle (provider, rate)"
    assert lines["mail"].startswith("stays in the queue, no attempt is counted; relaygw sends slow")
    assert lines["wait"] == "5s, 10s, then 30s each time"
    assert lines["remedy"].startswith("Set rate")
    assert lines["source"].startswith("docs.aws.amazon.com")


def test_a_verdict_that_differs_by_stage_is_said() -> None:
    reply = "550 5.1.1 no such user"
    assert "elsewhere   at mail: hold (sender domain)" in classify("generic", reply).stdout
    assert "elsewhere   at auth: hold (credential)" in classify("generic", reply).stdout
    at_rcpt = classify("generic", reply, "--stage", "rcpt").stdout
    assert "elsewhere" not in at_rcpt
    assert "assumed" not in at_rcpt
    assert "meaning     bounce (recipient)" in at_rcpt


def test_a_provider_of_the_configuration_has_its_own_rows(config: Path) -> None:
    found = as_object("orders", "550 5.7.1 burst", config=config)
    assert (found["verdict"], found["scope"], found["limit"]) == ("throttle", "provider", "rate")
    assert found["wait_s"] == [10, 60]
    assert found["remedy"] == "Send slower."
    assert found["source"] is None


def test_a_name_in_the_configuration_is_not_the_preset(config: Path) -> None:
    line = "554 Message rejected: Sending paused for this account"
    assert as_object("ses", line)["verdict"] == "hold"
    assert as_object("ses", line, config=config)["verdict"] == "retry"


def test_a_preset_needs_no_readable_configuration(tmp_path: Path) -> None:
    broken = tmp_path / "relaygw.yaml"
    broken.write_text("mode: nonsense\n")
    assert classify("gmail", "421 4.4.5 Server busy", config=broken).exit_code == 0
    assert classify("orders", "421 4.4.5 Server busy", config=broken).exit_code == 78
    named = classify("gmail", "421 4.4.5 Server busy", "--config", str(broken))
    assert named.exit_code == 78


@pytest.mark.parametrize(
    "reply",
    [
        "550-5.4.5 Daily user sending\n550 5.4.5 limit exceeded.",
        "550-5.4.5 Daily user sending\r\n550 5.4.5 limit exceeded.\r\n",
        "550-5.4.5 Daily user sending 550 5.4.5 limit exceeded.",
    ],
)
def test_replies_of_several_lines(reply: str) -> None:
    found = as_object("gmail", reply)
    assert (found["code"], found["status"], found["verdict"]) == (550, "5.4.5", "hold")


@pytest.mark.parametrize(
    "reply", ["hello", "", "454-more", "199 no", "250 a\n250 b", "550-a\n551 b"]
)
def test_what_is_no_reply_is_a_data_error(reply: str) -> None:
    result = classify("generic", reply)
    assert result.exit_code == 65
    assert "such as '451 4.3.0 Try again later'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unknown_name_is_told_what_there_is(config: Path) -> None:
    result = classify("order", "450 x", config=config)
    assert result.exit_code == 64
    assert "write one of orders, ses, sendgrid" in result.stderr


def test_delivered_and_unknown() -> None:
    assert as_object("generic", "250 2.0.0 Ok: queued as 1")["verdict"] == "delivered"
    assert as_object("generic", "250 2.0.0 Ok", "--stage", "data")["verdict"] == "retry"


def test_there_are_words_for_every_meaning_that_a_row_can_have() -> None:
    for rows in catalogue().values():
        for rules in rules_by_stage(PlacedRow("", row) for row in rows).values():
            for rule in rules:
                assert mail_words(rule.meaning)
    for scope in (Scope.PROVIDER, Scope.CREDENTIAL, Scope.MESSAGE, Scope.RECIPIENT):
        assert mail_words(Meaning(verdict=Verdict.RETRY, scope=scope))
    for limit in Limit:
        assert mail_words(Meaning(verdict=Verdict.THROTTLE, scope=Scope.CREDENTIAL, limit=limit))


def test_the_row_that_decided_is_named(config: Path) -> None:
    own = classify("orders", "550 burst", config=config).stdout
    assert "rule        providers.orders.replies, row 1 (relaygw.yaml:6)" in own
    file = (files("relaygw.upstream") / "replies.yaml").read_text().splitlines()
    for provider, reply, section in (
        ("ses", "454 Throttling failure: Maximum sending rate exceeded.", "ses"),
        ("gmail", "550 5.4.5 Daily user sending limit exceeded.", "gmail workspace"),
        ("ses", "550 5.1.1 no such user", "generic"),
    ):
        found = as_object(provider, reply)
        match = re.fullmatch(rf"{section}, row \d+ \(replies\.yaml:(\d+)\)", found["rule"])
        assert match is not None, found["rule"]
        row = "\n".join(file[int(match[1]) - 1 :]).partition("\n  - ")[0]
        assert found["explanation"] in row


def test_a_reply_that_no_row_knows_is_told_as_such() -> None:
    found = as_object("generic", "554 zzz", "--stage", "rcpt")
    assert (found["rule"], found["verdict"]) == ("none", "retry")
    assert "tried again" in found["explanation"]


@pytest.mark.parametrize(
    ("reply", "stage"),
    [
        ("550 5.7.1 spam", "content"),
        ("550 5.2.1 The mailbox is disabled", "rcpt"),
        ("550 5.1.7 a sender like that", "rcpt"),
        ("550 zzz", "content"),
    ],
)
def test_the_stage_that_is_assumed_is_one_where_the_reply_is_known(reply: str, stage: str) -> None:
    assert (
        f"stage       {stage} (assumed; use --stage for another)"
        in classify("generic", reply).stdout
    )
