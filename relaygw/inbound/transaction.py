"""The commands of a mail transaction: MAIL, RCPT, DATA (RFC 5321, 1870, 6152, 6531)."""

from __future__ import annotations

import re

from relaygw.errors import InvalidAddress
from relaygw.inbound import replies
from relaygw.inbound.acceptance import accept
from relaygw.inbound.data import ContentReader, TooMuchData
from relaygw.inbound.dialogue import Dialogue, Refusal, Transaction
from relaygw.inbound.hello import is_starttls_offered
from relaygw.inbound.login import is_login_offered
from relaygw.inbound.parameters import MailParameters, parse_mail_parameters, shown_name
from relaygw.mail.address import parse_path
from relaygw.policy.admission import must_log_in
from relaygw.policy.recipients import Fate

RECIPIENT_OVERSHOOT = 1000  # beyond it every further recipient counts as an error

_PATH_START = {b"MAIL": re.compile(rb"from:[ \t]*", re.I), b"RCPT": re.compile(rb"to:[ \t]*", re.I)}


async def mail(session: Dialogue, argument: bytes) -> None:
    """Begin a transaction."""
    if not session.helo:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="send EHLO first"))
    if session.transaction is not None:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="nested MAIL command"))
    if must_log_in(session.front.listener.auth, has_login=session.login is not None):
        needs_tls = not is_login_offered(session) and is_starttls_offered(session)
        raise Refusal(replies.TLS_REQUIRED if needs_tls else replies.LOGIN_REQUIRED)
    address, rest = _parse_path(session, b"MAIL", argument)
    parameters = _parse_parameters(session, rest)
    if not address.isascii() and not parameters.smtputf8:
        raise Refusal(replies.BAD_ADDRESS.format(code=553, status="5.6.7"))
    sender = session.front.intake.resolve_sender(address)
    if session.login is not None and not session.login.may_send_as(sender):
        raise Refusal(replies.SENDER_DENIED)
    if not session.front.intake.has_space():
        session.say(replies.NO_SPACE)
        return
    if not _is_within_rate(session):
        raise Refusal(replies.TOO_FAST.format(client=session.client.address))
    session.transaction = Transaction(sender, parameters.smtputf8)
    session.say(replies.OK_SENDER)


def _is_within_rate(session: Dialogue) -> bool:
    rates = session.front.rates
    if rates is None:
        return True
    return rates.take(session.login.name if session.login is not None else session.client.address)


def _parse_parameters(session: Dialogue, rest: bytes) -> MailParameters:
    limit = session.front.listener.max_message_size
    parameters = parse_mail_parameters(rest)
    if parameters.problem is not None:
        raise Refusal(parameters.problem)
    if parameters.size_bytes > limit:
        raise Refusal(replies.TOO_BIG.format(limit=limit))
    return parameters


def _parse_path(session: Dialogue, verb: bytes, argument: bytes) -> tuple[str, bytes]:
    start = _PATH_START[verb].match(argument)
    if start is None:
        usage = "MAIL FROM:<address>" if verb == b"MAIL" else "RCPT TO:<address>"
        raise Refusal(replies.BAD_ARGUMENT.format(usage=usage))
    # MAIL learns of SMTPUTF8 only behind the path and checks then
    smtputf8 = session.transaction is None or session.transaction.smtputf8
    try:
        address, rest = parse_path(argument[start.end() :], smtputf8=smtputf8)
    except InvalidAddress as error:
        status = error.status
        if verb == b"MAIL" and status == "5.1.3":
            status = "5.1.7"  # RFC 3463: that subject is the sender's
        raise Refusal(replies.BAD_ADDRESS.format(code=error.code, status=status)) from error
    if rest and not rest.startswith((b" ", b"\t")):
        raise Refusal(replies.BAD_ADDRESS.format(code=501, status="5.1.3"))
    return address, rest.strip()


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
    address, rest = _parse_path(session, b"RCPT", argument)
    if not address:
        raise Refusal(replies.BAD_ADDRESS.format(code=501, status="5.1.3"))
    if rest:
        name = shown_name(rest.partition(b"=")[0])
        raise Refusal(replies.UNKNOWN_PARAMETER.format(name=name))
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
