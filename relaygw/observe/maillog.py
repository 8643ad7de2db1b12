"""The mail log of one process: events in, lines out, and nobody ever waits for it.

A log that cannot be written never stops mail: see `channel`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from relaygw.observe.channel import MAX_WAITING_BYTES, Channel, Outlet, OutletGone
from relaygw.observe.events import Event, Note
from relaygw.observe.json_form import JsonForm
from relaygw.observe.line import Form, Framing, bare, for_syslog, in_a_file
from relaygw.observe.outlets import FileOutlet, StderrOutlet, SyslogOutlet
from relaygw.observe.postfix_form import PostfixForm
from relaygw.observe.redaction import Redaction
from relaygw.settings.model import Log


class MailLog:
    """Writes events in the form and to the place that the settings name; `channel` has its life."""

    def __init__(
        self,
        channel: Channel,
        form: Form,
        framing: Framing,
        *,
        redaction: Redaction | None = None,
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
        self.write([Note(daemon, text)])


# --- the log of the settings ---------------------------------------------------------------


def open_log(settings: Log, *, hostname: str) -> MailLog:
    """Return the log; what is wrong with its place is told on stderr and stops nothing."""
    outlet = _outlet(settings)
    form: Form = (
        JsonForm(hostname=hostname, with_subject=settings.subject)
        if settings.format == "json"
        else PostfixForm(with_subject=settings.subject)
    )
    framing = _framing(settings, hostname=hostname)
    stderr = None if isinstance(outlet, StderrOutlet) else StderrOutlet()

    def loss(count: int, why: str) -> bytes:
        note = Note("master", f"warning: {count} lines of the log were lost here: {why}")
        (record,) = framing(form.lines(note))
        return record

    def tell(why: str) -> None:
        if stderr is not None:
            _say(stderr, settings, why)

    return MailLog(
        Channel(outlet, loss=loss, tell=tell),
        form,
        framing,
        redaction=Redaction(settings.redact),
    )


def _say(stderr: Outlet, settings: Log, why: str) -> None:
    text = (
        f"relaygw: log.target: {settings.target}: {why}; mail goes on, lines wait in memory "
        f"({MAX_WAITING_BYTES >> 20} MiB a process at most)\n"
    )
    with contextlib.suppress(OSError, OutletGone):  # nobody listens there either
        stderr.send([text.encode("utf-8", "backslashreplace")])


def _outlet(settings: Log) -> Outlet:
    if settings.target == "syslog":
        return SyslogOutlet(Path(settings.syslog_socket))
    if settings.file is not None:
        return FileOutlet(settings.file)
    return StderrOutlet()


def _framing(settings: Log, *, hostname: str) -> Framing:
    if settings.target == "syslog":
        return for_syslog(name=settings.syslog_name)
    if settings.format == "json":
        return bare
    return in_a_file(hostname=hostname, name=settings.syslog_name)
