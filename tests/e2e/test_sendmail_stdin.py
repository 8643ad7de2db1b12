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
