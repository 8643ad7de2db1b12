"""Events of brevo."""

from __future__ import annotations

from relaygw.feedback.format import Format, Post, Refused, Trust, Verified
from relaygw.mail.verdict import Event


async def _verify(post: Post, trust: Trust) -> Verified:
    raise Refused(503, "not built yet")


def _read(body: bytes) -> list[Event]:
    return []


def _problem(secret: str) -> str:
    return ""


FORMAT = Format(_verify, _read, _problem)
