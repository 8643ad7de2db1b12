"""Notices as a real Postfix takes them, and beside the bounce that it makes of the same mail."""

from __future__ import annotations

import shutil
import smtplib
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from flufl.bounce import all_failures

from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.ports import free_port
from tests.fakes.scripted_provider import ThreadedProvider
from tests.real_postfix import PostfixInstance
from tests.rights import needs

pytestmark = needs("root")
SENDER, BAD = "a@shop.test", "bad@cust.test"
CONTENT = b"From: shop <a@shop.test>\r\nSubject: order 7\r\n\r\nThanks.\r\n"
_MAIN = """virtual_mailbox_domains = shop.test
virtual_mailbox_base = {base}/mail
virtual_mailbox_maps = inline:{ {a@shop.test=a/} {form@shop.test=form/} }
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
relayhost = [127.0.0.1]:PORT
smtp_tls_security_level = none
strict_8bitmime = yes
strict_8bitmime_body = yes
strict_7bit_headers = yes
strict_mime_encoding_domain = yes
"""


@pytest.fixture(scope="module")
def rig(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[PostfixInstance, Gateway]]:
    """Yield a Postfix that delivers to shop.test, and a gateway that sends notices by it."""
    with ThreadedProvider() as provider:
        provider.recipients[BAD] = b"550 5.1.1 User unknown\r\n"
        with PostfixInstance(main=_MAIN.replace("PORT", str(provider.port))) as postfix:
            mail = postfix.base / "mail"
            mail.mkdir()
            shutil.chown(mail, 65534, 65534)
            providers = {
                "main": provider_settings(provider.port),
                "inner": provider_settings(postfix.port),
            }
            by_header = {"X-Relaygw-Notice": "*"}
            routes = [
                {"name": "notices", "header": by_header, "providers": ["inner"]},
                {"name": "inner", "recipient": ["@shop.test"], "providers": ["inner"]},
                {"name": "default", "providers": ["main"]},
            ]
            sections: dict[str, Any] = {
                "bounces": {"to": "sender"},
                "listeners": [
                    {"bind": "127.0.0.1:0"},
                    {"bind": f"127.0.0.1:{free_port()}", "mode": "staging"},
                ],
                "recipients": {"allow": [SENDER]},
            }
            directory = tmp_path_factory.mktemp("gateway")
            with Gateway(directory, providers=providers, routes=routes, **sections) as gateway:
                yield postfix, gateway


def delivered(postfix: PostfixInstance, seen: set[Path]) -> bytes:
    """Return what Postfix delivers next to the sender."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        new = set((postfix.base / "mail").glob("a/new/*")) - seen
        if new:
            (path,) = new
            seen.add(path)
            return path.read_bytes()
        time.sleep(0.05)
    raise AssertionError(postfix.log()[-3000:])


def report(raw: bytes) -> tuple[dict[str, str], dict[str, str]]:
    whole: Any = message_from_bytes(raw, policy=policy.default)
    assert not whole.defects
    assert whole.get_content_type() == "multipart/report"
    _, status, _ = whole.iter_parts()
    about, one = (dict(block.items()) for block in status.get_payload() if block.keys())
    return about, one


def test_it_delivers_a_notice_that_says_what_its_own_would(
    rig: tuple[PostfixInstance, Gateway],
) -> None:
    postfix, gateway = rig
    seen: set[Path] = set()
    gateway.send(SENDER, [BAD], CONTENT)
    ours = delivered(postfix, seen)
    with smtplib.SMTP("127.0.0.1", postfix.port, local_hostname="client.test") as client:
        client.sendmail(SENDER, [BAD], CONTENT)
    theirs = delivered(postfix, seen)

    (our_mail, our_one), (_, their_one) = report(ours), report(theirs)
    for name in ("Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"):
        assert our_one[name].replace(" ", "") == their_one[name].replace(" ", ""), name
    assert our_mail["Reporting-MTA"] == "dns; gw.test"
    assert all_failures(message_from_bytes(ours)) == all_failures(message_from_bytes(theirs))
    for raw in (ours, theirs):
        assert b"Return-Path: <>" in raw
        assert b"Auto-Submitted: auto-replied" in raw


@pytest.mark.parametrize(
    "content",
    [
        CONTENT.replace(b"order 7", "Grüße".encode()),
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
        b"MIME-Version: 1.0\r\n" + CONTENT.replace(b"Thanks", "Grüße".encode()),
        CONTENT + b"x" * 5000 + b"\r\n",
        b"Subject: " + b"y" * 5000 + b"\r\n" + CONTENT,
        b"Content-Type: multipart/mixed; boundary=b\r\n" + CONTENT + b"--b\r\n",
    ],
    ids=["header", "body", "line", "field", "frame"],
)
@pytest.mark.parametrize("ret", ["HDRS", "FULL"])
def test_it_takes_notices_of_any_mail(
    rig: tuple[PostfixInstance, Gateway], content: bytes, ret: str
) -> None:
    postfix, gateway = rig
    seen = set((postfix.base / "mail").glob("a/new/*"))
    client = gateway.connect()
    client.command(b"EHLO c.test")
    client.command(f"MAIL FROM:<{SENDER}> RET={ret}".encode())
    client.command(f"RCPT TO:<{BAD}>".encode())
    client.command(b"DATA")
    assert client.command(content + b".").startswith("250")
    client.close()
    _, one = report(delivered(postfix, seen))
    assert one["Final-Recipient"] == f"rfc822; {BAD}"


def test_it_reports_to_no_sender_whom_staging_keeps_mail_from(
    rig: tuple[PostfixInstance, Gateway],
) -> None:
    """In production it does: who filled in the form gets "Successful Mail Delivery Report"."""
    postfix, gateway = rig
    for port, has_report in zip(gateway.smtp_ports, (True, False), strict=True):
        start = len(postfix.log())
        client = gateway.connect(port)
        client.command(b"EHLO c.test")
        client.command(b"MAIL FROM:<form@shop.test> RET=FULL ENVID=order-7")
        client.command(f"RCPT TO:<{SENDER}> NOTIFY=SUCCESS,FAILURE".encode())
        client.command(b"DATA")
        assert client.command(CONTENT + b".").startswith("250")
        client.close()
        gateway.wait_until(lambda at=start: ": removed" in postfix.log()[at:], "it is delivered")
        said = "sender delivery status notification" in postfix.log()[start:]
        assert said is has_report, postfix.log()[start:]
