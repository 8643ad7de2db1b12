"""A queue whose mail is tried as a worker does, without any provider, and the story of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from relaygw.mail.envelope import AcceptedMessage, NewRecipient
from relaygw.mail.outcome import AttemptReport, RecipientOutcome, Stage, Verdict
from relaygw.operations.story import tell_story
from relaygw.operations.story.facts import reply_of
from relaygw.policy.retry import settle
from relaygw.policy.story import EventKind, Story, StoryEvent
from relaygw.settings.model import Settings
from relaygw.store.instances import Instance
from relaygw.store.store import open_store
from relaygw.upstream.classifier import Classifier
from tests.builders import NOW_MS, accepted
from tests.queues import make_queue

RELAY = "smtp.provider.test[192.0.2.1]:587"
MINUTE_MS = 60_000
Said = tuple[Stage, str]


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(
        {
            "mode": "production",
            "providers": {"main": {"host": "smtp.example.com"}, "other": {"host": "b.example.com"}},
            "routes": [
                {
                    "name": "promo",
                    "sender": ["@promo.test"],
                    "stream": "promotional",
                    "providers": ["other"],
                },
                {"name": "default", "providers": ["main"]},
            ],
            **sections,
        }
    )


def instance(incarnation: str, *, beat_ms: int = 0) -> Instance:
    return Instance(
        incarnation=incarnation,
        name="gw1",
        role="delivery",
        pid=1,
        version="1",
        fingerprint="f",
        heartbeat_at_ms=beat_ms,
    )


class StoryRig:
    """One worker on a real queue."""

    def __init__(self, directory: Path, **sections: Any) -> None:
        url = f"sqlite:///{directory}/queue.db"
        make_queue(url)
        self.store = open_store(url)
        self.store.instances.register(instance("w"))
        self.settings = settings(**sections)

    def accept(self, *recipients: str | NewRecipient, **more: Any) -> AcceptedMessage:
        message = accepted(*recipients, **more)
        self.store.intake.accept_batch([message])
        return message

    def attempt(
        self,
        message: AcceptedMessage,
        *said: Said,
        at_ms: int = NOW_MS + 1000,
        provider: str = "main",
        in_doubt: bool = False,
        route: str = "default",
        verdict: Verdict | None = None,
        **settled: Any,
    ) -> None:
        """Let the worker try a message once; the provider said this to each recipient."""
        claims = self.store.leases.claim(route, limit=100, incarnation="w", now_ms=at_ms)
        (claimed,) = [one for one in claims if one.queue_id == message.queue_id]
        classifier = Classifier(self.settings.providers[provider])
        outcomes = [
            _outcome(classifier, one.rcpt_no, *words, in_doubt=in_doubt)
            for one, words in zip(claimed.recipients, said, strict=True)
        ]
        if verdict is not None:  # whatever the words mean
            outcomes = [
                replace(one, meaning=replace(one.meaning, verdict=verdict)) for one in outcomes
            ]
        report = AttemptReport(provider=provider, relay=RELAY, outcomes=tuple(outcomes))
        update = settle(claimed, report, self.settings.retry, now_ms=at_ms, chance=0.5, **settled)
        recorded = self.store.leases.record_batch([update], incarnation="w", now_ms=at_ms)
        assert recorded.is_alive and not recorded.lost

    def story(self, message: AcceptedMessage, *, now_ms: int = NOW_MS + MINUTE_MS) -> Story:
        story = tell_story(self.store, self.settings, message.queue_id, now_ms=now_ms)
        assert story is not None
        return story


def _outcome(
    classifier: Classifier, rcpt_no: int, stage: Stage, words: str, *, in_doubt: bool
) -> RecipientOutcome:
    reply = reply_of(words)
    return RecipientOutcome(
        rcpt_no=rcpt_no,
        meaning=classifier.meaning(stage, reply, in_doubt=in_doubt),
        stage=stage,
        reply=reply,
        detail="" if reply else words,
        dsn=reply.dsn if reply else "4.0.0",
    )


def kinds(story: Story) -> list[str]:
    return [event.kind.value for event in story.events]


def event_of(story: Story, kind: EventKind) -> StoryEvent:
    """Return the one event of a kind."""
    (found,) = [event for event in story.events if event.kind is kind]
    return found


def notes(event: StoryEvent) -> dict[str, str]:
    return {note.label: note.text for note in event.notes}


def commands(story: Story) -> Sequence[str]:
    return [advice.command for advice in story.advice if advice.command]


def advised(story: Story) -> str:
    return " ".join(advice.text for advice in story.advice)
