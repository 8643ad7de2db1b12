"""docs/troubleshooting.md is what the code says, and leaves out nothing that it promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relaygw.mail.outcome import Verdict
from relaygw.settings.alerts import Rule
from tests.docs.error_texts import the_text
from tests.docs.render_troubleshooting import (
    command_texts,
    meaning_of,
    refusals,
    render,
    sendmail_texts,
)
from tests.docs.troubles import SENDMAIL, SMTP, WITHOUT_REMEDY
from tests.docs.troubles_running import ALERTS, PROVIDERS
from tests.tables import each_of

PAGE = Path(__file__).parents[2] / "docs/troubleshooting.md"


def test_the_page_is_printed_from_the_code() -> None:
    assert PAGE.read_text() == render(), (
        "run: python -m tests.docs.render_troubleshooting > docs/troubleshooting.md"
    )


def test_every_refusal_of_the_front_has_a_row() -> None:
    assert set(SMTP) == set(refusals())
    assert len(SMTP) > 40


@each_of("text", sendmail_texts)
def test_every_error_of_sendmail_has_its_row(text: str) -> None:
    assert any(text.startswith(part) for part in SENDMAIL), "tests/docs/troubles.py: SENDMAIL"


@each_of("part", SENDMAIL)
def test_every_row_of_sendmail_is_needed(part: str) -> None:
    assert any(text.startswith(part) for text in sendmail_texts())


@each_of("text", command_texts)
def test_every_error_of_a_command_says_what_to_do(text: str) -> None:
    known = [part for part in WITHOUT_REMEDY if part in text]
    assert known or "; " in text, "say the remedy behind '; ', or in WITHOUT_REMEDY of troubles.py"


@each_of("part", WITHOUT_REMEDY)
def test_every_remedy_is_needed(part: str) -> None:
    assert any(part in text for text in command_texts())


def test_every_rule_of_alerts_is_there() -> None:
    assert list(ALERTS) == list(Rule)


@each_of(("preset", "stage", "reply"), PROVIDERS)
def test_every_reply_of_a_provider_is_known(preset: str, stage: str, reply: str) -> None:
    meaning = meaning_of(preset, stage, reply)
    assert meaning.explanation
    assert meaning.remedy or meaning.verdict in (Verdict.RETRY, Verdict.BOUNCE)


def test_cells_do_not_break_the_tables() -> None:
    for line in PAGE.read_text().splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            assert len(cells) in (2, 3, 5), line
            assert all(cell.strip() for cell in cells), line


def test_a_text_that_is_gone_is_told() -> None:
    with pytest.raises(AssertionError, match="has no text with 'nowhere said' any more"):
        the_text("errors.py", "nowhere said")
