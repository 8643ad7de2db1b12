"""The answers of the gateway's API, each checked against its class, which is its schema as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import PASSING, Kind
from relaygw.observe.observer import Series
from relaygw.policy.story import EventKind
from relaygw.policy.untended import KINDS


def said(description: str, **more: Any) -> Any:
    """Return a field with a description."""
    return Field(description=description, **more)


def _one_of(values: Iterable[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": sorted(map(str, values))})


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
QueueId = Annotated[str, Field(pattern=r"^[A-Z0-9]{10,20}$")]
LAST_WORDS = frozenset(Kind) - PASSING
State = Annotated[DeliveryState, _one_of(DeliveryState)]


class Answer(BaseModel):
    """An object that always has exactly these fields."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Recipient(Answer):
    """Who a message is for."""

    address: str
    original: str | None = said("as the client gave it, where it was rewritten")
    state: Annotated[RecipientState, _one_of(RecipientState)]
    provider: str | None = said("the last one tried")
    reply: str | None = said("its last reply, or why it is captured or blocked")
    dsn: str | None = said("RFC 3463 status")
    attempts: int
    next_attempt_at: Time | None
    route: str
    released: str | None = said("by an operator: allowed or anyone of captured mail, resent")
    verdict: Annotated[Kind, _one_of(LAST_WORDS)] | None = said(
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

    kind: Annotated[Kind, _one_of(Kind)]
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

    kind: Annotated[EventKind, _one_of(EventKind)]
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


class Hold(Answer):
    """Why a provider is not used."""

    scope: str
    key: str
    reason: str
    remedy: str
    since: Time
    probe_at: Time | None


class Learned(Answer):
    """What the provider taught by refusing."""

    rate_per_s: float | None
    rate_at: Time | None
    connections: int | None
    connections_at: Time | None


class InQueue(Answer):
    """How long mail that came to its end in the last hour was in the queue."""

    mails: int
    p50_s: float = said("half of it was done within this time")
    p95_s: float = said("95 % of it was done within this time")


class _ProviderAnswer(Answer):
    name: str
    host: str
    port: int
    state: Literal["down", "held", "ok", "partly held", "slowed"]
    quota_used: int | None = said("in 24 hours; null without a quota")
    is_slowed: bool
    rate_now_per_s: float | None = said("while it is slower than its settings say")
    connections_now: int = said("the current limit")
    learned: Learned


class _ProviderStatus(_ProviderAnswer):
    in_queue: InQueue | None


class Provider(_ProviderAnswer):
    """A provider with its settings, its limits and its holds."""

    holds: list[Hold]
    preset: str | None
    tls: str
    account: str | None
    max_connections: int
    rate: str | None
    rate_counts: str
    daily_quota: int | None
    quota_counts: str
    senders: list[str]


class _Process(Answer):
    role: str
    name: str
    incarnation: str
    pid: int
    heartbeat_at: Time = said("the last one")


class _Instance(_Process):
    version: str
    state: str
    started_at: Time
    is_silent: bool
    fingerprint: str
    has_drifted: bool


class _Lane(Answer):
    route: str
    stream: str
    state: State
    deliveries: int
    oldest_accepted_at: Time


class Untended(Answer):
    """Mail that does not move by itself."""

    kind: Annotated[str, _one_of(KINDS)]
    rule: str = said("of alerts")
    key: str = said("the kind, the route, or the worker's host")
    deliveries: int
    since: Time | None
    examples: list[str] = said("queue ids")
    summary: str
    remedy: str


class Lost(_Process):
    """A process that died in the last day and has not come back."""

    leases: int = said("deliveries it was sending")


class _LeftFile(Answer):
    name: str
    reason: str
    age_s: int


class Maildrop(Answer):
    """Mail of local programs on this host that is not in the queue; null without a maildrop."""

    path: str
    waiting: int = said("files to be accepted")
    late: int = said("of these, for more than a minute")
    aside: int = said("files set aside")
    oldest_age_s: int
    files: list[_LeftFile] = said("three of those left alone or late, oldest first")
    trouble: str | None = said("why it cannot be read")


class Status(Answer):
    """What relaygw status --json prints, and what it warns of."""

    version: str
    mode: str
    hostname: str
    queue: str
    fingerprint: str = said("of routing and policy settings")
    instances: list[_Instance]
    providers: list[_ProviderStatus]
    holds: list[Hold]
    lanes: list[_Lane]
    untended: list[Untended]
    lost: list[Lost]
    in_queue: InQueue | None
    captured: int
    unread: int
    maildrop: Maildrop | None
    warnings: list[str]


class Incident(Answer):
    """Something that is or was wrong."""

    incident_id: str
    rule: str
    key: str = said("what it concerns; empty means the whole gateway")
    summary: str
    remedy: str
    since: Time
    told: list[str] = said("channels that accepted the notice")
    recovered_at: Time | None
    recovery_told: list[str]


class Point(Answer):
    """What was counted in one slice; queue and oldest_s are the greatest number within it.

    A label of in_queue is a provider and the greatest time of a step, in ms; its slices are of half
    an hour.
    """

    at: Time = said("the slice's beginning")
    series: Annotated[Series, _one_of(Series)]
    label: str
    amount: int


class Deed(Answer):
    """A line of the audit trail."""

    at: Time
    actor: str
    action: str
    target: str = said("a name, or queue ids separated by spaces")
    affected: int
    detail: str
    text: str = said("all of it as a sentence")


class Login(Answer):
    """A name that may log in."""

    kind: str = said("web: a person; token: a program; smtp: who sends mail")
    name: str
    role: str = said("viewer, operator or admin; empty of smtp")
    since: Time | None = said("when it, or its present password, was seen first")
    used_at: Time | None = said("when it was last used, to the minute; null: never since then")


class _Problem(Answer):
    status: int
    what: str = said("what is wrong")
    expected: str = said("what is expected, or empty")
    remedy: str = said("what to do, or empty")


class Error(Answer):
    """The answer to a request that failed."""

    error: _Problem


class _Link(Answer):
    url: str
    text: str
    where: str


class Waited(Answer):
    """Captured mail that was waited for, with its codes and links."""

    message: dict[str, Any] = said("as GET /api/v1/message/ID answers it")
    codes: list[str]
    links: list[_Link]


COMPONENTS: tuple[type[BaseModel], ...] = (  # those that have a name in the description
    *(
        Message,
        MessageShown,
        Report,
        Recipient,
        Source,
        Story,
        Event,
        Outlook,
        Note,
        Outcome,
        Resending,
    ),
    *(Provider, Hold, Learned, Status, Incident, Point, Deed, Waited, Error),
)
