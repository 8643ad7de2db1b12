"""`archive_to` at acceptance: once, of new mail, never in the place of others, in no header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.drop_file import Drop
from relaygw.inbound.intake import Intake, Origin
from relaygw.inbound.local_mail import IMPORT_LISTENER, NoticeComposer, compose_local
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.mail.source_header import source_line
from relaygw.mail.state import RecipientState
from relaygw.settings.model import Settings
from tests.tables import each_of

ARCHIVE = "archive@arch.test"
PRODUCTION: dict[str, Any] = {
    "mode": "production",
    "hostname": "gw.test",
    "providers": {"p": {"host": "smtp.example.com"}},
    "routes": [
        {"name": "archive", "recipient": ["@arch.test"], "providers": ["p"]},
        {"name": "default", "providers": ["p"]},
    ],
    "listeners": [{"bind": "127.0.0.1:25", "trust_source": ["10.0.0.0/8"]}],
    "rewrite": {"recipients": {"@arch.test": "elsewhere@new.test", "old@x.test": ARCHIVE}},
    "bounces": {"inbound": "bounces@gw.test"},
    "archive_to": ARCHIVE,
}


def intake(tmp_path: Path, **more: Any) -> Intake:
    return Intake(Settings.model_validate({**PRODUCTION, **more}), state_dir=tmp_path)


def received(tmp_path: Path, header: bytes = b"") -> ReceivedContent:
    content = ReceivedContent(tmp_path)
    content.add(header + b"Subject: x\r\n\r\nhello\r\n")
    content.read_head()
    return content


def composed(
    into: Intake, tmp_path: Path, *recipients: str, header: bytes = b""
) -> AcceptedMessage:
    content = received(tmp_path, header)
    source = Source(client="10.1.2.3", listener="127.0.0.1:25")
    return into.compose(
        sender="a@shop.test",
        recipients=[to for one in recipients for to in into.resolve_recipients(one)],
        content=content,
        header=into.header_of(content),
        origin=Origin(source=source, client_key="", protocol="ESMTP", is_new=True),
    )[0]


def states(message: AcceptedMessage) -> dict[str, RecipientState]:
    return {one.address: one.state for part in message.deliveries for one in part.recipients}


def local(into: Intake, tmp_path: Path, sender: str = "a@shop.test", **more: Any) -> Any:
    drop = Drop(
        name="0.drop",
        uid=0,
        sender=sender,
        recipients=("b@x.test",),
        content=received(tmp_path),
        given_bytes=100,
    )
    return compose_local(into, drop, into.header_of(drop.content), **more)[0]


def test_it_is_a_recipient_of_its_own_that_no_header_names(tmp_path: Path) -> None:
    message = composed(intake(tmp_path), tmp_path, "b@x.test")
    assert [one.route for one in message.deliveries] == ["default", "archive"]
    (archive,) = message.deliveries[1].recipients
    assert (archive.address, archive.original, archive.dsn_notify) == (ARCHIVE, None, "NEVER")
    assert ARCHIVE.encode() not in message.content[0]
    assert b"for <b@x.test>" in message.content[0]


@each_of(
    ("recipients", "header", "is_added"),
    [
        (["b@x.test"], b"", True),
        (["b@x.test", "old@x.test"], b"", False),
        (["bounces@gw.test"], b"", False),
        (["bounces@gw.test", "b@x.test"], b"", True),
        (["b@x.test"], source_line(Source(host="web1"), is_archived=True), False),
        (["b@x.test"], source_line(Source(host="web1")), True),
    ],
)
def test_once_on_a_way(
    tmp_path: Path, recipients: list[str], header: bytes, is_added: bool
) -> None:
    message = composed(intake(tmp_path), tmp_path, *recipients, header=header)
    people = [one for part in message.deliveries for one in part.recipients]
    mine = [one for one in people if one.address == ARCHIVE and one.dsn_notify == "NEVER"]
    assert len(mine) == is_added


def test_who_is_not_trusted_keeps_no_mail_from_it(tmp_path: Path) -> None:
    header = source_line(Source(host="web1"), is_archived=True)
    listeners = [{"bind": "127.0.0.1:25"}]
    message = composed(intake(tmp_path, listeners=listeners), tmp_path, "b@x.test", header=header)
    assert ARCHIVE in states(message)


@each_of(
    ("more", "state"),
    [
        ({"mode": "sandbox"}, "captured"),
        ({"mode": "staging"}, "captured"),
        ({"mode": "staging", "recipients": {"allow": [ARCHIVE]}}, "pending"),
        (
            {
                "mode": "staging",
                "recipients": {"allow": ["q@x.test"], "refused": "redirect:q@x.test"},
            },
            "captured",
        ),
        ({"recipients": {"block": [ARCHIVE], "blocked": "reject"}}, "blocked"),
    ],
)
def test_modes_and_lists_hold_for_it(tmp_path: Path, more: dict[str, Any], state: str) -> None:
    message = composed(intake(tmp_path, **more), tmp_path, "b@x.test")
    assert states(message)[ARCHIVE] == state


def test_new_mail_of_local_programs_and_no_other(tmp_path: Path) -> None:
    into = intake(tmp_path)
    assert ARCHIVE in states(local(into, tmp_path))
    assert ARCHIVE not in states(local(into, tmp_path, listener=IMPORT_LISTENER))
    # what could not be sent is not sent to an archive either
    assert ARCHIVE not in states(local(into, tmp_path, sender="a@@b"))
    assert ARCHIVE not in states(local(into, tmp_path, limit_bytes=1))
    own = NoticeComposer(into).compose_own("", "ops@x.test", b"Subject: x\r\n\r\nhi\r\n", "n-1")
    assert list(states(own)) == ["ops@x.test"]
