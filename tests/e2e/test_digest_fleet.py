"""Two gateways on one queue, and the worker with the duty killed: one digest by each way."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from relaygw.store.store import open_store
from tests.e2e.fleet import starter, worker_of
from tests.e2e.gateway import provider_settings
from tests.fakes.notice_receiver import NoticeReceiver
from tests.fakes.scripted_provider import ThreadedProvider


@pytest.mark.campaign
def test_a_fleet_sends_one_digest_though_its_worker_is_killed(
    tmp_path: Path, queue_url: str
) -> None:
    with ThreadedProvider() as provider, NoticeReceiver() as receiver, ExitStack() as gateways:
        start = starter(tmp_path, queue_url, gateways)
        opened = open_store(queue_url)
        gateways.callback(opened.close)
        digests = opened.digests
        for way in ("mail", "webhook"):
            digests.digest_state(way, until_ms=1)
        settings = {
            "providers": {"p": provider_settings(provider.port)},
            "digest": {"to": "ops@cust.test", "sender": "gw@shop.test", "webhook": receiver.url},
        }
        fleet = [start(name, **settings) for name in ("gw1", "gw2")]
        os.kill(worker_of(fleet[0]), signal.SIGKILL)
        provider.wait_for_messages(1)
        fleet[0].wait_until(
            lambda: digests.digest_state("webhook", until_ms=0).until_ms > 1, "a post"
        )
        fleet[1].wait_until_empty()  # who is killed before that may have sent what nobody knows of
        os.kill(worker_of(fleet[1]), signal.SIGKILL)
        for gateway in fleet:
            worker_of(gateway)
            gateway.wait_until_empty()
        # whoever looks next finds nothing to do
        fleet[1].wait_until(lambda: len(fleet[1].pids("delivery")) == 1, "a new worker")
    # sent again is only what was begun by who was killed: one digest was made
    assert len({message_from_bytes(one.content)["Message-ID"] for one in provider.messages}) == 1
    mail = provider.messages[0]
    found = message_from_bytes(mail.content, policy=default)
    assert isinstance(found, EmailMessage)
    assert (found["To"], mail.sender) == ("ops@cust.test", "gw@shop.test")
    assert "Digest of" in found["Subject"]
    assert len(receiver.bodies) <= 1
