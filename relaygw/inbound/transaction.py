"""The commands of a mail transaction: MAIL, RCPT, DATA (RFC 5321, 1870, 6152, 6531).

The answer to the final dot is 250 once the message is durable, never before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relaygw.errors import IntakeFull, StoreFull, StoreUnavailable
from relaygw.inbound import replies
from relaygw.inbound.arguments import parse_mail, parse_rcpt
from relaygw.inbound.content import ContentReader, ReceivedContent, TooMuchData
from relaygw.inbound.intake import Origin, TooManyHops
from relaygw.inbound.replies import Refusal
from relaygw.mail.envelope import Source
from relaygw.policy.admission import must_log_in
from relaygw.policy.recipients import Fate

if TYPE_CHECKING:
    from relaygw.inbound.session import Envelope, Session

RECIPIENT_OVERSHOOT = 1000  # beyond it every further recipient counts as an error


async def mail(session: Session, argument: bytes) -> None:
    """Begin a transaction."""
    connection, listener, login = session.connection, session.listener, session.login
    if not session.host_name:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="send EHLO first"))
    if connection.envelope.mail_from is not None:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="nested MAIL command"))
    if must_log_in(listener.settings.auth, has_login=login is not None):
        needs_tls = not session.is_login_offered and session.is_starttls_offered
        raise Refusal(replies.TLS_REQUIRED if needs_tls else replies.LOGIN_REQUIRED)
    limit = listener.settings.max_message_size
    address, smtputf8 = parse_mail(argument, limit_bytes=limit)
    sender = listener.intake.resolve_sender(address)
    if login is not None and not login.may_send_as(sender):
        raise Refusal(replies.SENDER_DENIED)
    if not listener.intake.has_space():
        connection.say(replies.NO_SPACE)
        return
    client = connection.client.address
    if listener.rates is not None and not listener.rates.take(login.name if login else client):
        raise Refusal(replies.TOO_FAST.format(client=client))
    connection.envelope.mail_from = sender
    connection.envelope.smtp_utf8 = smtputf8
    connection.say(replies.OK_SENDER)


async def rcpt(session: Session, argument: bytes) -> None:
    """Add a recipient."""
    connection, listener = session.connection, session.listener
    envelope = connection.envelope
    if envelope.mail_from is None:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="need MAIL command"))
    envelope.rcpt_commands += 1
    surplus = envelope.rcpt_commands - listener.settings.max_recipients
    if surplus > RECIPIENT_OVERSHOOT:
        raise Refusal(replies.TOO_MANY_RECIPIENTS)
    if surplus > 0:
        connection.say(replies.TOO_MANY_RECIPIENTS)
        return
    if session.login is None and not connection.client.is_trusted:
        raise Refusal(replies.RELAY_DENIED)
    address = parse_rcpt(argument, smtputf8=envelope.smtp_utf8)
    resolved = listener.intake.resolve_recipient(address, session.mode)
    if resolved.decision.fate is Fate.REJECT:
        raise Refusal(replies.RECIPIENT_REFUSED)
    envelope.recipients.append(resolved)
    connection.say(replies.OK_RECIPIENT)


async def data(session: Session, argument: bytes) -> None:
    """Take the content and answer for all recipients."""
    connection, listener = session.connection, session.listener
    envelope = connection.envelope
    if argument:
        raise Refusal(replies.BAD_ARGUMENT.format(usage="DATA"))
    if envelope.mail_from is None:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="need MAIL command"))
    if not envelope.recipients:
        raise Refusal(replies.NO_VALID_RECIPIENTS)
    if connection.has_sent_ahead:
        connection.is_done = True  # content before 354: another protocol is being spoken
        raise Refusal(replies.UNSYNCHRONISED)
    limit = listener.settings.max_message_size
    reader = ContentReader(limit_bytes=limit, spool_directory=listener.intake.state_dir)
    origin = _origin(session, envelope)
    try:
        await connection.receive(reader)
        # only now: a session that reads content is not idle when the front stops
        connection.reset_envelope()
        if reader.is_large:
            await listener.committer.work_aside(reader.work_up)
        else:
            reader.work_up()
        connection.has_read(reader.content.raw_bytes)
        await _accept(session, envelope, reader.content, origin)
    except TooMuchData:
        connection.is_done = True
        raise Refusal(replies.TOO_BIG.format(limit=limit)) from None
    finally:
        if connection.envelope is envelope:
            connection.reset_envelope()
        if reader.is_large:  # the end of a file may wait for the disk
            listener.committer.work_aside(reader.content.close)
        else:
            reader.content.close()


def _origin(session: Session, envelope: Envelope) -> Origin:
    client, login = session.connection.client, session.login
    return Origin(
        source=Source(
            client=client.address,
            helo=session.host_name,
            user=login.name if login is not None else None,
            listener=session.listener.name,
        ),
        client_key=login.name if login is not None else client.key,
        protocol=session.transfer_protocol,
        smtputf8=envelope.smtp_utf8,
        mode=session.mode,
    )


async def _accept(
    session: Session, envelope: Envelope, content: ReceivedContent, origin: Origin
) -> None:
    """Store the message and say so, or say why not."""
    connection, listener = session.connection, session.listener
    if content.is_too_big:
        raise Refusal(replies.TOO_BIG.format(limit=listener.settings.max_message_size))
    if content.error is not None:
        listener.note(f"warning: spool file: {content.error}; answered 452")
        connection.say(replies.NO_SPACE)
        return
    try:
        if content.is_spooled:
            async with listener.large_message_turn:
                await listener.committer.work_aside(content.read_head)
                queue_id = await _store(session, envelope, content, origin)
        else:
            content.read_head()
            queue_id = await _store(session, envelope, content, origin)
    except TooManyHops:
        raise Refusal(replies.TOO_MANY_HOPS) from None
    except (StoreFull, IntakeFull) as error:
        listener.note(f"warning: {error}; answered 452 to {connection.peer}")
        connection.say(replies.NO_SPACE)
        return
    except StoreUnavailable as error:
        listener.note(f"warning: {error}; answered 451 to {connection.peer}")
        connection.say(replies.TROUBLE)
        return
    session.junk_commands = 0
    connection.extend_session()
    connection.say(f"250 2.0.0 Ok: queued as {queue_id}")


async def _store(
    session: Session, envelope: Envelope, content: ReceivedContent, origin: Origin
) -> str:
    """Return the queue id of the message once it is durable."""
    listener = session.listener
    message, chunks = listener.intake.compose(
        sender=envelope.mail_from or "",
        recipients=envelope.recipients,
        content=content,
        origin=origin,
    )
    if content.is_spooled:
        await listener.committer.add_chunks(message.queue_id, chunks)
    if message.has_denied_source and not session.has_told_of_source:
        session.has_told_of_source = True
        listener.note(
            f"warning: {message.queue_id}: X-Relaygw-Source of {session.connection.peer} removed, "
            "not believed; if it is a relaygw of yours, add it to trust_source of the listener"
        )
    await listener.committer.submit(message)
    return message.queue_id
