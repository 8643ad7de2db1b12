"""A self-made certificate for 127.0.0.1, for the TLS ends of a benchmark."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """`chain` holds the key and the certificate, `trusted` the certificate alone."""

    chain: Path
    trusted: Path


def make_certificate(directory: Path) -> Certificate:
    """Make a P-256 certificate for 127.0.0.1 in `directory`.

    P-256, since its signatures cost the provider's side, which shares the machine, the least.
    """
    made = Certificate(chain=directory / "chain.pem", trusted=directory / "trusted.pem")
    key = directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "7", "-subj", "/CN=127.0.0.1"]
    command += [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(made.trusted),
    ]
    subprocess.run(command, capture_output=True, check=True)
    made.chain.touch(mode=0o600)
    made.chain.write_text(key.read_text() + made.trusted.read_text())
    return made
