"""The sendmail command whose stdin cannot be read: one line on stderr, and nothing on disk."""

from __future__ import annotations

import os
import re
import socket
import struct

import pytest

from tests.e2e.sendmail_rig import Installation


@pytest.mark.parametrize("words", [["-i", "a@x.test"], ["-bs"]], ids=["message", "dialogue"])
def test_stdin_that_cannot_be_read(command: Installation, words: list[str]) -> None:
    stdin, terminal = os.openpty()
    os.close(terminal)  # whoever reads from the other side gets EIO
    done = command.run(*words, stdin=stdin)
    os.close(stdin)
    (said,) = done.stderr.decode().splitlines()
    assert re.fullmatch(r"sendmail: cannot read (the message|from stdin): Input/output error", said)
    assert done.returncode == 66
    assert command.drops() == []


@pytest.mark.parametrize("words", [["-i", "a@x.test"], ["-bs"]], ids=["message", "dialogue"])
def test_a_connection_for_stdin_that_is_reset(command: Installation, words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        stdin, _ = server.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        done = command.run(*words, stdin=stdin.fileno())
        stdin.close()
    assert done.returncode == (0 if words == ["-bs"] else 66)
    assert b"internal error" not in done.stderr
    assert command.drops() == []


_CONTENT = b"Subject: piped\n\n..stuffed\nlast\n.\n"


def _piped(*recipients: bytes, content: bytes = _CONTENT, end: bytes = b"QUIT\n") -> bytes:
    to = b"".join(b"RCPT TO:<%s>\n" % one for one in recipients)
    return b"EHLO x.test\nMAIL FROM:<s@ok.test>\n" + to + b"DATA\n" + content + end


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_a_session_that_is_piped_in_at_once(command: Installation, line_end: bytes) -> None:
    session = _piped(b"a@rd.test", end=b"RSET\n") + _piped(b"b@rd.test")
    done = command.run("-bs", content=session.replace(b"\n", line_end))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"250 2.0.0 Ok: queued as ") == 2
    drops = command.drops()
    assert sorted(drop.recipients for drop in drops) == [[b"a@rd.test"], [b"b@rd.test"]]
    for drop in drops:
        assert drop.content.endswith(line_end.join((b"", b".stuffed", b"last", b"")))


def test_text_of_strangers_ends_nothing(command: Installation) -> None:
    """Shops stuff the dots of lines that end with CRLF, and no others."""
    smuggled = b"x\n.\nMAIL FROM:<evil@ok.test>\nRCPT TO:<v@rd.test>\nDATA\ny\n.\nz\r\n.\r\n"
    session = _piped(b"a@rd.test", content=b"", end=b"").replace(b"\n", b"\r\n")
    done = command.run("-bs", content=session + smuggled + b"QUIT\r\n")
    assert done.returncode == 0
    (drop,) = command.drops()
    assert b"evil" in drop.content


@pytest.mark.parametrize(
    ("session", "exit_code", "said"),
    [
        (_piped(b"a b", content=_piped(b"v@rd.test")), 69, b"554 5.5.1"),
        (_piped(b"a@rd.test", b"a b"), 69, b"501 5.1.3"),
        (_piped(b"a@rd.test", content=b"Subject: cut", end=b""), 75, b"left before the end"),
        (_piped(*[b"%d@rd.test" % n for n in range(1001)]), 75, b"452 4.5.3"),
        (b"x\n" * 20 + _piped(b"a@rd.test"), 75, b"421 4.7.0"),
    ],
    ids=["nobody", "some", "cut", "many", "errors"],
)
def test_mail_that_is_not_taken_is_told_by_the_exit_code(
    command: Installation, session: bytes, exit_code: int, said: bytes
) -> None:
    done = command.run("-bs", content=session)
    assert done.returncode == exit_code
    assert b"not all mail of the session was taken: " in done.stderr
    assert said in done.stderr
    assert all(b"v@rd.test" not in drop.recipients for drop in command.drops())
