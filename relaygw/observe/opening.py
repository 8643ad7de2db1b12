"""Opens the log that the settings describe."""

from __future__ import annotations

import contextlib
from pathlib import Path

from relaygw.observe.channel import MAX_WAITING_BYTES, Channel
from relaygw.observe.events import Note
from relaygw.observe.file_outlet import FileOutlet
from relaygw.observe.form import Form
from relaygw.observe.framing import Framing, bare, for_syslog, in_a_file
from relaygw.observe.json_form import JsonForm
from relaygw.observe.maillog import MailLog
from relaygw.observe.outlet import Outlet, OutletGone
from relaygw.observe.postfix_form import PostfixForm
from relaygw.observe.redaction import Redaction
from relaygw.observe.stderr_outlet import StderrOutlet
from relaygw.observe.syslog_outlet import SyslogOutlet
from relaygw.settings.model import Log


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
