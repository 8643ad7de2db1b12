"""What lists show of content, kept in memory so that a list parses a message once.

Test suites ask for the list again and again. The content of a message never changes, so a
kept entry cannot be wrong; the least recently used ones go when the bytes are used up.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import asdict

from relaygw.web.message_view import ContentFacts


class SummaryCache:
    """ContentFacts by queue id within `limit_bytes`; safe to use from many threads."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._kept: OrderedDict[str, tuple[ContentFacts, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """How much is kept, measured as the JSON that it becomes."""
        return self._used_bytes

    def get(self, queue_id: str) -> ContentFacts | None:
        """Return what is kept of a message, or None."""
        with self._lock:
            found = self._kept.get(queue_id)
            if found is None:
                return None
            self._kept.move_to_end(queue_id)
            return found[0]

    def put(self, queue_id: str, facts: ContentFacts) -> None:
        """Keep `facts`, unless they alone are more than the limit."""
        size_bytes = len(json.dumps(asdict(facts)))
        if size_bytes > self._limit_bytes:
            return
        with self._lock:
            self._used_bytes -= self._kept.pop(queue_id, (facts, 0))[1]
            self._kept[queue_id] = (facts, size_bytes)
            self._used_bytes += size_bytes
            while self._used_bytes > self._limit_bytes:
                _, (_, freed_bytes) = self._kept.popitem(last=False)
                self._used_bytes -= freed_bytes
