"""Bounce mails and complaints in all their forms: what they name, what they mean, what is none."""

from __future__ import annotations

import base64
import random
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaygw.feedback import bounce_report
from relaygw.feedback.bounce_report import Mention
from relaygw.mail.verdict import Event, Kind
from tests.feedback import bounces
from tests.feedback.bounces import FORMS, HOSTNAME, Mail, complaint, report, status
from tests.feedback.test_hostile_events import checked
from tests.tables import each_of

AT_MS = 1_795_430_000_000  # Mon, 23 Nov 2026, some hours after the reports
MAIL = Mail()


def read(content: bytes) -> list[Event]:
    """Return the likeliest event of each mention, after a look at all of them."""
    mentions = bounce_report.read(content, received_at_ms=AT_MS, hostname=HOSTNAME)
    assert all(isinstance(mention, Mention) for mention in mentions)
    for mention in mentions:
        assert len({event.key for event in mention.events}) == 1
        checked([replace(event, raw=event.raw.replace("\n", " ")) for event in mention.events])
    return [mention.events[0] for mention in mentions]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_bounce_is_read(form: str, line_end: bytes) -> None:
    (event,) = read(FORMS[form](MAIL).replace(b"\n", line_end))
    assert (event.kind, event.address) == (Kind.HARD, MAIL.to)
    assert event.dsn and event.dsn.startswith("5.1.")
    assert (event.mark, event.message_id) == (MAIL.mark, "order-1@shop.test")
    assert event.queue_id == MAIL.queue_id
    assert event.detail and event.raw


def test_an_old_exchange_says_no_status() -> None:
    (event,) = read(bounces.old_exchange(MAIL))
    assert (event.kind, event.address, event.dsn) == (Kind.SOFT, MAIL.to, None)


@each_of(
    "action, code, said, kind",
    [
        ("failed", "5.1.1", "550 5.1.1 unknown", Kind.HARD),
        ("Failed", "5.1.10", "", Kind.HARD),
        ("failed (bounced)", "5.1.2", "", Kind.HARD),
        ("FAILED;", "5.4.4", "", Kind.HARD),
        ("error", "5.1.1", "", Kind.HARD),
        ("failed", "5.0.0", "550 5.1.1 unknown", Kind.HARD),
        ("failed", "5.0.0", "550 unknown", Kind.SOFT),
        ("failed", "5.1.8", "550 5.1.8 sender's domain", Kind.SOFT),
        ("failed", "5.7.1", "550 5.7.1 blocked", Kind.SOFT),
        ("failed", "4.4.7", "421 4.4.7 expired", Kind.SOFT),
        ("failed", "5.2.2 (mailbox full)", "", Kind.SOFT),
        ("delayed", "4.4.1", "", Kind.DEFERRED),
        ("delivered", "2.0.0", "", Kind.DELIVERED),
        ("expanded", "2.0.0", "", Kind.DELIVERED),
        ("relayed", "2.0.0", "", Kind.ACCEPTED),
        ("", "5.1.1", "", Kind.HARD),
        ("", "4.4.1", "", Kind.DEFERRED),
    ],
)
def test_what_an_action_means(action: str, code: str, said: str, kind: Kind) -> None:
    (event,) = read(report(MAIL, status(MAIL, action, code, said)))
    assert event.kind is kind


@each_of("action", ["", "unheard-of", "(failed)"])
def test_an_action_that_means_nothing(action: str) -> None:
    assert read(report(MAIL, status(MAIL, action, "nonsense", ""))) == []


@each_of(
    "recipient, address",
    [
        ("Final-Recipient: <bob@cust.test>", "bob@cust.test"),
        ("Final-Recipient: rfc822;<bob@cust.test>", "bob@cust.test"),
        ("Final-Recipient: RFC822 ; bob@cust.test", "bob@cust.test"),
        ("Final-Recipient: utf-8; b\\x{F6}b@cust.test", "b\u00f6b@cust.test"),
        (
            "Final-Recipient: x400; /c=de/\nX-Actual-Recipient: rfc822; bob@cust.test",
            "bob@cust.test",
        ),
        (
            "Original-Recipient: rfc822;shop+2Bbob@cust.test\nFinal-Recipient: rfc822;b@x.test",
            "shop+2Bbob@cust.test",
        ),
    ],
)
def test_addresses_of_a_recipient(recipient: str, address: str) -> None:
    content = report(MAIL, f"{recipient}\nAction: failed\nStatus: 5.1.1\n")
    mentions = bounce_report.read(content, received_at_ms=AT_MS, hostname=HOSTNAME)
    addresses = [event.address for mention in mentions for event in mention.events]
    assert address in addresses
    if "2B" in address:
        assert addresses == [address, "shop+bob@cust.test", "b@x.test"]


def test_several_recipients() -> None:
    others = [Mail(to=f"c{number}@cust.test") for number in range(3)]
    fields = "\n".join(status(mail) for mail in others)
    told = read(report(MAIL, fields))
    assert [event.address for event in told] == [mail.to for mail in others]
    assert len({event.key for event in told}) == 3


def test_it_counts_once_in_whatever_form_it_comes() -> None:
    posts = [bounces.postfix(MAIL)] * 10 + [bounces.gmail(MAIL)] * 10
    random.Random(17).shuffle(posts)
    assert len({event.key for content in posts for event in read(content)}) == 1


def test_another_mail_recipient_or_kind_counts_for_itself() -> None:
    told = [
        *read(report(MAIL, status(MAIL))),
        *read(report(MAIL, status(MAIL, "delayed", "4.4.1", ""))),
        *read(report(MAIL, status(replace(MAIL, to="eve@cust.test")))),
        *read(report(replace(MAIL, mark="an0ther-mark-01234"), status(MAIL))),
    ]
    assert len({event.key for event in told}) == 4


# --- what names the mail -------------------------------------------------------------------------


@each_of(
    "field",
    [
        "X-Relaygw-Mark: {mark}",
        "X-PM-Metadata-relaygw: {mark}",
        'X-SMTPAPI: {{"category": ["a"],\n "unique_args": {{"order": "1", "relaygw": "{mark}"}}}}',
        'X-Mailgun-Variables: {{"relaygw":"{mark}"}}',
        "X-SES-MESSAGE-TAGS: a=b, relaygw={mark}",
        "X-Mailin-custom: order:1|relaygw:{mark}",
    ],
)
def test_the_mark_in_each_place_that_a_preset_names(field: str) -> None:
    mark = "m4rk-0123456789abcdef"
    content = report(replace(MAIL, mark=None), status(MAIL)).replace(
        b"Subject: Your order\n", f"Subject: Your order\n{field.format(mark=mark)}\n".encode()
    )
    assert read(content)[0].mark == mark


def test_what_names_no_mail_is_no_event() -> None:
    bare = replace(MAIL, mark=None, message_id="", queue_id="x")
    for content in (report(bare, status(bare)), bounces.qmail(bare), complaint(bare)):
        assert read(content) == []


def test_the_next_server_names_the_mail_by_its_id() -> None:
    bare = replace(MAIL, mark=None, message_id="", queue_id="x")
    (event,) = read(bounces.postfix(bare))
    assert event.provider_id == "4F1B23C04D"


def test_the_answer_to_a_mail_names_it() -> None:
    content = bounces.exchange_online(MAIL).replace(b"Message-ID: <order", b"X-Id: <order")
    content = content.replace(b"X-Relaygw-Mark", b"X-Mark").replace(b"(relaygw)", b"(x)")
    assert read(content)[0].message_id == "order-1@shop.test"


def test_the_queue_id_of_this_gateway_goes_first() -> None:
    content = report(MAIL, status(MAIL)).replace(
        b"Received: from app1",
        b"Received: by later.test (relaygw) with ESMTP id LATER00001;\n"
        b"\tMon, 23 Nov 2026 10:00:02 +0000\nReceived: from app1",
    )
    assert read(content)[0].queue_id == MAIL.queue_id
    elsewhere = content.replace(b"by gw.shop.test", b"by other.test")
    assert read(elsewhere)[0].queue_id == "LATER00001"


def test_our_own_notice_is_known_already() -> None:
    head = f"Reporting-MTA: dns; {HOSTNAME}\nX-Relaygw-Queue-ID: {MAIL.queue_id}\n"
    assert read(report(MAIL, status(MAIL), head=head)) == []
    theirs = head.replace(HOSTNAME, "next.test")
    assert read(report(MAIL, status(MAIL), head=theirs))[0].provider_id == MAIL.queue_id


# --- complaints ----------------------------------------------------------------------------------


@each_of(
    "kind, means",
    [
        ("abuse", Kind.COMPLAINED),
        ("Fraud", Kind.COMPLAINED),
        ("other", Kind.COMPLAINED),
        ("opt-out", Kind.UNSUBSCRIBED),
        ("not-spam", None),
        ("auth-failure", None),
        ("virus", None),
        ("", None),
    ],
)
def test_a_complaint(kind: str, means: Kind | None) -> None:
    told = read(complaint(MAIL, kind))
    assert [event.kind for event in told] == ([] if means is None else [means])
    assert all(event.address == MAIL.to and event.mark == MAIL.mark for event in told)


def test_a_complaint_that_hides_the_recipient() -> None:
    (event,) = read(complaint(MAIL, rcpt=("redacted",)))
    assert event.address == MAIL.to  # the only one in To
    hidden = replace(MAIL, to="undisclosed recipients:;")
    (event,) = read(complaint(hidden, rcpt=()))
    assert (event.address, event.mark) == (None, MAIL.mark)


def test_a_complaint_that_names_several() -> None:
    told = read(complaint(MAIL, rcpt=("<bob@cust.test>", "<eve@cust.test>")))
    assert [(event.address, event.others) for event in told] == [
        ("bob@cust.test", 1),
        ("eve@cust.test", 1),
    ]


# --- odd and hostile -----------------------------------------------------------------------------


@each_of("encoding", ["base64", "quoted-printable"])
def test_a_report_that_is_encoded_though_it_may_not_be(encoding: str) -> None:
    content = report(
        MAIL, "FIELDS", head="", status_header=f"Content-Transfer-Encoding: {encoding}\n"
    )
    fields = f"Reporting-MTA: dns; mx.test\n\n{status(MAIL)}".encode()
    if encoding == "base64":
        fields = base64.encodebytes(fields)
    (event,) = read(content.replace(b"\nFIELDS", fields))
    assert event.kind is Kind.HARD


def test_an_international_report() -> None:
    content = report(
        replace(MAIL, to="b\u00f6b@cust.test"), status(replace(MAIL, to="b\u00f6b@c.test"))
    )
    content = content.replace(b"message/delivery-status", b"message/global-delivery-status")
    content = content.replace(b"rfc822; b", b"utf-8; b").replace(
        b"message/rfc822", b"message/global"
    )
    assert read(content)[0].kind is Kind.HARD


@each_of(
    "content",
    [
        b"",
        b"\0",
        b"Subject: hello\n\nI am away until Monday.\n",
        b"Auto-Submitted: auto-replied\nIn-Reply-To: <order-1@shop.test>\n\nI am on holiday.\n",
        b"Content-Type: multipart/report\n\n",
        b"Content-Type: multipart/report; boundary=\n\n--\n",
        b"Content-Type: message/delivery-status\n\n\n\n\n",
        b"Content-Type: multipart/mixed; boundary=a\n\n" + b"--a\n" * 10_000,
        b"Content-Type: multipart/mixed; boundary=a\n\n--a\n" * 3_000,
        b"Content-Type: message/rfc822\n\n" * 3_000,
        b"X: " + b"a" * 900_000 + b"\n\n",
        b"Received: " + b"by x (relaygw) id " * 40_000 + b"\n\n",
        b"From: MAILER-DAEMON\n\n" + b"<a@b.test>:\n" * 20_000,
        b"\xff\xfe" * 1000,
    ],
)
def test_what_is_no_bounce(content: bytes) -> None:
    began = time.process_time()
    assert read(content) == []
    assert time.process_time() - began < 5


def test_a_large_mail_came_back() -> None:
    content = bounces.postfix(MAIL) + b"x" * 60 + b"\nxxxxxxxxxxxx" * 500_000
    assert read(content)[0].kind is Kind.HARD


@pytest.mark.parametrize("form", ["Postfix", "Gmail"])
def test_each_line_may_lack_or_be_odd(form: str) -> None:
    lines = FORMS[form](MAIL).split(b"\n")
    for number in range(len(lines)):
        for odd in (None, b"\0\xff" * 50, lines[number] * 3, b"Content-Type: text/plain", b""):
            read(
                b"\n".join([*lines[:number], *([] if odd is None else [odd]), *lines[number + 1 :]])
            )


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_any_report(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from([bounces.postfix(MAIL), complaint(MAIL)])))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
    read(bytes(content))


def test_a_date_that_cannot_be_true() -> None:
    (event,) = read(bounces.postfix(MAIL))
    assert event.at_ms == 1_795_428_300_000
    for date in (b"1 Jan 1990 00:00:00 +0000", b"1 Jan 2100 00:00:00 +0000", b"soon", b"\xff"):
        content = bounces.postfix(MAIL).replace(b"Mon, 23 Nov 2026 10:05:00 +0000", date)
        assert read(content)[0].at_ms == AT_MS


def test_the_library_may_break(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(bounce_report, "all_failures", broken)
    assert read(bounces.qmail(MAIL)) == []


@each_of("blank", [b" ", b"\t", b" \t"])
def test_runs_of_blanks_take_time_by_their_length(blank: bytes) -> None:
    """In a report 40,000 of them took 20 s."""
    fields = f"Reporting-MTA: dns; x{blank.decode() * 40_000}y\n\n{status(MAIL)}"
    content = report(MAIL, fields, head="")
    began = time.process_time()
    (event,) = read(content)
    assert event.kind is Kind.HARD
    assert time.process_time() - began < 2


@each_of(
    "text, number",
    [
        (b"a\n\nb", 2),
        (b"a\r\n\r\nb", 2),
        (b"a \t\r\n \t \r\n\r\n \nb\n\nc", 3),
        (b"a\n b\n\tc", 1),
        (b"a\n \t b\n  c", 1),
        (b"a  \n  \n  b", 2),
    ],
)
def test_blank_lines_part_groups_of_fields(text: bytes, number: int) -> None:
    assert len(bounce_report.BLANK_LINES.split(text)) == number
