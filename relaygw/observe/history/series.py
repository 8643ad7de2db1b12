"""The series of the history, and what their labels are."""

from __future__ import annotations

from enum import StrEnum


class Series(StrEnum):
    """What is counted, by label; recipients but for the first and those of the last group."""

    MESSAGES = "messages"  # taken, by listener ("maildrop": of none)
    ACCEPTED = "accepted"  # to be sent, by route
    CAPTURED = "captured"  # by reason, see metrics.reasons
    BLOCKED = "blocked"  # at acceptance, by route
    DELIVERED = "delivered"  # by provider
    DEFERRED = "deferred"  # put off by an attempt, by provider
    BOUNCED = "bounced"  # refused for good or expired, by provider
    DEFERRED_FOR = "deferred_for"  # by reason, see metrics.reasons
    BOUNCED_FOR = "bounced_for"  # by reason, see metrics.reasons
    REFUSED = "refused"  # replies to clients from 400 on, by code and status: "554 5.7.1"
    # the greatest number within a slice
    QUEUE = "queue"  # open deliveries, by state
    OLDEST_S = "oldest_s"  # age of the oldest mail that waits and is not held, by route
