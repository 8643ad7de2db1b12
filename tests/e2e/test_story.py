"""`relaygw queue explain`: a real gateway, a provider that says "later", and the story of it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from relaygw.mail.attempt_state import AttemptState
from tests.campaign import on_a_database
from tests.e2e.gateway import PATIENCE_S, Gateway, gateway_to
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw

LATER = b"451 4.7.1 Greylisted, come back later\r\n"


def explain(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    return run_relaygw(
        ["--config", gateway.config, "queue", "explain", *words],
        env={**gateway.environment, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@on_a_database
def test_a_mail_that_was_deferred_twice_tells_so(tmp_path: Path) -> None:
    with ThreadedProvider() as provider:
        provider.script("RCPT", LATER, LATER)
        with gateway_to(provider, tmp_path) as gateway:
            queue_id = gateway.send("a@shop.test", ["b@cust.test"], b"Subject: Order\r\n\r\nx\r\n")
            gateway.wait_for_log(f"{queue_id}: removed")
            states = [one.state for one in gateway.store.queue.attempts(queue_id)]
            assert states == [AttemptState.DEFERRED, AttemptState.DEFERRED, AttemptState.DELIVERED]
            plain = gateway.send("a@shop.test", ["c@cust.test"], b"Subject: y\r\n\r\ny\r\n")
            gateway.wait_for_log(f"{plain}: removed")
            assert gateway.store.queue.attempts(plain) == []
            told = explain(gateway, queue_id.lower(), "NOSUCHID00")
            objects = explain(gateway, queue_id, plain, "--json")
    assert (told.returncode, told.stderr) == (65, "relaygw: NOSUCHID00: no such message\n")
    assert max(map(len, told.stdout.splitlines())) <= 80
    assert re.findall(r"ago\): ([a-z]+)", told.stdout) == [
        "accepted", "deferred", "deferred", "delivered",
    ]  # fmt: skip
    relay = re.escape(f"relay     127.0.0.1[127.0.0.1]:{provider.port}")
    assert len(re.findall(relay, told.stdout)) == 3
    assert told.stdout.count("said      451 4.7.1 Greylisted, come back later, at RCPT TO") == 2
    assert told.stdout.count("(greylisting)") == 1, "what it means, once"
    assert "in short    Delivered by main" in told.stdout
    first, second = map(json.loads, objects.stdout.splitlines())
    assert [event["kind"] for event in second["events"]] == ["accepted", "delivered"]
    assert (first["queue_id"], first["is_over"], first["next"]) == (queue_id, True, [])
    assert objects.returncode == 0
