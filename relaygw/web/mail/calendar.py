"""Events of a calendar file (RFC 5545) for people: who, when, where. Never raises."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

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
