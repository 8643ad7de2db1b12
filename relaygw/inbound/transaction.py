"""The commands of a mail transaction: MAIL, RCPT, DATA (RFC 5321, 1870, 6152, 6531)."""

from __future__ import annotations

from relaygw.inbound import replies
from relaygw.inbound.acceptance import accept
from relaygw.inbound.arguments import parse_mail, parse_rcpt
from relaygw.inbound.data import ContentReader, TooMuchData
from relaygw.inbound.dialogue import Dialogue, Transaction
from relaygw.inbound.hello import is_starttls_offered
from relaygw.inbound.login import is_login_offered
from relaygw.inbound.replies import Refusal
from relaygw.policy.admission import must_log_in
from relaygw.policy.recipients import Fate

RECIPIENT_OVERSHOOT = 1000  # beyond it every further recipient counts as an error


async def mail(session: Dialogue, argument: bytes) -> None:
    """Begin a transaction."""
    if not session.helo:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="send EHLO first"))
    if session.transaction is not None:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="nested MAIL command"))
    if must_log_in(session.front.listener.auth, has_login=session.login is not None):
        needs_tls = not is_login_offered(session) and is_starttls_offered(session)
        raise Refusal(replies.TLS_REQUIRED if needs_tls else replies.LOGIN_REQUIRED)
    limit = session.front.listener.max_message_size
    address, smtputf8 = parse_mail(argument, limit_bytes=limit)
    sender = session.front.intake.resolve_sender(address)
    if session.login is not None and not session.login.may_send_as(sender):
        raise Refusal(replies.SENDER_DENIED)
    if not session.front.intake.has_space():
        session.say(replies.NO_SPACE)
        return
    if not _is_within_rate(session):
        raise Refusal(replies.TOO_FAST.format(client=session.client.address))
    session.transaction = Transaction(sender, smtputf8)
    session.say(replies.OK_SENDER)


def _is_within_rate(session: Dialogue) -> bool:
    rates = session.front.rates
    if rates is None:
        return True
    return rates.take(session.login.name if session.login is not None else session.client.address)


async def rcpt(session: Dialogue, argument: bytes) -> None:
    """Add a recipient."""
    transaction = session.transaction
    if transaction is None:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="need MAIL command"))
    transaction.seen += 1
    if transaction.seen > session.front.listener.max_recipients:
        if transaction.seen > session.front.listener.max_recipients + RECIPIENT_OVERSHOOT:
            raise Refusal(replies.TOO_MANY_RECIPIENTS)
        session.say(replies.TOO_MANY_RECIPIENTS)
        return
    if session.login is None and not session.client.is_trusted:
        raise Refusal(replies.RELAY_DENIED)
    address = parse_rcpt(argument, smtputf8=transaction.smtputf8)
    resolved = session.front.intake.resolve_recipient(address, session.mode)
    if resolved.decision.fate is Fate.REJECT:
        raise Refusal(replies.RECIPIENT_REFUSED)
    transaction.recipients.append(resolved)
    session.say(replies.OK_RECIPIENT)


async def data(session: Dialogue, argument: bytes) -> None:
    """Take the content and answer for all recipients."""
    transaction = session.transaction
    if argument:
        raise Refusal(replies.BAD_ARGUMENT.format(usage="DATA"))
    if transaction is None:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="need MAIL command"))
    if not transaction.recipients:
        raise Refusal(replies.NO_VALID_RECIPIENTS)
    if session.has_sent_ahead:
        session.is_done = True  # content before 354: another protocol is being spoken
        raise Refusal(replies.UNSYNCHRONISED)
    limit = session.front.listener.max_message_size
    reader = ContentReader(limit_bytes=limit, spool_directory=session.front.intake.state_dir)
    protocol = session.transfer_protocol
    committer = session.front.committer
    try:
        await session.receive(reader)
        # only now: a session that reads content is not idle when the front stops
        session.transaction = None
        if reader.is_large:
            await committer.work_aside(reader.work_up)
        else:
            reader.work_up()
        session.has_read(reader.content.raw_bytes)
        await accept(session, transaction, reader.content, protocol=protocol)
    except TooMuchData:
        session.is_done = True
        raise Refusal(replies.TOO_BIG.format(limit=limit)) from None
    finally:
        session.transaction = None
        if reader.is_large:  # the end of a file may wait for the disk
            committer.work_aside(reader.content.close)
        else:
            reader.content.close()
