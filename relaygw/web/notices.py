"""What a page says of the change that led to it; only known words, whatever an address says."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from relaygw.web.words import counted

_WORDS = {
    "read": "{} marked as read.",
    "unread": "{} marked as unread.",
    "deleted": "{} deleted.",
    "tagged": "Tags of {} changed.",
    "held": "{} held.",
    "released": "{} released: due now.",
    "retried": "{} due now.",
    "trashed": "{} in the trash for seven days.",
    "undeleted": "{} back in the queue: due now.",
    "moved": "{} moved.",
    "expired": "{} expired.",
    "provider_held": "The provider is held.",
    "provider_released": "The provider is released.",
}


def with_notice(path: str, did: str, number: int) -> str:
    """Return `path` so that its page says what was done."""
    given = urlencode({"did": did, "number": number})
    return f"{path}{'&' if '?' in path else '?'}{given}"


def notice_of(parameters: Mapping[str, str]) -> str:
    """Return what was done, "" when nothing was."""
    number = parameters.get("number", "")
    words = _WORDS.get(parameters.get("did", ""))
    if words is None or not (number.isascii() and number.isdigit() and len(number) < 10):
        return ""
    return words.format(counted(int(number), "message"))
