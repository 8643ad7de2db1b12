"""The idempotency key of a transaction: a provider that knows it sends the mail once.

The same for every try of the same mail, by whatever process or instance; another for another
recipient, another message, and once an operator has let go of it in doubt. Nothing can be read in
it. The number of a recipient says which delivery it is of, also after a delivery was parted; that
of released mail is another one.
"""

from __future__ import annotations

import hashlib

MAX_OWN_KEY_CHARACTERS = 256  # resend.com/docs/dashboard/emails/idempotency-keys: 1 to 256
_VERSION = "relaygw 1"


def sending_key(queue_id: str, sender: str, rcpt_no: int, address: str, *, generation: int) -> str:
    """Return the key of a transaction to one recipient."""
    told = f"{_VERSION}\n{queue_id}\n{generation}\n{sender}\n{rcpt_no} {address}"
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def is_usable_key(key: str) -> bool:
    """True for a key that a provider may take: 1 to 256 visible characters of ASCII."""
    is_visible = key.isascii() and key.isprintable() and " " not in key
    return is_visible and 0 < len(key) <= MAX_OWN_KEY_CHARACTERS
