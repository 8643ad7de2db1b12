"""Programs that send mail by the sendmail command, one call after the other.

Of each message the history has `send`: invoked before a call, `ok` after its exit with 0.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench.history import History, open_history
from bench.rig.message import compose

_FIRST_NAME = 0x1000  # no client of bench.killing has such a name
_LARGE_EACH, _LARGE_LINES = 10, 20_000  # 1.3 MB: more than is taken at once


def call(
    sendmail: Path, name: int, history: History, stop: threading.Event, every_s: float
) -> None:
    """Send until told to stop, not sooner than `every_s` after the call before."""
    due_s = time.monotonic()
    for number in itertools.count():
        if stop.wait(max(0.0, due_s - time.monotonic())):
            return
        due_s = time.monotonic() + every_s
        is_large = number % _LARGE_EACH == _LARGE_EACH - 1
        more_lines = _LARGE_LINES if is_large else 0
        message = compose(f"{name:x}-{number:x}", number, more_lines=more_lines)
        who, what = f"caller-{name}", message.message_id
        history.invoke(who, "send", message=what, digest=message.digest)
        done = subprocess.run(
            [sendmail, "-i", "-f", message.sender, *message.recipients],
            input=message.content.replace(b"\r\n", b"\n"),
            check=False,
            capture_output=True,
        )
        if done.returncode == 0:
            history.ok(who, "send", message=what)
        else:
            history.fail(who, "send", message=what, step="local", code=done.returncode)
            stop.wait(max(0.05, every_s))


def main() -> None:
    """Run as `python3 -m bench.cutting.callers`, until TERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--sendmail", type=Path, required=True)
    parser.add_argument("--maildrop", type=Path, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--every-s", type=float, default=0.0, help="between calls of one")
    options = parser.parse_args()
    os.environ["RELAYGW_MAILDROP"] = str(options.maildrop)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the campaign decides
    history = open_history(options.history)
    threads = [
        threading.Thread(
            target=call,
            args=(options.sendmail, _FIRST_NAME + number, history, stop, options.every_s),
        )
        for number in range(options.count)
    ]
    for thread in threads:
        thread.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
