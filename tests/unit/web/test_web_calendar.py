"""Calendar files: what they say, and that nothing in them is too much."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from relaygw.web.mail.attachments import MAX_EVENTS, MAX_PEOPLE, read_calendar
from tests.e2e.browser.attachments import CALENDAR

EVENT = "BEGIN:VEVENT\nSUMMARY:x\nEND:VEVENT\n"


def test_an_invitation() -> None:
    calendar = read_calendar(CALENDAR.decode())
    (event,) = calendar.events
    assert calendar.purpose == "An invitation"
    assert event.title == "Fitting <img src=http://evil.test/s.png onerror=alert(1)>"
    assert event.lines == [
        ("Starts", "2026-12-01 14:00 Europe/Berlin"),
        ("Ends", "2026-12-01 15:00 Europe/Berlin"),
        ("Where", "Shop, first floor"),
        ("Organizer", "Fern & Fig <orders@shop.example>"),
        ("About", "Bring the lamp.\nSee http://evil.test/d and more."),
        ("Address", "javascript:alert(1)"),
    ]
    assert event.people == ["Anna Berg <anna@customer.example>, needs action"]


def test_times_as_they_are_written() -> None:
    lines = ["DTSTART;VALUE=DATE:20260131", "DTEND:20260131T101530Z", "DUE:soon"]
    (event,) = read_calendar("BEGIN:VTODO\r\n" + "\r\n".join(lines)).events
    assert [text for _, text in event.lines] == ["2026-01-31", "2026-01-31 10:15:30 UTC", "soon"]


def test_what_is_too_much_is_left_out_and_said() -> None:
    calendar = read_calendar(EVENT * (MAX_EVENTS + 3))
    assert (len(calendar.events), calendar.is_cut) == (MAX_EVENTS, True)
    people = "".join(f"ATTENDEE:mailto:{n}@x.test\n" for n in range(MAX_PEOPLE + 7))
    (event,) = read_calendar("BEGIN:VEVENT\n" + people).events
    assert (len(event.people), event.more_people) == (MAX_PEOPLE, 7)


def test_it_costs_what_its_length_says() -> None:
    started = time.process_time()
    for bomb in (EVENT * 20_000, 'BEGIN:VEVENT\nX;a="' * 20_000,
                 "BEGIN:VEVENT\nATTENDEE" + ";A=b" * 99_999,
                 "BEGIN:VEVENT\n" + "\n " * 100_000, "BEGIN:VEVENT\nSUMMARY:" + "\\" * 200_000,
                 "BEGIN:" * 60_000, '":' * 150_000):  # fmt: skip
        read_calendar(bomb)
    assert time.process_time() - started < 3


def test_a_line_without_a_value_is_read_once() -> None:
    started = time.process_time()
    read_calendar("BEGIN:VEVENT\n" + ("A" * 60 + "x" * 100 + "\n") * 2_000)
    read_calendar("A" * 250_000)
    assert time.process_time() - started < 0.3


@given(st.lists(st.sampled_from([
    "BEGIN:VCALENDAR", "BEGIN:VEVENT", "END:VEVENT", "END:", "BEGIN:", ":", ";", '"', " ", "\0",
    "DTSTART;TZID=", "20260131T101530", "\\", "\n", "\r\n ", "ATTENDEE;CN=", "SUMMARY",
])).map("".join))  # fmt: skip
def test_it_never_raises(text: str) -> None:
    read_calendar(text)
