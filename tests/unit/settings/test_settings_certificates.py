"""Certificates of listeners: what stops the start, and what only clients will dislike."""

from __future__ import annotations

import datetime
import os
import re
import time
from collections.abc import Callable
from io import StringIO
from itertools import count
from pathlib import Path

import pytest
import trustme

from relaygw.inbound.tls import Certificate
from relaygw.settings.certificates import doubtful_certificates, unusable_certificates
from relaygw.settings.load import LoadedSettings
from tests.logs import text_log
from tests.rights import needs

Load = Callable[..., LoadedSettings]
Fail = Callable[..., list[str]]
NOW = datetime.datetime.now(datetime.UTC)


class Files:
    """A certificate and its key in a directory."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key = directory / "cert.pem", directory / "key.pem"

    def write(self, *names: str, days: float = 90, begun_days: float = 1) -> None:
        made = trustme.CA().issue_cert(
            *names,
            not_before=NOW - datetime.timedelta(days=begun_days),
            not_after=NOW + datetime.timedelta(days=days),
        )
        self.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(self.key))
        self.key.chmod(0o600)

    def text(self, hostname: str = "gw.test") -> str:
        tls = f"{{mode: starttls, cert: '{self.cert}', key: '{self.key}'}}"
        return (
            f"mode: sandbox\nhostname: {hostname}\n"
            f"listeners: [{{bind: '127.0.0.1:25', tls: {tls}}}]\n"
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def doubts(loaded: LoadedSettings) -> list[str]:
    return list(doubtful_certificates(loaded.settings))


@pytest.mark.parametrize("names", [("gw.test",), ("*.test",), ("other.test", "GW.test")])
def test_a_good_one_leaves_no_doubt(load: Load, files: Files, names: tuple[str, ...]) -> None:
    files.write(*names)
    assert doubts(load(files.text())) == []


@pytest.mark.parametrize(
    ("names", "days", "begun_days", "doubt"),
    [
        (("gw.test",), 5.5, 1, "the certificate expires in 5 days; renew "),
        (("gw.test",), -0.5, 1, "the certificate has expired; clients that verify it cannot send"),
        (("gw.test",), 9, -1, "the certificate is not valid yet; clients that verify it cannot se"),
        (("a.test", "b.test"), 90, 1, "the certificate is for a.test, b.test, not for gw.test; "),
        (("*.gw.test",), 90, 1, "the certificate is for *.gw.test, not for gw.test; clients that"),
    ],
)
def test_doubts_are_told_and_stop_nothing(
    load: Load, files: Files, names: tuple[str, ...], days: float, begun_days: float, doubt: str
) -> None:
    files.write(*names, days=days, begun_days=begun_days)
    (found, *_) = doubts(load(files.text()))
    assert found.startswith(f"listeners.0.tls: {doubt}")


def test_what_cannot_be_used_stops_the_start(lines_of: Fail, files: Files, tmp_path: Path) -> None:
    def problem() -> str:
        (line,) = lines_of(files.text())
        place = "relaygw.yaml:3: listeners.0.tls: "
        assert line.startswith(place)
        return line.removeprefix(place)

    assert problem() == (
        f"{files.cert} cannot be read (No such file or directory); write the path of a PEM file "
        "that the gateway may read"
    )
    files.write("gw.test")
    key = files.key.read_bytes()
    files.write("gw.test")
    files.key.write_bytes(key)
    assert problem() == (f"{files.key} is not the key of {files.cert}; write a matching pair")
    files.key.write_text("rubbish")
    assert problem().endswith("cannot be used; both must be PEM files")
    files.write("gw.test")
    files.key.chmod(0o604)
    assert "everyone on this machine may read or write" in problem()


def test_an_encrypted_key_asks_nobody(lines_of: Fail, files: Files) -> None:
    from cryptography.hazmat.primitives import serialization

    files.write("gw.test")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    (line,) = lines_of(files.text())
    assert "is encrypted; store the key without a passphrase" in line


def test_one_file_may_hold_both(load: Load, files: Files) -> None:
    files.write("gw.test")
    files.cert.write_bytes(files.key.read_bytes() + files.cert.read_bytes())
    files.cert.chmod(0o600)
    assert doubts(load(files.text().replace(f", key: '{files.key}'", ""))) == []


@needs("root")
def test_a_key_that_the_gateway_may_not_read_stops_a_reload_and_is_taken_once_it_may(
    load: Load, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("gw.test")
    settings = load(files.text()).settings
    assert [*unusable_certificates(settings)] == []
    seconds = count(step=60)
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))  # it looks each time
    offered = Certificate(settings.listeners[0].tls, name="127.0.0.1:25", log=text_log(StringIO()))
    for place in files.cert.parents:
        place.chmod(place.stat().st_mode | 0o011)
    files.cert.chmod(0o644)
    os.seteuid(65534)
    try:
        (problem,) = unusable_certificates(settings)
        assert re.match(r"listeners.0.tls: .*/key.pem cannot be read", problem)
        assert offered.context() is None
        os.seteuid(0)
        files.key.chmod(0o644)  # its time and size stay
        os.seteuid(65534)
        assert [*unusable_certificates(settings)] == []
        assert offered.context() is not None
    finally:
        os.seteuid(0)
