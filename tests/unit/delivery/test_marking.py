"""Which mail is marked, and how often the log says that some is not."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest

from relaygw.delivery import marking
from relaygw.delivery.context import marks_of
from relaygw.delivery.marking import marking_of
from relaygw.mail.mark import Marks
from relaygw.observe.observer import DeliveryObserver
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.store.store import Store
from tests.builders import Clock
from tests.logs import text_log
from tests.unit.delivery.worker_context import worker_context

REPORTS = {"host": "smtp.test", "preset": "sendgrid", "events": {"secret": "plain:x"}}
NO_STORE = cast(Store, None)


@pytest.mark.parametrize(
    ("provider", "has_marks", "is_marked"),
    [(REPORTS, True, True), (REPORTS, False, False), ({"host": "smtp.test"}, True, False)],
)
def test_mail_is_marked_for_a_provider_that_reports_by_a_mark(
    provider: dict[str, Any], has_marks: bool, is_marked: bool
) -> None:
    context = worker_context(NO_STORE, marks=Marks(b"k" * 32) if has_marks else None)
    made = marking_of("p", Provider.model_validate(provider), context)
    assert (made is not None) == is_marked
    assert marks_of(Settings.model_validate({"mode": "sandbox"}), NO_STORE) is None


def test_mail_without_its_mark_is_told_of_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "time", clock := Clock())
    log = io.StringIO()
    context = worker_context(
        NO_STORE, marks=Marks(b"k" * 32), observer=DeliveryObserver(text_log(log))
    )
    made = marking_of("p", Provider.model_validate(REPORTS), context)
    assert made is not None
    mark = made.mark("4Q")
    for wait_s, told in ((0.0, 1), (3600.0, 1), (1.0, 2), (1.0, 2)):
        clock.now_s += wait_s
        mark.untold("4Q", "it has one")
        assert log.getvalue().count("4Q goes to provider p without the mark") == told
