"""PHP's ways to sendmail, each through the real library, and -bs as any client speaks it."""

from __future__ import annotations

import email
import subprocess
from email.message import EmailMessage
from email.policy import SMTPUTF8
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.sendmail_rig import PATIENCE_S, Drop, Installation

CLIENTS = Path(__file__).parent / "clients"
SENDER = "bounces-42@shop.test"  # PHPMailer gives no -f for one with a plus
TO, BCC = "b@cust.test", "hidden@cust.test"
LINES = ["Grüße", ".a line with a dot", ".", "end"]


def run_php(command: Installation, options: str, script: str, *words: str) -> str:
    php = ["php", "-d", f"sendmail_path={command.sendmail} {options}", str(CLIENTS / script)]
    done = subprocess.run(
        [*php, *words],
        env=command.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def check_message(drop: Drop, *, sender: str = SENDER) -> None:
    assert drop.sender == sender.encode()
    assert drop.recipients == [TO.encode(), BCC.encode()]
    assert b"bcc:" not in drop.content.lower()
    assert b"hidden" not in drop.content
    parsed = email.message_from_bytes(drop.content, policy=SMTPUTF8)
    assert isinstance(parsed, EmailMessage)
    assert "größer" in parsed["Subject"]
    assert parsed["From"].addresses[0].addr_spec == "shop@shop.test"
    assert parsed.get_content().splitlines()[:4] == LINES


def test_mail(command: Installation) -> None:
    assert run_php(command, "-t -i", "mail.php", SENDER, TO, BCC) == "sent\n"
    check_message(command.only_drop())


def test_mail_without_a_sender(command: Installation) -> None:
    assert run_php(command, "-t -i", "mail.php", "", TO, BCC) == "sent\n"
    drop = command.only_drop()
    assert b"@" not in drop.sender
    check_message(drop, sender=drop.sender.decode())


def test_mail_learns_of_a_failure(command: Installation) -> None:
    with pytest.raises(AssertionError, match="failed"):
        run_php(command, "-t -i", "mail.php", SENDER, "", "")
    assert command.drops() == []


@pytest.mark.parametrize("way", ["mail", "sendmail"])
def test_phpmailer(command: Installation, way: str) -> None:
    said = run_php(command, "-t -i", "phpmailer_sendmail.php", way, SENDER, TO, BCC)
    assert said == "sent\n"
    check_message(command.only_drop())


@pytest.mark.parametrize("options", ["-t -i", "-t", "-bs"])
def test_symfony_native(command: Installation, options: str) -> None:
    words = ["native://default", "1", SENDER, TO, BCC]
    assert run_php(command, options, "symfony_sendmail.php", *words) == "sent\n"
    check_message(command.only_drop())


@pytest.mark.parametrize("options", ["-bs", "-bs -i", "-t -i", "-t"])
def test_symfony_sendmail(command: Installation, options: str) -> None:
    dsn = f"sendmail://default?command={quote(f'{command.sendmail} {options}', safe='')}"
    assert run_php(command, "-t", "symfony_sendmail.php", dsn, "3", SENDER, TO, BCC) == "sent\n"
    drops = command.drops()
    assert len(drops) == 3
    for drop in drops:
        check_message(drop)


class Dialogue:
    """`sendmail -bs`, spoken to line by line."""

    def __init__(self, command: Installation, maildrop: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [command.sendmail, "-bs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command.environment(maildrop),
        )
        self.greeting = self.reply()

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=PATIENCE_S)

    def reply(self) -> str:
        assert self.process.stdout is not None
        while True:
            line = self.process.stdout.readline().decode()
            if line[3:4] != "-":
                return line.removesuffix("\r\n")

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        self.send(f"{line}\r\n".encode())
        return self.reply()

    def begin(self, *recipients: str) -> None:
        assert self.ask("HELO client.test").startswith("250 ")
        assert self.ask("MAIL FROM:<s@ok.test>") == "250 2.1.0 Ok"
        for recipient in recipients or ("r@rd.test",):
            assert self.ask(f"RCPT TO:<{recipient}>") == "250 2.1.5 Ok"
        assert self.ask("DATA").startswith("354 ")


def test_a_session(command: Installation) -> None:
    with Dialogue(command) as session:
        assert session.greeting.startswith("220 ")
        assert session.ask("EHLO client.test") == "250 SMTPUTF8"
        assert session.ask("VRFY x").startswith("252 ")
        session.begin("a@rd.test", "b@rd.test")
        answer = session.ask("Bcc: x@rd.test\r\nSubject: x\r\n\r\n..two\r\n.")
        assert answer.startswith("250 2.0.0 Ok: queued as ")
        drop = command.only_drop()  # it was there before the reply
        assert drop.path.name[:20].upper() == answer.split()[-1]
        assert (drop.sender, drop.recipients) == (b"s@ok.test", [b"a@rd.test", b"b@rd.test"])
        assert drop.content == b"From: s@ok.test\r\nSubject: x\r\n\r\n.two\r\n"
        assert session.ask("MAIL FROM:<>") == "250 2.1.0 Ok"
        assert session.ask("RSET") == "250 2.0.0 Ok"
        assert session.ask("NOOP") == "250 2.0.0 Ok"
        assert session.ask("QUIT") == "221 2.0.0 Bye"
        assert session.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["MAIL FROM:<a@x.test>"], "503 5.5.1"),
        (["HELO"], "501 5.5.4"),
        (["EHLO c", "RCPT TO:<a@x.test>"], "503 5.5.1"),
        (["EHLO c", "MAIL FROM:<a@x.test>", "DATA"], "554 5.5.1"),
        (["EHLO c", "MAIL FROM:<a@x.test>", "MAIL FROM:<a@x.test>"], "503 5.5.1"),
        (["EHLO c", "MAIL FROM:<a@x.test> SIZE=99999999999"], "552 5.3.4"),
        (["EHLO c", "MAIL FROM:<a@x.test> FOO=1"], "555 5.5.4"),
        (["EHLO c", "MAIL FROM:<a@x.test> BODY=8BITMIME SIZE=100"], "250 2.1.0"),
        (["EHLO c", "MAIL FROM:<ä@x.test>"], "553 5.6.7"),
        (["EHLO c", "MAIL FROM:<ä@x.test> SMTPUTF8", "RCPT TO:<ö@x.test>"], "250 2.1.5"),
        (["EHLO c", "MAIL FROM:<a@x.test", "NOOP"], "250 2.0.0"),
        (["EHLO c", "MAIL FROM:a@x.test"], "501 5.1.7"),
        (["EHLO c", "MAIL FROM:<>", "RCPT TO:<>"], "501 5.1.3"),
        (["EHLO c", "MAIL FROM:<>", "RCPT TO:<r@rd.test,x@other.test>"], "501 5.1.3"),
        (["EHLO c", "MAIL FROM:<>", "RCPT TO:<-oX@rd.test>"], "501 5.1.3"),
        (["EHLO c", "MAIL FROM:<>", "RCPT TO:<a@x.test> NOTIFY=NEVER"], "555 5.5.4"),
        (["EHLO c", "MAIL FROM:<>", "RCPT TO:<postmaster>"], "250 2.1.5"),
        (["BDAT 10"], "502 5.5.1"),
        (["FOO"], "500 5.5.2"),
        (["NOOP\n"], "250 2.0.0"),
        (["NOOP", "NOOP\n"], "501 5.5.2"),
        (["x" * 3000], "500 5.5.2"),
    ],
)
def test_replies(command: Installation, lines: list[str], expected: str) -> None:
    with Dialogue(command) as session:
        for line in lines[:-1]:
            session.ask(line)
        last = lines[-1]
        if last.endswith("\n"):
            session.send(last.encode())
            assert session.reply().startswith(expected)
        else:
            assert session.ask(last).startswith(expected)
    assert command.drops() == []


_EVIL = b"MAIL FROM:<evil@x>\r\nRCPT TO:<r@rd.test>\r\nDATA\r\nX\r\n.\r\n"


@pytest.mark.parametrize(
    "end",
    [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n.\x00\r\n",
     b"\r\n.\r\r\n"],
)  # fmt: skip
def test_only_crlf_dot_crlf_ends_a_message(command: Installation, end: bytes) -> None:
    with Dialogue(command) as session:
        session.begin()
        session.send(b"From: s@x.test\r\n\r\nA" + end + _EVIL)
        assert session.reply().startswith("250 2.0.0 Ok: queued as ")
        assert session.ask("QUIT").startswith("221")
    assert b"MAIL FROM:<evil@x>\r\n" in command.only_drop().content


def test_a_client_that_leaves(command: Installation) -> None:
    with Dialogue(command) as session:
        session.begin()
        session.send(b"Subject: x\r\n\r\nhalf a mess")
        assert session.process.stdin is not None
        session.process.stdin.close()
        session.process.stdin = None
        assert session.process.wait(PATIENCE_S) == 75
    assert command.drops() == []


def test_no_maildrop_is_a_temporary_trouble(command: Installation) -> None:
    with Dialogue(command, command.root / "missing") as session:
        session.begin()
        assert session.ask("Subject: x\r\n\r\nx\r\n.").startswith("451 4.3.0")
        assert session.ask("QUIT").startswith("221")
