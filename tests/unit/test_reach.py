"""Whom a connection believes: an own CA as openssl makes it with Python 3.13, too, and no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import relaygw

_SYSTEM_PYTHON = "/usr/bin/python3"  # what the packages run with; Debian 13 has Python 3.13
_HANDSHAKE = """
import ssl, sys
sys.path.insert(0, sys.argv[1])
from relaygw.reach import verifying_context
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain("leaf.pem", "leaf.key")
up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
client = verifying_context(sys.argv[2]).wrap_bio(down, up, server_hostname=sys.argv[3])
ends = [client, server.wrap_bio(up, down, server_side=True)]
while ends:
    for end in list(ends):
        try:
            end.do_handshake()
            ends.remove(end)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            sys.exit(error.verify_message)
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities as `openssl req -x509` makes them, and a leaf of the first."""
    directory = tmp_path_factory.mktemp("ca")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    (directory / "names").write_text("subjectAltName=DNS:mx.shop.test\n")
    for words in (
        f"req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=own -days 30",
        f"req -x509 {key} -keyout other.key -out other.pem -subj /CN=other -days 30",
        f"req {key} -keyout leaf.key -out leaf.csr -subj /CN=mx.shop.test",
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names "
        "-out leaf.pem -days 30",
    ):
        subprocess.run(["openssl", *words.split()], cwd=directory, check=True, capture_output=True)
    return directory


@pytest.mark.parametrize(
    ("authority", "host", "refusal"),
    [
        ("ca.pem", "mx.shop.test", ""),
        ("ca.pem", "mx.other.test", "Hostname mismatch"),
        ("other.pem", "mx.shop.test", "unable to get local issuer certificate"),
    ],
)
def test_an_own_authority(certificates: Path, authority: str, host: str, refusal: str) -> None:
    python = _SYSTEM_PYTHON if Path(_SYSTEM_PYTHON).exists() else sys.executable
    source = str(Path(relaygw.__file__).parents[1])
    done = subprocess.run(
        [python, "-I", "-S", "-c", _HANDSHAKE, source, authority, host],
        cwd=certificates,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode == 0) is (not refusal), done.stderr
    assert refusal in done.stderr


def test_nobody_else_decides_whom_to_believe() -> None:
    package = Path(relaygw.__file__).parent
    deciding = [
        one.name for one in package.rglob("*.py") if "create_default_context" in one.read_text()
    ]
    assert deciding == ["reach.py"]
