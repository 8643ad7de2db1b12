"""One mailbox gets a mail once, however often and in whatever spelling its address is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.drop_file import Drop
from relaygw.inbound.intake import Intake, Origin
from relaygw.inbound.local_mail import compose_local
from relaygw.mail.envelope import AcceptedMessage, NewRecipient, Source
from relaygw.mail.state import RecipientState
from relaygw.settings.model import Settings

PRODUCTION: dict[str, Any] = {
    "mode": "production",
    "hostname": "gw.test",
    "providers": {"p": {"host": "smtp.example.com"}},
    "routes": [{"name": "default", "providers": ["p"]}],
}


def intake(tmp_path: Path, **more: Any) -> Intake:
    return Intake(Settings.model_validate({**PRODUCTION, **more}), state_dir=tmp_path)


def received(tmp_path: Path) -> ReceivedContent:
    content = ReceivedContent(tmp_path)
    content.add(b"Subject: x\r\n\r\nhello\r\n")
    content.read_head()
    return content


def composed(
    into: Intake, tmp_path: Path, *recipients: str, wishes: tuple[str | None, ...] = ()
) -> AcceptedMessage:
    resolved = [to for one in recipients for to in into.resolve_recipients(one)]
    if wishes:
        resolved = [
            replace(one, dsn_notify=wish) for one, wish in zip(resolved, wishes, strict=True)
        ]
    content = received(tmp_path)
    return into.compose(
        sender="a@shop.test",
        recipients=resolved,
        content=content,
        header=into.header_of(content),
        origin=Origin(source=Source(client="127.0.0.1"), client_key="", protocol="ESMTP"),
    )[0]


def people(message: AcceptedMessage) -> list[NewRecipient]:
    return [one for part in message.deliveries for one in part.recipients]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["b@x.test", "b@X.TEST"], ["b@x.test"]),
        (["b@X.Test", "c@x.test", "b@x.test", "C@x.test"], ["b@X.Test", "c@x.test"]),
        (["b@x.test"] * 3, ["b@x.test"]),
        (['"b"@x.test', "b@x.test"], ['"b"@x.test']),
        (["b@m\u00fcller.test", "b@xn--mller-kva.test"], ["b@m\u00fcller.test"]),
        (["b@x.test", "b+1@x.test", "b@y.x.test"], ["b@x.test", "b+1@x.test", "b@y.x.test"]),
    ],
)
def test_the_first_spelling_of_a_mailbox_is_kept(
    tmp_path: Path, given: list[str], kept: list[str]
) -> None:
    message = composed(intake(tmp_path), tmp_path, *given)
    assert [one.address for one in people(message)] == kept
    # a trace names whom it is for when that is one
    assert (b"for <%s>" % given[0].encode() in message.content[0]) == (
        len(kept) == 1 and given[0].isascii()
    )


def test_what_the_first_one_wishes_to_hear_counts(tmp_path: Path) -> None:
    into, twice = intake(tmp_path), ("b@x.test", "b@X.test")
    for wishes in (("NEVER", "SUCCESS"), (None, "SUCCESS")):
        (one,) = people(composed(into, tmp_path, *twice, wishes=wishes))
        assert one.dsn_notify == wishes[0]


def test_the_maildrop_is_no_other_door(tmp_path: Path) -> None:
    drop = Drop(
        name="0.drop",
        uid=0,
        sender="a@shop.test",
        recipients=("bob@shop.example", "bob@Shop.Example", "bad@@x", "Bad@@x"),
        content=received(tmp_path),
    )
    into = intake(tmp_path)
    message, _ = compose_local(into, drop, into.header_of(drop.content))
    assert [one.address for one in people(message)] == ["bob@shop.example", "bad@@x"]


def test_whom_rewriting_or_a_redirect_brings_together_each_stays_on_record(tmp_path: Path) -> None:
    into = intake(tmp_path, rewrite={"recipients": {"root@x.test": "Ops@x.test"}})
    message = composed(into, tmp_path, "root@x.test", "ops@X.test", "ROOT@x.test")
    assert [(one.address, one.original) for one in people(message)] == [
        ("Ops@x.test", "root@x.test"),
        ("ops@X.test", None),
    ]


def test_what_may_be_sent_is_not_lost_to_what_may_not(tmp_path: Path) -> None:
    listed = {"allow": ["b@xn--mller-kva.test"]}
    into = intake(tmp_path, mode="staging", recipients=listed)
    message = composed(into, tmp_path, "b@m\u00fcller.test", "b@xn--mller-kva.test")
    assert [one.state for one in people(message)] == [
        RecipientState.CAPTURED,
        RecipientState.PENDING,
    ]
