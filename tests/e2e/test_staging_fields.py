"""Staging reaches its list and nobody else, by whatever way mail with fields that name recipients
comes in and goes out.
"""

from __future__ import annotations

from pathlib import Path

from tests.e2e.gateway import Gateway, gateway_to
from tests.e2e.sendmail_rig import Installation
from tests.e2e.test_maildrop import leave
from tests.e2e.test_release import let_go
from tests.fakes.scripted_provider import ThreadedProvider

DEV, CUSTOMER = "dev@agency.test", "b@cust.test"
NAMING = b"""\
From: shop@shop.test
X-SMTPAPI: {"to":
 ["one@named.test", "two@named.test"]}
x-msys-api: {"bcc": [{"email": "three@named.test"}]}
X-MC-BccAddress : four@named.test
To: [{"email": "five@named.test"}]
Bcc: six@named.test
Resent-To: seven@named.test
X-MJ-TemplateErrorReporting: eight@named.test
Return-Path: <nine@named.test>
Subject: order

hello
"""


def test_nobody_but_the_list_is_named_to_a_gateway_or_provider_behind_it(
    command: Installation, tmp_path: Path
) -> None:
    for name in ("staging", "central"):
        (tmp_path / name).mkdir()
    with (
        ThreadedProvider() as provider,
        gateway_to(provider, tmp_path / "central") as central,
        Gateway(
            tmp_path / "staging",
            mode="staging",
            relay_to=[f"smtp://127.0.0.1:{central.smtp_port}?tls=none"],
            recipients={"allow": [DEV]},
        ) as gateway,
    ):
        maildrop = tmp_path / "staging/maildrop"
        gateway.wait_until((maildrop / "wake").exists, "a maildrop")

        queue_id = gateway.send("shop@shop.test", [DEV], NAMING)
        sent = command.run("-f", "shop@shop.test", DEV, content=NAMING, maildrop=maildrop)
        assert sent.returncode == 0, sent.stderr
        by_header = b"Cc: dev@agency.test\n" + NAMING.replace(b"Resent-To", b"X-Receiver")
        sent = command.run("-t", "-f", "shop@shop.test", content=by_header, maildrop=maildrop)
        assert sent.returncode == 0, sent.stderr
        leave(maildrop, DEV, content=NAMING)
        captured_id = gateway.send("shop@shop.test", [CUSTOMER], NAMING)
        let_go(gateway, captured_id, "--to", DEV)
        provider.wait_for_messages(5)
        gateway.wait_until_empty()
        assert gateway.stop() == 0
        gateway.settings["recipients"]["refused"] = f"redirect:{DEV}"
        gateway.start()
        gateway.send("shop@shop.test", [CUSTOMER], NAMING)
        provider.wait_for_messages(6)
        gateway.wait_until_empty()
        central.wait_until_empty()
        assert {one.recipients for one in provider.messages} == {(DEV,)}
        assert len(provider.messages) == 6
        for connection in provider.connections:
            assert b"@named.test" not in bytes(connection.transcript)
        told = gateway.wait_for_log(r"not sent \(mode staging\)", count=5)
        gateway.wait_for_log(r"not sent \(released mail\)")

        assert gateway.content(captured_id).count(b"@named.test") == 9  # as it came
    assert f"{queue_id}: fields X-SMTPAPI, X-MSYS-API, X-MC-BccAddress, To, Bcc" in told[0]
