"""`python -m bench.structure_hook`: relaygw whose roles note which modules run.

They do so while the file `hook-flag` beside the configuration holds a number other than 0; a line
with that number and a file's name goes to `hook-found`, once for each of both.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

FLAG, FOUND = "hook-flag", "hook-found"
PACKAGE = Path(__file__).resolve().parents[1] / "relaygw"


def main() -> None:
    """Install the hook, which forked roles inherit, and be `relaygw`."""
    directory = Path(sys.argv[sys.argv.index("--config") + 1]).parent
    with (directory / FLAG).open("r+b") as file:
        flag = mmap.mmap(file.fileno(), 1)
    hook = _hook(flag, os.open(directory / FOUND, os.O_WRONLY | os.O_APPEND))
    threading.setprofile(hook)
    sys.setprofile(hook)
    from relaygw.cli import main as relaygw

    relaygw()


def _hook(flag: mmap.mmap, found: int) -> Callable[[FrameType, str, object], None]:
    seen: set[tuple[int, str]] = set()
    ours = str(PACKAGE)

    def note(frame: FrameType, event: str, _argument: object) -> None:
        number = flag[0]
        if number and event == "call":
            file = frame.f_code.co_filename
            if (number, file) not in seen and file.startswith(ours):
                seen.add((number, file))
                os.write(found, f"{number} {file}\n".encode())

    return note


if __name__ == "__main__":
    main()
