"""What can be asked of the gateway's API, in words: the source of its description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from relaygw.operations.queue_actions import ACTIONS, QueueAction
from relaygw.operations.selectors import SELECTORS
from relaygw.web.api.gateway.asked import DEFAULT_LISTED, MAX_IDS, MAX_LISTED
from relaygw.web.api.gateway.schemas import (
    FLAG,
    NUMBER,
    QUEUE_ID,
    TEXT,
    Schema,
    answer,
    body,
    list_of,
    ref,
    said,
)

V1 = "/api/gateway/v1"
_SINCE = "RFC 3339, or an age like 6h"
_SELECTORS = {name: one.help for name, one in SELECTORS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str
    tag: str
    summary: str
    description: str = ""
    role: str = "viewer"
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the query
    body: Schema | None = None
    answer: Schema
    errors: tuple[int, ...] = (400, 401, 503)


def _list_parameters(*names: str) -> dict[str, str]:
    known = {
        "limit": f"1 to {MAX_LISTED}, {DEFAULT_LISTED} without it",
        "after": "`next` of the page before",
    }
    return {name: known[name] for name in names}


def endpoints() -> Iterator[Endpoint]:
    """Yield them in the order in which they are shown."""
    yield from _queue()
    yield from (_change(verb) for verb in ACTIONS.values())
    yield from _providers()
    yield from _watching()
    yield Endpoint(
        method="get",
        path=V1 + "/wait",
        tag="Tests",
        summary="Wait for captured mail",
        description="Answers when the mail is there, with its codes and links; 408 if it does "
        "not come.",
        parameters={
            "to": "a whole address, of the envelope or the header",
            "from": "a part of the sender",
            "subject": "a part of the subject",
            "query": "a search as in the sandbox",
            "since": "captured after it, RFC 3339",
            "timeout": "30s; 10s without it, 120s at most",
        },
        answer=ref("Waited"),
        errors=(400, 401, 408, 503),
    )


def _queue() -> Iterator[Endpoint]:
    yield Endpoint(
        method="get",
        path=V1 + "/queue",
        tag="Queue",
        summary="List messages",
        description="The oldest first. Without `state` and `id`, what still waits.",
        parameters={**_SELECTORS, **_list_parameters("limit", "after")},
        answer=answer(
            messages=list_of(ref("Message")),
            next=said(
                {"type": ["string", "null"]}, "`after` of the next page; null on the last one"
            ),
        ),
    )
    yield Endpoint(
        method="get",
        path=V1 + "/queue/{queue_id}",
        tag="Queue",
        summary="Show one message",
        answer=ref("Message"),
        errors=(401, 404, 503),
    )
    yield Endpoint(
        method="get",
        path=V1 + "/queue/{queue_id}/explain",
        tag="Queue",
        summary="Tell the story of one message",
        description="What happened to it, what each reply means, what comes next, what to do.",
        answer=ref("Story"),
        errors=(401, 404, 503),
    )


def _change(verb: QueueAction) -> Endpoint:
    states = " or ".join(sorted(verb.from_states))
    more: dict[str, Schema] = {}
    if verb.takes_note:
        more["note"] = said(TEXT, "why; kept with the message")
    if verb.takes_provider:
        more["provider"] = said(TEXT, "where it is to go")
    if verb.takes_force:
        more["force"] = said(FLAG, "also what may have been taken already: it may be sent twice")
    schema = body(
        "One of ids, select and all names the messages.",
        ids=said({**list_of(QUEUE_ID), "maxItems": MAX_IDS}, "these"),
        select=ref("Select"),
        all=said(FLAG, f"all that is {states}"),
        dry_run=said(FLAG, "change nothing, tell which ones it would be"),
        **more,
    )
    return Endpoint(
        method="post",
        path=f"{V1}/queue/{verb.name}",
        tag="Queue",
        summary=f"{verb.label} messages",
        description=f"{verb.means} For mail that is {states}; what is not is left alone and named.",
        role="operator",
        body=schema,
        answer=ref("Outcome"),
        errors=(400, 401, 403, 503),
    )


def _providers() -> Iterator[Endpoint]:
    yield Endpoint(
        method="get",
        path=V1 + "/providers",
        tag="Providers",
        summary="List providers",
        description="With their limits, what they taught, and why one is held.",
        answer=answer(providers=list_of(ref("Provider"))),
    )
    yield Endpoint(
        method="post",
        path=V1 + "/providers/{name}/hold",
        tag="Providers",
        summary="Hold a provider",
        description="Nothing is sent by it until somebody releases it.",
        role="operator",
        body=body(note=said(TEXT, "why; shown beside it")),
        answer=answer(provider=TEXT, was_held=said(FLAG, "by an operator, before this")),
        errors=(400, 401, 403, 404, 503),
    )
    yield Endpoint(
        method="post",
        path=V1 + "/providers/{name}/release",
        tag="Providers",
        summary="Release a provider",
        description="Ends its holds, those of its key and of its sender domains.",
        role="operator",
        answer=answer(provider=TEXT, ended=list_of(ref("Hold"))),
        errors=(400, 401, 403, 404, 503),
    )


def _watching() -> Iterator[Endpoint]:
    yield Endpoint(
        method="get",
        path=V1 + "/status",
        tag="Watching",
        summary="Show how the gateway is doing",
        answer=ref("Status"),
    )
    yield Endpoint(
        method="get",
        path=V1 + "/incidents",
        tag="Watching",
        summary="List incidents",
        description="Those that last, and those that ended since; oldest first.",
        parameters={"since": f"{_SINCE}; a day without it"},
        answer=answer(incidents=list_of(ref("Incident"))),
    )
    yield Endpoint(
        method="get",
        path=V1 + "/history",
        tag="Watching",
        summary="Count what happened",
        description="In slices of five minutes, kept for 14 days; slices without anything are "
        "left out.",
        parameters={
            "since": f"{_SINCE}; six hours without it",
            "series": "only this one; may be repeated",
        },
        answer=answer(slice_s=NUMBER, points=list_of(ref("Point"))),
    )
    yield Endpoint(
        method="get",
        path=V1 + "/audit",
        tag="Watching",
        summary="List what was changed",
        description="Newest first.",
        parameters={
            **_list_parameters("limit"),
            "since": _SINCE,
            "actor": "contains it",
            "action": "is it, or one below it: `queue` for `queue.delete`",
            "target": "is exactly this",
        },
        answer=answer(entries=list_of(ref("Deed"))),
    )
