"""`relaygw send-test`: one message through the real path, watched until it ends.

Goes in by SMTP (RFC 5321) as any client's mail does, so it also shows what the front
refuses; afterwards the queue tells how far it is, and what the last reply means.
"""

from __future__ import annotations

import os
import re
import smtplib  # here: who is become may not read the program
import time
from collections.abc import Iterator

import click

from relaygw import __version__
from relaygw.cli.frame import Command, CommandFailed, Invocation, pass_invocation
from relaygw.cli.text import moment, print_lines
from relaygw.errors import InvalidAddress
from relaygw.mail.address import check_address
from relaygw.mail.clock import clock_ms
from relaygw.mail.reply import provider_id
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.words import printable
from relaygw.operations.providers import obeyed
from relaygw.operations.selectors import ANY_STATE
from relaygw.operations.story.facts import Meanings, meaning_notes
from relaygw.settings.model import Settings
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store

_QUEUED_AS = re.compile(r"queued as ([A-Z0-9]{10,20})")
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_POLL_S = 0.2
_SMTP_TIMEOUT_S = 60.0
_ARRIVED = frozenset({RecipientState.DELIVERED, RecipientState.CAPTURED})


@click.command("send-test", cls=Command)
@click.option("--to", "recipient", metavar="A", required=True, help="Recipient.")
@click.option("--from", "sender", metavar="B", help="Sender; default: postmaster at this host.")
@click.option(
    "--timeout", "timeout_s", metavar="SECONDS", default=60.0, show_default=True,
    type=click.FloatRange(min=0), help="Stop following it after SECONDS.",
)  # fmt: skip
@pass_invocation
def send_test(invocation: Invocation, recipient: str, sender: str | None, timeout_s: float) -> int:
    """Send a test message through the gateway and follow it to its outcome.

    The outcome is the provider's own queue id, or the refusal and its meaning. Exit code 0:
    delivered or captured; 75: still queued; 69: refused or bounced.
    """
    loaded = invocation.load_running()
    settings = loaded.settings
    used_sender = sender or f"postmaster@{settings.rewrite.default_domain or settings.hostname}"
    for option, address in (("--to", recipient), ("--from", used_sender)):
        try:
            check_address(address)
        except InvalidAddress as error:
            raise CommandFailed(f"{option} {address!r} is not an address: {error}") from error
    with invocation.open_store(loaded) as store:
        queue_id = _submit(settings, used_sender, recipient)
        click.echo(f"{queue_id}: accepted from {used_sender} to {recipient}")
        return watch(store, settings, queue_id, timeout_s=timeout_s)


def _submit(settings: Settings, sender: str, recipient: str) -> str:
    bind = settings.listeners[0].bind
    host = _REACHABLE.get(bind.host, bind.host)
    content = _content(settings.hostname, sender, recipient)
    try:
        with smtplib.SMTP(host, bind.port, settings.hostname, _SMTP_TIMEOUT_S) as smtp:
            smtp.ehlo_or_helo_if_needed()
            options = [] if (sender + recipient).isascii() else ["SMTPUTF8"]
            if options:
                smtp.command_encoding = "utf-8"
            _expect(smtp.mail(sender, options), f"sender {sender}")
            _expect(smtp.rcpt(recipient), f"recipient {recipient}")
            reply = _expect(smtp.data(content), "message")
    except smtplib.SMTPResponseException as error:
        raise _refused(error.smtp_code, error.smtp_error, "session") from error
    except (smtplib.SMTPException, OSError) as error:
        raise CommandFailed(
            f"{bind} took no message: {error}; is it running? start it: relaygw serve",
            exit_code=os.EX_UNAVAILABLE,
        ) from error
    match = _QUEUED_AS.search(reply)
    if match is None:
        raise CommandFailed(
            f"the server on {bind} is not relaygw; it accepted the message with: {reply}",
            exit_code=os.EX_UNAVAILABLE,
        )
    return match[1]


def _content(hostname: str, sender: str, recipient: str) -> bytes:
    from email import policy
    from email.message import EmailMessage
    from email.utils import formatdate, make_msgid

    is_ascii = (sender + recipient).isascii()
    message = EmailMessage(policy=policy.SMTP if is_ascii else policy.SMTPUTF8)
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = f"Test from relaygw on {hostname}"
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=hostname)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        f"This message was sent by relaygw {__version__} on {hostname}\n"
        "to test delivery from the gateway to you. There is nothing for you to do.\n"
    )
    return message.as_bytes()


def _text(raw: bytes | str) -> str:
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return " ".join(text.split())


def _expect(answer: tuple[int, bytes], what: str) -> str:
    code, raw = answer
    if code // 100 != 2:
        raise _refused(code, raw, what)
    return _text(raw)


def _refused(code: int, raw: bytes | str, what: str) -> CommandFailed:
    exit_code = os.EX_TEMPFAIL if code // 100 == 4 else os.EX_UNAVAILABLE
    said = _text(raw)
    if said.startswith("4.3."):  # the state of the gateway (RFC 3463), whatever was sent
        what = "test, as it would any mail now"
    return CommandFailed(f"the front refused the {what}: {code} {said}", exit_code=exit_code)


def watch(store: Store, settings: Settings, queue_id: str, *, timeout_s: float) -> int:
    """Tell how far a message is until it ends, or time is up; return the exit code."""
    deadline_ms = clock_ms() + int(timeout_s * 1000)
    selection = Selection(queue_ids=(queue_id,), states=ANY_STATE)
    shown = ""
    while True:
        for entry in store.queue.search(selection, limit=1):
            words = _standing(entry)
            if words != shown:
                click.echo(f"{queue_id}: {printable(words)}")
                shown = words
            exit_code = _verdict(entry, deadline_ms)
            if exit_code is not None:
                lines = _reply_lines(store, settings, entry)
                print_lines(f"{queue_id}: {printable(line)}" for line in lines)
                return exit_code
        if clock_ms() >= deadline_ms:
            for hold in obeyed(store.holds.in_force(), settings.providers):
                remedy = f"; {hold.remedy}" if hold.remedy else ""
                click.echo(printable(f"held: {hold.scope} {hold.key}: {hold.reason}{remedy}"))
            raise CommandFailed(
                f"{queue_id}: still queued; check later: relaygw queue show {queue_id}",
                exit_code=os.EX_TEMPFAIL,
            )
        time.sleep(_POLL_S)


def _standing(entry: QueueEntry) -> str:
    (part, *_), (recipient, *_) = entry.deliveries, entry.recipients
    if recipient.state is not RecipientState.PENDING:
        way = f" by {recipient.provider}" if recipient.provider else ""
        return f"{recipient.address} {recipient.state.value}{way}" + (
            f": {recipient.reply}" if recipient.reply else ""
        )
    words = f"{part.state.value} on route {part.route}"
    if part.state is DeliveryState.DEFERRED:
        words += f", next try {moment(part.due_at_ms, part.due_at_ms).partition(' (')[0]}"
    return words + (f": {part.reason}" if part.reason else "")


def _verdict(entry: QueueEntry, deadline_ms: int) -> int | None:
    part, recipient = entry.deliveries[0], entry.recipients[0]
    if recipient.state in _ARRIVED:
        return os.EX_OK
    if recipient.state is not RecipientState.PENDING:
        return os.EX_UNAVAILABLE
    is_late = part.state is DeliveryState.DEFERRED and part.due_at_ms > deadline_ms
    return os.EX_TEMPFAIL if is_late or part.state is DeliveryState.HELD else None


def _reply_lines(store: Store, settings: Settings, entry: QueueEntry) -> Iterator[str]:
    recipient = entry.recipients[0]
    if recipient.state is RecipientState.DELIVERED:
        own_id = provider_id(recipient.reply or "")
        if own_id is not None:
            yield f"queue id at {recipient.provider}: {own_id}"
        return
    attempts = store.queue.record_of(entry.queue_id).attempts
    meaning = Meanings(settings).of(attempts[-1]) if attempts else None
    for note in meaning_notes(meaning):
        yield f"{note.label}: {note.text}"
