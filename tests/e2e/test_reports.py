"""A provider takes mail, then reports what became of it: story, searches, log and numbers tell."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.verdict import Kind
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.test_metrics import wait_for_numbers
from tests.fakes.scripted_provider import ThreadedProvider
from tests.feedback.documented import Sent, example
from tests.feedback.signers import signer_of
from tests.forked import run_relaygw
from tests.pflogsumm import totals_of

SIGNER = signer_of("resend")
MARK = re.compile(rb"(?im)^X-Relaygw-Mark: *(\S+)\r$")
WITHIN_S = 5.0  # from a post to the story


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider(users={"resend": "x"}) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, provider: ThreadedProvider
) -> Iterator[Gateway]:
    more = {"preset": "resend", "password": "plain:x", "rate": None}
    events = {"secret": f"plain:{SIGNER.secret}"}
    with Gateway(
        tmp_path_factory.mktemp("reports"),
        providers={"resend": provider_settings(provider.port, **more, events=events)},
        events={"bind": "127.0.0.1:0"},
        metrics={"bind": "127.0.0.1:0"},
    ) as running:
        yield running


def sent(gateway: Gateway, provider: ThreadedProvider, address: str) -> tuple[str, Sent]:
    """Send a mail; return its id, and it as the provider knows it."""
    before = len(provider.messages)
    queue_id = gateway.send("news@shop.test", [address], b"Subject: x\r\n\r\nhello\r\n")
    provider.wait_for_messages(before + 1)
    gateway.wait_for_log(f"{queue_id}: removed")
    mark = MARK.search(provider.messages[before].content)
    assert mark is not None
    return queue_id, Sent(address=address, mark=mark[1].decode(), at_ms=clock_ms())


def post(gateway: Gateway, mail: Sent, *kinds: Kind) -> None:
    """Report of a mail as the provider does, each thing twice."""
    (port,) = {
        match[1]
        for line in gateway.lines
        if (match := re.search(r"events on http://127\.0\.0\.1:(\d+)", line))
    }
    for kind in kinds:
        signed = SIGNER.sign([example("resend", kind).make(mail)], clock_ms())
        for _ in range(2):
            url = f"http://127.0.0.1:{port}/events/resend"
            answer = httpx2.post(url, content=signed.body, headers=signed.headers)
            assert answer.status_code == 200, answer.text


def told(gateway: Gateway, *words: str) -> str:
    done = run_relaygw(
        ["--config", gateway.config, *words],
        capture_output=True, text=True, env=gateway.environment, check=True,
    )  # fmt: skip
    return str(done.stdout)


def test_a_bounce_after_the_250_is_told_everywhere_within_seconds(
    gateway: Gateway, provider: ThreadedProvider, tmp_path: Path
) -> None:
    queue_id, mail = sent(gateway, provider, "gone@cust.test")
    began_s = time.monotonic()
    post(gateway, mail, Kind.DEFERRED, Kind.HARD)
    gateway.wait_until(
        lambda: gateway.entry(queue_id).recipients[0].verdict is Kind.HARD, "the last word"
    )
    assert time.monotonic() - began_s < WITHIN_S
    story = told(gateway, "queue", "explain", queue_id)
    assert "Delivered to resend, which reported: hard bounce" in " ".join(story.split())
    assert story.count("resend reports: ") == 2
    answer = told(gateway, "queue", "explain", queue_id, "--answer")
    assert "could not be delivered" in answer and "resend" not in answer
    shown = json.loads(told(gateway, "queue", "show", queue_id, "--json"))
    assert [one["verdict"] for one in shown["recipients"]] == ["hard"]
    assert [one["kind"] for one in shown["events"]] == ["deferred", "hard"]
    assert mail.address in shown["events"][1]["raw"]
    for words in (("find", "is:returned"), ("find", "is:bounced"),
                  ("queue", "list", "--result", "returned")):  # fmt: skip
        assert queue_id in told(gateway, *words)
    assert queue_id not in told(gateway, "find", "gone@cust.test !is:bounced")
    # the log, and what the real pflogsumm makes of it
    (line,) = gateway.wait_for_log(rf"{queue_id}: to=<gone@cust.test>, relay=resend, .*=bounced")
    assert re.search(r"dsn=5\.\d\.\d+, status=bounced \(reported: hard bounce", line)
    log = tmp_path / "mail.log"
    log.write_text("".join(f"{one}\n" for one in gateway.lines))
    totals = totals_of(log)
    assert (totals["received"], totals["delivered"], totals["bounced"]) == (1, 1, 1)
    wait_for_numbers(
        gateway,
        lambda one: one("relaygw_verdicts_total", provider="resend", kind="hard") == 1,
        "a counted verdict",
    )


def test_a_complaint_leads_from_the_dashboard_to_its_mail(
    gateway: Gateway, provider: ThreadedProvider
) -> None:
    queue_id, mail = sent(gateway, provider, "cross@cust.test")
    post(gateway, mail, Kind.DELIVERED, Kind.COMPLAINED)
    line = rf"{queue_id}: to=<cross@cust.test>, .*status="
    gateway.wait_for_log(rf"{line}complained \(reported: spam complaint")
    assert not any(re.search(rf"{line}bounced", one) for one in gateway.lines)
    assert queue_id in told(gateway, "find", "is:complained")
    assert queue_id in told(gateway, "queue", "list", "--result", "arrived")
    only = ("--result", "complained", "--sender-domain")
    assert queue_id in told(gateway, "queue", "list", *only, "SHOP.test")
    assert queue_id not in told(gateway, "queue", "list", *only, "hop.test")
    counted = {
        ("verdicts", "resend complained"),
        ("complaints", "shop.test"),
        ("sent", "shop.test"),
    }

    def is_counted() -> bool:
        points = gateway.store.watch.history(0)
        return {(one.series, one.label) for one in points} >= counted

    gateway.wait_until(is_counted, "the history")
