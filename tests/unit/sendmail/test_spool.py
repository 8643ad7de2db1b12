"""Which directory is the maildrop, and the words of a drop file."""

from __future__ import annotations

import posix
from pathlib import Path

import pytest

from relaygw.mail import drop
from relaygw.sendmail.exits import EX_TEMPFAIL
from relaygw.sendmail.spool import SpoolFailure, maildrop


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, bytes]:
    environment: dict[bytes, bytes] = {}
    monkeypatch.setattr(posix, "environ", environment)
    return environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("maildrop /srv/drop\n", "/srv/drop"),
        ("# a comment\n\nmaildrop   /srv/my drop \n", "/srv/my drop"),
        ("maildrop\n", drop.DIRECTORY),
        ("", drop.DIRECTORY),
    ],
)
def test_the_configuration(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "sendmail.conf"
    path.write_text(text)
    assert maildrop(str(path)) == expected


def test_no_configuration(tmp_path: Path) -> None:
    assert maildrop(str(tmp_path / "sendmail.conf")) == drop.DIRECTORY


def test_the_variable_is_first(tmp_path: Path, environment: dict[bytes, bytes]) -> None:
    environment[b"RELAYGW_MAILDROP"] = b"/srv/other"
    (tmp_path / "sendmail.conf").write_text("maildrop /srv/drop\n")
    assert maildrop(str(tmp_path / "sendmail.conf")) == "/srv/other"


def test_with_rights_of_another_the_variable_is_nothing(
    tmp_path: Path, environment: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment[b"RELAYGW_MAILDROP"] = b"/srv/other"
    monkeypatch.setattr(posix, "getegid", lambda: posix.getgid() + 1)
    assert maildrop(str(tmp_path / "sendmail.conf")) == drop.DIRECTORY


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpoolFailure) as caught:
        maildrop(str(tmp_path))
    assert caught.value.exit_code == EX_TEMPFAIL
    assert str(tmp_path) in str(caught.value)


def test_a_head() -> None:
    lines = [(b"from", b""), (b"name", None), (b"to", b"a%b@x"), (b"to", "ä\r\nto x\x7f".encode())]
    expected = "relaygw drop 1\nfrom \nto a%25b@x\nto ä%0D%0Ato x%7F\n\n"
    assert drop.encode_head(lines) == expected.encode()


def test_a_trailer() -> None:
    assert drop.encode_trailer(0) == b"\nrelaygw end 0\n"
    assert drop.encode_trailer(45_000) == b"\nrelaygw end 45000\n"
