"""What libraries say by Python's logging, and warnings, in the mail log: one line each."""

from __future__ import annotations

import logging
import re
import threading
import traceback
from types import TracebackType

from relaygw.observe.maillog import MailLog

_FRAMES = 4  # of a traceback, the innermost ones
_DAEMONS = {"relaygw": "web", "uvicorn": "web", "starlette": "web", "alembic": "master"}
_NO_NAME = re.compile(r"[^a-z0-9_-]+")


def carry_library_records(log: MailLog) -> None:
    """From now on write what libraries of this process log from WARNING on into `log`.

    Handlers that somebody else has set up (sitecustomize, to look for a fault) stay.
    """
    root = logging.getLogger()
    others = [handler for handler in root.handlers if not isinstance(handler, LibraryHandler)]
    root.handlers[:] = [*others, LibraryHandler(log)]
    logging.captureWarnings(True)
    threading.excepthook = _note_dead_thread


class LibraryHandler(logging.Handler):
    """Makes notes of records; a traceback becomes the places it names."""

    def __init__(self, log: MailLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line."""
        try:
            text = " ".join(record.getMessage().split())
        except Exception:  # arguments that do not fit: not worth an exception of ours
            text = str(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {_shown(record.exc_info[1], record.exc_info[2])}"
        self._log.note(_daemon(record.name), f"{_level(record.levelno)}: {text}")


def _level(number: int) -> str:
    if number >= logging.CRITICAL:
        return "fatal"
    return "error" if number >= logging.ERROR else "warning"


def _daemon(logger: str) -> str:
    top = logger.partition(".")[0]
    return _DAEMONS.get(top) or _NO_NAME.sub("-", top.lower()) or "python"


def _shown(error: BaseException, where: TracebackType | None) -> str:
    frames = traceback.extract_tb(where)[-_FRAMES:]
    places = " < ".join(
        f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno}" for frame in reversed(frames)
    )
    return f"{type(error).__name__}: {error}" + (f" (at {places})" if places else "")


def _note_dead_thread(dead: threading.ExceptHookArgs) -> None:
    if dead.exc_value is not None:
        name = dead.thread.name if dead.thread is not None else "?"
        shown = (dead.exc_type, dead.exc_value, dead.exc_traceback)
        logging.getLogger("master").error("a thread (%s) ended", name, exc_info=shown)
