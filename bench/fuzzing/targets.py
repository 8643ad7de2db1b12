"""Parsers that read bytes from outside: one function each, and inputs to begin with.

A function returns where the parser took the bytes or refused them as documented; whatever else it
raises is a crash.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.fuzzing.front import Front, close_seams
from bench.fuzzing.profiles import PROFILES
from bench.fuzzing.queue import database
from relaygw.errors import InvalidAddress, SettingsError
from relaygw.feedback import bounce_report
from relaygw.feedback.formats import FORMATS
from relaygw.inbound.arguments import parse_mail, parse_rcpt
from relaygw.inbound.drop_file import DropReader
from relaygw.inbound.proxy_header import BadHeader, ProxyHeaderReader
from relaygw.inbound.replies import Refusal
from relaygw.mail import address
from relaygw.mail.address_list import read_addresses
from relaygw.mail.outcome import Stage
from relaygw.mail.search import SearchMistake, parse_find, parse_search
from relaygw.settings.provider import Provider
from relaygw.upstream.classifier import Classifier
from relaygw.upstream.protocol import ReplyInvalid, take_reply
from relaygw_postfix.lint import findings
from relaygw_postfix.main_cf import PostfixUnreadable, read_configuration
from relaygw_postfix.maps import Tables
from relaygw_postfix.resolve import Resolver
from relaygw_postfix.rewriting import Rewriting
from relaygw_postfix.translation import translate
from relaygw_postfix.written import as_yaml, check_text

_PARTS = b"\n---\n"  # between the files of one input


def addresses(data: bytes) -> None:
    """Envelope addresses, and lists of them in fields; what is taken is read again the same."""
    read_addresses(data)
    for smtputf8 in (False, True):
        try:
            found, _ = address.parse_path(data, smtputf8=smtputf8)
        except InvalidAddress:
            continue
        again, rest = address.parse_path(b"<%b>" % found.encode(), smtputf8=smtputf8)
        assert (again, rest) == (found, b"")
        if found:
            address.canonical(found)
            address.folded(found)
            address.mailbox(found)
            address.is_routable_elsewhere(found)


def commands(data: bytes) -> None:
    """Arguments of MAIL and RCPT."""
    with contextlib.suppress(Refusal):
        parse_mail(b"FROM:" + data, limit_bytes=10_000, has_dsn=True)
    for smtputf8 in (False, True):
        with contextlib.suppress(Refusal):
            parse_rcpt(b"TO:" + data, smtputf8=smtputf8, has_dsn=True)


def session(data: bytes) -> None:
    """Whole sessions: the front answers, stays within bounds, and nothing is left of them."""
    close_seams()
    here = database()
    here.queue.empty()
    replies: list[bytes] = []
    front = Front(0, PROFILES[0], here, replies.append)
    try:
        front.settle()
        for line in data.splitlines(keepends=True):
            front.hear(line)
            front.settle()
        assert front.bounds() is None
        if not front.wire.is_closed:
            front.hang_up(None)
        front.settle()
        assert not front.leftovers(), front.leftovers()
    finally:
        front.close()
    assert all(reply.endswith(b"\r\n") for reply in replies)


@cache
def _classifier() -> Classifier:
    return Classifier(Provider.model_validate({"host": "192.0.2.1", "port": 25}))


def provider_replies(data: bytes) -> None:
    """Replies of providers, and what they mean."""
    buffer = bytearray(data)
    with contextlib.suppress(ReplyInvalid):
        while (reply := take_reply(buffer)) is not None:
            for stage in Stage:
                _classifier().meaning(stage, reply)


def proxy(data: bytes) -> None:
    """PROXY headers of both versions: the same at once and byte by byte."""
    assert _proxied([data]) == _proxied([data[at : at + 1] for at in range(len(data))])


def _proxied(pieces: list[bytes]) -> object:
    reader = ProxyHeaderReader()
    for number, piece in enumerate(pieces):
        try:
            found = reader.feed(piece)
        except BadHeader:
            return "bad"
        if found is not None:
            return found[0], found[1] + b"".join(pieces[number + 1 :])
    return None


def bounces(data: bytes) -> None:
    """Bounce mails and complaints."""
    bounce_report.read(data, received_at_ms=1_800_000_000_000, hostname="gw.test")


def events(data: bytes) -> None:
    """Bodies of what providers post."""
    for form in FORMATS.values():
        form.read(data)


@cache
def _directory() -> tuple[tempfile.TemporaryDirectory[str], int]:
    held = tempfile.TemporaryDirectory()
    return held, os.open(held.name, os.O_RDONLY)


def drops(data: bytes) -> None:
    """Files of the maildrop: taken, or put aside with a reason."""
    held, descriptor = _directory()
    path = Path(held.name, "fuzzed.drop")
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))
    reader = DropReader(descriptor, limit_bytes=100_000, spool_directory=Path(held.name))
    batch = reader.read_batch(deque([path.name]))
    assert not batch.broken and batch.trouble is None, (batch.broken, batch.trouble)
    for drop in batch.drops:
        drop.content.close()


def searches(data: bytes) -> None:
    """What people look for."""
    text = data.decode("utf-8", "replace")
    parse_search(text)
    with contextlib.suppress(SearchMistake):
        parse_find(text)


def postfix(data: bytes) -> None:
    """A main.cf with its master.cf and a table."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        parts = itertools.zip_longest(("main.cf", "master.cf", "one"), data.split(_PARTS)[:3])
        for file, part in parts:
            (directory / file).write_bytes((part or b"").replace(b"{dir}", name.encode()))
        with contextlib.suppress(PostfixUnreadable, SettingsError):
            _import(directory)


def _import(directory: Path) -> None:
    # a gateway's own name is asked of the machine otherwise
    configuration = read_configuration(directory, {"myhostname": "gw.example.com"})
    for name in configuration.parameters:
        with contextlib.suppress(PostfixUnreadable):
            configuration.value(name)
    rewriting = Rewriting(Resolver(configuration, Tables(configuration)))
    findings(rewriting)
    check_text(as_yaml(translate(rewriting, Path("/etc/relaygw/secrets")).values))


@dataclass(frozen=True, slots=True)
class Target:
    """One parser, and inputs that lead into it."""

    run: Callable[[bytes], None]
    inputs: tuple[bytes, ...]


_DSN = b"""\
From: MAILER-DAEMON@mx.test
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

It failed.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.test

Final-Recipient: rfc822; r@rd.test
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 no such user

--b
Content-Type: text/rfc822-headers

Received: by gw.test (relaygw) id 4F1B23C04D; Sat, 28 Nov 2026 10:00:00 +0000
To: r@rd.test
--b--
"""
_ARF = b"""\
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: x/1
Version: 1
Original-Rcpt-To: <r@rd.test>
Arrival-Date: Sat, 28 Nov 2026 10:00:00 +0000

--b--
"""
_DROP = b"relaygw drop 1\nfrom s@ok.test\nto r@rd.test\ncwd /srv\nnotify NEVER\n\n"
_MAIN = b"""\
relayhost = [x.test]:587
transport_maps = texthash:{dir}/one
smtp_sasl_password_maps = texthash:{dir}/one
mynetworks = 10.0.0.0/8, ${a?{b}:{$c}}
a = $relayhost
"""
_MASTER = b"smtp inet n - n - - smtpd\n  -o a=b\npromo unix - - n - 2 smtp\n"
TARGETS = {
    "addresses": Target(
        addresses, (b"<s@ok.test> SIZE=1", b'<"a b"@[IPv6:::1]>', "<jö@例子>".encode(),
                    b"a (c) <a@b.test>, g: x@y.test, z@w.test;", b'"a\\"b" <c@d>',
                    b"=?utf-8?q?a?= <a@b>"),
    ),
    "commands": Target(
        commands, (b"<s@ok.test> SIZE=10 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a AUTH=<>",
                   b"<r@rd.test> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;\xc3\xb6@x", b"<>\r", b"<x> =\0"),
    ),
    "session": Target(
        session, (b"EHLO c.test\r\nMAIL FROM:<s@ok.test>\r\nRCPT TO:<r@rd.test>\r\nDATA\r\n"
                  b"Subject: =?utf-8?b?w6Q=?=\r\n\r\n..x\r\n.\r\nRSET\r\nQUIT\r\n",
                  b"HELO c\r\nVRFY x\r\nAUTH PLAIN =\r\nSTARTTLS\r\nBDAT 3 LAST\r\nabc",
                  b"\x16\x03\x01\n"),
    ),
    "replies": Target(
        provider_replies, (b"250-a\r\n250 2.0.0 ok\r\n", b"550 5.1.1 no such user\r\n421\r\n",
                           b"451 4.7.1 rate limit exceeded\r\n", b"999 x\r\n", b"250\n"),
    ),
    "proxy": Target(
        proxy, (b"PROXY TCP4 198.51.100.7 10.0.0.1 5000 25\r\nEHLO", b"PROXY UNKNOWN\r\n",
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x0a\0\0\1\0\x50\0\x19EHLO"),
    ),
    "bounces": Target(bounces, (_DSN, _ARF, _DSN.replace(b"\n", b"\r\n"), b"", _DSN[:300])),
    "events": Target(
        events,
        (
            b'[{"event":"bounce","email":"r@rd.test","timestamp":1800000000,"sg_event_id":"a",'
            b'"type":"blocked","reason":"550 5.1.1 x","status":"5.1.1","sg_message_id":"a.b"}]',
            b'{"RecordType":"Bounce","Type":"HardBounce","Email":"r@rd.test","BouncedAt":'
            b'"2026-11-28T10:00:00Z","MessageID":"m","Metadata":{"a":"b"}}',
            b'{"event-data":{"event":"failed","severity":"permanent","recipient":"r@rd.test",'
            b'"timestamp":1.8e9,"delivery-status":{"code":550,"message":"x"}}}',
            b'{"type":"email.bounced","created_at":"2026-11-28T10:00:00Z","data":{"to":["r@rd.test"],'
            b'"email_id":"e","bounce":{"type":"Permanent","message":"x"}}}',
            b'{"Type":"Notification","Message":"{\\"notificationType\\":\\"Bounce\\",\\"mail\\":{'
            b'\\"messageId\\":\\"m\\"},\\"bounce\\":{\\"bouncedRecipients\\":[{\\"emailAddress\\":'
            b'\\"r@rd.test\\"}],\\"bounceType\\":\\"Permanent\\"}}"}',
            b'{"event":"hard_bounce","email":"r@rd.test","ts_event":1800000000,"message-id":"<m>"}',
            b"[1e999, null, {}]",
        ),
    ),
    "drops": Target(
        drops, (_DROP + b"Subject: t\n\nx\n" + b"\nrelaygw end 14\n", _DROP + b"\nrelaygw end 0\n",
                _DROP, b"", b"relaygw drop 1\n\n\nrelaygw end 0\n"),
    ),
    "searches": Target(
        searches, (b'from:a@b.test -to:"x y" is:bounced after:2026-11-01', b"subject:", b'""" -',
                   b"larger:10M before:1h tag:x", "ä ß İ".encode()),
    ),
    "postfix": Target(
        postfix, (_PARTS.join([_MAIN, _MASTER, b"x.test smtp:[y.test]\n[x.test]:587 u:p\n"]), _MAIN,
                  b"a = ${b\n b = $a\n  c\n#d\n=\n"),
    ),
}  # fmt: skip
"""By the name that --target takes."""


def run_inputs(name: str) -> int:
    """Run the fixed inputs of a target, whole and cut short; return how many."""
    target = TARGETS[name]
    count = 0
    for given in target.inputs:
        for data in (given, given[: len(given) // 2], given[1:], given.replace(b"\n", b"\r")):
            target.run(data)
            count += 1
    return count
