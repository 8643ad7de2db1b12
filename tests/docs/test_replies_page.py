"""docs/replies.md is what the catalogue says, and its example works."""

from __future__ import annotations

import re
from pathlib import Path

from relaygw.mail.outcome import Limit, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.settings.load import load_settings
from relaygw.upstream.classifier import Classifier, catalogue
from tests.docs.render_replies import TITLES, render

PAGE = Path(__file__).parents[2] / "docs/replies.md"


def test_the_page_is_printed_from_the_catalogue() -> None:
    assert PAGE.read_text() == render()


def test_every_section_is_on_the_page() -> None:
    assert catalogue()["gmail"] == catalogue()["workspace"]
    assert set(TITLES) == set(catalogue()) - {"workspace"}


def test_the_example_of_own_rows_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
    file = tmp_path / "relaygw.yaml"
    file.write_text(example)
    loaded = load_settings(config=file, environ={"HOME": str(tmp_path)})
    classifier = Classifier(loaded.settings.providers["orders"])
    burst = classifier.meaning(Stage.CONTENT, SmtpReply(550, ("Burst limit reached",)))
    assert (burst.verdict, burst.limit) == (Verdict.THROTTLE, Limit.RATE)
    assert burst.wait_s == (10, 60, 600)
    sender = classifier.meaning(Stage.MAIL, SmtpReply(553, ("5.7.60 unknown sender domain x",)))
    assert (sender.verdict, sender.scope) == (Verdict.HOLD, Scope.SENDER_DOMAIN)
    elsewhere = classifier.meaning(Stage.RCPT, SmtpReply(550, ("5.7.1 not here",)))
    assert (elsewhere.verdict, elsewhere.scope) == (Verdict.RETRY, Scope.RECIPIENT)
