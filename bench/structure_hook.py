"""`python -m bench.structure_hook`: relaygw whose roles note which modules run.

They do so while the file `hook-flag` beside the configuration holds a 1; names of files go to
`hook-found`.
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
    seen: set[str] = set()
    ours = str(PACKAGE)

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if flag[0] and event == "call":
            file = frame.f_code.co_filename
            if file not in seen and file.startswith(ours):
                seen.add(file)
                os.write(found, f"{file}\n".encode())

    return note


if __name__ == "__main__":
    main()
