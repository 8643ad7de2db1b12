"""Only the recipient's fault bounces a recipient: refusals as servers and services word them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from relaygw.mail.outcome import Meaning, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.settings.provider import STAGES, Provider
from relaygw.upstream.classifier import GENERIC, Classifier, catalogue

MAY_BOUNCE = frozenset({"recipient", "message"})
SECTIONS = {
    name: Classifier(Provider(host="smtp.example.com", preset=None if name == GENERIC else name))
    for name in catalogue()
}


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One row of the corpus: who says what where, and what it is about."""

    mta: str
    stage: str
    about: str
    reply: str
    source: str

    def meanings(self) -> dict[str, Meaning]:
        """Return what it means to every provider, and to its own preset where it has one."""
        code, *lines = self.reply[:3], *(line[4:] for line in self.reply.split("\n"))
        said = SmtpReply(int(code), tuple(lines))
        return {
            name: SECTIONS[name].meaning(STAGES[self.stage], said)  # type: ignore[index]
            for name in {GENERIC, self.mta} & SECTIONS.keys()
        }


CORPUS = [
    Refusal(**row)
    for row in yaml.load(
        (Path(__file__).parent / "reply_corpus.yaml").read_text(encoding="utf-8"),
        Loader=yaml.CSafeLoader,
    )
]


def shown(refusals: list[Refusal]) -> str:
    return "\n".join(f"{one.mta} {one.stage} ({one.about}): {one.reply}" for one in refusals)


def bounces(refusal: Refusal) -> bool:
    return any(meaning.verdict is Verdict.BOUNCE for meaning in refusal.meanings().values())


def test_the_corpus_is_wide() -> None:
    assert len(CORPUS) >= 300
    assert len({one.mta for one in CORPUS}) >= 12
    assert all(one.source for one in CORPUS)


def test_what_is_said_about_us_bounces_nobody() -> None:
    """Account, client, sender, login, policy, rate, trouble of the provider's, or unknown."""
    wrong = [one for one in CORPUS if one.about not in MAY_BOUNCE and bounces(one)]
    assert not wrong, shown(wrong)


def test_what_is_said_about_us_for_good_tells_what_to_do() -> None:
    untold = [
        one
        for one in CORPUS
        if one.about in ("account", "client", "sender", "authentication")
        and one.reply.startswith("5")
        and not all(meaning.remedy for meaning in one.meanings().values())
    ]
    assert not untold, shown(untold)


def test_a_mailbox_that_does_not_exist_bounces() -> None:
    """Most refusals of a mailbox are known as such; the others wait, which costs time only."""
    refused = [
        one
        for one in CORPUS
        if one.about == "recipient"
        and one.reply.startswith("5")
        and one.stage in ("rcpt", "content")
    ]
    known = [one for one in refused if bounces(one)]
    assert len(known) >= 0.8 * len(refused), shown([one for one in refused if one not in known])


@pytest.mark.parametrize(
    "reply", ["5.1.1 User unknown", "5.1.1 <b@y.test>: Recipient address rejected: User unknown"]
)
def test_an_unknown_user_bounces_at_every_provider(reply: str) -> None:
    for classifier in SECTIONS.values():
        meaning = classifier.meaning(Stage.RCPT, SmtpReply(550, (reply,)))
        assert meaning.verdict is Verdict.BOUNCE
