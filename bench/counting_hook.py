"""`python -m bench.counting_hook`: relaygw whose roles count what they call.

They count while the file `hook-flag` beside the configuration holds a number from 1 to 254, for
each number on its own. When it holds 255, each writes `hook-counts-PID`: JSON, by role and number.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

FLAG, COUNTS = "hook-flag", "hook-counts-"
WRITE = 255


def main() -> None:
    """Install the hook, which forked roles inherit, and be `relaygw`."""
    directory = Path(sys.argv[sys.argv.index("--config") + 1]).parent
    with (directory / FLAG).open("r+b") as file:
        flag = mmap.mmap(file.fileno(), 1)
    hook = _hook(flag, directory)
    threading.setprofile(hook)
    sys.setprofile(hook)
    from relaygw.cli import main as relaygw

    relaygw()


def _hook(flag: mmap.mmap, directory: Path) -> Callable[[FrameType, str, Any], None]:
    counts: dict[int, Counter[str]] = {}
    written: set[int] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        number = flag[0]
        if not number:
            return
        if number == WRITE:
            if os.getpid() not in written:
                written.add(os.getpid())
                _write(directory, counts)
        elif event == "call":
            code = frame.f_code
            key = f"{code.co_filename}:{code.co_qualname}"
            counts.setdefault(number, Counter())[key] += 1
        elif event == "c_call":
            name = getattr(argument, "__qualname__", "")
            counts.setdefault(number, Counter())[name] += 1

    return note


def _write(directory: Path, counts: dict[int, Counter[str]]) -> None:
    role = Path("/proc/self/comm").read_text().strip()
    text = json.dumps({"role": role, "counts": counts})
    unfinished = directory / f".{COUNTS}{os.getpid()}"
    unfinished.write_text(text)
    unfinished.rename(directory / f"{COUNTS}{os.getpid()}")


if __name__ == "__main__":
    main()
