"""Which directory is the maildrop, and the words of a drop file."""

from __future__ import annotations

import errno
import posix
from pathlib import Path

import pytest

from relaygw.mail import drop
from relaygw.sendmail import spool


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, bytes]:
    environment: dict[bytes, bytes] = {}
    monkeypatch.setattr(posix, "environ", environment)
    return environment


def test_the_usual_directory() -> None:
    assert spool.maildrop() == drop.DIRECTORY


def test_the_directory_that_the_launcher_was_installed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "installed_for", "/srv/my drop")
    assert spool.maildrop() == "/srv/my drop"


def test_the_variable_is_first(
    environment: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "installed_for", "/srv/drop")
    environment[b"RELAYGW_MAILDROP"] = b"/srv/other"
    assert spool.maildrop() == "/srv/other"


def test_with_rights_of_another_the_variable_is_nothing(
    environment: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment[b"RELAYGW_MAILDROP"] = b"/srv/other"
    monkeypatch.setattr(posix, "getegid", lambda: posix.getgid() + 1)
    assert spool.maildrop() == drop.DIRECTORY


def test_a_head() -> None:
    lines = [(b"from", b""), (b"name", None), (b"to", b"a%b@x"), (b"to", "ä\r\nto x\x7f".encode())]
    expected = "relaygw drop 1\nfrom \nto a%25b@x\nto ä%0D%0Ato x%7F\n\n"
    assert drop.encode_head(lines) == expected.encode()


@pytest.mark.parametrize(("directory", "mode"), [(0o3733, 0o640), (0o3730, 0o644)])
def test_whoever_owns_the_directory_can_read_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: int, mode: int
) -> None:
    """With `maildrop.group` the gateway is not in the group that a file has."""
    tmp_path.chmod(directory)
    monkeypatch.setattr(spool, "installed_for", str(tmp_path))
    drop_id = spool.leave([(b"from", b"a@shop.test")], [b"x"])
    spool.release_signals()
    assert (tmp_path / f"{drop_id}.drop").stat().st_mode & 0o777 == mode


def test_a_trailer() -> None:
    assert drop.encode_trailer(0) == b"\nrelaygw end 0\n"
    assert drop.encode_trailer(45_000) == b"\nrelaygw end 45000\n"


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EIO, "the machine cannot do it now"), (errno.EACCES, "let this user write there")],
)
def test_what_to_do_fits_the_error(
    number: int,
    remedy: str,
    tmp_path: Path,
    environment: dict[bytes, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_file: int) -> None:
        raise OSError(number, posix.strerror(number))

    environment[b"RELAYGW_MAILDROP"] = str(tmp_path).encode()
    monkeypatch.setattr(posix, "fsync", fail)
    with pytest.raises(spool.SpoolFailure, match=remedy):
        spool.leave([(b"to", b"a@x.test")], [b"Subject: x\n\nhello\n"])
    assert list(tmp_path.iterdir()) == []
