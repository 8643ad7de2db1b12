"""An instance of an older version and one of this version share a queue in PostgreSQL.

The older one is a commit of this repository's history, from before holds had a code.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from relaygw.mail.hold import HoldCode
from relaygw.mail.search import parse_find
from relaygw.mail.state import DeliveryState
from relaygw.store import migrate
from relaygw.store.queue_entry import DeliveryEntry
from tests.e2e.fleet import CONTENT, Traffic, status_of
from tests.e2e.gateway import Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw
from tests.rights import OLDER, needs

ROOT = Path(__file__).parents[2]
REFUSED = b"554 Message rejected: Email address is not verified.\r\n"
FIRST, BY_OLD, BY_NEW = 1_000_001, 1_000_002, 1_000_003  # Traffic begins with 0


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """Return a directory with the older version."""
    archive = tmp_path / "older.tar"
    with archive.open("wb") as file:
        command = ["git", "-C", str(ROOT), "archive", OLDER, "relaygw", "migrations"]
        subprocess.run(command, stdout=file, check=True)
    directory = tmp_path / "older"
    directory.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", directory], check=True)
    return directory


@needs("history")
def test_each_knows_what_the_other_holds_and_sends_what_it_accepted(
    tmp_path: Path, older: Path, postgres_url: str
) -> None:
    with ThreadedProvider() as provider, ExitStack() as stack:

        def gateway(name: str, *, before: tuple[str, ...] = ()) -> Gateway:
            (tmp_path / name).mkdir()
            return Gateway(
                tmp_path / name,
                hostname=f"{name}.test",
                queue={"url": postgres_url, "min_free": "0%"},
                providers={"p": provider_settings(provider.port)},
                before=before,
                has_web=True,
            )

        old, new = gateway("old", before=("env", "-C", str(older))), gateway("new")
        old.write_config()
        upgrade = [*old._before, sys.executable, "-m", "relaygw", "--config", str(old.config)]
        subprocess.run([*upgrade, "db", "upgrade"], env=old.environment, check=True)
        stack.enter_context(old)
        old.send("a@shop.test", ["b@cust.test"], CONTENT % FIRST)
        provider.wait_for_messages(1)
        assert status_of(old, "/healthz") == 200  # all its roles have looked at the schema
        migrate.upgrade(postgres_url)
        provider.script("MAIL", REFUSED)
        by_old = old.send("a@one.test", ["b@cust.test"], CONTENT % BY_OLD)
        held = {by_old: wait_until_held(old, by_old)}  # nobody else is there

        stack.enter_context(new)
        provider.script("MAIL", *[REFUSED] * 9)  # both may ask for what is held, too
        by_new = new.send("a@two.test", ["b@cust.test"], CONTENT % BY_NEW)
        held[by_new] = wait_until_held(new, by_new)
        provider.clear()
        causes = [part.hold for part in held.values()]
        assert [cause and cause.code for cause in causes] == [HoldCode.SENDER_REFUSED] * 2, causes

        found = [new.store.find.find(parse_find(one), limit=9) for one in (by_old, by_new)]
        assert [one.entries[0].queue_id for one in found] == [by_old, by_new]

        with Traffic(old, new) as traffic:
            traffic.wait_for_more(50)
        words = ["--config", str(new.config), "provider", "release", "p"]
        run_relaygw(words, env=new.environment, check=True)
        traffic.acknowledged |= {FIRST, BY_OLD, BY_NEW}
        traffic.wait_until_delivered(new, provider)
        traffic.check(provider)


def wait_until_held(gateway: Gateway, queue_id: str) -> DeliveryEntry:
    """Return the delivery of a message once it is held, as this version reads it."""
    found: list[DeliveryEntry] = []

    def is_held() -> bool:
        (entry,) = gateway.store.queue.entries([queue_id])
        found[:] = entry.deliveries
        return found[0].state is DeliveryState.HELD

    gateway.wait_until(is_held, "held")
    return found[0]
