"""Attachments read for people: events of a calendar file (RFC 5545), the first pages of a PDF.

Who, when and where an event is; it never raises. A PDF is drawn as pictures by a child process that
can do nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from threading import Timer

from relaygw.web.mail.pdf_child import ENCRYPTED, MAX_PAGES

MAX_EVENTS = 50
MAX_PEOPLE = 50
_MAX_VALUE = 4000
_MAX_LINES = 50_000

_FOLD = re.compile(r"\r?\n[ \t]")
_LINE = re.compile(r'([A-Za-z0-9-]{1,60}+)((?:[^":]|"[^"]*")*+):(.*)', re.DOTALL)
_PARAMETER = re.compile(r';([A-Za-z-]{1,40})=("[^"]*"|[^";:,]*)')
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LABELS = {
    "DTSTART": "Starts",
    "DTEND": "Ends",
    "DUE": "Due",
    "DURATION": "Lasts",
    "RRULE": "Repeats",
    "LOCATION": "Where",
    "ORGANIZER": "Organizer",
    "STATUS": "Status",
    "URL": "Address",
    "DESCRIPTION": "About",
}
_METHODS = {
    "REQUEST": "An invitation",
    "CANCEL": "A cancellation",
    "REPLY": "An answer",
    "PUBLISH": "For information",
    "COUNTER": "Another time is proposed",
}


@dataclass(slots=True)
class CalendarEvent:
    """An event or task: lines of a label and a text, and who is asked to come."""

    title: str = ""
    lines: list[tuple[str, str]] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    more_people: int = 0


@dataclass(slots=True)
class Calendar:
    """What a calendar file says."""

    purpose: str = ""
    events: list[CalendarEvent] = field(default_factory=list)
    is_cut: bool = False


def read_calendar(text: str) -> Calendar:
    """Return the events of a file; what is not understood is passed over."""
    calendar = Calendar()
    inside: list[str] = []
    lines = _FOLD.sub("", text).splitlines()
    for line in lines[:_MAX_LINES]:
        match = _LINE.match(line)
        if match is None:
            continue
        name, value = match[1].upper(), match[3].strip()
        if name == "BEGIN":
            inside.append(value.upper()[:20])
            if inside[-1] in ("VEVENT", "VTODO"):
                if len(calendar.events) == MAX_EVENTS:
                    calendar.is_cut = True
                    break
                calendar.events.append(CalendarEvent())
        elif name == "END":
            if inside:
                inside.pop()
        elif name == "METHOD":
            calendar.purpose = _METHODS.get(value.upper(), "")
        elif inside and inside[-1] in ("VEVENT", "VTODO"):
            _put(calendar.events[-1], name, match[2], value[:_MAX_VALUE])
    calendar.is_cut |= len(lines) > _MAX_LINES
    return calendar


def _put(event: CalendarEvent, name: str, given: str, value: str) -> None:
    parameters = {key.upper(): told.strip('"') for key, told in _PARAMETER.findall(given[:2000])}
    if name == "SUMMARY":
        event.title = event.title or _text(value)
    elif name == "ATTENDEE":
        if len(event.people) == MAX_PEOPLE:
            event.more_people += 1
        else:
            said = parameters.get("PARTSTAT", "").replace("-", " ").lower()
            event.people.append(_person(parameters, value) + (f", {said}" if said else ""))
    elif name in _LABELS and len(event.lines) < 2 * len(_LABELS):
        if name in ("DTSTART", "DTEND", "DUE"):
            value = _time(value, parameters.get("TZID", ""))
        elif name == "ORGANIZER":
            value = _person(parameters, value)
        event.lines.append((_LABELS[name], _text(value)))


def _person(parameters: dict[str, str], value: str) -> str:
    address = re.sub(r"^mailto:", "", value, flags=re.IGNORECASE)
    name = parameters.get("CN", "")
    return f"{name} <{address}>" if name and name != address else address


def _time(value: str, zone: str) -> str:
    match = _TIME.fullmatch(value)
    if match is None:
        return value
    year, month, day, hour, minute, second, is_utc = match.groups()
    date = f"{year}-{month}-{day}"
    if hour is None:
        return date
    clock = f"{hour}:{minute}" + (f":{second}" if second != "00" else "")
    return f"{date} {clock} {'UTC' if is_utc else zone}".rstrip()


def _text(value: str) -> str:
    return _ESCAPED.sub(lambda match: "\n" if match[1] in "nN" else match[1], value)


MAX_PDF_BYTES = 20_000_000
MAX_DRAWN_BYTES = 12 * 2**20  # of all pages
WALL_S = 15.0
_CHILD = Path(__file__).with_name("pdf_child.py")


@dataclass(frozen=True, slots=True)
class DrawnPages:
    """Pictures (PNG) of the first of `count` pages; `why` says why there are not more."""

    pictures: tuple[bytes, ...] = ()
    count: int = 0
    why: str = ""


def draw_pages(body: bytes) -> DrawnPages:
    """Draw the first pages of a PDF; never raises for what is in it. Blocks up to `WALL_S`."""
    if find_spec("pypdfium2") is None:
        return DrawnPages(why="pages of a PDF are shown once the package pypdfium2 is installed")
    if len(body) > MAX_PDF_BYTES:
        return DrawnPages(why=f"it is larger than {MAX_PDF_BYTES // 10**6} MB")
    drawn, status = _run(body)
    pictures, count = _split(drawn)
    if status == ENCRYPTED:
        why = "it has a password"
    elif status is None:
        why = f"rendering takes longer than {WALL_S:g} s"
    elif status != 0:
        why = "it is broken, or takes too much memory or time for a preview"
    else:
        why = ""
    return DrawnPages(pictures, count, why)


def _run(body: bytes) -> tuple[bytes, int | None]:
    """Return the child's output and exit status, None for a child that took too long."""
    is_late = False

    def end() -> None:
        nonlocal is_late
        is_late = True
        _kill(child)

    with subprocess.Popen(
        [sys.executable, "-I", "-B", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    ) as child:
        timer = Timer(WALL_S, end)
        timer.start()
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            # the child reads all of it before it writes
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(body)
                child.stdin.close()
            drawn = child.stdout.read(MAX_DRAWN_BYTES + 1)
            if len(drawn) <= MAX_DRAWN_BYTES:
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        finally:
            # before it is waited for: then its number is no other process's
            timer.cancel()
            timer.join()
            _kill(child)
    return drawn, None if is_late else child.returncode


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child and all that it may have started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _split(drawn: bytes) -> tuple[tuple[bytes, ...], int]:
    """Return the whole pictures of what a child wrote, and how many pages there are."""
    pictures: list[bytes] = []
    place = 4
    while place + 4 <= len(drawn) and len(pictures) < MAX_PAGES:
        (size,) = struct.unpack_from(">I", drawn, place)
        place += 4 + size
        if place > len(drawn):
            break
        pictures.append(drawn[place - size : place])
    count = struct.unpack_from(">I", drawn)[0] if len(drawn) >= 4 else 0
    return tuple(pictures), count
