"""Parameters of DSN at MAIL and RCPT, and what acceptance keeps of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.inbound.arguments import parse_mail, parse_rcpt
from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.intake import Intake, Origin
from relaygw.inbound.replies import Refusal
from relaygw.mail.dsn_request import DsnRequest
from relaygw.mail.envelope import Source
from relaygw.settings.model import Settings


def test_wishes_are_read_with_the_case_of_their_values() -> None:
    _, wanted = parse_mail(
        b"FROM:<a@shop.test> size=9 envid=Order+2B7 ret=hdrs", limit_bytes=10, has_dsn=True
    )
    assert wanted.dsn == DsnRequest(ret="HDRS", envid="Order+7")
    argument = b"TO:<b@cust.test> notify=delay,success orcpt=RFC822;Bob+2B1@cust.test"
    told = parse_rcpt(argument, smtputf8=False, has_dsn=True)
    assert told == ("b@cust.test", "SUCCESS,DELAY", "RFC822;Bob+2B1@cust.test")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"rfc822;a+0D+0ABcc:x@x", None),  # right, and never to be shown
        (b"rfc822;a+C3+BC@x", None),
        (b"utf-8;\xc3\xbc@x.test", r"utf-8;\x{FC}@x.test"),
        (rb"utf-8;\x{FC}@x.test", r"utf-8;\x{FC}@x.test"),
    ],
)
def test_an_orcpt_is_kept_in_printable_ascii_or_not_at_all(value: bytes, kept: str | None) -> None:
    _, _, orcpt = parse_rcpt(b"TO:<b@cust.test> ORCPT=" + value, smtputf8=True, has_dsn=True)
    assert orcpt == kept


def test_an_envid_that_may_not_be_shown_is_left_out() -> None:
    argument = b"FROM:<a@shop.test> ENVID=x+0D+0AX-Evil:1"
    assert parse_mail(argument, limit_bytes=10, has_dsn=True)[1].dsn == DsnRequest()


@pytest.mark.parametrize("word", [b"RET=HDRS", b"ENVID=x"])
def test_where_it_is_not_offered_mail_refuses_it(word: bytes) -> None:
    with pytest.raises(Refusal, match=r"^555 "):
        parse_mail(b"FROM:<a@shop.test> " + word, limit_bytes=10)


@pytest.mark.parametrize("word", [b"NOTIFY=NEVER", b"ORCPT=rfc822;x"])
def test_where_it_is_not_offered_rcpt_refuses_it(word: bytes) -> None:
    with pytest.raises(Refusal, match=r"^555 "):
        parse_rcpt(b"TO:<a@shop.test> " + word, smtputf8=False)


@pytest.mark.parametrize("between", [b"\r", b"\x0b", b"\x0c", b"\x1c", b"\0", b"\x7f"])
def test_nothing_but_spaces_and_tabs_parts_parameters(between: bytes) -> None:
    """A bare CR may end a line for the next server (found by bench/fuzz)."""
    for behind in (b"RET=HDRS" + between + b"SIZE=1", b"RET=HDRS" + between):
        with pytest.raises(Refusal, match=r"^501 "):
            parse_mail(b"FROM:<a@shop.test> " + behind, limit_bytes=10, has_dsn=True)
    for behind in (b"NOTIFY=NEVER" + between + b"ORCPT=rfc822;x", b"NOTIFY=NEVER" + between):
        with pytest.raises(Refusal, match=r"^501 "):
            parse_rcpt(b"TO:<a@shop.test> " + behind, smtputf8=False, has_dsn=True)
    assert parse_mail(b"FROM:<a@shop.test>\tSIZE=1\t RET=HDRS ", limit_bytes=10, has_dsn=True)


def test_a_redirected_recipient_names_nobody_else_to_a_provider(tmp_path: Path) -> None:
    allowed = "qa@agency.test"
    settings = Settings.model_validate(
        {
            "mode": "staging",
            "hostname": "gw.test",
            "providers": {"p": {"host": "p.test"}},
            "routes": [{"name": "default", "providers": ["p"]}],
            "recipients": {"allow": [allowed], "refused": f"redirect:{allowed}"},
        }
    )
    intake = Intake(settings, state_dir=tmp_path)
    wishes = {"dsn_notify": "FAILURE", "dsn_orcpt": "rfc822;x"}
    recipients = [
        replace(one, **wishes)
        for address in ("b@cust.test", allowed)
        for one in intake.resolve_recipients(address)
    ]
    content = ReceivedContent(tmp_path)
    content.add(b"Subject: x\r\n\r\n")
    content.read_head()
    origin = Origin(source=Source(), client_key="", protocol="ESMTP")
    message, _ = intake.compose(
        sender="",
        recipients=recipients,
        content=content,
        header=intake.header_of(content),
        origin=origin,
    )
    found = [
        (one.dsn_notify, one.dsn_orcpt) for part in message.deliveries for one in part.recipients
    ]
    assert found == [("FAILURE", None), ("FAILURE", "rfc822;x")]
    content.close()
