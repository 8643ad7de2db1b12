"""The clock of a host is set under a running gateway with a queue in SQLite."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.fleet import arrived, send_all
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.test_fleet_clocks import LATER, wrong_clock
from tests.fakes.notice_receiver import NoticeReceiver
from tests.fakes.scripted_provider import ThreadedProvider

COUNT = 5
RETRY = {"first": "2s", "max": "2s", "jitter": "0%"}


@pytest.mark.parametrize("offset", ["+1h", "-1h"], ids=["forward", "back"])
def test_a_clock_that_is_set_stops_no_mail_buries_no_worker_and_is_told(
    tmp_path: Path, offset: str
) -> None:
    time_file = tmp_path / "time"
    time_file.write_text("+0\n")
    environment = wrong_clock("+0") | {
        "FAKETIME_TIMESTAMP_FILE": str(time_file),
        "FAKETIME_NO_CACHE": "1",
    }
    del environment["FAKETIME"]  # it would go before the file
    with (
        ThreadedProvider() as provider,
        NoticeReceiver() as receiver,
        Gateway(
            tmp_path,
            providers={"p": provider_settings(provider.port)},
            retry=RETRY,
            processes={"front": 1, "delivery": 2},
            alerts=[{"webhook": receiver.url, "on": ["clock_step"]}],
            alert_rules={"lasting": "1s"},
            environment=environment,
        ) as gateway,
    ):
        gateway.wait_until(lambda: have_begun(gateway), "both workers look at the clock")
        provider.script("RCPT", *[LATER] * COUNT)
        sent = send_all(gateway, COUNT)
        gateway.wait_for_log("status=deferred", count=COUNT)
        changed = tmp_path / "changed"
        changed.write_text(f"{offset}\n")
        changed.rename(time_file)  # whoever found it empty would end
        sent += send_all(gateway, COUNT, first=100)
        gateway.wait_until_empty()
        assert arrived(provider) == Counter(sent)
        direction = "forward" if offset.startswith("+") else "back"
        gateway.wait_for_log(f"warning: the clock of the queue was set {direction} by 3", count=2)
        receiver.wait_for(1)
        assert receiver.bodies[0]["rule"] == "clock_step"
        assert not [line for line in gateway.lines if "which died" in line]


def have_begun(gateway: Gateway) -> bool:
    """True when both workers have sent a heartbeat: they have looked at the clock by then."""
    workers = [one for one in gateway.store.instances.registered() if one.role == "delivery"]
    return len(workers) == 2 and all(one.heartbeat_at_ms > one.started_at_ms for one in workers)
