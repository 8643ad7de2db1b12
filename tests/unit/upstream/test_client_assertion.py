"""What is said of a certificate by which an application is to be known."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from relaygw.errors import SettingsError
from relaygw.settings.secrets import PemRef
from relaygw.upstream.client_assertion import certificate_doubts, client_assertion
from tests.fakes.entra import write_certificate

PEM_FORM = Encoding.PEM, PrivateFormat.PKCS8


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("pair"))


def doubts(certificate: Path, key: Path) -> list[str]:
    return list(certificate_doubts(str(certificate), PemRef("file", str(key))))


def test_a_pair_in_order_has_none(files: tuple[Path, Path]) -> None:
    assert doubts(*files) == []
    assert doubts(files[0], files[1].with_name("unreadable")) == []  # told with the secrets


@pytest.mark.parametrize(("days", "verb"), [(-1, "expired"), (5, "expires")])
def test_a_certificate_that_ends(tmp_path: Path, days: int, verb: str) -> None:
    (found,) = doubts(*write_certificate(tmp_path, days=days))
    assert found.startswith(f"{tmp_path}/app.pem {verb} on 20")
    assert "; make a new one, upload it to the application" in found


def test_a_certificate_that_is_none(tmp_path: Path, files: tuple[Path, Path]) -> None:
    (found,) = doubts(tmp_path / "none.pem", files[1])
    assert found.startswith(f"{tmp_path}/none.pem cannot be read (No such file or directory); ")
    (found,) = doubts(files[1], files[1])
    assert found.startswith(f"{files[1]} holds no readable certificate; write the path")


def test_a_key_that_does_not_sign(tmp_path: Path, files: tuple[Path, Path]) -> None:
    right = load_pem_private_key(files[1].read_bytes(), None)
    other = write_certificate(tmp_path, name="other")[1].read_text()
    locked = right.private_bytes(*PEM_FORM, BestAvailableEncryption(b"canary"))
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(*PEM_FORM, NoEncryption())
    for text, words in (
        (other, f"oauth.key is not the key of {files[0]}; store a matching pair"),
        (locked.decode(), "oauth.key is encrypted; store the key without a passphrase, mode 0600"),
        (curve.decode(), "oauth.key is not an RSA key, which signs for access tokens; "),
        ("-----BEGIN X-----\ncanary", "oauth.key is not a readable PEM private key; "),
    ):
        with pytest.raises(SettingsError) as caught:
            client_assertion("app", token_url="https://t.test", certificate=str(files[0]), key=text)
        assert str(caught.value).startswith(words)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
        (tmp_path / "key").write_text(text)
        (tmp_path / "key").chmod(0o600)
        (found,) = doubts(files[0], tmp_path / "key")
        assert found.startswith(words)


def test_a_reference_to_a_key(tmp_path: Path, files: tuple[Path, Path]) -> None:
    text = files[1].read_text()
    assert PemRef.parse(f"file:{files[1]}").read() == text.removesuffix("\n")
    assert PemRef.parse("env:K").read({"K": text}) == text
    assert PemRef.parse(f"command:cat {files[1]}").read() == text
    with pytest.raises(SettingsError, match="holds no PEM private key; store it there, whole"):
        PemRef.parse("plain:canary").read()
