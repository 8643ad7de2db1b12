"""New sources of one host and user at work: reads them and has them judged together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from relaygw.mail.mail_class import MailClass
from relaygw.policy.guard import DAY_MS, Known, Suspect
from relaygw.policy.mail_counts import HOUR_MS, Counted, HourCount
from relaygw.policy.new_sources import by_sender, judge_together
from relaygw.settings.guard import Guard
from relaygw.store.guard import GuardAction, GuardEntry
from relaygw.store.store import Store


def suspects_together(
    store: Store,
    guard: Guard,
    entries: Sequence[GuardEntry],
    known_elsewhere: Callable[[Counted, int], Counted],
    now_ms: int,
) -> list[tuple[Suspect, dict[str, MailClass]]]:
    """Return who sends too much with others, and the classes. Raises StoreUnavailable.

    Sources of the first day of a queue are left out: then all is new.
    """
    counting_ms = store.guard.counting_since_ms() or now_ms
    classes = store.sources.new_classes(max(now_ms - 2 * DAY_MS, counting_ms + DAY_MS))
    if sum(one.messages for one in classes) <= guard.new_per_hour:
        return []
    ids = [one.mail_class.class_id for one in classes]
    hours: dict[str, dict[int, HourCount]] = defaultdict(dict)
    for each in store.sources.class_hours(now_ms - 2 * DAY_MS, class_ids=ids):
        count = HourCount(each.messages, each.recipients, each.refused)
        hours[each.class_id][round(each.hour_at_ms / HOUR_MS)] = count
    counted = [
        Counted(
            mail_class=one.mail_class,
            first_seen_ms=one.first_seen_ms,
            hours=hours[one.mail_class.class_id],
        )
        for one in classes
    ]
    allowed = {one.target: 0 for one in entries if one.action is GuardAction.ALLOW}
    known = Known(counting_since_ms=counting_ms, allowed=allowed)
    named = {one.mail_class.class_id: one.mail_class for one in classes}
    found: list[tuple[Suspect, dict[str, MailClass]]] = []
    for its in by_sender(counted):
        if judge_together(its, guard, known, now_ms=now_ms):
            its = [known_elsewhere(one, now_ms) for one in its]
            suspects = judge_together(its, guard, known, now_ms=now_ms)
            found += [(suspect, named) for suspect in suspects]
    return found
