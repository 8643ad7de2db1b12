"""The mark of each mail that goes to a provider which reports what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from relaygw.mail.mark import Marks
from relaygw.settings.events import mark_field_of
from relaygw.settings.provider import Provider
from relaygw.upstream.mark_field import Mark

_TELL_EACH_S = 3600.0


class Marking:
    """Marks the mail of one provider; without `marks` none is."""

    def __init__(
        self, name: str, provider: Provider, marks: Marks | None, note: Callable[[str], None]
    ) -> None:
        self._name = name
        self._field = mark_field_of(provider)
        self._marks = marks
        self._note = note
        self._told_at_s = float("-inf")

    def mark(self, queue_id: str) -> Mark | None:
        """Return the mark of a message, None where the provider reports nothing."""
        if self._field is None or self._marks is None:
            return None
        untold = partial(self._tell, queue_id)
        return Mark(field=self._field, token=self._marks.make(queue_id), untold=untold)

    def _tell(self, queue_id: str, why: str) -> None:
        """Say now and then that mail goes without its mark."""
        if time.monotonic() - self._told_at_s > _TELL_EACH_S:
            self._told_at_s = time.monotonic()
            self._note(
                f"warning: {queue_id} goes to provider {self._name} without the mark that its "
                f"events are found by: {why}; correct it where the mail is made (told once an hour)"
            )
