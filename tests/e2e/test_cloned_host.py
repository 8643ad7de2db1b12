"""Production on a copy of its host: mail is accepted and held, until somebody says what it is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from relaygw.store.audit import Trail
from relaygw.store.home import this_machine
from relaygw.store.side_tables import home
from tests.e2e.gateway import Gateway, gateway_to
from tests.e2e.ports import fixed_binds
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw
from tests.rights import needs

CONTENT = b"Subject: order\r\n\r\nhello\r\n"
HELD = "nothing is sent: the queue belongs to another machine"

pytestmark = needs("id")


@pytest.fixture
def gateway(tmp_path: Path, provider: ThreadedProvider) -> Iterator[Gateway]:
    quick = {"alert_rules": {"lasting": "1s"}}
    with gateway_to(provider, tmp_path, **fixed_binds(), **quick) as gateway:
        yield gateway


def send(gateway: Gateway, number: int) -> str:
    return gateway.send("a@shop.test", [f"b{number}@cust.test"], CONTENT)


def clone(gateway: Gateway) -> None:
    """Make it what it is on a copy of the machine that it was made on."""
    with gateway.store.database.write() as tx:
        tx.execute(update(home).values(mark="0" * 31 + "1", hostname="shop1.test"))


def command(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    return run_relaygw(
        ["--config", str(gateway.config), *words],
        env=gateway.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def untended(gateway: Gateway) -> list[str]:
    told = json.loads(command(gateway, "status", "--json").stdout)
    return [one["kind"] for one in told["untended"]]


def incidents(gateway: Gateway) -> list[str]:
    return [one.key for one in gateway.store.watch.incidents(0)]


def test_a_copy_of_a_production_host_sends_nothing_until_it_is_adopted(
    gateway: Gateway, provider: ThreadedProvider
) -> None:
    send(gateway, 0)
    provider.wait_for_messages(1)
    gateway.wait_until_empty()
    assert command(gateway, "db", "adopt").stdout.endswith("nothing to do\n")
    gateway.kill_all()
    clone(gateway)

    gateway.start()
    gateway.wait_for_log(HELD)
    waiting = [send(gateway, number) for number in (1, 2)]
    assert untended(gateway) == ["other_machine"]
    assert "shop1.test" in command(gateway, "status").stdout
    gateway.wait_until(lambda: "other_machine" in incidents(gateway), "the alert is there")
    # neither a restart, nor another name, nor mail that is hinted, lets anything go
    gateway.kill_all()
    gateway.settings["hostname"] = "other.test"
    gateway.start()
    gateway.wait_for_log(HELD, count=2)
    waiting.append(send(gateway, 3))
    assert {one.queue_id for one in gateway.queue()} == set(waiting)
    assert len(provider.messages) == 1
    # a mode that sends nothing to customers is not held, and changes nothing of that
    gateway.settings["mode"] = "staging"
    gateway.wait_for_log("reloaded: mode staging", start=gateway.reload())
    gateway.settings["mode"] = "production"
    gateway.wait_for_log(HELD, start=gateway.reload())

    adopted = command(gateway, "db", "adopt")
    assert adopted.returncode == 0
    assert "shop1.test" in adopted.stdout
    provider.wait_for_messages(4)
    gateway.wait_until_empty()
    assert untended(gateway) == []
    (entry,) = gateway.store.audit.entries(limit=9, trail=Trail(action="db.adopt"))
    assert entry.detail.startswith("it belonged to shop1.test (id ")
    gateway.stop()
    gateway.start()
    send(gateway, 4)
    provider.wait_for_messages(5)


def test_another_name_alone_holds_nothing(gateway: Gateway, provider: ThreadedProvider) -> None:
    gateway.stop()
    gateway.settings["hostname"] = "renamed.test"
    gateway.start()
    send(gateway, 0)
    provider.wait_for_messages(1)
    assert untended(gateway) == []


def test_a_queue_of_an_older_version_learns_where_it_is(gateway: Gateway) -> None:
    gateway.stop()
    with gateway.store.database.write() as tx:
        tx.execute(delete(home))
    gateway.start()
    found = gateway.store.homes.home()
    assert found is not None
    assert (found.mark.partition("/")[0], found.hostname) == (
        this_machine().mark,
        gateway.settings["hostname"],
    )


def test_a_queue_in_postgres_belongs_to_no_machine(gateway: Gateway) -> None:
    gateway.settings["queue"] = {"url": "postgresql://relaygw@127.0.0.1:1/none"}
    gateway.write_config()
    refused = command(gateway, "db", "adopt")
    assert refused.returncode == os.EX_USAGE
    assert "belongs to no machine" in refused.stderr
