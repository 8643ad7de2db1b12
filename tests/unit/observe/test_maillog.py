"""The mail log: Postfix's grammar, one record a line, read by the real pflogsumm."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from relaygw.mail.envelope import NewRecipient, RecipientUpdate
from relaygw.mail.outcome import AttemptDelays
from relaygw.mail.state import RecipientState
from relaygw.observe.maillog import MailLog, escape
from tests.builders import NOW_MS, accepted, claimed


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(output: io.StringIO) -> MailLog:
    return MailLog(output, hostname="gw.example.com", with_subject=True)


def outcome(log: MailLog, state: RecipientState, reply: str) -> None:
    delivery = claimed(subject="Your order (7)")
    change = RecipientUpdate(rcpt_no=0, state=state, reply=reply, dsn="2.0.0", provider="p")
    line = log.outcome(
        delivery,
        change,
        relay="mx.test[1.2.3.4]:587",
        delays=AttemptDelays(queue_s=0.014, connect_s=12.3),
        now_ms=NOW_MS + 1500,
    )
    log.write([line])


def test_an_outcome_is_one_line_with_the_subject(log: MailLog, output: io.StringIO) -> None:
    outcome(log, RecipientState.DELIVERED, "250 2.0.0 Ok")
    (line,) = output.getvalue().splitlines()
    assert " gw relaygw/smtp[" in line
    assert (
        "to=<b@cust.test>, relay=mx.test[1.2.3.4]:587, delay=1.5, delays=0/0.014/12/0, "
        'dsn=2.0.0, status=sent (250 2.0.0 Ok), subject="Your order (7)"'
    ) in line


@pytest.mark.parametrize("text", ["a\r\nb", "a\x1b[31mb", "a\u2028b", "a\x00b", "a\x85b"])
def test_nothing_from_outside_starts_a_new_line(text: str) -> None:
    assert len(escape(text).splitlines()) == 1
    assert escape(text).isprintable()


def test_a_log_that_is_gone_never_stops_mail(log: MailLog, output: io.StringIO) -> None:
    output.close()
    log.note("master", "nobody hears this")


def test_pflogsumm_counts_what_happened(log: MailLog, output: io.StringIO, tmp_path: Path) -> None:
    captured = NewRecipient(address="c@x.test", state=RecipientState.CAPTURED, reason="staging")
    log.accepted([accepted(), accepted(captured)])
    outcome(log, RecipientState.DELIVERED, "250 2.0.0 Ok")
    outcome(log, RecipientState.DELIVERED, "250 2.0.0 Ok")
    outcome(log, RecipientState.PENDING, "451 4.3.0 later")
    outcome(log, RecipientState.BOUNCED, "550 5.1.1 no such user")
    file = tmp_path / "mail.log"
    file.write_text(output.getvalue())
    report = subprocess.run(
        ["pflogsumm", "--syslog-name=relaygw", str(file)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    totals = {
        words[1]: int(words[0])
        for line in report.splitlines()
        if len(words := line.split()) >= 2 and words[0].isdigit()
    }
    assert (totals["received"], totals["delivered"]) == (2, 2)
    assert (totals["deferred"], totals["bounced"]) == (1, 1)
