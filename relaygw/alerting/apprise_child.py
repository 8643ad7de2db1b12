"""The process that runs apprise: reads one notice as JSON, ends with 0 once it was taken."""

from __future__ import annotations

import json
import logging
import sys

MISSING = 3
NO_URL = 4
NOT_TAKEN = 5


def main() -> int:
    """Send what standard input says; return the exit code."""
    given = json.load(sys.stdin)
    try:
        import apprise
    except ImportError:
        return MISSING
    logging.disable(logging.CRITICAL)  # it may tell URLs
    sender = apprise.Apprise()
    if not sender.add(given["url"]):
        return NO_URL
    is_taken = sender.notify(title=given["title"], body=given["body"], notify_type=given["kind"])
    return 0 if is_taken else NOT_TAKEN


if __name__ == "__main__":
    sys.exit(main())
