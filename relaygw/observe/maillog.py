"""The mail log of one process: events in, lines out, and nobody ever waits for it.

As long as all goes well a record goes out within the call that brings it. Else records queue up,
and a thread that lives hardly longer than the queue sends them in order. What exceeds the queue is
counted, and the count logged in its place. A process without threads calls `pump`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from pathlib import Path
from types import TracebackType

from relaygw.observe.events import Event, Level, Note
from relaygw.observe.json_form import JsonForm
from relaygw.observe.outlets import (
    FileOutlet,
    Framing,
    Outlet,
    OutletGone,
    StderrOutlet,
    SyslogOutlet,
    bare,
    for_syslog,
    in_a_file,
)
from relaygw.observe.postfix_form import PostfixForm
from relaygw.observe.redaction import Redaction
from relaygw.settings.model import Log

MAX_WAITING_BYTES = 4 * 2**20
RETRY_S = 1.0
_BATCH = 64  # records sent in one turn: others may add to the queue between two turns
_FULL_WAIT_S = 0.5


class Condition(Enum):
    """How the outlet does."""

    WELL = auto()  # all went out
    FULL = auto()  # there is no room; its reader is slow, or hangs
    BROKEN = auto()  # it does not work
    GONE = auto()  # and never will again


class Channel:
    """Takes the records of one process.

    `loss` makes the record of how many were lost and why. `tell`, which must not wait, is called
    once each time the outlet breaks.
    """

    def __init__(
        self,
        outlet: Outlet,
        *,
        loss: Callable[[int, str], bytes],
        tell: Callable[[str], None],
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        retry_s: float = RETRY_S,
    ) -> None:
        self._outlet = outlet
        self._loss = loss
        self._tell = tell
        self._max_waiting_bytes, self._retry_s = max_waiting_bytes, retry_s
        self._may_thread = False
        self._start_empty()

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._again = threading.Event()  # look at the outlet now, whatever the time
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._why = ""
        self._condition = Condition.WELL
        self._thread: threading.Thread | None = None

    def adopt(self) -> None:
        """After a fork, in the child: what waits is the parent's; from now on threads are fine."""
        self._start_empty()
        self._may_thread = True

    @property
    def is_waiting(self) -> bool:
        """True while something has not gone out yet."""
        return bool(self._waiting or self._lost)

    def write(self, records: Sequence[bytes]) -> None:
        """Send records, or keep them for later; never waits and never raises."""
        with self._lock:
            if self._condition is Condition.GONE:
                return
            taken = 0
            if not self.is_waiting:
                taken = self._send_records(records)
                if taken == sum(map(len, records)):
                    return
            self._keep(records)
            self._strike_off(taken)
            self._have_thread()

    def _send_records(self, records: Sequence[bytes]) -> int:
        """Return how many bytes went out, and know how the outlet does."""
        try:
            taken = self._outlet.send(records)
        except BlockingIOError:
            self._why = "its reader is too slow"
            self._condition = Condition.FULL
        except OutletGone:
            self._condition = Condition.GONE
            self._waiting.clear()
            self._lost = 0
        except OSError as error:
            self._why = error.strerror or type(error).__name__
            if self._condition is not Condition.BROKEN:
                self._tell(self._why)
            self._condition = Condition.BROKEN
        else:
            self._condition = Condition.WELL
            return taken
        return 0

    def _keep(self, records: Sequence[bytes]) -> None:
        if self._condition is Condition.GONE:
            return
        for record in records:
            if self._lost or self._waiting_bytes + len(record) > self._max_waiting_bytes:
                if not self._lost:
                    self._tell(f"{self._why}; lines are lost")
                self._lost += 1
            else:
                self._waiting.append(record)
                self._waiting_bytes += len(record)

    def pump(self) -> Condition:
        """Send what waits as far as there is room; return how the outlet does."""
        while self.is_waiting:
            with self._lock:
                self._pump_once()
                if self._condition is not Condition.WELL:
                    return self._condition
        return self._condition

    def _pump_once(self) -> None:
        if not self._waiting and self._lost:
            record = self._loss(self._lost, self._why)
            self._waiting.append(record)
            self._waiting_bytes += len(record)
            self._lost = 0
        self._strike_off(self._send_records(list(itertools.islice(self._waiting, _BATCH))))

    def _strike_off(self, taken: int) -> None:
        """Forget the first bytes of what waits: they have gone out."""
        self._waiting_bytes -= taken
        while taken:
            first = self._waiting.popleft()
            if taken < len(first):
                self._waiting.appendleft(first[taken:])
            taken -= min(taken, len(first))

    def _have_thread(self) -> None:
        if self._thread is not None:
            if self._condition is not Condition.BROKEN:  # that is tried each RETRY_S only
                self._again.set()
        elif self._may_thread:
            thread = threading.Thread(target=self._drain, name="log", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads: the next record tries again
                thread.start()
                self._thread = thread

    def _drain(self) -> None:
        """Send until nothing has waited for a while; the body of the thread."""
        while True:
            condition = self.pump()
            if condition is Condition.FULL:
                self._outlet.wait(_FULL_WAIT_S)
                continue
            has_more = self._again.wait(self._retry_s)
            self._again.clear()
            with self._lock:
                if not has_more and not self.is_waiting:
                    self._thread = None
                    return

    def reopen(self) -> None:
        """Go on in a fresh file or connection of the same name: logrotate has moved the old one."""
        with self._lock:
            try:
                self._outlet.reopen()
            except OSError as error:
                self._tell(f"cannot be reopened: {error.strerror}; the old one is kept")
        self._again.set()

    def close(self, *, patience_s: float = 1.0) -> None:
        """Send what waits while its reader takes it, and let go."""
        deadline_s = time.monotonic() + patience_s
        while self.pump() is Condition.FULL and time.monotonic() < deadline_s:
            self._outlet.wait(min(0.1, patience_s))
        with self._lock:
            self._outlet.close()


Form = JsonForm | PostfixForm


class MailLog:
    """Writes events in the form and to the place that the settings name; `channel` has its life."""

    def __init__(
        self, channel: Channel, form: Form, framing: Framing, redaction: Redaction | None = None
    ) -> None:
        self.channel = channel
        self._form = form
        self._framing = framing
        self._redaction = redaction or None  # none where nothing is hidden

    def write(self, events: Iterable[Event]) -> None:
        """Write events, all of them at once; returns at once and raises nothing."""
        if self._redaction is not None:
            events = map(self._redaction.apply, events)
        lines = [line for event in events for line in self._form.lines(event)]
        if lines:
            self.channel.write(self._framing(lines))

    def note(self, daemon: str, text: str) -> None:
        """Write one line of free text; see `events.Note` for how it begins."""
        self.write([Note(daemon, text + _NO_THREAD_REMEDY if _NO_THREAD in text else text)])


# --- the log of the settings ---------------------------------------------------------------


def open_log(settings: Log, *, hostname: str) -> MailLog:
    """Return the log; what is wrong with its place is told on stderr and stops nothing."""
    outlet: Outlet = StderrOutlet() if settings.file is None else FileOutlet(settings.file)
    framing = in_a_file(hostname=hostname, name=settings.syslog_name)
    form: Form = PostfixForm(with_subject=settings.subject)
    if settings.format == "json":
        framing = bare
        form = JsonForm(hostname=hostname, with_subject=settings.subject)
    if settings.target == "syslog":
        outlet = SyslogOutlet(Path(settings.syslog_socket))
        framing = for_syslog(name=settings.syslog_name)
    stderr = StderrOutlet()

    def loss(count: int, why: str) -> bytes:
        note = Note("master", f"warning: {count} lines of the log were lost here: {why}")
        (record,) = framing(form.lines(note))
        return record

    def tell(why: str) -> None:
        text = (
            f"relaygw: log.target: {settings.target}: {why}; mail is still processed, lines wait "
            f"in memory ({MAX_WAITING_BYTES >> 20} MiB a process at most)"
        )
        if not isinstance(outlet, StderrOutlet):
            with contextlib.suppress(OSError, OutletGone):  # nobody listens there either
                stderr.send(bare([("master", Level.WARNING, text)]))

    channel = Channel(outlet, loss=loss, tell=tell)
    return MailLog(channel, form, framing, redaction=Redaction(settings.redact))


# --- what libraries say by Python's logging, and warnings: one line each ----------------------

_FRAMES = 4  # of a traceback, the innermost ones
_DAEMONS = {"relaygw": "web", "uvicorn": "web", "starlette": "web", "alembic": "master"}
_TELL_ADDRESSES = ("httpx2", "httpcore2")
"""Below WARNING they tell whom they call, and an address may be a token."""
_NO_NAME = re.compile(r"[^a-z0-9_-]+")


def carry_library_records(log: MailLog) -> None:
    """From now on write what libraries log from WARNING on into `log`; others' handlers stay."""
    root = logging.getLogger()
    others = [handler for handler in root.handlers if not isinstance(handler, LibraryHandler)]
    root.handlers[:] = [*others, LibraryHandler(log)]
    for name in _TELL_ADDRESSES:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _note_dead_thread


_NO_THREAD = "can't start new thread"  # Python's words
_NO_THREAD_REMEDY = (
    "; the system allows no more threads: raise TasksMax of the service, pids of the container, or "
    "ulimit -u"
)
_FAULTS_OF_CLIENTS = frozenset({"ASGI callable returned without completing handshake."})
"""What uvicorn calls an error where a client left before its websocket was open."""


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
        if text in _FAULTS_OF_CLIENTS:
            return
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {_shown(record.exc_info[1], record.exc_info[2])}"
        top, level = record.name.partition(".")[0], "warning"
        if record.levelno >= logging.ERROR:
            level = "fatal" if record.levelno >= logging.CRITICAL else "error"
        daemon = _DAEMONS.get(top) or _NO_NAME.sub("-", top.lower()) or "python"
        self._log.note(daemon, f"{level}: {text}")


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
