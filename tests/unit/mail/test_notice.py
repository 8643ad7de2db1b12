"""Notices as other programs read them: Python's email and flufl.bounce; nothing gets in."""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from flufl.bounce import all_failures
from hypothesis import given
from hypothesis import strategies as st

from relaygw.delivery.notices import objection
from relaygw.mail.dsn_request import (
    MAX_ORCPT_BYTES,
    rcpt_parameters,
    read_envid,
    read_orcpt,
    shown_orcpt,
)
from relaygw.mail.notice import (
    MAX_NOTICE_BYTES,
    Cause,
    DueNotice,
    NoticedRecipient,
    NoticeKind,
    Telling,
    compose_notice,
)
from relaygw.mail.returned import MAX_HEADER_BYTES, MAX_WHOLE_BYTES
from relaygw.mail.state import CaptureCode, RecipientState
from relaygw.mail.suppression import Action, Listed, Suppression
from relaygw.mail.suppression import Cause as SuppressionCause
from tests.builders import NOW_MS

HEAD = b"From: shop <a@shop.test>\r\nSubject: order 7\r\nTo: b@cust.test\r\n\r\nThanks.\r\n"
_R = RecipientState


def failed(address: str = "b@cust.test", **more: Any) -> NoticedRecipient:
    values: dict[str, Any] = {
        "rcpt_no": 0,
        "delivery_no": 0,
        "address": address,
        "original": None,
        "state": _R.BOUNCED,
        "provider": "main",
        "reply": "550 5.1.1 User unknown",
        "dsn": "5.1.1",
        "changed_at_ms": NOW_MS + 1000,
        "dsn_notify": None,
        "dsn_orcpt": None,
    }
    return NoticedRecipient(**values | more)


def due(*recipients: NoticedRecipient, kind: NoticeKind = NoticeKind.FAILED, **more: Any) -> Any:
    values: dict[str, Any] = {
        "queue_id": "06ABCDEFGHJKMNPQR",
        "kind": kind,
        "tries": 0,
        "sender": "a@shop.test",
        "subject": "order 7",
        "message_id": "<1@shop.test>",
        "accepted_at_ms": NOW_MS,
        "size_bytes": len(HEAD),
        "smtputf8": False,
        "mode": "production",
        "source_listener": None,
        "source_user": None,
        "dsn_ret": None,
        "dsn_envid": None,
        "recipients": recipients or (failed(),),
    }
    return DueNotice(**values | more)


def content(notice: DueNotice, head: bytes = HEAD, **more: Any) -> bytes:
    values: dict[str, Any] = {
        "notice": notice,
        "target": notice.sender,
        "recipients": notice.recipients,
        "causes": {},
        "hostname": "gw.test",
        "boundary": "edge",
    }
    return compose_notice(Telling(**values | more), head)


def read(raw: bytes) -> tuple[EmailMessage, list[EmailMessage], list[EmailMessage]]:
    """Return the notice, its parts, and the blocks of its report; it has no line ends but CRLF."""
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)
    whole = message_from_bytes(raw, policy=policy.SMTP)
    assert isinstance(whole, EmailMessage)
    assert not whole.defects
    parts: list[Any] = list(whole.iter_parts())
    assert whole.get_content_type() == "multipart/report"
    assert whole.get_param("report-type") == "delivery-status"
    assert len(parts) == 3
    assert parts[1].get_content_type() == "message/delivery-status"
    blocks: Any = parts[1].get_payload()
    return whole, parts, [block for block in blocks if block.keys()]


def test_a_failure_is_told_to_people_and_programs() -> None:
    cause = Cause(
        explanation="This address does not exist.",
        remedy="Correct the address.",
        relay="mx.main.test[192.0.2.1]:25",
    )
    raw = content(due(dsn_envid="order=7"), causes={0: cause})
    whole, (text, _, header), (about, one) = read(raw)
    assert whole["From"] == "Mail Delivery System <MAILER-DAEMON@gw.test>"
    assert (whole["To"], whole["Auto-Submitted"]) == ("a@shop.test", "auto-replied")
    assert whole["In-Reply-To"] == "<1@shop.test>"
    words = text.get_content()
    for said in (
        "could not be delivered to the address below",
        "<b@cust.test>",
        "This address does not exist.",
        "main answered: 550 5.1.1 User unknown",
        "What to do: Correct the address. Then send the mail again.",
        "order 7",
        "06ABCDEFGHJKMNPQR",
    ):
        assert said in words
    assert about["Reporting-MTA"] == "dns; gw.test"
    assert about["Original-Envelope-Id"] == "order=7"
    assert one["Final-Recipient"] == "rfc822; b@cust.test"
    assert (one["Action"], one["Status"]) == ("failed", "5.1.1")
    assert one["Remote-MTA"] == "dns; mx.main.test"
    assert one["Diagnostic-Code"] == "smtp; 550 5.1.1 User unknown"
    assert header.get_content_type() == "text/rfc822-headers"
    assert "Subject: order 7" in header.get_content()
    assert "Thanks." not in raw.decode()
    temporary, permanent = all_failures(message_from_bytes(raw))
    assert (set(temporary), set(permanent)) == (set(), {b"b@cust.test"})


def test_a_delay_is_temporary_and_says_until_when_it_is_tried() -> None:
    waits = failed(state=_R.PENDING, reply="450 4.2.0 later", dsn="4.2.0")
    notice = due(waits, kind=NoticeKind.DELAYED)
    raw = content(notice, retry_until_ms=NOW_MS + 432_000_000)
    _, (text, _, _), (_, one) = read(raw)
    assert (one["Action"], one["Status"]) == ("delayed", "4.2.0")
    assert one["Will-Retry-Until"]
    assert "no need to send it again" in " ".join(text.get_content().split())
    temporary, permanent = all_failures(message_from_bytes(raw))
    assert (set(temporary), set(permanent)) == ({b"b@cust.test"}, set())


def test_what_was_passed_on_is_no_failure() -> None:
    taken = failed(state=_R.DELIVERED, reply="250 2.0.0 Ok", dsn="2.0.0")
    raw = content(due(taken, kind=NoticeKind.RELAYED))
    _, _, (_, one) = read(raw)
    assert (one["Action"], one["Status"]) == ("relayed", "2.0.0")
    assert all_failures(message_from_bytes(raw)) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    ("ret", "head", "kind"),
    [
        ("FULL", HEAD, "message/rfc822"),
        ("HDRS", HEAD, "text/rfc822-headers"),
        (None, HEAD, "text/rfc822-headers"),
        ("FULL", HEAD + b"x" * 70 + b"\r\n" * MAX_WHOLE_BYTES, "text/rfc822-headers"),
        ("FULL", HEAD + b"nul \0\r\n", "text/rfc822-headers"),
        ("FULL", HEAD + "Grüße\r\n".encode(), "message/rfc822"),
        ("FULL", "X-Name: Grüße\r\n".encode() + HEAD, "text/rfc822-headers"),
    ],
)
def test_all_of_it_is_given_back_where_asked_for_and_small(
    ret: str | None, head: bytes, kind: str
) -> None:
    raw = content(due(dsn_ret=ret, size_bytes=len(head)), head)
    _, parts, _ = read(raw)
    assert parts[2].get_content_type() == kind
    if kind == "message/rfc822":
        assert head in raw
    fields = raw.partition(b"--edge")[0]
    assert (b"\r\nContent-Transfer-Encoding: 8bit\r\n" in fields) is not raw.isascii()


def test_all_of_mail_with_a_header_beyond_ascii_is_given_back_in_ascii() -> None:
    head = "X-Name: Grüße\r\n".encode() + HEAD
    raw = content(due(dsn_ret="FULL", smtputf8=True, size_bytes=len(head)), head)
    _, parts, _ = read(raw)
    assert raw.isascii()
    assert parts[2].get_content_type() == "message/global"
    encoded = raw.partition(b"base64\r\n\r\n")[2].partition(b"\r\n--")[0]
    assert b64decode(encoded) == head


def test_only_the_start_of_a_long_header_is_given_back() -> None:
    head = b"".join(b"X-%d: %b\r\n" % (n, b"y" * 90) for n in range(1000)) + b"\r\n"
    _, parts, _ = read(content(due(size_bytes=len(head)), head))
    given = parts[2].get_payload(decode=True)
    assert isinstance(given, bytes)
    assert MAX_HEADER_BYTES - 200 < len(given) <= MAX_HEADER_BYTES


def test_what_the_start_of_large_mail_has_is_never_called_whole() -> None:
    _, parts, _ = read(content(due(dsn_ret="FULL", size_bytes=len(HEAD) + 5)))
    assert parts[2].get_content_type() == "text/rfc822-headers"


def test_addresses_beyond_ascii_are_told_in_ascii() -> None:
    head = "From: <dörte@shop.test>\r\nSubject: Grüße\r\n\r\n".encode()
    notice = due(failed("jürgen@käufer.test"), smtputf8=True, subject="Grüße", size_bytes=len(head))
    raw = content(notice, head)
    _, (text, report, header), (_, one) = read(raw)
    assert one["Final-Recipient"] == r"utf-8; j\x{FC}rgen@k\x{E4}ufer.test"
    assert "<jürgen@käufer.test>" in text.get_content()
    assert header.get_content_type() == "message/global-headers"
    assert raw.isascii(), "it needs neither 8BITMIME nor SMTPUTF8, but for its own recipient"
    assert report["Content-Transfer-Encoding"] == "7bit"


def test_a_broken_header_is_given_back_as_it_was() -> None:
    head = b"Subject: Gr\xfc\xdfe\r\nX-Long: " + b"z" * 2000 + b"\r\n\r\n"
    raw = content(due(size_bytes=len(head)), head)
    _, (_, _, header), _ = read(raw)
    assert header.get_payload(decode=True) == head[:-2]
    assert max(map(len, raw.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("kind", [NoticeKind.DELAYED, NoticeKind.RELAYED])
def test_what_did_not_fail_comes_with_its_header_alone(kind: NoticeKind) -> None:
    _, parts, _ = read(content(due(kind=kind, dsn_ret="FULL")))
    assert parts[2].get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize(
    "value", ["x" * 100, "a  b   c", "ab " * 33, "y" * 60 + "    " + "z" * 36, " ".join("w" * 50)]
)
def test_a_parser_gets_back_what_was_given(value: str) -> None:
    raw = content(due(failed(reply=f"550 5.1.1 {value * 5}"), dsn_envid=value))
    _, _, (about, one) = read(raw)
    assert about["Original-Envelope-Id"] == value.rstrip()
    assert one["Diagnostic-Code"] == f"smtp; 550 5.1.1 {value * 5}".rstrip()
    report = raw.partition(b"message/delivery-status")[2].partition(b"--edge")[0]
    assert not re.search(rb"\n[ \t]+\r", report), "a line of spaces alone"
    if " " in value:
        assert max(map(len, report.split(b"\r\n"))) <= 110


@pytest.mark.parametrize("is_tried", [True, False])
def test_who_ended_it_by_hand_is_not_told(is_tried: bool) -> None:
    said = "450 4.2.0 mailbox full"
    ended = failed(
        state=_R.EXPIRED,
        reply="expired by root: the customer, cf. ticket" + f"; before: {said}" * is_tried,
        provider="main" if is_tried else None,
        dsn="4.4.7",
    )
    cause = Cause(said=said, remedy="Check it.", attempted_at_ms=NOW_MS) if is_tried else Cause()
    raw = content(due(ended), causes={0: cause})
    _, (text, _, _), (_, one) = read(raw)
    assert b"root" not in raw
    assert b"ticket" not in raw
    words = " ".join(text.get_content().split())
    assert "ended by the administrator of this gateway" in words
    assert (f"Before that, main answered: {said}" in words) is is_tried
    assert "heck" not in words, "nothing is wrong with the address"
    assert one["Diagnostic-Code"] == "X-Relaygw; ended by the administrator of this gateway"
    assert bool(one["Last-Attempt-Date"]) is is_tried


def test_who_suppressed_an_address_is_not_told() -> None:
    entry = Suppression(
        address="b@cust.test",
        cause=SuppressionCause.MANUAL,
        source="root",
        detail="cf. ticket 7",
        created_at_ms=NOW_MS,
    )
    reply = Listed(entry, Action.BLOCK).sentence
    assert "root" in reply
    raw = content(due(failed(state=_R.BLOCKED, reply=reply, provider=None, dsn="5.7.1")))
    _, _, (_, one) = read(raw)
    assert one["Diagnostic-Code"] == f"X-Relaygw; {CaptureCode.SUPPRESSED.sentence()}"
    for secret in (b"root", b"ticket", b"relaygw suppress"):
        assert secret not in raw


def test_mail_that_waits_untried_says_where_it_waits() -> None:
    waits = failed(state=_R.PENDING, reply=None, dsn=None, provider=None)
    _, (text, _, _), (_, one) = read(content(due(waits, kind=NoticeKind.DELAYED)))
    said = "waits at this gateway and has not been tried yet"
    assert said in " ".join(text.get_content().split())
    assert said in one["Diagnostic-Code"]
    assert (one["Action"], one["Status"], one["Last-Attempt-Date"]) == ("delayed", "4.3.0", None)


@pytest.mark.parametrize("sign", ["x", "ü", "\U0001f600"])
@pytest.mark.parametrize("many", [1000, 5000])
def test_a_notice_has_a_size_that_can_be_delivered(sign: str, many: int) -> None:
    reply = f"550 5.1.1 {sign * 900}"
    people = tuple(failed(f"u{n}@cust.test", rcpt_no=n, reply=reply) for n in range(many))
    head = HEAD[:-2] + b"\xff" * (MAX_WHOLE_BYTES - len(HEAD))
    notice = due(*people, subject=sign * 900, dsn_ret="FULL", size_bytes=len(head))
    raw = content(notice, head)
    assert len(raw) <= MAX_NOTICE_BYTES
    _, (text, _, _), blocks = read(raw)
    listed = len(blocks) - 1
    words = text.get_content()
    assert (f"room for {listed} of the {many}" in words) is (listed < many)
    assert listed >= 600
    told = len(re.findall(r"^<u\d+@", words, re.MULTILINE))
    assert f"and {many - told} more" in words


def test_a_thousand_ordinary_refusals_are_all_in_the_report() -> None:
    people = tuple(failed(f"u{n}@cust.test", rcpt_no=n) for n in range(1000))
    assert len(read(content(due(*people)))[2]) == 1001


def test_many_recipients_are_all_in_the_report() -> None:
    people = tuple(failed(f"u{n}@cust.test", rcpt_no=n) for n in range(300))
    raw = content(due(*people))
    _, (text, _, _), blocks = read(raw)
    assert len(blocks) == 301
    assert "and 200 more" in text.get_content()
    assert len(all_failures(message_from_bytes(raw))[1]) == 300
    assert "more: see" not in read(content(due()))[1][0].get_content()


def test_another_than_the_sender_is_told_whose_mail_it_was() -> None:
    raw = content(due(), target="ops@shop.test")
    assert b"A mail from a@shop.test could not be delivered" in raw.replace(b"\r\n", b" ")


@pytest.mark.parametrize(
    ("field", "to_sender", "others"),
    [
        ("Auto-Submitted: auto-generated", True, False),
        ("Auto-Submitted:\r\n auto-replied; x=y", True, False),
        ("Auto-Submitted: no", False, False),
        ("AUTO-SUBMITTED: No (not at all)", False, False),
        ("Auto-Submitted: (hm) no", False, False),
        ('Auto-Submitted: (a (b) ") \\) c) "no', True, False),
        ("Auto-Submitted: (hm", True, False),
        ("Auto-Submitted:\r\n (one)\r\n no ; x=y", False, False),
        ("Precedence: bulk", True, False),
        ("Precedence: (really) bulk", True, False),
        ("Precedence: JUNK", True, False),
        ("Precedence: list", True, False),
        ("Precedence: first-class", False, False),
        ("List-Unsubscribe: <mailto:u@shop.test>", True, False),
        ("list-id: news", True, False),
        ("X-List-Id: news", False, False),
        ("Content-Type: multipart/report; report-type=delivery-status", True, True),
        ("Content-Type: Multipart/Report", True, True),
        ("Content-Type: (c) multipart/report", True, True),
        ("Content-Type: multipart / report ; x=y", True, True),
        ("Content-Type:\r\n multipart(a(b)\\))/\r\n\treport", True, True),
        ("Content-Type: text/plain (multipart/report)", False, False),
        ("Content-Type: multipart/mixed; x=multipart/report", False, False),
    ],
)
def test_what_is_answered(field: str, to_sender: bool, others: bool) -> None:
    head = f"Subject: x\r\n{field}\r\nTo: b@cust.test\r\n\r\nList-Id: in the body\r\n".encode()
    assert bool(objection(head, to_sender=True)) is to_sender
    assert bool(objection(head, to_sender=False)) is others


# --- hostile values ----------------------------------------------------------------------------

ANY = st.text(max_size=200)
XTEXT = st.text(st.sampled_from("+0123456789ABCDEFabcdef;@.xrfc82-ut\\{}ü \r\n="), max_size=60)


@given(st.one_of(XTEXT, XTEXT.map("rfc822;".__add__), XTEXT.map("utf-8;".__add__), ANY))
def test_whatever_an_orcpt_is_it_is_one_word_and_shown_on_one_line(text: str) -> None:
    kept = read_orcpt(text)
    if kept:
        assert len(kept) <= MAX_ORCPT_BYTES
        command = rcpt_parameters(None, kept)
        assert re.fullmatch(rb" ORCPT=[!-~]+", command)
        shown = shown_orcpt(kept)
        assert shown is not None
        assert shown.isascii()
        assert shown.isprintable()


@given(st.one_of(XTEXT, ANY))
def test_whatever_an_envid_is_it_is_shown_on_one_line(text: str) -> None:
    kept = read_envid(text)
    assert kept is None or ((kept.isascii() and kept.isprintable()) or kept == "")


@given(
    st.fixed_dictionaries(
        {
            "address": ANY,
            "original": st.none() | ANY,
            "reply": st.none() | ANY,
            "dsn": st.none() | ANY,
            "provider": st.none() | st.just("main"),
            "dsn_orcpt": st.none() | ANY.map(lambda text: read_orcpt(f"rfc822;{text}") or None),
        }
    ),
    st.fixed_dictionaries({"subject": ANY, "message_id": ANY, "dsn_envid": ANY}),
    st.binary(max_size=300),
    st.sampled_from(list(NoticeKind)),
)
def test_nothing_that_strangers_wrote_adds_a_field_or_a_part(
    person: dict[str, Any], told: dict[str, Any], head: bytes, kind: NoticeKind
) -> None:
    head = head.replace(b"\r", b"").replace(b"\n", b"\r\n")
    notice = due(failed(**person), kind=kind, size_bytes=len(head), **told)
    raw = content(notice, head, boundary="edge-that-nobody-guesses")
    whole, _, blocks = read(raw)
    assert len(blocks) == 2
    known = {"in-reply-to", "references", "content-transfer-encoding"}
    assert {name.lower() for name in whole.keys()} - known == {  # noqa: SIM118 - not a dict
        *("from", "to", "subject", "auto-submitted", "x-relaygw-notice"),
        *("mime-version", "content-type"),
    }
    assert {name.lower() for name in blocks[0].keys()} <= {  # noqa: SIM118
        *("reporting-mta", "x-relaygw-queue-id", "x-relaygw-sender"),
        *("original-envelope-id", "arrival-date"),
    }
    assert {name.lower() for name in blocks[1].keys()} <= {  # noqa: SIM118
        *("original-recipient", "final-recipient", "action", "status", "remote-mta"),
        *("diagnostic-code", "last-attempt-date"),
    }


def test_a_status_of_another_class_is_not_repeated() -> None:
    for kind, given_status, told in (
        (NoticeKind.FAILED, "2.0.0", "5.0.0"),
        (NoticeKind.FAILED, "4.4.7", "4.4.7"),
        (NoticeKind.DELAYED, "5.1.1", "4.0.0"),
        (NoticeKind.FAILED, None, "5.0.0"),
    ):
        raw = content(due(replace(failed(), dsn=given_status), kind=kind))
        assert read(raw)[2][1]["Status"] == told
