"""A message as RFC 5322 has it, made of the JSON of Mailpit's `send`. Errors are 400."""

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

from relaygw.errors import InvalidAddress
from relaygw.mail.address import check_address
from relaygw.web.api.json_body import Found, objects, text, value_of

MAX_FIELDS = 100
MAX_FIELD_CHARACTERS = 1000
MAX_HEADER_CHARACTERS = 10_000
"""The time to fold a field grows with its length's square."""
MAX_RECIPIENTS = 100

_FIELD_NAME = re.compile(r"[!-9;-~]{1,100}")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+-]{0,60}")
_POLICY = SMTP.clone(cte_type="7bit")


def compose(body: Found, *, message_id: str) -> bytes:
    """Return the message that a body describes; `message_id` if it names none."""
    try:
        return _message(body, message_id).as_bytes()
    except (ValueError, MessageError, LookupError, TypeError, AttributeError) as error:
        # whatever the header parser of the standard library stumbles over
        raise HTTPException(400, f"no message can be made of this: {error}") from None


def contacts(body: Found, name: str) -> list[Address]:
    """Return a list of objects with Email and Name as addresses."""
    found = objects(body, name)
    if len(found) > MAX_RECIPIENTS:
        raise HTTPException(400, f"{name} names {len(found)}; at most {MAX_RECIPIENTS}")
    return [_address(one, name) for one in found]


def contact(body: Found, name: str) -> Address:
    """Return an object with Email and Name as an address."""
    found = value_of(body, name)
    if not isinstance(found, dict):
        raise HTTPException(400, f"{name} is no object with Email and Name")
    return _address(found, name)


def checked(address: str, name: str) -> str:
    """Return an address that mail can be sent to."""
    try:
        check_address(address)
    except InvalidAddress as error:
        raise HTTPException(400, f"{name}: {address[:100]!r} is no address: {error}") from None
    return address


def _message(body: Found, message_id: str) -> EmailMessage:
    message = EmailMessage(policy=_POLICY)
    message["From"] = contact(body, "From")
    for name, field in (("To", "To"), ("Cc", "Cc"), ("ReplyTo", "Reply-To")):
        if found := contacts(body, name):
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
    address = checked(text(found, "Email"), name)
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
