"""Mailpit's `send`: a message given as JSON goes into the sandbox, and never anywhere else.

It is made of the JSON as RFC 5322 has it. Errors are 400.
"""

from __future__ import annotations

import base64
import binascii
import re
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import localtime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relaygw.errors import InvalidAddress
from relaygw.mail.address import check_address
from relaygw.mail.clock import clock_ms
from relaygw.mail.content import read_header
from relaygw.mail.envelope import AcceptedMessage, NewDelivery, NewRecipient, QueueIdSource, Source
from relaygw.mail.state import RecipientState
from relaygw.policy.router import CAPTURE_ROUTE
from relaygw.settings.routes import Stream
from relaygw.settings.section import Mode
from relaygw.web.api.json_body import Found, objects, read_object, strings, text, value_of
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.sandbox.api.changes import clean_tags

MAX_FIELDS = 100
MAX_FIELD_CHARACTERS = 1000
MAX_HEADER_CHARACTERS = 10_000
"""The time to fold a field grows with its length's square."""
MAX_RECIPIENTS = 100

REASON = "sent by the API"
_CHUNK_BYTES = 2**20
_FIELD_NAME = re.compile(r"[!-9;-~]{1,100}")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+-]{0,60}")
_POLICY = SMTP.clone(cte_type="7bit")


class Send:
    """The endpoint."""

    def __init__(self, web: WebContext) -> None:
        self._web = web
        self._ids = QueueIdSource()

    async def send(self, request: Request) -> Response:
        """Capture a message that the body describes; answer its id."""
        principal = require(request, Role.OPERATOR)
        body = await read_object(request)
        at_ms = clock_ms()
        queue_id = self._ids.next_id(at_ms)

        def capture() -> None:
            message = self._accepted(queue_id, at_ms, body, principal)
            tags = clean_tags(strings(body, "Tags"))
            self._web.store.intake.accept_batch([message])
            if tags:
                self._web.store.sandbox.set_tags([queue_id], tags)

        await self._web.change(capture)
        return JSONResponse({"ID": queue_id})

    def _accepted(
        self, queue_id: str, at_ms: int, body: Found, principal: Principal
    ) -> AcceptedMessage:
        addresses = _recipients(body)
        message_id = f"<{queue_id}@{self._web.settings.hostname}>"
        content = _compose(body, message_id=message_id)
        facts = read_header(content)
        starts = range(0, len(content), _CHUNK_BYTES)
        return AcceptedMessage(
            queue_id=queue_id,
            accepted_at_ms=at_ms,
            sender=_contact(body, "From").addr_spec,
            deliveries=(_captured(addresses),),
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
    named = [one.addr_spec for name in ("To", "Cc") for one in _contacts(body, name)]
    hidden = strings(body, "Bcc")
    if not 0 < len(named) + len(hidden) <= MAX_RECIPIENTS:
        raise HTTPException(400, f"To, Cc and Bcc name 1 to {MAX_RECIPIENTS} recipients")
    return list(dict.fromkeys([*named, *(_checked(one, "Bcc") for one in hidden)]))


def _captured(addresses: list[str]) -> NewDelivery:
    return NewDelivery(
        route=CAPTURE_ROUTE,
        stream=Stream.TRANSACTIONAL.value,
        recipients=tuple(
            NewRecipient(address=one, state=RecipientState.CAPTURED, reason=REASON)
            for one in addresses
        ),
    )


def _compose(body: Found, *, message_id: str) -> bytes:
    """Return the message that a body describes; `message_id` if it names none."""
    try:
        return _message(body, message_id).as_bytes()
    except (ValueError, MessageError, LookupError, TypeError, AttributeError) as error:
        # whatever the header parser of the standard library stumbles over
        raise HTTPException(400, f"no message can be made of this: {error}") from None


def _contacts(body: Found, name: str) -> list[Address]:
    """Return a list of objects with Email and Name as addresses."""
    found = objects(body, name)
    if len(found) > MAX_RECIPIENTS:
        raise HTTPException(400, f"{name} names {len(found)}; at most {MAX_RECIPIENTS}")
    return [_address(one, name) for one in found]


def _contact(body: Found, name: str) -> Address:
    """Return an object with Email and Name as an address."""
    found = value_of(body, name)
    if not isinstance(found, dict):
        raise HTTPException(400, f"{name} is no object with Email and Name")
    return _address(found, name)


def _checked(address: str, name: str) -> str:
    """Return an address that mail can be sent to."""
    try:
        check_address(address)
    except InvalidAddress as error:
        raise HTTPException(400, f"{name}: {address[:100]!r} is no address: {error}") from None
    return address


def _message(body: Found, message_id: str) -> EmailMessage:
    message = EmailMessage(policy=_POLICY)
    message["From"] = _contact(body, "From")
    for name, field in (("To", "To"), ("Cc", "Cc"), ("ReplyTo", "Reply-To")):
        if found := _contacts(body, name):
            message[field] = found
    message["Subject"] = _short(text(body, "Subject"), "Subject")
    _add_fields(message, value_of(body, "Headers"))
    if "date" not in message:
        message["Date"] = localtime()
    if "message-id" not in message:
        message["Message-ID"] = message_id
    _check_length(message)
    _add_bodies(message, body)
    for one in objects(body, "Attachments"):
        _attach(message, one)
    return message


def _check_length(message: EmailMessage) -> None:
    characters = sum(len(value) for value in message.values())
    if characters > MAX_HEADER_CHARACTERS:
        raise HTTPException(
            400, f"the header has {characters} characters; at most {MAX_HEADER_CHARACTERS}"
        )


def _add_fields(message: EmailMessage, fields: object) -> None:
    if fields is None:
        return
    if not isinstance(fields, dict) or len(fields) > MAX_FIELDS:
        raise HTTPException(400, f"Headers is no object of at most {MAX_FIELDS} texts")
    for name, value in fields.items():
        if not isinstance(value, str) or _FIELD_NAME.fullmatch(name) is None:
            raise HTTPException(400, f"Headers: {name[:100]!r} is no field with a text")
        # what the body is made of is said by the body
        is_own = name.lower().startswith("content-") or name.lower() == "mime-version"
        if name not in message and not is_own:
            message[name] = _short(value, name)


def _add_bodies(message: EmailMessage, body: Found) -> None:
    plain, html = text(body, "Text"), text(body, "HTML")
    if plain or not html:
        message.set_content(plain)
    if html and plain:
        message.add_alternative(html, subtype="html")
    elif html:
        message.set_content(html, subtype="html")


def _attach(message: EmailMessage, one: Found) -> None:
    try:
        data = base64.b64decode(text(one, "Content"), validate=True)
    except (binascii.Error, ValueError):
        raise HTTPException(400, "the Content of an attachment is not base64") from None
    media_type = text(one, "ContentType").lower() or "application/octet-stream"
    if _MEDIA_TYPE.fullmatch(media_type) is None or media_type.startswith("multipart/"):
        raise HTTPException(400, f"an attachment cannot be of the type {media_type[:100]!r}")
    main, _, sub = media_type.partition("/")
    content_id = _short(text(one, "ContentID"), "ContentID")
    message.add_attachment(
        data,
        maintype=main,
        subtype=sub,
        filename=_short(text(one, "Filename"), "Filename") or "attachment",
        disposition="inline" if content_id else "attachment",
        cid=f"<{content_id}>" if content_id else None,
    )


def _address(found: Found, name: str) -> Address:
    address = _checked(text(found, "Email"), name)
    try:
        return Address(_short(text(found, "Name"), name), addr_spec=address)
    except (ValueError, MessageError, LookupError) as error:
        raise HTTPException(400, f"{name}: {address[:100]!r} is no address: {error}") from None


def _short(value: str, name: str) -> str:
    if len(value) > MAX_FIELD_CHARACTERS:
        raise HTTPException(
            400, f"{name[:100]} has {len(value)} characters; at most {MAX_FIELD_CHARACTERS}"
        )
    return value
