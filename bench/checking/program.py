"""The command line of bench/check."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.checking.checker import check
from bench.history import Event, in_order, read_history, to_line

_ABOUT = """\
Reads the history of a campaign (bench/history.py) and says what it proves: attempted,
acknowledged, delivered, recovered; lost, unexpected, damaged, duplicated without a doubt, two
leases at once, mail sent without a lease, limits exceeded by more than 5 % or one, mail that
staging forbids. Ends with 0 only if something was acknowledged and there is nothing of the latter,
with 1 if not, with 2 if a file is not a history. Of a last line that was cut off it says so.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check files; return the exit code."""
    parser = argparse.ArgumentParser(description=_ABOUT)
    parser.add_argument("history", type=Path, nargs="+", help="files of one campaign")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--message", metavar="ID", help="only print what happened to a message")
    options = parser.parse_args(arguments)
    try:
        events = in_order(event for path in options.history for event in read_history(path))
    except (OSError, ValueError) as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    if options.message is not None:
        sys.stdout.writelines(to_line(each).decode() for each in events if _is_about(each, options))
        return 0
    report = check(events)
    print(json.dumps(report.to_json(), indent=1) if options.json else report.to_text())
    return 0 if report.is_clean else 1


def _is_about(event: Event, options: argparse.Namespace) -> bool:
    value = event.value
    return event.message == options.message or options.message in value.get("open", ())
