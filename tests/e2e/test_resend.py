"""`relaygw queue resend` on a real gateway: what bounced reaches its recipient after all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from relaygw.mail.state import RecipientState
from tests.campaign import on_a_database
from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.ports import fixed_binds
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw

ANN, BOB = "ann@cust.test", "bob@cust.test"
CONTENT = (
    b'X-SMTPAPI: {"to": ["ann@cust.test", "eve@cust.test"]}\r\nFrom: a@shop.test\r\n'
    b"To: ann@cust.test\r\nMessage-ID: <7@shop.test>\r\n"
    b"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nSubject: order\r\n\r\nhello\r\n"
)
REST = CONTENT.split(b"\r\n", 1)[1]


def resend(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    return run_relaygw(
        ["--config", gateway.config, "queue", "resend", *words],
        env=gateway.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@on_a_database
def test_what_bounced_is_sent_again_and_staging_reaches_nobody_else(tmp_path: Path) -> None:
    with ThreadedProvider() as provider:
        provider.script("RCPT", b"550 5.1.1 no such user\r\n")
        providers = {"main": provider_settings(provider.port)}
        gateway = Gateway(tmp_path, providers=providers, **fixed_binds())
        gateway.settings["queue"]["keep_content"] = "7d"
        with gateway:
            old = gateway.send("a@shop.test", [ANN], CONTENT)
            gateway.wait_for_log(f"{old}: removed")
            assert gateway.entry(old).recipients[0].state is RecipientState.BOUNCED
            done = resend(gateway, old, "--yes", "--json")
            assert (done.returncode, done.stderr) == (0, "")
            told = json.loads(done.stdout)
            gateway.wait_for_log(f"{told['resent_as']}: to=<{ANN}>.*status=sent")
            gateway.wait_for_log(f"{told['resent_as']}: from=<a@shop.test>, size=.*, nrcpt=1")
            provider.wait_for_messages(1)
            gateway.wait_until_empty()

            gateway.settings.update(mode="staging", recipients={"allow": [BOB]})
            gateway.wait_for_log("reloaded: mode", start=gateway.reload())
            staged = resend(gateway, old, "--yes", "--json")
            kept = json.loads(staged.stdout)
            assert kept["recipients"][0]["result"] == "captured"
            assert resend(gateway, old, "--to", BOB, "--yes").returncode == 0
            provider.wait_for_messages(2)
            gateway.wait_until_empty()
            assert gateway.entry(kept["resent_as"]).captured_at_ms is not None
        first, second = provider.messages
    assert [one.recipients for one in provider.messages] == [(ANN,), (BOB,)]
    for one in (first, second):
        assert one.content.endswith(REST) and b"X-SMTPAPI" not in one.content
        assert b"\r\nResent-From: <a@shop.test>\r\n" in one.content
