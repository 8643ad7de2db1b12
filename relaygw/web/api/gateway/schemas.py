"""The objects of the gateway's API as JSON Schema (2020-12), by the names of OpenAPI components."""

from __future__ import annotations

from typing import Any

from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.observe.history.series import Series
from relaygw.operations.selectors import SELECTORS
from relaygw.policy.story import EventKind
from relaygw.policy.untended import KINDS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
QUEUE_ID: Schema = {"type": "string", "pattern": "^[A-Z0-9]{10,20}$"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_NUMBER: Schema = {"type": ["integer", "null"]}
MAYBE_RATE: Schema = {"type": ["number", "null"]}
MAYBE_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}


def said(schema: Schema, description: str) -> Schema:
    """Return a schema with a description."""
    return {**schema, "description": description}


def one_of(values: Any) -> Schema:
    """Return the schema of a text that is one of an enumeration's."""
    return {"type": "string", "enum": sorted(one.value for one in values)}


def list_of(schema: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def answer(description: str = "", **properties: Schema) -> Schema:
    """Return the schema of an object that always has exactly these properties."""
    schema: Schema = {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }
    return said(schema, description) if description else schema


def body(description: str = "", **properties: Schema) -> Schema:
    """Return the schema of an object of a request: what it has is among these."""
    return {k: v for k, v in answer(description, **properties).items() if k != "required"}


_MAILDROP = {
    **answer(
        "Mail of local programs on this host that is not in the queue; null without a maildrop.",
        path=TEXT,
        waiting=said(NUMBER, "files to be taken"),
        late=said(NUMBER, "of these, for more than a minute"),
        aside=said(NUMBER, "files that are left alone"),
        oldest_age_s=NUMBER,
        files=said(
            list_of(answer(name=TEXT, reason=TEXT, age_s=NUMBER)),
            "three of those that are left alone or late, the oldest first",
        ),
        trouble=said(MAYBE_TEXT, "why nobody can tell"),
    ),
    "type": ["object", "null"],
}
_RECIPIENT = answer(
    address=TEXT,
    original=said(MAYBE_TEXT, "as the client gave it, where it was rewritten"),
    state=one_of(RecipientState),
    provider=said(MAYBE_TEXT, "the last one tried"),
    reply=said(MAYBE_TEXT, "its last reply, or why it is captured or blocked"),
    dsn=said(MAYBE_TEXT, "RFC 3463 status"),
    attempts=NUMBER,
    next_attempt_at=MAYBE_TIME,
    route=TEXT,
    released=said(MAYBE_TEXT, "of captured mail that was let go: allowed or anyone"),
)
_SOURCE = answer(
    client=MAYBE_TEXT,
    user=MAYBE_TEXT,
    listener=MAYBE_TEXT,
    uid=MAYBE_NUMBER,
    script=MAYBE_TEXT,
    helo=MAYBE_TEXT,
    cwd=MAYBE_TEXT,
    host=MAYBE_TEXT,
)
_MESSAGE = answer(
    "A message, with state, route and stream of its least finished delivery.",
    queue_id=QUEUE_ID,
    state=one_of(DeliveryState),
    stream=TEXT,
    route=TEXT,
    sender=said(TEXT, "of the envelope; empty is the null sender"),
    recipients=list_of(ref("Recipient")),
    subject=TEXT,
    size_bytes=NUMBER,
    accepted_at=TIME,
    source=ref("Source"),
    attempts=NUMBER,
    next_attempt_at=MAYBE_TIME,
    reason=said(MAYBE_TEXT, "why it is deferred or held"),
    message_id=TEXT,
    mode=said(TEXT, "of the gateway when it was accepted"),
    captured_at=MAYBE_TIME,
)
_NOTE = answer(label=TEXT, text=TEXT)
_EVENT = answer(
    kind=one_of(EventKind),
    at=TIME,
    until=said(MAYBE_TIME, "the last one, where there were several alike"),
    times=NUMBER,
    text=TEXT,
    notes=list_of(ref("Note")),
)
_OUTLOOK = answer(
    delivery_no=NUMBER,
    route=TEXT,
    stream=TEXT,
    state=one_of(DeliveryState),
    recipients=list_of(TEXT),
    text=TEXT,
    next_attempt_at=MAYBE_TIME,
    notes=list_of(ref("Note")),
)
_STORY = answer(
    "The story of a message, as relaygw queue explain tells it.",
    queue_id=QUEUE_ID,
    state=TEXT,
    is_over=said(FLAG, "nothing will happen to it any more by itself"),
    headline=said(TEXT, "the whole in a sentence"),
    sender=TEXT,
    recipients=list_of(TEXT),
    subject=TEXT,
    events=said(list_of(ref("Event")), "oldest first"),
    next=said(list_of(ref("Outlook")), "of deliveries that are not finished"),
    what_to_do=list_of(answer(text=TEXT, command=MAYBE_TEXT)),
    as_of=TIME,
)
_SELECT = body(
    "Messages that all conditions hold for; texts are found anywhere, without case, but for "
    "provider, route, stream and client, which are compared whole.",
    **{name: TEXT for name in SELECTORS if name not in ("id", "state")},
    state={"anyOf": [TEXT, list_of(TEXT)]},
)
_OUTCOME = answer(
    "What a change did, or would do.",
    action=TEXT,
    dry_run=FLAG,
    number=said(NUMBER, "of messages changed"),
    changed=list_of(QUEUE_ID),
    left=list_of(answer(queue_id=QUEUE_ID, why=TEXT, is_temporary=FLAG)),
)
_HOLD = answer(scope=TEXT, key=TEXT, reason=TEXT, remedy=TEXT, since=TIME, probe_at=MAYBE_TIME)
_LEARNED = answer(
    "What the provider taught by refusing.",
    rate_per_s=MAYBE_RATE,
    rate_at=MAYBE_TIME,
    connections=MAYBE_NUMBER,
    connections_at=MAYBE_TIME,
)
_STATE = {"type": "string", "enum": ["down", "held", "ok", "partly held", "slowed"]}
_USE: Schema = {
    "quota_used": said(MAYBE_NUMBER, "in 24 hours; null without a quota"),
    "is_slowed": FLAG,
    "rate_now_per_s": said(MAYBE_RATE, "while it is slower than its settings say"),
    "connections_now": said(NUMBER, "at most so many now"),
    "learned": ref("Learned"),
}
_PROVIDER = answer(
    name=TEXT,
    state=_STATE,
    holds=list_of(ref("Hold")),
    preset=MAYBE_TEXT,
    host=TEXT,
    port=NUMBER,
    tls=TEXT,
    account=MAYBE_TEXT,
    max_connections=NUMBER,
    rate=MAYBE_TEXT,
    rate_counts=TEXT,
    daily_quota=MAYBE_NUMBER,
    quota_counts=TEXT,
    senders=list_of(TEXT),
    **_USE,
)
_STATUS = answer(
    "What relaygw status --json prints, and what it warns of.",
    version=TEXT,
    mode=TEXT,
    hostname=TEXT,
    queue=TEXT,
    fingerprint=said(TEXT, "of routing and policy settings"),
    instances=list_of(
        answer(
            role=TEXT,
            name=TEXT,
            incarnation=TEXT,
            pid=NUMBER,
            version=TEXT,
            state=TEXT,
            started_at=TIME,
            heartbeat_at=TIME,
            is_silent=FLAG,
            fingerprint=TEXT,
            has_drifted=FLAG,
        )
    ),
    providers=list_of(answer(name=TEXT, host=TEXT, port=NUMBER, state=_STATE, **_USE)),
    holds=list_of(ref("Hold")),
    lanes=list_of(
        answer(
            route=TEXT,
            stream=TEXT,
            state=one_of(DeliveryState),
            deliveries=NUMBER,
            oldest_accepted_at=TIME,
        )
    ),
    untended=list_of(
        answer(
            "Mail that does not move by itself.",
            kind={"type": "string", "enum": sorted(KINDS)},
            rule=said(TEXT, "of alerts"),
            key=said(TEXT, "the kind, the route, or the worker's host"),
            deliveries=NUMBER,
            since=MAYBE_TIME,
            examples=said(list_of(TEXT), "queue ids"),
            summary=TEXT,
            remedy=TEXT,
        )
    ),
    lost=list_of(
        answer(
            "A process that died in the last day and has not come back.",
            role=TEXT,
            name=TEXT,
            incarnation=TEXT,
            pid=NUMBER,
            heartbeat_at=said(TIME, "the last one"),
            leases=said(NUMBER, "deliveries it had in hand"),
        )
    ),
    captured=NUMBER,
    unread=NUMBER,
    maildrop=_MAILDROP,
    warnings=list_of(TEXT),
)
_INCIDENT = answer(
    "Something that is or was wrong.",
    incident_id=TEXT,
    rule=TEXT,
    key=said(TEXT, "whom it concerns; empty is the whole gateway"),
    summary=TEXT,
    remedy=TEXT,
    since=TIME,
    told=said(list_of(TEXT), "channels that took the notice"),
    recovered_at=MAYBE_TIME,
    recovery_told=list_of(TEXT),
)
_POINT = answer(
    "What was counted in one slice; queue and oldest_s are the greatest number within it.",
    at=said(TIME, "the slice's beginning"),
    series=one_of(Series),
    label=TEXT,
    amount=NUMBER,
)
_DEED = answer(
    "A line of the audit trail.",
    at=TIME,
    actor=TEXT,
    action=TEXT,
    target=said(TEXT, "a name, or queue ids with blanks between"),
    affected=NUMBER,
    detail=TEXT,
)
_ERROR = answer(
    error=answer(
        status=NUMBER,
        what=said(TEXT, "what is wrong"),
        expected=said(TEXT, "what would do, or empty"),
        remedy=said(TEXT, "what to do, or empty"),
    )
)
_WAITED = answer(
    message=said({"type": "object"}, "as GET /api/v1/message/ID answers it"),
    codes=list_of(TEXT),
    links=list_of(answer(url=TEXT, text=TEXT, where=TEXT)),
)

SCHEMAS: dict[str, Schema] = {
    "Message": _MESSAGE,
    "Recipient": _RECIPIENT,
    "Source": _SOURCE,
    "Story": _STORY,
    "Event": _EVENT,
    "Outlook": _OUTLOOK,
    "Note": _NOTE,
    "Select": _SELECT,
    "Outcome": _OUTCOME,
    "Provider": _PROVIDER,
    "Hold": _HOLD,
    "Learned": _LEARNED,
    "Status": _STATUS,
    "Incident": _INCIDENT,
    "Point": _POINT,
    "Deed": _DEED,
    "Waited": _WAITED,
    "Error": _ERROR,
}
