"""The mark of each mail that goes to a provider which reports what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from relaygw.delivery.context import WorkerContext
from relaygw.mail.mark import Marks
from relaygw.settings.events import mark_field_of
from relaygw.settings.presets import MarkField
from relaygw.settings.provider import Provider
from relaygw.upstream.mark_field import Mark

_TELL_EACH_S = 3600.0


def marking_of(name: str, provider: Provider, context: WorkerContext) -> Marking | None:
    """Return what marks the mail of a provider, None for one that reports nothing."""
    field = mark_field_of(provider)
    if field is None or context.marks is None:
        return None
    return Marking(name, field, context.marks, context.note_safely)


class Marking:
    """Marks the mail of one provider."""

    def __init__(
        self, name: str, field: MarkField, marks: Marks, note: Callable[[str], None]
    ) -> None:
        self._name = name
        self._field = field
        self._marks = marks
        self._note = note
        self._told_at_s = float("-inf")

    def mark(self, queue_id: str) -> Mark:
        """Return the mark of a message."""
        return Mark(self._field, self._marks.make(queue_id), queue_id, self._tell)

    def _tell(self, queue_id: str, why: str) -> None:
        """Say now and then that mail goes without its mark."""
        if time.monotonic() - self._told_at_s > _TELL_EACH_S:
            self._told_at_s = time.monotonic()
            self._note(
                f"warning: {queue_id} goes to provider {self._name} without the mark that its "
                f"events are found by: {why}; correct it where the mail is made (told once an hour)"
            )
