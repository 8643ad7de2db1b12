"""Mailpit's API as the document describes it: parameters, bodies and answers of each operation."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

from relaygw.web.context import Endpoint
from relaygw.web.sandbox.api import changes, checks, messages

Schema = dict[str, Any]
_PLAIN = "text/plain"


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _map(of: Schema) -> Schema:
    return {"type": "object", "additionalProperties": of}


def _object(**fields: Schema) -> Schema:
    """Return an object that always has exactly these fields."""
    names = list(fields)
    return {
        "type": "object",
        "properties": fields,
        "required": names,
        "additionalProperties": False,
    }


def _all(names: str, schema: Schema) -> dict[str, Schema]:
    """Return fields that are all alike."""
    return dict.fromkeys(names.split(), schema)


def _body(*required: str, **fields: Schema) -> Schema:
    """Return an object that a request has; what it does not know is ignored, as in Mailpit."""
    known = {
        name: schema if name in required else _or_null(schema) for name, schema in fields.items()
    }
    shown: Schema = {"type": "object", "properties": known}
    return {**shown, "required": list(required)} if required else shown


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _parameter(name: str, description: str, schema: Schema, **more: Any) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema, **more}


_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer", "minimum": 0}
_SHARE: Schema = {"type": "number"}
_YES: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_TEXTS = _list(_TEXT)
_CONTACT = _object(**_all("Name Address", _TEXT))
_COMMON = {
    **_all("ID MessageID", _TEXT),
    "Read": _YES,
    "From": _CONTACT,
    **_all("To Cc Bcc ReplyTo", _list(_CONTACT)),
    **_all("Subject Username", _TEXT),
    "Tags": _TEXTS,
    "Size": _NUMBER,
}
_PART = _object(
    **_all("PartID FileName ContentType ContentID", _TEXT),
    Size=_NUMBER,
    Checksums=_object(**_all("MD5 SHA1 SHA256", _TEXT)),
)
_SUMMARY = _object(**_COMMON, Created=_TIME, Attachments=_NUMBER, Snippet=_TEXT)
_MESSAGE = _object(
    **_COMMON,
    ReturnPath=_TEXT,
    ListUnsubscribe=_object(Header=_TEXT, Links=_TEXTS, Errors=_TEXT, HeaderPost=_TEXT),
    Date=_TIME,
    **_all("Text HTML", _TEXT),
    **_all("Inline Attachments", _list(_PART)),
)
_PAGE = _object(
    **_all("total unread count messages_count messages_unread start", _NUMBER),
    tags=_TEXTS,
    messages=_list(_SUMMARY),
)
_STATS = "Uptime Memory MessagesDeleted SMTPAccepted SMTPAcceptedSize SMTPRejected SMTPIgnored"
_INFO = _object(
    **_all("Version LatestVersion Database", _TEXT),
    **_all("DatabaseSize Messages Unread", _NUMBER),
    Tags=_map(_NUMBER),
    RuntimeStats=_object(**_all(_STATS, _NUMBER)),
)
_SHARES = _all("Supported Partial Unsupported", _SHARE)
_WARNING = _object(
    **_all("Slug Title Description URL Category", _TEXT),
    Tags=_TEXTS,
    Keywords=_TEXT,
    Results=_list(_object(**_all("Name Platform Family Version Support NoteNumber", _TEXT))),
    NotesByNumber=_map(_TEXT),
    Score=_object(Found=_NUMBER, **_SHARES),
)
_HTML_CHECK = _object(
    Warnings=_list(_WARNING),
    Platforms=_map(_TEXTS),
    Total=_object(**_all("Tests Nodes", _NUMBER), **_SHARES),
)
_LINK = _object(URL=_TEXT, StatusCode=_NUMBER, Status=_TEXT)
_LINKS = _object(Errors=_NUMBER, Links=_list(_LINK))
_RULE = _object(Score=_SHARE, **_all("Name Description", _TEXT))
_SPAM = _object(IsSpam=_YES, Error=_TEXT, Score=_SHARE, Rules=_list(_RULE))

_IDS = {"IDs": _TEXTS}
_PERSON = _body("Email", Email=_TEXT, Name=_TEXT)
_FILE = _body(**_all("Content Filename ContentType ContentID", _TEXT))
_LETTER = _body(
    "From",
    From=_PERSON,
    **_all("To Cc", _list(_PERSON)),
    Bcc=_TEXTS,
    ReplyTo=_list(_PERSON),
    **_all("Subject Text HTML", _TEXT),
    Headers=_map(_TEXT),
    Tags=_TEXTS,
    Attachments=_list(_FILE),
)

_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
_PAGED = (
    _parameter("start", "how many of the newest are left out; default 0", _COUNT),
    _parameter("limit", "default 50; at most 1000, which 0 is as well", _COUNT),
)
_SEARCH = (
    _parameter("query", "a search as in the sandbox", _TEXT, required=True),
    _parameter("tz", "time zone of its dates, like Europe/Berlin; default UTC", _TEXT),
)
_SAVED = (_parameter("dl", "1: as a file to be saved", _TEXT),)
_FOLLOW = (_parameter("follow", "true: also where links lead on", _TEXT),)


def errors_of(method: str, own: tuple[int, ...]) -> list[int]:
    """Return the statuses of refusals: its own, and those of the gate that all pass."""
    return sorted({*own, 429} if method == "get" else {*own, 408, 413, 429})


@dataclass(frozen=True, slots=True)
class Served:
    """One method of one path: what it does, who answers, what is asked and answered."""

    method: str
    path: str
    summary: str
    answer: Endpoint
    schema: Schema = field(default_factory=lambda: _TEXT)
    _: KW_ONLY
    content_type: str = "application/json"
    done: int | None = 200  # None: it is always refused
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    also: tuple[int, ...] = ()  # what it refuses by, beside what all do that read, or change

    def described(self) -> dict[str, Any]:
        """Return the parts of its OpenAPI operation that follow from what it is asked."""
        responses: dict[str, Any] = {}
        if self.done is not None:
            responses[str(self.done)] = {"description": HTTPStatus(self.done).phrase}
            if self.done == HTTPStatus.OK:
                responses["200"]["content"] = {self.content_type: {"schema": self.schema}}
        usual = (401, 503) if self.method == "get" else (401, 403, 503)
        for code in errors_of(self.method, (*usual, *self.also)):
            phrase, content = HTTPStatus(code).phrase, {_PLAIN: {"schema": _TEXT}}
            responses[str(code)] = {"description": phrase, "content": content}
        if self.body is None:
            return {"responses": responses}
        body = {"content": {"application/json": {"schema": self.body}}}
        return {"requestBody": body, "responses": responses}


_V1, _ONE, _TAG = "/api/v1", "/api/v1/message/{queue_id}", "/api/v1/tags/{tag:path}"
_said = partial(Served, content_type=_PLAIN)
_WRONG, _GONE, _BOTH = (400,), (404,), (400, 404)
_MARKED = _body(**_IDS, Read=_YES, Search=_TEXT)
_TAGGED = _body("IDs", **_IDS, Tags=_TEXTS)
_RENAMED = _body("Name", Name=_TEXT)
_RELEASED = _body("To", To=_TEXTS, Anyone=_YES)
_EITHER = (*_SEARCH, *_PAGED)
_CHAOS = partial(Served, done=None, also=_WRONG)
_MISSING = "If missing: 400"
SERVED: tuple[Served, ...] = (
    Served("get", _V1 + "/info", "Version and numbers", messages.show_info, _INFO),
    Served(
        "get",
        _V1 + "/messages",
        "List captured mail",
        messages.list_messages,
        _PAGE,
        parameters=_PAGED,
        also=_WRONG,
    ),
    _said(
        "put",
        _V1 + "/messages",
        "Mark as read or unread",
        changes.mark,
        body=_MARKED,
        parameters=_SEARCH[1:],
        also=_WRONG,
    ),
    _said("delete", _V1 + "/messages", "Delete", changes.delete, body=_body(**_IDS), also=_WRONG),
    Served(
        "get",
        _V1 + "/search",
        "Search captured mail",
        messages.search_messages,
        _PAGE,
        parameters=_EITHER,
        also=_WRONG,
    ),
    _said(
        "delete",
        _V1 + "/search",
        "Delete what a search finds",
        changes.delete_found,
        parameters=_SEARCH,
        also=_WRONG,
    ),
    Served("get", _V1 + "/tags", "List tags", messages.list_tags, _TEXTS),
    _said("put", _V1 + "/tags", "Set tags", changes.set_tags, body=_TAGGED, also=_WRONG),
    _said("put", _TAG, "Rename a tag", changes.rename_tag, body=_RENAMED, also=_BOTH),
    _said("delete", _TAG, "Delete a tag", changes.delete_tag, also=_GONE),
    Served(
        "post",
        _V1 + "/send",
        "Capture a message given as JSON",
        changes.send,
        _object(ID=_TEXT),
        body=_LETTER,
        also=_WRONG,
    ),
    _CHAOS("get", _V1 + "/chaos", _MISSING, messages.refuse_chaos),
    _CHAOS("put", _V1 + "/chaos", _MISSING, messages.refuse_chaos),
    Served("get", _ONE, "Show one message", messages.show_message, _MESSAGE, also=_GONE),
    Served(
        "get", _ONE + "/headers", "Show its header", messages.show_headers, _map(_TEXTS), also=_GONE
    ),
    _said(
        "get", _ONE + "/raw", "Show its source", messages.show_raw, parameters=_SAVED, also=_GONE
    ),
    Served(
        "get",
        _ONE + "/part/{part_id}",
        "Show a part",
        messages.show_part,
        content_type="*/*",
        also=_GONE,
    ),
    Served(
        "get",
        _ONE + "/html-check",
        "What mail programs make of its HTML",
        checks.show_html_check,
        _HTML_CHECK,
        also=_GONE,
    ),
    Served("get", _ONE + "/link-check", "List its links", checks.list_links, _LINKS, also=_GONE),
    Served(
        "post",
        _ONE + "/link-check",
        "Visit its links",
        checks.visit,
        _LINKS,
        parameters=_FOLLOW,
        also=_BOTH,
    ),
    Served(
        "get",
        _ONE + "/sa-check",
        "Its score by SpamAssassin",
        checks.show_spam_score,
        _SPAM,
        also=_GONE,
    ),
    _said(
        "post",
        _ONE + "/release",
        "Release it",
        changes.release_message,
        body=_RELEASED,
        also=(*_BOTH, 409),
    ),
    Served(
        "get",
        "/view/latest",
        "The newest message in the sandbox",
        messages.show_latest,
        done=302,
        also=_GONE,
    ),
    Served(
        "get",
        "/view/{queue_id}.html",
        "Its HTML, cleaned",
        messages.show_html,
        content_type="text/html",
        also=_GONE,
    ),
    _said("get", "/view/{queue_id}.txt", "Its text", messages.show_text, also=_GONE),
)
