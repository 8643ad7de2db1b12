"""Answers of the gateway's API about mail: messages, their stories, sending again."""

from __future__ import annotations

from typing import Annotated

from relaygw.mail.state import RecipientState
from relaygw.mail.verdict import PASSING, Kind
from relaygw.policy.story import EventKind
from relaygw.web.api.answers import Answer, QueueId, State, Time, one_of, said

LAST_WORDS = frozenset(Kind) - PASSING


class Recipient(Answer):
    """Who a message is for."""

    address: str
    original: str | None = said("as the client gave it, where it was rewritten")
    state: Annotated[RecipientState, one_of(RecipientState)]
    provider: str | None = said("the last one tried")
    reply: str | None = said("its last reply, or why it is captured or blocked")
    dsn: str | None = said("RFC 3463 status")
    attempts: int
    next_attempt_at: Time | None
    route: str
    released: str | None = said("by an operator: allowed or anyone of captured mail, resent")
    verdict: Annotated[Kind, one_of(LAST_WORDS)] | None = said(
        "the last word of what was reported after the provider's 250"
    )
    verdict_at: Time | None = said("when it came to that, by the provider's clock")


class Source(Answer):
    """Where a message came from."""

    client: str | None
    user: str | None
    listener: str | None
    uid: int | None
    script: str | None
    helo: str | None
    cwd: str | None
    host: str | None


class Message(Answer):
    """A message, with state, route and stream of its least finished delivery."""

    queue_id: QueueId
    state: State
    stream: str
    route: str
    sender: str = said("of the envelope; empty is the null sender")
    recipients: list[Recipient]
    subject: str
    size_bytes: int
    accepted_at: Time
    source: Source
    attempts: int
    next_attempt_at: Time | None
    reason: str | None = said("why it is deferred or held")
    message_id: str
    mode: str = said("of the gateway when it was accepted")
    captured_at: Time | None


class Report(Answer):
    """What a provider or a bounce mail reported of a message after the provider's 250."""

    kind: Annotated[Kind, one_of(Kind)]
    provider: str
    address: str | None = said("whom it is about; null: it does not tell")
    dsn: str | None = said("RFC 3463 status")
    detail: str = said("in the provider's words")
    at: Time = said("by the provider's clock")
    received_at: Time = said("when it was told")
    raw: str | None = said("as it came, never to be rendered; null for viewers")


class MessageShown(Message):
    """A message with what was reported of it."""

    events: list[Report] = said("the newest 200, oldest first")


class Note(Answer):
    """A fact beside an event."""

    label: str
    text: str


class Event(Answer):
    """Something that happened to a message."""

    kind: Annotated[EventKind, one_of(EventKind)]
    at: Time
    until: Time | None = said("the last one, if several were alike")
    times: int
    text: str
    notes: list[Note]


class Outlook(Answer):
    """How a delivery stands that is not finished."""

    delivery_no: int
    route: str
    stream: str
    state: State
    recipients: list[str]
    text: str
    next_attempt_at: Time | None
    notes: list[Note]


class _Advice(Answer):
    text: str
    command: str | None


class Story(Answer):
    """The story of a message, as relaygw queue explain tells it."""

    queue_id: QueueId
    state: str
    is_over: bool = said("it has ended; a provider may still report of it")
    headline: str = said("the cause, and what comes next, in a sentence")
    answer: str = said("what a customer may be told: no addresses, no names of ours")
    sender: str
    recipients: list[str]
    subject: str
    events: list[Event] = said("oldest first")
    next: list[Outlook] = said("of deliveries that are not finished")
    what_to_do: list[_Advice]
    as_of: Time


class _LeftMessage(Answer):
    queue_id: QueueId
    why: str
    is_temporary: bool


class Outcome(Answer):
    """What a change did, or would do."""

    action: str
    dry_run: bool
    number: int = said("of messages changed")
    changed: list[QueueId]
    left: list[_LeftMessage]


class _ResentTo(Answer):
    address: str
    was: str | None = said("its outcome in the old message, null for an address of `to`")
    result: str = said("sent again, captured or dropped")
    route: str
    reason: str | None = said("why it is not sent")


class _Resent(Answer):
    queue_id: QueueId
    resent_as: QueueId | None = said("the new message, null in a dry run")
    result: str = said("sent again to somebody at least, else captured or dropped")
    recipients: list[_ResentTo]


class Resending(Answer):
    """What was sent again, or would be."""

    dry_run: bool
    number: int = said("of new messages, those that are captured as well")
    messages: list[_Resent]
    left: list[_LeftMessage]
