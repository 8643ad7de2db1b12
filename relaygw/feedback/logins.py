"""A login that a provider sends with each post, for those who sign nothing: compared in full.

Authorization: Basic base64(user:password)
Authorization: Bearer SECRET
X-Relaygw-Secret: SECRET
"""

from __future__ import annotations

import base64
import binascii
import hmac
from http import HTTPStatus

from relaygw.feedback.format import Post, Refused

SECRET_HEADER = "x-relaygw-secret"
_SHORTEST = 8


def login_problem(secret: str) -> str:
    """Return the problem of such a secret."""
    if len(secret) < _SHORTEST:
        return f"is too short; use at least {_SHORTEST} characters, as user:password or one word"
    return ""


def check_login(post: Post, secret: str, *, status: int = HTTPStatus.UNAUTHORIZED) -> None:
    """Raise `Refused` with a status unless a post brings the secret, in one of the three forms.

    How long it takes tells nothing of the secret: all forms are compared, each in constant time.
    """
    kind, _, given = post.headers.get("authorization", "").strip().partition(" ")
    scheme, given = kind.lower(), given.strip()
    offers = (
        _decoded(given) if scheme == "basic" else b"",
        _octets(given) if scheme == "bearer" else b"",
        _octets(post.headers.get(SECRET_HEADER, "")),
    )
    wanted = secret.encode("utf-8", "surrogateescape")
    matches = [hmac.compare_digest(offer, wanted) for offer in offers]
    if not secret or not any(matches):
        said = "a wrong login" if any(offers) else "no login"
        raise Refused(status, f"{said}: neither user and password nor the header match the secret")


def _octets(text: str) -> bytes:
    """Return header text as the bytes that it came as: ASGI servers read them as Latin-1."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _decoded(given: str) -> bytes:
    try:
        return base64.b64decode(_octets(given), validate=True)
    except (binascii.Error, ValueError):
        return b""
