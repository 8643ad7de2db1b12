"""A token endpoint as Microsoft Entra has one, with the errors that its documentation lists.

    with EntraEndpoint(secret="right") as entra:
        ... client credentials for entra.url_of("contoso.test"), client id entra.client_id ...

It knows one tenant with one application, by a secret or by a certificate (then the client assertion
is verified), and gives a JWT with `roles`. `refusal(…)` is the answer of one error, with the
numbers of the request behind it as Entra writes them. With `exchange`, the `users` of a scripted
provider and a mailbox, that one can be logged in to with the last token that has the permission.
"""

from __future__ import annotations

import base64
import itertools
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.fakes.token_endpoint import TokenEndpoint

TENANT = "contoso.test"
CLIENT_ID = "9f2c7d1e-0000-4000-8000-5d1f3a6b7c8d"
SCOPE = "https://outlook.office365.com/.default"
_REFUSALS: dict[str, tuple[int, str, str]] = {
    "AADSTS7000215": (
        401,
        "invalid_client",
        "Invalid client secret provided. Ensure the secret being sent in the request is the client "
        f"secret value, not the client secret ID, for a secret added to app '{CLIENT_ID}'.",
    ),
    "AADSTS7000222": (
        401,
        "invalid_client",
        f"The provided client secret keys for app '{CLIENT_ID}' are expired. Visit the Azure "
        "portal to create new keys for your app: https://aka.ms/NewClientSecret.",
    ),
    "AADSTS700016": (
        400,
        "unauthorized_client",
        "Application with identifier 'other' was not found in the directory 'Contoso'.",
    ),
    "AADSTS700027": (
        401,
        "invalid_client",
        "The certificate with identifier used to sign the client assertion is not registered "
        "on application.",
    ),
    "AADSTS700024": (
        401,
        "invalid_client",
        "Client assertion is not within its valid time range.",
    ),
    "AADSTS90002": (
        400,
        "invalid_request",
        "Tenant 'nowhere.test' not found. Check to make sure you have the correct tenant ID and "
        "are signing into the correct cloud.",
    ),
    "AADSTS65001": (
        400,
        "invalid_grant",
        "The user or administrator has not consented to use the application with ID "
        f"'{CLIENT_ID}' named 'Mail'.",
    ),
    "AADSTS70011": (
        400,
        "invalid_scope",
        "The provided value for the input parameter 'scope' isn't valid.",
    ),
    "AADSTS90033": (
        400,
        "invalid_request",
        "A transient error has occurred. Please try again.",
    ),
}
_numbers = itertools.count(1)


def refusal(code: str) -> tuple[int, dict[str, Any]]:
    """Return status and body of an error."""
    status, error, words = _REFUSALS[code]
    number = f"{next(_numbers):08d}-0000-4000-8000-000000000000"
    traced = f"Trace ID: {number} Correlation ID: {number} Timestamp: 2026-12-08 10:00:00Z"
    return status, {
        "error": error,
        "error_description": f"{code}: {words} {traced}",
        "error_codes": [int(code.removeprefix("AADSTS"))],
        "trace_id": number,
    }


class EntraEndpoint(TokenEndpoint):
    """A server in a thread; see the module's text."""

    def __init__(self, *, secret: str = "", certificate: Path | None = None) -> None:
        super().__init__()
        self.secret = secret
        self.client_id = CLIENT_ID
        self.roles = ["SMTP.SendAsApp"]
        self._known = (
            x509.load_pem_x509_certificate(certificate.read_bytes()) if certificate else None
        )
        self._seen: set[str] = set()
        self.tokens: list[str] = []
        self.exchange: tuple[dict[str, str], str] | None = None

    def url_of(self, tenant: str) -> str:
        """Return the token URL of a tenant."""
        return f"{self.url.removesuffix('/token')}/{tenant}/oauth2/v2.0/token"

    def _answer(self, form: dict[str, str], path: str) -> tuple[int, Any]:
        self.requests.append(form)
        self.is_asked.set()
        if self.answers:
            return self.answers.popleft()
        if path != f"/{TENANT}/oauth2/v2.0/token":
            return refusal("AADSTS90002")
        if form.get("client_id") != CLIENT_ID:
            return refusal("AADSTS700016")
        problem = self._problem_of(form)
        if not problem and form.get("scope") != SCOPE:
            problem = "AADSTS70011"
        if problem:
            return refusal(problem)
        self.given += 1
        claims = {"aud": SCOPE, "appid": CLIENT_ID, "roles": self.roles, "uti": str(self.given)}
        if not self.roles:  # Entra leaves the claim out
            del claims["roles"]
        self.tokens.append(
            ".".join((_coded({"typ": "JWT", "alg": "RS256"}), _coded(claims), "c2ln"))
        )
        if self.exchange is not None and "SMTP.SendAsApp" in self.roles:
            users, mailbox = self.exchange
            users[mailbox] = self.tokens[-1]
        return 200, {"token_type": "Bearer", "expires_in": 3599, "access_token": self.tokens[-1]}

    def _problem_of(self, form: dict[str, str]) -> str:
        """Return the error of wrong client credentials (RFC 7523 section 3), "" for right ones."""
        if self._known is None:
            return "" if form.get("client_secret") == self.secret else "AADSTS7000215"
        signed, _, signature = form["client_assertion"].rpartition(".")
        header, claims = (json.loads(_decoded(one)) for one in signed.split("."))
        thumbprint = base64.urlsafe_b64encode(self._known.fingerprint(hashes.SHA256())).decode()
        if header != {"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint.rstrip("=")}:
            return "AADSTS700027"
        key = self._known.public_key()
        assert isinstance(key, RSAPublicKey)
        try:
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
            key.verify(_decoded(signature), signed.encode(), pss, hashes.SHA256())
        except InvalidSignature:
            return "AADSTS700027"
        is_in_time = claims["nbf"] <= time.time() < claims["exp"] <= claims["nbf"] + 600
        is_new = claims["jti"] not in self._seen
        self._seen.add(claims["jti"])
        parties = claims["iss"], claims["sub"], claims["aud"]
        is_right = is_in_time and is_new and parties == (CLIENT_ID, CLIENT_ID, self.url_of(TENANT))
        return "" if is_right else "AADSTS700024"


def _coded(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def write_certificate(directory: Path, *, days: int = 30, name: str = "app") -> tuple[Path, Path]:
    """Write a self-signed certificate that ends in `days`, and its key; return both files."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relaygw")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    files = directory / f"{name}.pem", directory / f"{name}.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files[1].chmod(0o600)
    return files
