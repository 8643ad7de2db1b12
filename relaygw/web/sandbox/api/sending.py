"""Mailpit's `send`: a message given as JSON goes into the sandbox, and never anywhere else."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relaygw.mail.content import read_header
from relaygw.mail.envelope import AcceptedMessage, NewDelivery, NewRecipient, Source
from relaygw.mail.queue_id import QueueIdSource
from relaygw.mail.state import RecipientState
from relaygw.policy.routing import CAPTURE_ROUTE
from relaygw.settings.model import Mode, Stream
from relaygw.web import words
from relaygw.web.api.json_body import Found, read_object, strings
from relaygw.web.context import Desk
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.sandbox.api.composing import MAX_RECIPIENTS, checked, compose, contact, contacts
from relaygw.web.sandbox.api.tags import clean_tags

REASON = "sent by the API"
_CHUNK_BYTES = 2**20


class Sending:
    """The endpoint."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._ids = QueueIdSource()

    async def send(self, request: Request) -> Response:
        """Capture a message that the body describes; answer its id."""
        principal = require(request, Role.OPERATOR)
        body = await read_object(request)
        at_ms = words.now_ms()
        queue_id = self._ids.next_id(at_ms)

        def capture() -> None:
            message = self._accepted(queue_id, at_ms, body, principal)
            tags = clean_tags(strings(body, "Tags"))
            self._desk.store.accept_batch([message])
            if tags:
                self._desk.store.set_tags([queue_id], tags)

        await self._desk.change(capture)
        return JSONResponse({"ID": queue_id})

    def _accepted(
        self, queue_id: str, at_ms: int, body: Found, principal: Principal
    ) -> AcceptedMessage:
        addresses = _recipients(body)
        message_id = f"<{queue_id}@{self._desk.settings.hostname}>"
        content = compose(body, message_id=message_id)
        facts = read_header(content)
        starts = range(0, len(content), _CHUNK_BYTES)
        return AcceptedMessage(
            queue_id=queue_id,
            accepted_at_ms=at_ms,
            sender=contact(body, "From").addr_spec,
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
    named = [one.addr_spec for name in ("To", "Cc") for one in contacts(body, name)]
    hidden = strings(body, "Bcc")
    if not 0 < len(named) + len(hidden) <= MAX_RECIPIENTS:
        raise HTTPException(400, f"To, Cc and Bcc name 1 to {MAX_RECIPIENTS} recipients")
    return list(dict.fromkeys([*named, *(checked(one, "Bcc") for one in hidden)]))


def _captured(addresses: list[str]) -> NewDelivery:
    return NewDelivery(
        route=CAPTURE_ROUTE,
        stream=Stream.TRANSACTIONAL.value,
        recipients=tuple(
            NewRecipient(address=one, state=RecipientState.CAPTURED, reason=REASON)
            for one in addresses
        ),
    )
