"""`relaygw shadow`: what relaygw would do with the mail of a Postfix that runs. Sends nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import click

from relaygw.cli.frame import Command, CommandFailed, Group, Invocation, pass_invocation
from relaygw.cli.selection import DURATION, STDIN
from relaygw.cli.text import Progress, as_json, labelled, print_lines
from relaygw.mail.clock import clock_ms, utc_text
from relaygw.mail.words import counted, fields
from relaygw.policy.router import Router
from relaygw.settings.model import Settings
from relaygw_postfix.maillog import Logged, followed_lines, read_maillog, whole_lines
from relaygw_postfix.sameness import Result
from relaygw_postfix.shadow import Copies, Shadow, ShadowRow, Tally
from relaygw_postfix.shadow_page import TITLE, shadow_page

_MAX_ROWS = 20
_REPORT_EVERY_S = 10.0
_TOLD = (Result.OTHER, Result.UNPROVEN)


@click.group(cls=Group)
def shadow() -> None:
    """Compare what a running Postfix does with what relaygw would do; send nothing."""


@shadow.command("run", cls=Command)
@click.option(
    "--maillog", "maillogs", metavar="FILE", multiple=True, required=True,
    type=click.Path(readable=False, path_type=Path),
    help="Postfix log, oldest first; repeatable, may be compressed (.gz); - is stdin.",
)  # fmt: skip
@click.option("--follow", is_flag=True, help="Follow the last log as it grows.")
@click.option(
    "--for", "for_s", metavar="TIME", type=DURATION, help="With --follow: stop after TIME."
)
@click.option(
    "--copies",
    metavar="MAILDIR",
    type=click.Path(readable=False, path_type=Path),
    help="Maildir of always_bcc copies, for routes with header conditions.",
)
@click.option(
    "--report", metavar="FILE.html", type=click.Path(readable=False, path_type=Path),
    help="Also write an HTML page.",
)  # fmt: skip
@click.option("--all", "wants_all", is_flag=True, help="Also show what is the same.")
@click.option(
    "--json", "wants_json", is_flag=True, help="JSON, one object per delivery, as it is read."
)
@pass_invocation
def run(
    invocation: Invocation,
    maillogs: tuple[Path, ...],
    follow: bool,
    for_s: float | None,
    copies: Path | None,
    report: Path | None,
    wants_all: bool,
    wants_json: bool,
) -> int:
    """Read a maillog, and show for each recipient what Postfix did and what relaygw would do.

    Exit code 0 when nothing differs, 65 when something differs or the log has no delivery.
    """
    if for_s is not None and not follow:
        raise click.UsageError("--for needs --follow")
    if follow and str(maillogs[-1]) == STDIN:
        raise click.UsageError("--follow needs a file; stdin is read to its end anyway")
    source = ", ".join(map(str, maillogs))
    page = _Page(report, source) if report is not None else None
    settings = invocation.read().settings
    judge = Shadow(settings, _copies(copies, settings) if copies is not None else None)
    work = _Run(judge, page, wants_json=wants_json)
    with _until_told_to_end(for_s) as ending:
        lines = _lines(maillogs, ending if follow else None, work)
        try:
            work.take(read_maillog(lines))
        except BrokenPipeError:  # of who reads what is printed
            raise
        except OSError as error:
            raise CommandFailed(
                f"{error.filename or source}: cannot be read ({error.strerror or error}); name a "
                "maillog, such as /var/log/mail.log"
            ) from error
        finally:
            work.progress.end()
    if page is not None:
        page.write(work.tally)
    if not work.tally.total:
        raise CommandFailed(
            f"{source}: no line records a delivery by Postfix; name its log, such as "
            "/var/log/mail.log, or pipe it in: journalctl -u 'postfix*' | ... --maillog -"
        )
    if not wants_json:
        print_lines(_summary(work.tally, wants_all=wants_all))
        if page is not None:
            click.echo(labelled("report", str(report)))
    return os.EX_DATAERR if work.tally.has_findings else os.EX_OK


def _copies(directory: Path, settings: Settings) -> Copies:
    try:
        return Copies(directory, Router(settings.routes).header_names)
    except OSError as error:
        raise CommandFailed(
            f"--copies {directory}: is not a Maildir ({error.filename}: {error.strerror}); name "
            "the Maildir of the always_bcc user, with the directories new and cur"
        ) from error


@dataclass(slots=True)
class _Ending:
    """Whether it is time to end."""

    at_s: float = float("inf")
    is_asked: bool = False

    def __bool__(self) -> bool:
        return self.is_asked or time.monotonic() >= self.at_s


@contextmanager
def _until_told_to_end(for_s: float | None) -> Iterator[_Ending]:
    """Let INT and TERM end what follows a log as time does: with its results."""
    ending = _Ending()
    if for_s is not None:
        ending.at_s = time.monotonic() + for_s

    def ask(*_: object) -> None:
        if ending.is_asked:
            raise KeyboardInterrupt
        ending.is_asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _lines(maillogs: tuple[Path, ...], ending: _Ending | None, work: _Run) -> Iterator[str]:
    whole = maillogs if ending is None else maillogs[:-1]
    before = (sys.stdin if str(path) == STDIN else whole_lines(path) for path in whole)
    yield from chain.from_iterable(before)
    if ending is not None:
        maillogs[-1].stat()  # that is not there at all is a mistake

        def is_over() -> bool:
            work.pause()
            return bool(ending)

        yield from followed_lines(maillogs[-1], is_over=is_over)


class _Run:
    """One run over a log."""

    def __init__(self, judge: Shadow, page: _Page | None, *, wants_json: bool) -> None:
        self.tally = Tally()
        self.progress = Progress("deliveries compared")
        self._judge = judge
        self._page = page
        self._wants_json = wants_json

    def take(self, deliveries: Iterable[Logged]) -> None:
        """Compare deliveries as they come."""
        for logged in deliveries:
            if self._judge.is_copy(logged):
                continue
            row = self._judge.row(logged)
            self.tally.add(row, logged.status)
            if self._wants_json:
                told = fields(row, *_TEXTS, "providers")
                click.echo(as_json({**told, "status": logged.status}))
            else:
                self.progress.tell(self.tally.total)

    def pause(self) -> None:
        """Do what there is time for when the log tells nothing."""
        if self._page is not None and self._page.is_due():
            self._page.write(self.tally)


_TEXTS = ("sender", "recipient", "result", "relay", "policy", "route", "why")


@dataclass(slots=True)
class _Page:
    """The page, written anew now and then."""

    file: Path
    source: str
    _next_s: float = 0.0
    _text: str = field(default="")

    def is_due(self) -> bool:
        """Return whether it was not written for some seconds."""
        return time.monotonic() >= self._next_s

    def write(self, tally: Tally) -> None:
        """Write it, in the place of an earlier one; never over another file."""
        self._next_s = time.monotonic() + _REPORT_EVERY_S
        text = shadow_page(tally, source=self.source, made_at=utc_text(clock_ms()))
        with suppress(FileNotFoundError), self.file.open("rb") as there:
            if TITLE.encode() not in there.read(1000):
                raise CommandFailed(
                    f"{self.file}: exists, and is not a relaygw report; name another file",
                    exit_code=os.EX_CANTCREAT,
                )
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=self.file.parent, prefix=f".{self.file.name}-", delete=False
        ) as file:
            file.write(text)
        Path(file.name).replace(self.file)


def _summary(tally: Tally, *, wants_all: bool) -> Iterator[str]:
    words = ", ".join(
        f"{tally.results[result]} {result}" for result in Result if tally.results[result]
    )
    yield labelled("shadow", f"{counted(tally.total, 'delivery', 'deliveries')}: {words}")
    order = list(reversed(Result))
    rows = sorted(
        tally.rows.items(), key=lambda item: (order.index(item[0].result), -item[1].total())
    )
    shown = [pair for pair in rows if wants_all or pair[0].result in _TOLD]
    limit = len(shown) if wants_all else _MAX_ROWS
    for row, seen in shown[:limit]:
        yield from _row_lines(row, seen.total())
    if len(shown) > limit:
        yield labelled("", f"... {len(shown) - limit} more; --all shows each, --report as a page")


def _row_lines(row: ShadowRow, number: int) -> Iterator[str]:
    seen = counted(number, "time")
    yield labelled("", f"{row.sender or '<>'} to {row.recipient}: {row.result}, {seen}")
    ways = ", then ".join(row.providers)
    own = f"route {row.route}: {ways}" if row.route else f"not sent: {row.policy}"
    for label, text in (("Postfix", row.relay), ("relaygw", own), ("why", row.why)):
        if text:
            yield labelled(label, text, indent=4)


# --- the page of an earlier run -------------------------------------------------------------


@shadow.command("report", cls=Command)
@click.argument("source", metavar="[FILE]", type=click.Path(readable=False), default=STDIN)
@click.option(
    "--output", metavar="FILE.html", type=click.Path(readable=False, path_type=Path), required=True,
    help="File to write the page to.",
)  # fmt: skip
def report(source: str, output: Path) -> int:
    """Create an HTML page from the output of `shadow run --json`, in FILE or on stdin."""
    tally = Tally()
    with click.open_file(source, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                tally.add(*_read_row(line, f"{source}:{number}"))
    _Page(output, "stdin" if source == STDIN else source).write(tally)
    return os.EX_DATAERR if tally.has_findings else os.EX_OK


def _read_row(line: str, place: str) -> tuple[ShadowRow, str]:
    try:
        told = json.loads(line)
        texts = {name: str(told[name]) for name in _TEXTS if name != "result"}
        ways = tuple(map(str, told["providers"]))
        row = ShadowRow(**texts, result=Result(told["result"]), providers=ways)
        return row, str(told["status"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CommandFailed(
            f"{place}: is not output of `relaygw shadow run --json` ({error}); use its output"
        ) from error
