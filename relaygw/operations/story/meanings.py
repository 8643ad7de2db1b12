"""What replies mean, as the catalogue says it: of attempts that were written down as text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relaygw.mail.attempt import AttemptState
from relaygw.mail.outcome import Meaning, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.policy.story import Note
from relaygw.settings.model import Settings
from relaygw.store.attempts import AttemptEntry
from relaygw.upstream.classifier import Classifier

_REPLY = re.compile(r"([2-5]\d\d)(?: (.*))?", re.DOTALL)


def reply_of(text: str) -> SmtpReply | None:
    """Return the reply that a line tells of, None where no reply came."""
    match = _REPLY.fullmatch(text)
    return SmtpReply(int(match[1]), (match[2] or "",)) if match else None


class Meanings:
    """The meanings by the present configuration."""

    def __init__(self, settings: Settings) -> None:
        self._providers = settings.providers
        self._classifiers: dict[str, Classifier] = {}

    def of(self, attempt: AttemptEntry) -> Meaning | None:
        """Return what an attempt's reply means, None of a provider that is gone.

        None, too, where a refusal was held although its words bounce: everybody was refused with
        them, and the hold of the provider tells why.
        """
        name = attempt.provider
        if name is None or name not in self._providers:
            return None
        if name not in self._classifiers:
            self._classifiers[name] = Classifier(self._providers[name])
        meaning = self._classifiers[name].meaning(
            Stage(attempt.stage),
            reply_of(attempt.reply),
            in_doubt=attempt.state is AttemptState.IN_DOUBT,
        )
        is_held_apart = attempt.state is AttemptState.HELD and meaning.verdict is Verdict.BOUNCE
        return None if is_held_apart else meaning


def meaning_notes(meaning: Meaning | None) -> Iterator[Note]:
    """Yield what a reply means and what can be done about it."""
    if meaning is not None and meaning.explanation:
        yield Note("meaning", meaning.explanation)
    if meaning is not None and meaning.remedy:
        yield Note("remedy", meaning.remedy)
