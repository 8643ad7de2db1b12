"""Checks hold mail, and never lose any."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relaygw.inbound.content import ReceivedContent
from relaygw.inbound.intake import Intake, Origin
from relaygw.inbound.mail_classes import MailClasses
from relaygw.inbound.screen import Check, Screen, ScreenHold, refreshed
from relaygw.mail.content import HeaderFacts
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.settings.model import Settings
from tests.integration.inbound.front_rig import until

SETTINGS: dict[str, Any] = {
    "mode": "production",
    "hostname": "gw.test",
    "listeners": [{"bind": "127.0.0.1:0"}],
    "providers": {"main": {"host": "smtp.example.com"}},
    "routes": [{"name": "default", "providers": ["main"]}],
}


class Spam(Check):
    name = "spam"

    def look(
        self, message: AcceptedMessage, _facts: HeaderFacts, content: ReceivedContent
    ) -> Sequence[ScreenHold]:
        if b"pills" not in content.head:
            return ()
        assert message.mail_class is not None
        return (ScreenHold(HoldCode.GUARD, message.mail_class.class_id, "it sells pills"),)


class Dear(Check):
    name = "dear"

    def look(
        self, _message: AcceptedMessage, _facts: HeaderFacts, content: ReceivedContent
    ) -> Sequence[ScreenHold]:
        return [ScreenHold(HoldCode.CONTENT_CHECK, "card", "found")] * (b"pills" in content.head)


class Broken(Check):
    name = "broken"

    def look(
        self, message: AcceptedMessage, _facts: HeaderFacts, _content: ReceivedContent
    ) -> Sequence[ScreenHold]:
        raise KeyError(message.queue_id)

    def refresh(self) -> None:
        raise OSError("gone")


def composed(tmp_path: Path, screen: Screen, text: bytes, **more: Any) -> AcceptedMessage:
    settings = Settings.model_validate({**SETTINGS, **more})
    intake = Intake(settings, state_dir=tmp_path, classes=MailClasses(), screen=screen)
    content = ReceivedContent(tmp_path)
    content.add(b"Subject: Order 12\r\n\r\n" + text)
    content.read_head()
    message, _ = intake.compose(
        sender="a@Shop.test",
        recipients=intake.resolve_recipients("b@cust.test"),
        content=content,
        header=intake.header_of(content),
        origin=Origin(
            source=Source(client="10.0.0.5", listener="127.0.0.1:25"),
            client_key="10.0.0.0/24",
            protocol="ESMTP",
        ),
    )
    return message


def holds_of(message: AcceptedMessage) -> list[HoldCause]:
    return [cause for part in message.deliveries for cause in part.holds]


def test_each_hold_counts_and_a_broken_check_lets_mail_go(tmp_path: Path) -> None:
    told: list[str] = []
    screen = Screen([Broken(), Spam(), Broken(), Dear()], told=told.append)
    free = composed(tmp_path, screen, b"thanks\r\n")
    assert free.mail_class is not None
    shown = (free.mail_class.host, free.mail_class.sender_domain, free.mail_class.template)
    assert (shown, holds_of(free)) == (("10.0.0.5", "shop.test", "Order #"), [])
    held = composed(tmp_path, screen, b"pills\r\n")
    assert held.mail_class == free.mail_class
    assert holds_of(held) == [
        HoldCause(HoldCode.GUARD, f"{held.mail_class.class_id} it sells pills"),
        HoldCause(HoldCode.CONTENT_CHECK, "card found"),
    ]
    (line,) = told  # not again for each mail
    assert "check broken failed, and the mail was let through: KeyError" in line
    screen.refresh()


def test_what_is_only_captured_is_looked_at_and_not_held(tmp_path: Path) -> None:
    screen = Screen([Spam()], told=lambda _: None)
    captured = composed(tmp_path, screen, b"pills\r\n", mode="sandbox")
    assert (holds_of(captured), captured.mail_class is None) == ([], False)


class Reading(Check):
    name = "reading"
    number = 0

    def refresh(self) -> None:
        self.number += 1


async def test_checks_have_read_before_the_first_mail_and_read_on() -> None:
    check = Reading()
    async with refreshed(Screen([check], told=lambda _: None), each_s=0.01):
        assert check.number >= 1
        await until(lambda: check.number >= 3)
    await asyncio.get_running_loop().shutdown_default_executor()  # one may have been at work
    ended = check.number
    await asyncio.sleep(0.03)
    assert check.number == ended
    async with refreshed(None):
        pass
