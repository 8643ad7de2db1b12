"""PHP through the command and a gateway: the provider gets byte by byte what PHP handed over."""

from __future__ import annotations

import email
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.sendmail_rig import Installation
from tests.fakes.scripted_provider import ReceivedMessage, ThreadedProvider

CLIENTS = Path(__file__).parent / "clients"
SENDER = "bounces-42@shop.test"
TO, BCC = "b@cust.test", "hidden@cust.test"
LINES = ["Grüße", ".a line with a dot", ".", "end"]
# keeps what PHP writes, and hands it on as it comes
_TEE = '#!/bin/sh\ntee "{kept}" | "{sendmail}" "$@"\n'


@dataclass
class Way:
    """From a PHP script through the command to the provider."""

    command: Installation
    provider: ThreadedProvider

    @property
    def sendmail(self) -> Path:
        return self.command.root / "kept-sendmail"

    @property
    def handed_over(self) -> bytes:
        """What PHP wrote last."""
        return (self.command.root / "kept").read_bytes()

    def send(self, options: str, script: str, *words: str) -> ReceivedMessage:
        """Run a script that sends one message; return it as the provider got it."""
        count = len(self.provider.messages)
        path = f"sendmail_path={self.sendmail} {options}"
        done = subprocess.run(
            ["php", "-d", path, str(CLIENTS / script), *words],
            env=self.command.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "sent\n", "")
        self.provider.wait_for_messages(count + 1)
        (message,) = self.provider.messages[count:]
        return message


@pytest.fixture(scope="module")
def way(installed: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    installed.clear()
    maildrop = {"path": str(installed.maildrop)}
    with ThreadedProvider() as provider:
        way = Way(installed, provider)
        way.sendmail.write_text(
            _TEE.format(kept=installed.root / "kept", sendmail=installed.sendmail)
        )
        way.sendmail.chmod(0o755)
        main = {"main": provider_settings(provider.port)}
        with Gateway(tmp_path_factory.mktemp("php"), providers=main, maildrop=maildrop) as gateway:
            gateway.wait_until((installed.maildrop / "wake").exists, "a front at the maildrop")
            yield way


def check_envelope(message: ReceivedMessage) -> None:
    """See who gets it, and that nobody learns of the hidden one."""
    assert message.sender == SENDER
    assert sorted(message.recipients) == sorted((TO, BCC))
    assert b"hidden" not in message.content
    assert b"\nbcc" not in message.content.lower()


def check_body(message: ReceivedMessage, handed_over: bytes) -> None:
    """See that every byte behind the header arrives, as lines that end with CRLF."""
    body = message.content.partition(b"\r\n\r\n")[2]
    assert body == handed_over.replace(b"\r\n", b"\n").partition(b"\n\n")[2].replace(b"\n", b"\r\n")
    parsed = email.message_from_bytes(message.content, policy=SMTPUTF8)
    assert isinstance(parsed, EmailMessage)
    assert parsed.get_content().splitlines()[:4] == LINES
    assert "größer" in parsed["Subject"]


@pytest.mark.parametrize(
    "words",
    [
        ("mail.php", SENDER, TO, BCC),
        ("phpmailer_sendmail.php", "mail", SENDER, TO, BCC),
        ("phpmailer_sendmail.php", "sendmail", SENDER, TO, BCC),
        ("symfony_sendmail.php", "native://default", "1", SENDER, TO, BCC),
    ],
    ids=["mail", "phpmailer-mail", "phpmailer-sendmail", "symfony-native"],
)
def test_on_stdin(way: Way, words: tuple[str, ...]) -> None:
    message = way.send("-t -i", *words)
    check_envelope(message)
    check_body(message, way.handed_over)


@pytest.mark.parametrize("dsn", ["native://default", "sendmail://default?command="])
def test_by_smtp_on_stdin(way: Way, dsn: str) -> None:
    if dsn.endswith("="):
        dsn += quote(f"{way.sendmail} -bs", safe="")
    message = way.send("-bs", "symfony_sendmail.php", dsn, "1", SENDER, TO, BCC)
    check_envelope(message)
    data = way.handed_over.partition(b"DATA\r\n")[2].partition(b"\r\n.\r\n")[0] + b"\r\n"
    assert b"\r\n.." in data
    check_body(message, data.replace(b"\r\n.", b"\r\n"))


def test_a_script_that_masks_dots(way: Way) -> None:
    """Symfony doubles dots at line starts when sendmail_path has no -i."""
    words = ("symfony_sendmail.php", "native://default", "1", SENDER, TO, BCC)
    message = way.send("-t", *words)
    check_envelope(message)
    assert b"\n.." in way.handed_over
    check_body(message, way.handed_over.replace(b"\n..", b"\n."))
