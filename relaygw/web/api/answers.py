"""The answers of the gateway's API, each checked against its class, which is its schema as well.

Those about mail are in `mail_answers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from relaygw.mail.state import DeliveryState
from relaygw.observe.history import Series
from relaygw.policy.untended import KINDS


def said(description: str, **more: Any) -> Any:
    """Return a field with a description."""
    return Field(description=description, **more)


def one_of(values: Iterable[str]) -> WithJsonSchema:
    """Return the schema of a text that is one of these."""
    return WithJsonSchema({"type": "string", "enum": sorted(map(str, values))})


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
QueueId = Annotated[str, Field(pattern=r"^[A-Z0-9]{10,20}$")]
State = Annotated[DeliveryState, one_of(DeliveryState)]


class Answer(BaseModel):
    """An object that always has exactly these fields."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


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
    state: Literal["busy", "deferring", "down", "held", "ok", "partly held", "paused", "slowed"]
    quota_used: int | None = said("in 24 hours; null without a quota")
    is_slowed: bool
    rate_now_per_s: float | None = said("while it is slower than its settings say")
    connections_now: int = said("the current limit")
    waiting: int = said("what waits for its first try, in the measure of its rate")
    behind_s: float = said("how long that takes by its rate, at most; 0 without a rate")
    in_hand_s: float = said("how long the first in hand waits for a connection or an answer")
    in_doubt: int = said("deliveries that it may have taken already")
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

    kind: Annotated[str, one_of(KINDS)]
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


class StandingHold(Answer):
    """Mail that waits because somebody said so: what is queued, and what comes."""

    id: str
    scope: str = said("what the mail has in common")
    value: str
    since: Time
    until: Time | None = said("when it ends by itself; null: somebody ends it")
    reason: str
    by: str = said("who set it")
    waiting: int = said("deliveries that wait for its end")


class StandingHoldSet(StandingHold):
    """A standing hold that was just set, or set anew."""

    being_sent: int = said("deliveries in the hands of workers, which may still be sent")


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
    standing_holds: list[StandingHold]
    lanes: list[_Lane]
    untended: list[Untended]
    lost: list[Lost]
    in_queue: InQueue | None
    captured: int
    unread: int
    maildrop: Maildrop | None
    warnings: list[str]


class SourceOfMail(Answer):
    """A class of mail, or several by what they have in common: the rest is null."""

    class_: str | None = said("id of the class", alias="class")
    source: str | None = said("id of the source")
    host: str | None = said("host or client; local: the sendmail command of the gateway")
    listener: str | None = said("its port, as :25")
    user: str | None = said("login")
    uid: int | None
    script: str | None
    sender_domain: str | None = said("of the envelope")
    template: str | None = said("the subject without numbers, names and dates")
    stream: str | None
    classes: int
    messages: int = said("accepted in the time that was asked for")
    recipients: int
    refused: int = said("of the recipients, at acceptance")
    busiest_hour: int = said("messages")
    total: int = said("messages ever")
    first_seen: Time
    last_seen: Time


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
    series: Annotated[Series, one_of(Series)]
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


class ThrottledClient(Answer):
    """A client of a listener that was told to come later."""

    listener: str
    client: str = said("address, of IPv6 the /64; or `user NAME`")
    cause: str = said("rate, connections or logins")
    times: int
    first_seen: Time
    last_seen: Time


class ExemptNetwork(Answer):
    """A network whose clients a listener does not limit."""

    listener: str
    network: str
    by: str = said("key of the listener that names it: allow or exempt")
    limits: list[str] = said("keys of the limits that do not hold for it")


class GuardEntryShown(Answer):
    """A source or class of mail that is held, or may send more than others."""

    id: str = said("of the class or the source")
    source: str = said("id of the source")
    action: str = said("hold or allow")
    label: str = said("who sends it, and the template of a class")
    reason: str
    actor: str = said("guard, or an operator")
    per_hour: int | None = said("messages that are allowed")
    held: int = said("messages that are held for it now")
    since: Time
    new_since: Time | None = said("of a source only templates that were first seen since then")


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
