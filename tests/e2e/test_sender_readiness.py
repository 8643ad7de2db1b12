"""`relaygw provider senders` beside a running gateway: what a real provider said of each sender."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.gateway import Gateway, gateway_to
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw

CONTENT = b"Subject: x\r\n\r\nhi\r\n"
REFUSAL = "550 5.7.1 news@promo.test is not a verified sender"


def senders(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """Run the command; return its objects by sender address."""
    ended = run_relaygw(["--config", str(gateway.config), "provider", "senders", "--json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )  # fmt: skip
    return {one["sender"]: one for one in map(json.loads, ended.stdout.splitlines())}


def test_an_accepted_and_a_refused_sender(tmp_path: Path) -> None:
    with ThreadedProvider() as provider, gateway_to(provider, tmp_path) as gateway:
        gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
        gateway.send("", ["b@cust.test"], CONTENT)
        gateway.wait_for_log("status=sent", count=2)
        provider.script("MAIL", REFUSAL.encode() + b"\r\n")
        gateway.send("news@promo.test", ["b@cust.test"], CONTENT)
        gateway.wait_for_log("status=(bounced|deferred)|held")
        provider.recipients["gone@cust.test"] = b"550 5.1.1 no such user\r\n"
        gateway.send("c@shop.test", ["gone@cust.test"], CONTENT)
        gateway.wait_for_log("gone@cust.test.*status=bounced")
        gateway.wait_until(lambda: len(gateway.store.limits.senders()) == 3, "three senders noted")
        found = senders(gateway)
    assert {sender: one["state"] for sender, one in found.items()} == {
        "a@shop.test": "accepted",
        "": "accepted",
        "news@promo.test": "refused",
    }
    assert next(iter(found)) == "news@promo.test"
    assert found["news@promo.test"]["reply"] == REFUSAL
    assert found["news@promo.test"]["accepted_at"] is None
    assert found["a@shop.test"]["refused_at"] is None
