"""`relaygw users hash`: a hash that the settings take, of a password that nobody sees."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress

import argon2
import pytest
from click.testing import CliRunner, Result

from relaygw.cli import main
from relaygw.settings.listeners import User

COMMAND = [sys.executable, "-m", "relaygw", "users", "hash"]


def hash_of(given: bytes) -> Result:
    return CliRunner().invoke(main, ["users", "hash"], input=given)


@pytest.mark.parametrize(
    ("given", "password"),
    [
        (b"secret", b"secret"),
        (b"secret\n", b"secret"),
        (b"secret\r\nmore\n", b"secret"),
        (b" s\xc3\xa9cret \n", " s\u00e9cret ".encode()),
    ],
)
def test_the_first_line_is_the_password(given: bytes, password: bytes) -> None:
    result = hash_of(given)
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    assert argon2.PasswordHasher().verify(line, password)
    assert User(name="shop1", password_hash=line).password_hash == line


@pytest.mark.parametrize(
    "given",
    [b"", b"\n", b"x" * 1025, b"sec\0ret\n", b"secret\0", "s\u00e9cret".encode("latin-1"),
     b"\xff\xfes\0e\0c\0\n", b"\xed\xa0\x80"],
)  # fmt: skip
def test_what_is_no_password_is_refused(given: bytes) -> None:
    result = hash_of(given)
    assert (result.exit_code, result.stdout) == (65, "")
    assert result.stderr.startswith("relaygw: the password ")


def test_a_refusal_names_what_is_wrong_and_what_to_write() -> None:
    assert hash_of(b"sec\0ret").stderr == (
        "relaygw: the password holds a NUL, which AUTH PLAIN cannot send; "
        "write text in UTF-8 without NUL\n"
    )
    assert hash_of(b"s\xe9cret").stderr == (
        "relaygw: the password is not UTF-8, from byte 2 on, as logins send it; write it in UTF-8\n"
    )


def test_a_full_disk_is_told_with_what_to_do() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(COMMAND, input=b"secret\n", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == os.EX_IOERR
    assert done.stderr == (
        b"relaygw: the output cannot be written (No space left on device); "
        b"free some space, run it again\n"
    )


def test_on_a_terminal_it_is_asked_for_twice_and_not_shown() -> None:
    def at_terminal(*answers: bytes) -> tuple[int, str, bytes]:
        """Answer each prompt once it is there; return exit code, output, what was shown."""
        ours, theirs = pty.openpty()
        # a session of its own: it would ask at the terminal that the tests run in, if they do
        process = subprocess.Popen(
            COMMAND, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, start_new_session=True
        )
        os.close(theirs)
        shown = b""
        for answer in answers:
            asked = shown.count(b": ")
            while shown.count(b": ") == asked:
                shown += os.read(ours, 1000)
            os.write(ours, answer + b"\n")
        out, _ = process.communicate(timeout=30)
        with suppress(OSError):  # the end of a terminal
            shown += os.read(ours, 1000)
        os.close(ours)
        return process.returncode, out.decode(), shown

    code, out, shown = at_terminal(b"secret", b"secret")
    assert code == 0
    assert argon2.PasswordHasher().verify(out.strip(), b"secret")
    assert b"secret" not in shown
    code, _, shown = at_terminal(b"s\xe9cret")
    assert code == os.EX_DATAERR
    assert b"the password is not UTF-8, from byte 2 on" in shown
