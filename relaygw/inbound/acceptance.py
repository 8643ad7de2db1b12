"""The answer to the final dot: 250 once the message is durable, never before."""

from __future__ import annotations

from relaygw.errors import IntakeFull, StoreFull, StoreUnavailable
from relaygw.inbound import replies
from relaygw.inbound.data import ReceivedContent
from relaygw.inbound.dialogue import Dialogue, Refusal, Transaction
from relaygw.inbound.intake import Origin, TooManyHops
from relaygw.mail.envelope import Source


async def accept(
    session: Dialogue, transaction: Transaction, content: ReceivedContent, *, protocol: str
) -> None:
    """Store the message and say so, or say why not."""
    front = session.front
    if content.is_too_big:
        raise Refusal(replies.TOO_BIG.format(limit=front.listener.max_message_size))
    if content.error is not None:
        front.log.note("smtpd", f"warning: spool file: {content.error}; answered 452")
        session.say(replies.NO_SPACE)
        return
    origin = _origin(session, transaction, protocol)
    try:
        if content.is_spooled:
            async with front.large_message_turn:
                await front.committer.work_aside(content.read_head)
                queue_id = await _store(session, transaction, content, origin)
        else:
            content.read_head()
            queue_id = await _store(session, transaction, content, origin)
    except TooManyHops:
        raise Refusal(replies.TOO_MANY_HOPS) from None
    except (StoreFull, IntakeFull) as error:
        front.log.note("smtpd", f"warning: {error}; answered 452 to {session.peer}")
        session.say(replies.NO_SPACE)
        return
    except StoreUnavailable as error:
        front.log.note("smtpd", f"warning: {error}; answered 451 to {session.peer}")
        session.say(replies.TROUBLE)
        return
    session.junk_commands = 0
    session.message_was_taken()
    session.say(f"250 2.0.0 Ok: queued as {queue_id}")


async def _store(
    session: Dialogue, transaction: Transaction, content: ReceivedContent, origin: Origin
) -> str:
    """Return the queue id of the message once it is durable."""
    front = session.front
    message, chunks = front.intake.compose(
        sender=transaction.sender,
        recipients=transaction.recipients,
        content=content,
        origin=origin,
    )
    if content.is_spooled:
        await front.committer.add_chunks(message.queue_id, chunks)
    if message.has_denied_source:
        _tell_of_source(session, message.queue_id)
    await front.committer.submit(message)
    return message.queue_id


def _tell_of_source(session: Dialogue, queue_id: str) -> None:
    """Say, once a connection, that a client is not believed about where mail came from."""
    if session.has_told_of_source:
        return
    session.has_told_of_source = True
    session.front.log.note(
        "smtpd",
        f"warning: {queue_id}: X-Relaygw-Source of {session.peer} removed, not believed; if it "
        "is a relaygw of yours, add it to trust_source of the listener",
    )


def _origin(session: Dialogue, transaction: Transaction, protocol: str) -> Origin:
    client, login = session.client, session.login
    return Origin(
        source=Source(
            client=client.address,
            helo=session.helo,
            user=login.name if login is not None else None,
            listener=session.front.name,
        ),
        client_key=login.name if login is not None else client.key,
        protocol=protocol,
        smtputf8=transaction.smtputf8,
        mode=session.mode,
    )
