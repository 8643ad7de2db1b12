"""What Mailpit's API changes in the sandbox: read marks, tags, deletion, release, messages sent.

An empty list of ids means all captured mail, as in Mailpit, but nothing captured after the request
came in. A message given as JSON goes into the sandbox, and never anywhere else.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import localtime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from relaygw.errors import InvalidAddress
from relaygw.mail.address import check_address, distinct
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import read_header
from relaygw.mail.envelope import AcceptedMessage, NewDelivery, NewRecipient, Source
from relaygw.mail.search import EVERYTHING
from relaygw.mail.searchable_text import tag_key
from relaygw.mail.state import RecipientState
from relaygw.operations.captured import (
    ReleaseRequest,
    ReleaseResult,
    delete_captured,
    plan_release,
    release_captured,
)
from relaygw.policy.router import CAPTURE_ROUTE
from relaygw.settings.routes import Stream
from relaygw.settings.section import Mode
from relaygw.web.api.requests import Found, flag, objects, read_object, strings, text, value_of
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.sandbox.api.messages import found_by, found_ids, query_of, search_of
from relaygw.web.sandbox.captured import MAX_TAG_CHARACTERS, MAX_TAGS

MAX_TARGETS = 50
OK = "ok"
# what pages part tags by, and what neither a database nor UTF-8 takes
_UNFIT = re.compile(r"[,\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


async def mark(web: WebContext, request: Request) -> Response:
    """Mark messages as read, or as unread: those named, those that `Search` finds, or all."""
    require(request, Role.OPERATOR)
    body = await read_object(request)
    ids, query = _ids(body), text(body, "Search").strip()
    if ids is not None and query:
        raise HTTPException(400, "write IDs or Search, not both")
    search = search_of(request, query) if query else None
    is_read = flag(body, "Read")

    def change() -> None:
        chosen = ids if search is None else found_ids(web, search)
        web.store.sandbox.mark_read(chosen, is_read=is_read)

    await web.change(change)
    return PlainTextResponse(OK)


async def delete(web: WebContext, request: Request) -> Response:
    """Delete the messages that the body names, without any all of them."""
    principal = require(request, Role.OPERATOR)
    ids = _ids(await read_object(request))
    if ids is None:
        return await _delete(web, principal, lambda: found_ids(web, EVERYTHING), "api, all")
    return await _delete(web, principal, lambda: ids, "api")


async def delete_found(web: WebContext, request: Request) -> Response:
    """Delete what a search finds."""
    principal = require(request, Role.OPERATOR)
    query = query_of(request)
    search = search_of(request, query)
    detail = f"api, search: {query[:200]}"
    return await _delete(web, principal, lambda: found_ids(web, search), detail)


async def _delete(
    web: WebContext, by: Principal, chosen: Callable[[], list[str]], detail: str
) -> Response:
    now_ms = clock_ms()
    await web.change(
        lambda: delete_captured(web.store, chosen(), actor=by.name, now_ms=now_ms, detail=detail)
    )
    return PlainTextResponse(OK)


async def set_tags(web: WebContext, request: Request) -> Response:
    """Give messages exactly the tags of the body."""
    require(request, Role.OPERATOR)
    body = await read_object(request)
    ids, tags = _ids(body), clean_tags(strings(body, "Tags"))
    if ids is None:
        raise HTTPException(400, "IDs is empty; name the messages to tag")
    await web.change(lambda: web.store.sandbox.set_tags(ids, tags))
    return PlainTextResponse(OK)


async def rename_tag(web: WebContext, request: Request) -> Response:
    """Give a tag another name everywhere."""
    require(request, Role.OPERATOR)
    old = request.path_params["tag"]
    new = clean_tag(text(await read_object(request), "Name"))
    if not await web.change(lambda: web.store.sandbox.rename_tag(old, new)):
        raise HTTPException(404)
    return PlainTextResponse(OK)


async def delete_tag(web: WebContext, request: Request) -> Response:
    """Take a tag off all messages."""
    require(request, Role.OPERATOR)
    tag = request.path_params["tag"]
    if not await web.change(lambda: web.store.sandbox.delete_tag(tag)):
        raise HTTPException(404)
    return PlainTextResponse(OK)


async def release_message(web: WebContext, request: Request) -> Response:
    """Send a message to all addresses `To`, or to none with 400.

    Who is not on the allow list gets it only if an admin says `"Anyone": true` as well.
    """
    principal = require(request, Role.OPERATOR)
    body = await read_object(request)
    addresses = list({string.lower(): string for string in strings(body, "To")}.values())
    if not addresses:
        raise HTTPException(400, "To is empty; name the addresses to release it to")
    if len(addresses) > MAX_TARGETS:
        raise HTTPException(400, f"To has more than {MAX_TARGETS} addresses")
    anyone = flag(body, "Anyone")
    wanted = [ReleaseRequest(to=to, is_admin=principal.is_admin, anyone=anyone) for to in addresses]
    store, settings = web.store, web.settings

    def release() -> None:
        ids = [found_by(web, request).entry.queue_id]
        plans = [
            (release_request, plan_release(store, settings, ids, release_request))
            for release_request in wanted
        ]
        if problems := [
            why for wanted_release, plan in plans for why in _problems(wanted_release, plan)
        ]:
            raise HTTPException(400, "; ".join(problems))
        for release_request in wanted:
            by, now_ms = principal.name, clock_ms()
            done = release_captured(
                store, settings, ids, release_request, actor=by, now_ms=now_ms, detail="api"
            )
            if problems := _problems(release_request, done):
                raise HTTPException(409, "; ".join(problems))  # it changed since it was planned

    await web.change(release)
    return PlainTextResponse(OK)


def _ids(body: Found) -> list[str] | None:
    """Return the ids of a body, None for all; what is no id is of no message, and is left out."""
    given = strings(body, "IDs")
    return [queue_id for queue_id in given if is_queue_id(queue_id)] if given else None


def clean_tag(given: str) -> str:
    """Return a tag without what does not belong into one."""
    tag = " ".join(_UNFIT.sub(" ", given).split())
    if not tag_key(tag) or len(tag) > MAX_TAG_CHARACTERS:
        raise HTTPException(400, f"a tag has 1 to {MAX_TAG_CHARACTERS} characters")
    return tag


def clean_tags(given: Iterable[str]) -> list[str]:
    """Return tags, each once."""
    tags = list(dict.fromkeys(map(clean_tag, given)))
    if len(tags) > MAX_TAGS:
        raise HTTPException(400, f"{len(tags)} tags are too many; a message has up to {MAX_TAGS}")
    return tags


def _problems(wanted: ReleaseRequest, result: ReleaseResult) -> list[str]:
    whys = [copy.why for copy in result.refused] + [obstacle.why for obstacle in result.left]
    return [f"{wanted.to}: {why}" for why in whys]


MAX_FIELDS = 100
MAX_FIELD_CHARACTERS = 1000
MAX_HEADER_CHARACTERS = 10_000  # the time to fold a field grows with its length's square
MAX_RECIPIENTS = 100

REASON = "sent by the API"
_CHUNK_BYTES = 2**20
_FIELD_NAME = re.compile(r"[!-9;-~]{1,100}")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+-]{0,60}")
_POLICY = SMTP.clone(cte_type="7bit")


async def send(web: WebContext, request: Request) -> Response:
    """Capture a message that the body describes; answer its id."""
    principal = require(request, Role.OPERATOR)
    body = await read_object(request)
    at_ms = clock_ms()
    queue_id = web.queue_ids.next_id(at_ms)

    def capture() -> None:
        message = _accepted(web, queue_id, at_ms, body, principal)
        tags = clean_tags(strings(body, "Tags"))
        web.store.intake.accept_batch([message])
        if tags:
            web.store.sandbox.set_tags([queue_id], tags)

    await web.change(capture)
    return JSONResponse({"ID": queue_id})


def _accepted(
    web: WebContext, queue_id: str, at_ms: int, body: Found, principal: Principal
) -> AcceptedMessage:
    addresses, stream = _recipients(body), Stream.TRANSACTIONAL.value
    recipients = tuple(
        NewRecipient(address=address, state=RecipientState.CAPTURED, reason=REASON)
        for address in addresses
    )
    try:
        content = _message(body, f"<{queue_id}@{web.settings.hostname}>").as_bytes()
    except (ValueError, MessageError, LookupError, TypeError, AttributeError) as error:
        # whatever the header parser of the standard library stumbles over
        raise HTTPException(400, f"no message can be made of this: {error}") from None
    facts = read_header(content)
    starts = range(0, len(content), _CHUNK_BYTES)
    return AcceptedMessage(
        queue_id=queue_id,
        accepted_at_ms=at_ms,
        sender=_sender(body).addr_spec,
        deliveries=(NewDelivery(route=CAPTURE_ROUTE, stream=stream, recipients=recipients),),
        content=tuple(content[start : start + _CHUNK_BYTES] for start in starts),
        size_bytes=len(content),
        subject=facts.subject,
        message_id=facts.message_id,
        is_8bit=False,
        has_long_line=False,
        smtputf8=not all(address.isascii() for address in addresses),
        mode=Mode.SANDBOX.value,
        source=Source(user=principal.name),
        client_key="api",
    )


def _recipients(body: Found) -> list[str]:
    named = [contact.addr_spec for name in ("To", "Cc") for contact in _contacts(body, name)]
    hidden = strings(body, "Bcc")
    if not 0 < len(named) + len(hidden) <= MAX_RECIPIENTS:
        raise HTTPException(400, f"To, Cc and Bcc name 1 to {MAX_RECIPIENTS} recipients")
    return distinct([*named, *(_checked(address, "Bcc") for address in hidden)])


def _contacts(body: Found, name: str) -> list[Address]:
    found = objects(body, name)
    if len(found) > MAX_RECIPIENTS:
        raise HTTPException(400, f"{name} names {len(found)}; at most {MAX_RECIPIENTS}")
    return [_address(contact, name) for contact in found]


def _sender(body: Found) -> Address:
    found = value_of(body, "From")
    if not isinstance(found, dict):
        raise HTTPException(400, "From is not an object with Email and Name")
    return _address(found, "From")


def _checked(address: str, name: str) -> str:
    try:
        check_address(address)
    except InvalidAddress as error:
        raise HTTPException(400, f"{name}: {address[:100]!r} is not an address: {error}") from None
    return address


def _message(body: Found, message_id: str) -> EmailMessage:
    message = EmailMessage(policy=_POLICY)
    message["From"] = _sender(body)
    for name, field in (("To", "To"), ("Cc", "Cc"), ("ReplyTo", "Reply-To")):
        if found := _contacts(body, name):
            message[field] = found
    message["Subject"] = _short(text(body, "Subject"), "Subject")
    _add_fields(message, value_of(body, "Headers"))
    if "date" not in message:
        message["Date"] = localtime()
    if "message-id" not in message:
        message["Message-ID"] = message_id
    characters = sum(map(len, message.values()))
    if characters > MAX_HEADER_CHARACTERS:
        most = MAX_HEADER_CHARACTERS
        raise HTTPException(400, f"the header has {characters} characters; at most {most}")
    plain, html = text(body, "Text"), text(body, "HTML")
    if plain or not html:
        message.set_content(plain)
        if html:
            message.add_alternative(html, subtype="html")
    else:
        message.set_content(html, subtype="html")
    for attachment in objects(body, "Attachments"):
        _attach(message, attachment)
    return message


def _add_fields(message: EmailMessage, fields: object) -> None:
    if fields is None:
        return
    if not isinstance(fields, dict) or len(fields) > MAX_FIELDS:
        raise HTTPException(400, f"Headers is not an object of at most {MAX_FIELDS} texts")
    for name, value in fields.items():
        if not isinstance(value, str) or _FIELD_NAME.fullmatch(name) is None:
            raise HTTPException(400, f"Headers: {name[:100]!r} is not a field with a text")
        # what the body is made of is said by the body
        is_own = name.lower().startswith("content-") or name.lower() == "mime-version"
        if name not in message and not is_own:
            message[name] = _short(value, name)


def _attach(message: EmailMessage, attachment: Found) -> None:
    try:
        data = base64.b64decode(text(attachment, "Content"), validate=True)
    except (binascii.Error, ValueError):
        raise HTTPException(400, "the Content of an attachment is not base64") from None
    media_type = text(attachment, "ContentType").lower() or "application/octet-stream"
    if _MEDIA_TYPE.fullmatch(media_type) is None or media_type.startswith("multipart/"):
        raise HTTPException(400, f"an attachment cannot be of the type {media_type[:100]!r}")
    main, _, sub = media_type.partition("/")
    content_id = _short(text(attachment, "ContentID"), "ContentID")
    message.add_attachment(
        data,
        maintype=main,
        subtype=sub,
        filename=_short(text(attachment, "Filename"), "Filename") or "attachment",
        disposition="inline" if content_id else "attachment",
        cid=f"<{content_id}>" if content_id else None,
    )


def _address(found: Found, name: str) -> Address:
    address = _checked(text(found, "Email"), name)
    try:
        return Address(_short(text(found, "Name"), name), addr_spec=address)
    except (ValueError, MessageError, LookupError) as error:
        raise HTTPException(400, f"{name}: {address[:100]!r} is not an address: {error}") from None


def _short(value: str, name: str) -> str:
    if len(value) > MAX_FIELD_CHARACTERS:
        length = f"{len(value)} characters; at most {MAX_FIELD_CHARACTERS}"
        raise HTTPException(400, f"{name[:100]} has {length}")
    return value
