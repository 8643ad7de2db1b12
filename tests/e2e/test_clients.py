"""Real clients send through the gateway; the provider gets what they sent."""

from __future__ import annotations

import email
import subprocess
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path

import pytest

from tests.e2e.gateway import PATIENCE_S, Gateway, gateway_to
from tests.fakes.scripted_provider import ReceivedMessage, ThreadedProvider

CLIENTS = Path(__file__).parent / "clients"
SENDER = "bounces+42@shop.test"
RECIPIENTS = ("b@cust.test", "c@other.test")
BODY = b"Subject: swaks\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n.a line with a dot\r\n..\r\nend\r\n"


@pytest.fixture
def gateway(tmp_path: Path, provider: ThreadedProvider) -> Iterator[Gateway]:
    with gateway_to(provider, tmp_path) as gateway:
        yield gateway


def run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def only_message(provider: ThreadedProvider) -> ReceivedMessage:
    provider.wait_for_messages(1)
    (message,) = provider.messages
    assert message.sender == SENDER
    assert message.recipients == RECIPIENTS
    return message


def test_swaks_sends_and_the_provider_gets_the_same_bytes(
    gateway: Gateway, provider: ThreadedProvider, tmp_path: Path
) -> None:
    content = tmp_path / "mail.eml"
    content.write_bytes(BODY)
    port = str(gateway.smtp_port)

    where = ["--server", "127.0.0.1", "--port", port, "--helo", "client.test"]
    envelope = ["--from", SENDER, "--to", ",".join(RECIPIENTS)]
    run(["swaks", *where, *envelope, "--data", f"@{content}"])

    received = only_message(provider).content
    header, _, body = received.partition(b"\r\n\r\n")
    assert b"\r\nSubject: swaks" in header
    # swaks ends what it sends with a line end of its own
    assert body.rstrip(b"\r\n") == BODY.partition(b"\r\n\r\n")[2].rstrip(b"\r\n")


@pytest.mark.parametrize("script", ["phpmailer_smtp.php", "symfony_smtp.php"])
def test_php_mailer_sends(gateway: Gateway, provider: ThreadedProvider, script: str) -> None:
    said = run(["php", str(CLIENTS / script), str(gateway.smtp_port), SENDER, *RECIPIENTS])

    parsed = email.message_from_bytes(only_message(provider).content, policy=SMTPUTF8)
    assert isinstance(parsed, EmailMessage)
    assert parsed["Subject"] == "Bestellung größer"
    assert parsed["From"].addresses[0].display_name == "Käserei Müller"
    lines = parsed.get_content().splitlines()
    assert lines[:4] == ["Grüße", ".a line with a dot", ".", "end"]
    # the client read the queue id out of the reply, so it can be found in the gateway's log
    gateway.wait_for_log(rf"{said.strip()}: to=<c@other\.test>.*status=sent")
