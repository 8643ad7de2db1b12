"""Bounce mails without a report that programs can read: qmail, old Exchange and many others.

The library flufl.bounce knows their forms. It looks at each line of a mail with dozens of patterns,
so it runs in a process of its own. A hostile mail ends that process by its processor time. A busy
machine does not: what took too long by the clock alone is read again later.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from relaygw.feedback import document
from relaygw.mail.verdict import Kind

_CHILD = Path(__file__).with_name("old_bounces_child.py")
_MAX_BYTES = 1 << 17
_PATIENCE_S = 10.0  # less than a reader has a post for
_SAID_NEAR = 600  # characters behind an address in which its reason stands

Bounce = tuple[str, Kind, str | None, str]
"""An address, what became of it, the enhanced status and the words beside it."""


def read(content: bytes, text: str) -> list[Bounce]:
    """Return who failed, as far as the form is known; blocks while the process runs.

    Raises OSError when the process could not start, or got no time on a busy machine.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-B", str(_CHILD)],
            env={},
            cwd="/",
            input=content[:_MAX_BYTES],
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"no answer within {_PATIENCE_S:.0f} s") from error
    told = document.members(document.parse(child.stdout)) if child.returncode == 0 else {}
    waiting, failed = (document.addresses(told.get(name)) for name in ("temporary", "permanent"))
    return [
        *(_bounce(address, text, Kind.SOFT) for address in failed),
        *(_bounce(address, text, Kind.DEFERRED) for address in waiting if address not in failed),
    ]


def _bounce(address: str, text: str, kind: Kind) -> Bounce:
    at = text.lower().find(address.lower())
    near = text[at + len(address) : at + len(address) + _SAID_NEAR] if at >= 0 else ""
    said = document.words(re.split(r"\r?\n[ \t]*\r?\n", near)[0].lstrip(">:; \r\n\t"), 500)
    dsn = next(filter(None, (document.status(line.strip()) for line in near.splitlines())), None)
    if kind is Kind.SOFT and document.says_no_address(dsn):
        kind = Kind.HARD
    return address, kind, dsn, said
