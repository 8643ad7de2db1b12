"""A client assertion: how an application shows by its certificate who it is (RFC 7523 section 3).

In the form that Microsoft Entra documents: PS256, with the certificate's SHA-256 thumbprint. Loads
cryptography (4 MB): import it where a certificate is used.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from relaygw.errors import SettingsError
from relaygw.settings.certificates import WARN_DAYS
from relaygw.settings.secrets import PemRef

_LIFE_S = 300
_SALT_BYTES = 32  # as long as the hash, RFC 7518 section 3.5


def client_assertion(client_id: str, *, token_url: str, certificate: str, key: str) -> str:
    """Return a JWT that shows the endpoint at `token_url` for five minutes who `client_id` is.

    `certificate` is the path of a PEM file, `key` the private key itself. Raises SettingsError for
    what cannot be read or does not fit together; an expired certificate is left to the endpoint.
    """
    shown, signer = _certificate(certificate), _signer(certificate, key)
    now_s = int(time.time())
    header = {"alg": "PS256", "typ": "JWT", "x5t#S256": _coded(shown.fingerprint(hashes.SHA256()))}
    claims = {
        "aud": token_url,
        "iss": client_id,
        "sub": client_id,
        "jti": str(uuid.uuid4()),
        "iat": now_s,
        "nbf": now_s,
        "exp": now_s + _LIFE_S,
    }
    signed = ".".join(_coded(json.dumps(part).encode()) for part in (header, claims))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=_SALT_BYTES)
    return f"{signed}.{_coded(signer.sign(signed.encode(), pss, hashes.SHA256()))}"


def certificate_doubts(certificate: str, key: PemRef) -> Iterator[str]:
    """Yield why an application may not be known by its certificate; no command is run for it.

    A key that cannot be read has nothing wrong here: the check of all secrets tells it.
    """
    try:
        ends_at = _certificate(certificate).not_valid_after_utc
        days_left = (ends_at - datetime.now(UTC)).days
        if days_left < WARN_DAYS:
            verb = "expired" if days_left < 0 else "expires"
            yield (
                f"{certificate} {verb} on {ends_at:%Y-%m-%d}; make a new one, upload it to the "
                "application, and replace the file and its key"
            )
        pem = ""
        if key.kind != "command":
            with suppress(SettingsError):
                pem = key.read()
        if pem:
            _signer(certificate, pem)
    except SettingsError as error:
        yield str(error)


def _certificate(path: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(Path(path).read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}); write the path of a PEM file that the "
            "gateway may read"
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"{path} holds no readable certificate; write the path of a PEM file with the "
            "certificate of the application"
        ) from error


def _signer(certificate: str, key: str) -> RSAPrivateKey:
    """Return the key to sign with; no error shows it, or is raised from what read it."""
    problem = "is not a readable PEM private key; store the one of the certificate"
    signer = None
    try:
        signer = load_pem_private_key(key.encode(), password=None)
    except TypeError:
        problem = "is encrypted; store the key without a passphrase, mode 0600"
    except (ValueError, UnsupportedAlgorithm):
        pass
    if isinstance(signer, RSAPrivateKey):
        if signer.public_key() == _certificate(certificate).public_key():
            return signer
        problem = f"is not the key of {certificate}; store a matching pair"
    elif signer is not None:
        problem = "is not an RSA key, which signs for access tokens; make an RSA pair"
    raise SettingsError(f"oauth.key {problem}")


def _coded(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")
