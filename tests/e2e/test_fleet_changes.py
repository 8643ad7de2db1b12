"""Gateways are reloaded and stopped in the middle of traffic (F24, F25)."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.queue_entry import QueueEntry
from tests.campaign import times
from tests.e2e.fleet import Traffic, arrived, starter
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.ports import fixed_binds
from tests.fakes.scripted_provider import ThreadedProvider

RELOADS = times(4, campaign=20)
STOPS = 2


def number_of(entry: QueueEntry) -> int:
    found = re.fullmatch(r"order (\d+)", entry.subject)
    assert found is not None
    return int(found[1])


def reload(gateway: Gateway, round_no: int) -> None:
    """Reload: by turns as it is, with a broken file, in the other mode, and back."""
    settings = gateway.settings
    if round_no % 4 == 1:
        right = settings["retry"]["first"]
        settings["retry"]["first"] = "soon"
        gateway.wait_for_log("reload refused, the old settings stay", start=gateway.reload())
        settings["retry"]["first"] = right
        return
    if round_no % 4 > 1:
        settings["mode"] = "staging" if settings["mode"] == "production" else "production"
    gateway.wait_for_log(f"reloaded: mode {settings['mode']}", start=gateway.reload())


@pytest.mark.campaign
def test_reloads_drop_no_session_and_each_message_keeps_its_mode(
    tmp_path: Path, queue_url: str, provider: ThreadedProvider
) -> None:
    with ExitStack() as stack:
        start = starter(tmp_path, queue_url, stack)
        settings = {"p": provider_settings(provider.port)}
        gateway = start("gw1", mode="staging", providers=settings, **fixed_binds())
        with Traffic(gateway) as traffic:
            for round_no in range(RELOADS):
                traffic.wait_for_more(10)
                reload(gateway, round_no)
            traffic.wait_for_more(10)
        assert (traffic.broken, traffic.refused, traffic.unanswered) == (0, {}, set())
        gateway.wait_until(
            lambda: all(e.deliveries[0].state is DeliveryState.HELD for e in gateway.queue()),
            "nothing but held mail",
        )
        counts = arrived(provider)
        entries = {number_of(entry): entry for entry in gateway.queue(frozenset(DeliveryState))}
    assert entries.keys() == traffic.acknowledged
    assert counts == Counter(counts.keys()), "once each"
    fates = Counter(
        (entry.mode, entry.recipients[0].state, number in counts)
        for number, entry in entries.items()
    )
    print(fates)
    assert fates.keys() <= {
        ("production", RecipientState.DELIVERED, True),
        ("production", RecipientState.PENDING, False),  # held: found under staging
        ("staging", RecipientState.CAPTURED, False),
    }


def test_gateways_are_stopped_one_after_the_other(
    tmp_path: Path, queue_url: str, provider: ThreadedProvider
) -> None:
    with ExitStack() as stack:
        start = starter(tmp_path, queue_url, stack)
        settings = {"p": provider_settings(provider.port)}
        fleet = [start(name, providers=settings) for name in ("gw1", "gw2")]
        with Traffic(*fleet) as traffic:
            for round_no in range(STOPS):
                traffic.wait_for_more(20)
                leaving = fleet[round_no % 2]
                assert leaving.stop() == 0
                traffic.wait_for_more(10)
                leaving.start()
            traffic.wait_for_more(20)
        traffic.wait_until_delivered(fleet[0], provider)
        assert not traffic.unanswered, "who has sent the final dot is answered"
        traffic.check(provider)
