"""A message for one provider, and what of it can be said without asking the provider.

A provider that lacks an extension never gets mail that needs it: the content is rewritten
(8BITMIME), or the recipients are refused here, as a reply at Stage.LOCAL: 5.3.4 (SIZE), 5.6.3
(8BITMIME, which another provider may have, so that it bounces nobody), 5.6.7 (SMTPUTF8). RFC 1870,
RFC 3461, RFC 3463, RFC 6152, RFC 6531.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from email.header import Header
from functools import partial
from typing import NamedTuple

from relaygw.errors import ContentInvalid
from relaygw.mail.content import (
    MAX_LINE_BYTES,
    READ_HEADER_BYTES,
    has_long_line,
    read_header,
    without_fields,
)
from relaygw.mail.dsn_request import NEVER, mail_parameters, rcpt_parameters
from relaygw.mail.envelope import Source
from relaygw.mail.outcome import Stage
from relaygw.mail.reply import SmtpReply
from relaygw.mail.source_header import source_line
from relaygw.policy.recipient_fields import NO_FIELDS, NOTHING, FieldRule, FieldsFound
from relaygw.upstream.mark import Mark, put_mark
from relaygw.upstream.seven_bit import to_seven_bit

Content = bytes | Callable[[], AsyncIterator[bytes]]
"""Whole content, or what opens a stream of chunks of it (at most what a header may have)."""
Field = tuple[str, str]  # name and value

WITHOUT_8BITMIME = "5.6.3 content not sent to a provider without 8BITMIME: "
"""In front of why content cannot be rewritten."""
_END = b"\r\n\r\n"
_PIECE_BYTES = 2**18  # of a stream: a hostile one takes some 50 ms to be put on the wire
_ASIDE_BYTES = 64 * 1024  # a longer header is for a thread: a hostile one takes most of a second
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")
_TOO_LONG = FieldsFound(
    obstacle=f"its header has no end within {READ_HEADER_BYTES // 2**20} MiB, "
    "so its recipient fields cannot be checked"
)
_REWRITERS = ThreadPoolExecutor(2, thread_name_prefix="seven-bit")
"""Few, and of their own: large content takes seconds, and the store must not wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingMail:
    """What one transaction is to send; `content` is CRLF-normalised and ends with CRLF.

    `added` and those of `fields` whose name the header lacks go in front of the content. Sizes and
    flags are of the content alone. `dsn_notify` has a NOTIFY for each recipient, or is empty, and
    so has `dsn_orcpt` an ORCPT.
    `field_rule` None: all fields that name recipients may go with it.
    """

    sender: str  # "" is the null sender
    recipients: tuple[str, ...]
    content: Content
    size_bytes: int
    is_8bit: bool
    has_long_line: bool  # a line over 998 octets, which is folded on its way
    smtputf8: bool
    added: bytes = b""  # whole header lines in ASCII
    fields: tuple[Field, ...] = ()
    field_rule: FieldRule | None = NO_FIELDS
    mark: Mark | None = None  # by which the provider's events name this mail
    max_size_bytes: int | None = None  # besides what the provider says
    dsn_ret: str | None = None  # RFC 3461; see mail.address
    dsn_envid: str | None = None
    dsn_notify: tuple[str | None, ...] = ()
    dsn_orcpt: tuple[str | None, ...] = ()
    may_report: bool = True  # False: NOTIFY=NEVER and nothing else, whatever was asked


def source_field(source: Source, hostname: str, *, is_archived: bool = False) -> bytes:
    """Return the field that tells a provider, itself a relaygw, of the first relaygw on the way."""
    client = None if source.host is not None else source.client
    host = source.host or hostname
    return source_line(replace(source, client=client, host=host), is_archived=is_archived)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientReply:
    """What a transaction came to for one recipient.

    `reply` None: none came, `detail` says why. `in_doubt`: the final dot had been sent. `said` is
    the reply unmasked, for what it means alone. `at_rcpt` is a 2xx to RCPT other than 250: some
    providers say so that they will deliver nothing. `stale_session`: an idle connection was dead
    before the provider said anything; the caller may try again at once on another one.
    """

    stage: Stage
    reply: SmtpReply | None = None
    detail: str = ""
    in_doubt: bool = False
    stale_session: bool = False
    is_passed_on: bool = False  # the provider knows DSN: it tells the sender what it wants to hear
    said: SmtpReply | None = field(default=None, repr=False)
    at_rcpt: SmtpReply | None = None

    @property
    def dsn(self) -> str:
        """The enhanced status to report: the reply's, or 4.4.2 (bad connection) without one.

        Of a 2xx to RCPT that counts, as nothing is delivered, 5.0.0: RFC 3463 has 2.x for success.
        """
        if self.reply is not None:
            is_refusal = self.stage is Stage.RCPT and self.reply.is_positive
            return "5.0.0" if is_refusal else self.reply.dsn
        return "4.0.0" if self.stage is Stage.LOCAL else "4.4.2"


@dataclass(slots=True)
class Ledger:
    """How far one transaction got; its owner keeps it, so nothing that ends the session loses it.

    Once the dot may have left, `replies` has an answer for each, also when `transact` raises.
    """

    is_dot_sent: bool = False  # noted right before the dot is given to the connection
    is_fenced: bool = False  # the connection was closed without a dot, as the lease was lost
    is_unwanted: bool = False  # or somebody has it already
    replies: tuple[RecipientReply, ...] | None = None  # None: the transaction has not ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The extensions that a provider offered in its EHLO reply."""

    pipelining: bool = False
    eight_bit_mime: bool = False
    smtputf8: bool = False
    dsn: bool = False
    size: bool = False
    max_size_bytes: int | None = None  # None: no limit named


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """The commands and content to send, and the recipients refused here already."""

    mail_command: bytes
    rcpt_commands: dict[int, bytes]  # by position in OutgoingMail.recipients
    content: Content
    fold: bool
    refused: dict[int, RecipientReply]

    def envelope(self) -> bytes:
        """Return MAIL, RCPT and DATA as one pipelined group."""
        return b"".join((self.mail_command, *self.rcpt_commands.values(), b"DATA\r\n"))


async def plan_transaction(mail: OutgoingMail, offered: Capabilities) -> Transaction:
    """Return the plan for a provider with these extensions; ValueError: a defect here."""
    everyone = range(len(mail.recipients))
    refused: dict[int, RecipientReply] = {}
    if not (offered.smtputf8 or "".join((mail.sender, *mail.recipients)).isascii()):
        reply = _local(550, "5.6.7 the address is not ASCII and the provider has no SMTPUTF8")
        is_ascii = mail.sender.isascii()
        refused = {n: reply for n in everyone if not (is_ascii and mail.recipients[n].isascii())}
    sifted = await sift(mail.content, mail.added, mail.fields, mail.field_rule, mail.mark)
    content = sifted.content
    size_bytes, is_8bit = mail.size_bytes + sifted.grown_bytes, mail.is_8bit or sifted.is_8bit
    fold = mail.has_long_line or sifted.has_long_line
    if sifted.found.obstacle is not None:  # whoever sends looks before; nobody gets past it here
        refused = dict.fromkeys(everyone, _local(451, f"4.7.1 {sifted.found.obstacle}"))
    too_large = _size_problem(size_bytes, mail, offered)
    if too_large is not None:
        refused = dict.fromkeys(everyone, _local(552, f"5.3.4 {too_large}"))
    elif len(refused) < len(mail.recipients) and needs_seven_bit(mail, offered):
        try:
            # whole in memory: MIME cannot be rewritten chunk by chunk, and such providers are rare
            whole = b"".join([chunk async for chunk in chunks(content)])
            run = asyncio.get_running_loop().run_in_executor
            content = await run(_REWRITERS, to_seven_bit, whole)
            size_bytes, is_8bit, fold = len(content), False, has_long_line(content)
            grown = _size_problem(size_bytes, mail, offered)
            if grown is not None:
                raise ContentInvalid(f"rewritten, {grown}")
        except ContentInvalid as error:
            reply = _local(554, f"{WITHOUT_8BITMIME}{error}")
            refused |= {n: refused.get(n, reply) for n in everyone}
    return Transaction(
        mail_command=_mail_command(mail, offered, size_bytes=size_bytes, is_8bit=is_8bit),
        rcpt_commands={n: _rcpt_command(mail, offered, n) for n in everyone if n not in refused},
        content=content,
        fold=fold,
        refused=refused,
    )


def _local(code: int, text: str) -> RecipientReply:
    return RecipientReply(stage=Stage.LOCAL, reply=SmtpReply(code, (text,)), detail=text)


def _size_problem(size_bytes: int, mail: OutgoingMail, offered: Capabilities) -> str | None:
    limits = [limit for limit in (offered.max_size_bytes, mail.max_size_bytes) if limit]
    limit = min(limits, default=size_bytes)
    if size_bytes <= limit:
        return None
    has_said = limit == offered.max_size_bytes
    shown = f"the provider takes {limit}" if has_said else f"its max_message_size is {limit}"
    return f"the message has {size_bytes} bytes, {shown}"


def needs_seven_bit(mail: OutgoingMail, offered: Capabilities) -> bool:
    """Return whether content has to be rewritten first, which may take seconds."""
    # header fields in raw UTF-8 are legal under SMTPUTF8 only, so they are rewritten without it
    without_utf8 = mail.smtputf8 and not offered.smtputf8
    return mail.is_8bit and (not offered.eight_bit_mime or without_utf8)


def _mail_command(
    mail: OutgoingMail, offered: Capabilities, *, size_bytes: int, is_8bit: bool
) -> bytes:
    command = b"MAIL FROM:<%s>" % _encode_address(mail.sender)
    if offered.size:
        command += b" SIZE=%d" % size_bytes
    if is_8bit and offered.eight_bit_mime:
        command += b" BODY=8BITMIME"
    if mail.smtputf8 and offered.smtputf8:
        command += b" SMTPUTF8"
    if offered.dsn and mail.may_report:
        command += mail_parameters(mail.dsn_ret, mail.dsn_envid)
    return command + b"\r\n"


def _rcpt_command(mail: OutgoingMail, offered: Capabilities, position: int) -> bytes:
    command = b"RCPT TO:<%s>" % _encode_address(mail.recipients[position])
    if offered.dsn and not mail.may_report:
        command += rcpt_parameters(NEVER)
    elif offered.dsn and (mail.dsn_notify or mail.dsn_orcpt):
        notify = mail.dsn_notify[position] if mail.dsn_notify else None
        orcpt = mail.dsn_orcpt[position] if mail.dsn_orcpt else None
        command += rcpt_parameters(notify, orcpt)
    return command + b"\r\n"


def _encode_address(address: str) -> bytes:
    if _CONTROLS.search(address):
        raise ValueError(f"control character in the envelope address {address!r}")
    return address.encode("utf-8")


# --- content


class Sifted(NamedTuple):
    """Content as it goes to a provider; do not send it when `found` has an obstacle."""

    content: Content
    grown_bytes: int = 0  # how much longer it is than before
    is_8bit: bool = False  # what was added
    has_long_line: bool = False  # in what was added
    found: FieldsFound = NOTHING


async def chunks(content: Content, added: bytes = b"") -> AsyncIterator[bytes]:
    """Yield `added`, if any, and the content behind it, whole or as it streams, in small pieces."""
    if added:
        yield added
    if isinstance(content, bytes):
        yield content
    else:
        async for chunk in content():
            for at in range(0, len(chunk), _PIECE_BYTES):
                yield chunk[at : at + _PIECE_BYTES]


async def sift(
    content: Content,
    added: bytes,
    fields: Sequence[Field],
    rule: FieldRule | None,
    mark: Mark | None = None,
) -> Sifted:
    """Return `content` with `added`, `mark` and what it lacks of `fields`, less what `rule` takes.

    The rule has the first word: a field that it removes is not what the mark is merged into.
    """
    if not (fields or rule is not None or mark is not None):
        return _changed(content, b"", added)
    start = content if isinstance(content, bytes) else await beginning(content)
    look = partial(_sift_start, content, start, added, fields, rule, mark)
    if len(start) <= _ASIDE_BYTES or start.find(_END, 0, _ASIDE_BYTES) >= 0:
        return look()
    return await asyncio.to_thread(look)


def _sift_start(
    content: Content,
    start: bytes,
    added: bytes,
    fields: Sequence[Field],
    rule: FieldRule | None,
    mark: Mark | None,
) -> Sifted:
    found, marked = NOTHING, None
    if fields:
        added += missing_fields(fields, start)
    if rule is not None:
        is_endless = len(start) > READ_HEADER_BYTES and start is not content and _END not in start
        found = _TOO_LONG if is_endless else rule.look(added + start)
    if mark is not None and found.obstacle is None:
        marked = put_mark(mark, added + start, found.removed)
    line, replaced = marked or (b"", None)
    removed = found.removed if replaced is None else sorted((*found.removed, replaced))
    return _changed(content, start, added, line, removed)._replace(found=found)


async def beginning(content: Content) -> bytes:
    """Return the first chunks of a stream, until its header is in them or too long."""
    start = b""
    async for chunk in chunks(content):
        start += chunk
        if _END in start or len(start) > READ_HEADER_BYTES:
            break
    return start


def _changed(
    content: Content,
    start: bytes,
    added: bytes,
    line: bytes = b"",
    removed: Sequence[tuple[int, int]] = (),
) -> Sifted:
    """Return content with `added` and `line` in front, without `removed`, counted from `added` on.

    What is removed stands in `added` and the `start` of the content.
    """
    before = line + added
    if not before and not removed:
        return Sifted(content=content)
    changed: Content
    if not removed:  # nearly all mail
        changed = (
            before + content if isinstance(content, bytes) else partial(chunks, content, before)
        )
    elif isinstance(content, bytes):
        changed = line + without_fields(added + content, removed)
    else:
        changed = partial(
            _stream, line + without_fields(added + start, removed), len(start), content
        )
    return Sifted(
        content=changed,
        grown_bytes=len(before) - sum(end - start for start, end in removed),
        is_8bit=not added.isascii(),
        has_long_line=len(before) > MAX_LINE_BYTES and has_long_line(before),
    )


async def _stream(start: bytes, replaced_bytes: int, content: Content) -> AsyncIterator[bytes]:
    """Yield `start` in the place of that many bytes of the content, and the rest."""
    yield start
    async for chunk in chunks(content):
        if replaced_bytes < len(chunk):
            yield chunk[replaced_bytes:]
        replaced_bytes = max(0, replaced_bytes - len(chunk))


def missing_fields(fields: Iterable[Field], start: bytes) -> bytes:
    """Return those of `fields` whose name is not in the header at the `start` of a content."""
    end = start.find(_END)
    before = (start if end < 0 else start[:end]).lower()
    # most mail has none of them, and is not looked through
    wanted = frozenset(low for name, _ in fields if (low := name.lower()).encode() in before)
    present = read_header(start, wanted).values if wanted else {}
    lines = ""
    for name, value in fields:
        if name.lower() not in present:
            shown = _CONTROLS.sub(" ", value).strip()
            if not shown.isascii():
                shown = Header(shown, "utf-8", header_name=name).encode(linesep="\r\n")
            lines += f"{name}: {shown}\r\n"
    return lines.encode("ascii")
