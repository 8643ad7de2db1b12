"""Our mark of a mail: it tells providers nothing, and whoever shares the key reads the queue id.

A mark is a keyed hash of the queue id, and the id hidden by what the hash is the start of: nobody
else makes one, the same mail always has the same one, and recipients who see it learn nothing. It
stands as it is in every place that providers have: A-Z a-z 0-9 - _.
"""

from __future__ import annotations

import base64
import hmac
import re
from binascii import b2a_base64
from hashlib import blake2b

KEY = "mark"
"""The name of the key that the instances of a queue share."""
NAME = "relaygw"
"""What the mark is called among the tags and variables of a provider."""
_TAG_BYTES = 12
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_MAX_ID_BYTES = 32
_FORM = re.compile(r"[A-Za-z0-9_-]{17,59}")
_QUEUE_ID = re.compile(rb"[A-Z0-9]{1,32}")


class Marks:
    """Makes and reads the marks of one queue."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, queue_id: str) -> str:
        """Return the mark of a message."""
        raw = queue_id.encode("ascii")
        tag = self._tag(raw)
        told = b2a_base64(tag + self._hidden(tag, raw), newline=False)
        return told.rstrip(b"=").translate(_URL_SAFE).decode()

    def read(self, mark: str) -> str | None:
        """Return the queue id that a mark was made of, None for what is no mark of this queue."""
        if _FORM.fullmatch(mark) is None or len(mark) % 4 == 1:
            return None
        told = base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4))
        tag, hidden = told[:_TAG_BYTES], told[_TAG_BYTES:]
        raw = self._hidden(tag, hidden)
        is_ours = hmac.compare_digest(tag, self._tag(raw))
        return raw.decode() if is_ours and _QUEUE_ID.fullmatch(raw) else None

    # keyed BLAKE2 is a MAC of its own (RFC 7693), and costs a third of an HMAC

    def _tag(self, raw: bytes) -> bytes:
        return blake2b(raw, digest_size=_TAG_BYTES, key=self._key, person=b"tag").digest()

    def _hidden(self, tag: bytes, raw: bytes) -> bytes:
        """Return `raw` hidden, or what was hidden shown again."""
        size = len(raw)
        cover = blake2b(tag, digest_size=_MAX_ID_BYTES, key=self._key, person=b"cover").digest()
        number = int.from_bytes(raw) ^ int.from_bytes(cover[:size])
        return number.to_bytes(size)
