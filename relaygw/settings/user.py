"""Names and password hashes of the users that may log in.

ValueError texts continue a sentence that begins with the value.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer

# no slash and no colon: what takes turns is a user or a network, and no user looks like one
_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_HASH = re.compile(
    r"\$argon2(?:id|i|d)\$v=19\$m=([0-9]{1,8}),t=([0-9]{1,3}),p=([0-9]{1,2})"
    r"\$[A-Za-z0-9+/]{11,128}\$[A-Za-z0-9+/]{16,128}"
)
MAX_HASH_KIB = 256 * 1024
"""Memory that one verification may take: two run at once in each front."""
MAX_HASH_PASSES = 16


def _check_login(text: str) -> str:
    if _LOGIN.fullmatch(text) is None:
        raise ValueError(
            "is no user name; write letters, digits and . _ @ + -, at most 64, e.g. shop1"
        )
    return text


def _check_hash(text: str) -> str:
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("is no argon2 hash; write what `relaygw users hash` prints, in quotes")
    memory_kib, passes = int(match[1]), int(match[2])
    if memory_kib > MAX_HASH_KIB or passes > MAX_HASH_PASSES:
        raise ValueError(
            f"takes more than {MAX_HASH_KIB // 1024} MiB or {MAX_HASH_PASSES} passes to verify; "
            "write what `relaygw users hash` prints"
        )
    return text


UserLogin = Annotated[str, AfterValidator(_check_login)]
PasswordHash = Annotated[
    str,
    AfterValidator(_check_hash),
    # who sees the configuration should not be able to guess at leisure
    PlainSerializer(lambda _: "***", return_type=str, when_used="json"),
]
"""An argon2 hash in the usual text form; never shown."""
