"""Which mail is marked, and how often the log says that some is not."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.settings.provider import Provider
from relaygw.upstream import mark as marks
from relaygw.upstream.mark import Marks, marking_of
from tests.builders import Clock

REPORTS = {"host": "smtp.test", "preset": "sendgrid", "events": {"secret": "plain:x"}}
MARKS = Marks(b"k" * 32)


@pytest.mark.parametrize(
    ("provider", "marks", "is_marked"),
    [(REPORTS, MARKS, True), (REPORTS, None, False), ({"host": "smtp.test"}, MARKS, False)],
    ids=["reports", "no-marks", "reports-nothing"],
)
def test_mail_is_marked_for_a_provider_that_reports_by_a_mark(
    provider: dict[str, Any], marks: Marks | None, is_marked: bool
) -> None:
    made = marking_of("p", Provider.model_validate(provider), marks, print)
    assert (made is not None) == is_marked


def test_mail_without_its_mark_is_told_of_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "time", clock := Clock())
    told: list[str] = []
    made = marking_of("p", Provider.model_validate(REPORTS), MARKS, told.append)
    assert made is not None
    mark = made.mark("4Q")
    for wait_s, count in ((0.0, 1), (3600.0, 1), (1.0, 2), (1.0, 2)):
        clock.now_s += wait_s
        mark.untold("4Q", "it has one")
        assert len(told) == count
    assert "4Q goes to provider p without the mark" in told[0]
