"""Programs that people and cron send with: what they hand over is what the provider gets."""

from __future__ import annotations

import email
import subprocess
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.state import DeliveryState, RecipientState
from tests.e2e.gateway import PATIENCE_S, Gateway, gateway_to
from tests.e2e.sendmail_rig import Installation
from tests.fakes.scripted_provider import ReceivedMessage, ThreadedProvider

SENDER = "bounces@shop.test"
TO, CC, BCC = "b@cust.test", "c@cust.test", "hidden@cust.test"
BODY = b"Gr\xc3\xbc\xc3\x9fe\n.a line with a dot\n.\n..\nFrom here on\n\nend\n"
WIRE_BODY = BODY.replace(b"\n", b"\r\n")

# as Debian's cron writes it, with an 8-bit body and a line that is a single dot
CRON_HEADER = b"""From: root (Cron Daemon)
To: root
Subject: Cron <root@web1> /usr/local/bin/report
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit
X-Cron-Env: <SHELL=/bin/sh>

"""
CRON_WORDS = ("-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root")


def gateway_at(
    command: Installation, directory: Path, provider: ThreadedProvider, **sections: Any
) -> Gateway:
    return gateway_to(provider, directory, maildrop={"path": str(command.maildrop)}, **sections)


def run(command: Installation, home: Path, *words: str, content: bytes = BODY) -> None:
    """Run a mail program with nothing of this machine's settings."""
    surroundings = {"HOME": str(home), "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    done = subprocess.run(
        words,
        input=content,
        env=command.environment() | surroundings,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def only_message(provider: ThreadedProvider) -> ReceivedMessage:
    provider.wait_for_messages(1)
    (message,) = provider.messages
    return message


def parsed(message: ReceivedMessage) -> EmailMessage:
    found = email.message_from_bytes(message.content, policy=SMTPUTF8)
    assert isinstance(found, EmailMessage)
    return found


def check_message(message: ReceivedMessage, *, author: str = "shop@shop.test") -> None:
    """See that the envelope, the addresses shown and every byte of the body are as given."""
    assert message.sender == SENDER
    assert sorted(message.recipients) == sorted((TO, CC, BCC))
    header, _, body = message.content.partition(b"\r\n\r\n")
    assert b"hidden" not in header
    assert b"\nbcc" not in header.lower()
    assert body == WIRE_BODY
    fields = parsed(message)
    assert [one.addr_spec for one in fields["To"].addresses] == [TO]
    assert [one.addr_spec for one in fields["Cc"].addresses] == [CC]
    assert [one.addr_spec for one in fields["From"].addresses] == [author]
    assert fields["Subject"] == "Bestellung größer"


def test_s_nail(command: Installation, provider: ThreadedProvider, tmp_path: Path) -> None:
    options = (f"mta={command.sendmail}", "v15-compat", "mime-encoding=8bit", "nosave")
    words = ["s-nail", "-:/", *(word for option in options for word in ("-S", option))]
    words += ["-r", SENDER]  # for the envelope and for From
    words += ["-s", "Bestellung größer", "-b", BCC, "-c", CC, TO]
    with gateway_at(command, tmp_path, provider):
        run(command, tmp_path, *words)
        check_message(only_message(provider), author=SENDER)


def test_mutt(command: Installation, provider: ThreadedProvider, tmp_path: Path) -> None:
    settings = [
        f"set sendmail='{command.sendmail} -oem -oi'",
        f"set from=shop@shop.test use_envelope_from=yes envelope_from_address={SENDER}",
        "set copy=no charset=utf-8 send_charset=utf-8 allow_8bit=yes",
    ]
    words = [word for setting in settings for word in ("-e", setting)]
    words += ["-s", "Bestellung größer", "-b", BCC, "-c", CC, "--", TO]
    with gateway_at(command, tmp_path, provider):
        run(command, tmp_path, "mutt", "-n", "-F", "/dev/null", *words)
        check_message(only_message(provider))


def test_msmtp_speaks_smtp(
    command: Installation, provider: ThreadedProvider, tmp_path: Path
) -> None:
    header = f"From: shop@shop.test\nTo: {TO}\nCc: {CC}\nBcc: {BCC}\n"
    header += "Subject: Bestellung größer\nContent-Type: text/plain; charset=utf-8\n\n"
    with gateway_at(command, tmp_path, provider) as gateway:
        words = ["msmtp", "-C", "/dev/null", "--host=127.0.0.1", f"--port={gateway.smtp_port}"]
        words += [f"--from={SENDER}", "--tls=off", "--auth=off", "-t"]
        run(command, tmp_path, *words, content=header.encode() + BODY)
        check_message(only_message(provider))


@pytest.mark.parametrize("sender", [SENDER, ""])
def test_php_through_msmtp(
    command: Installation, provider: ThreadedProvider, tmp_path: Path, sender: str
) -> None:
    """A container without relaygw, as docs/magento.md has it."""
    script = str(Path(__file__).parent / "clients" / "mail.php")
    with gateway_at(command, tmp_path, provider) as gateway:
        msmtprc = tmp_path / "msmtprc"
        msmtprc.write_text(f"host 127.0.0.1\nport {gateway.smtp_port}\nfrom shop@shop.test\n")
        words = ["php", "-d", f"sendmail_path=msmtp -C {msmtprc} -t -i", script]
        done = subprocess.run(
            [*words, sender, TO, BCC], capture_output=True, timeout=PATIENCE_S, check=False
        )
        assert (done.stdout, done.stderr) == (b"sent\n", b"")
        message = only_message(provider)
    assert message.sender == (sender or "shop@shop.test")
    assert sorted(message.recipients) == sorted((TO, BCC))
    assert b"hidden" not in message.content


@pytest.mark.parametrize(
    ("rewrite", "recipient", "sender"),
    [
        ({"default_domain": "shop.test"}, "root@shop.test", "{login}@shop.test"),
        ({"recipients": {"root": "ops@agency.test"}}, "ops@agency.test", "{login}@gw.test"),
        (
            {"default_domain": "shop.test", "recipients": {"root@shop.test": "ops@agency.test"}},
            "ops@agency.test",
            "{login}@shop.test",
        ),
    ],
)
def test_mail_of_cron(
    command: Installation,
    provider: ThreadedProvider,
    tmp_path: Path,
    rewrite: dict[str, Any],
    recipient: str,
    sender: str,
) -> None:
    login = subprocess.check_output(["id", "-un"], text=True).strip()
    with gateway_at(command, tmp_path, provider, rewrite=rewrite):
        assert command.run(*CRON_WORDS, content=CRON_HEADER + BODY).returncode == 0
        message = only_message(provider)
    assert message.sender == sender.format(login=login)
    assert message.recipients == (recipient,)
    assert message.content.partition(b"\r\n\r\n")[2] == WIRE_BODY
    assert parsed(message)["Subject"] == "Cron <root@web1> /usr/local/bin/report"


def test_mail_of_cron_without_a_rule_is_captured_and_said(
    command: Installation, provider: ThreadedProvider, tmp_path: Path
) -> None:
    with gateway_at(command, tmp_path, provider) as gateway:
        assert command.run(*CRON_WORDS, content=CRON_HEADER + BODY).returncode == 0
        gateway.wait_for_log(r"to=<root>.*status=captured \(local recipient without a rule; set ")
        (entry,) = gateway.queue(frozenset(DeliveryState))
        assert [one.state for one in entry.recipients] == [RecipientState.CAPTURED]
        assert gateway.content(entry.queue_id).endswith(b"\r\n\r\n" + WIRE_BODY)
    assert not provider.messages
