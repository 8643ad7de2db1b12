"""Who is buried by the housekeeping, and who is not."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from relaygw.delivery.janitor import Janitor
from relaygw.mail.clock import HOUR_MS, clock_ms
from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.roles.delivery import bury_dead, has_lock_file
from relaygw.settings.model import Settings
from relaygw.store.feedback import NewPost
from relaygw.store.instances import Lifeline
from relaygw.store.sources import KEPT_MS
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, instance
from tests.contract.conftest import clock_at
from tests.logs import text_log

HOUR_S = 3600.0
SETTINGS = Settings.model_validate({"mode": "sandbox"})


def register(store: Store, name: str) -> None:
    store.instances.register(instance(name))


@pytest.mark.parametrize("is_locked", [True, False], ids=["lives", "has_no_file"])
def test_a_worker_of_this_host_lives_as_long_as_it_holds_its_lock(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_locked: bool
) -> None:
    """However long its heartbeat is late; without a file, as in a copied queue, that tells."""
    clock = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("relaygw.store.instances.running_s", lambda: clock.now_s)
    directory = tmp_path / "instances"
    line = Lifeline(directory, "late") if is_locked else None
    for name in ("late", "judge"):
        register(store, name)
    store.intake.accept_batch([accepted()])
    assert len(store.leases.claim("default", limit=1, incarnation="late", now_ms=NOW_MS)) == 1
    janitor = Janitor(
        SETTINGS,
        store,
        text_log(io.StringIO()),
        incarnation="judge",
        bury_dead_of_this_host=lambda: bury_dead(directory, store),
        has_lock_file=has_lock_file(directory, SETTINGS),
        wake_workers=lambda: None,
    )
    for _ in range(3):
        janitor.bury_stale()
        clock.now_s += HOUR_S
    assert store.instances.heartbeat("late") == is_locked
    if line is not None:
        line.release()


def quiet_janitor(store: Store) -> Janitor:
    return Janitor(
        SETTINGS,
        store,
        text_log(io.StringIO()),
        incarnation="judge",
        bury_dead_of_this_host=list,
        wake_workers=lambda: None,
    )


async def test_who_sent_long_ago_is_forgotten(store: Store) -> None:
    now_ms = clock_ms()
    for template, ago_ms in (("old", KEPT_MS + 1), ("new", KEPT_MS - HOUR_MS)):
        mail_class = MailClass.of(
            ("h", "", "", None, ""), sender_domain="", template=template, stream="promotional"
        )
        store.sources.count_mail([ClassCount(mail_class, now_ms - ago_ms, now_ms - ago_ms, 1, 1)])
    await quiet_janitor(store).clean_up(0)
    assert [one.mail_class.template for one in store.sources.known_classes()] == ["new"]


async def test_what_was_watched_is_forgotten_after_two_weeks(store: Store) -> None:
    now_ms = clock_ms()
    for days in (17, 14):
        store.watch.add_history(now_ms - days * 24 * HOUR_MS, {("x", f"{days}"): 1})
    janitor = quiet_janitor(store)
    await janitor.clean_up(0)
    assert len(store.watch.history(0)) == 2, "not while a start has enough to do"
    await janitor.clean_up(120)
    assert [one.label for one in store.watch.history(0)] == ["14"]


async def test_what_providers_reported_of_no_mail_is_forgotten(store: Store) -> None:
    now_ms = clock_ms()
    post = NewPost(provider="p", body=b"", token="t", until_ms=now_ms + 1000)
    store.feedback.receive([post])
    janitor = quiet_janitor(store)
    await janitor.clean_up(0)
    assert store.feedback.receive([post]) == [False], "its token is known"
    with clock_at(store, now_ms + int(SETTINGS.queue.retention * 1000) + 60_000):
        await janitor.clean_up(1)
        assert store.feedback.count_posts(9) == 1
        await janitor.clean_up(12)
        assert store.feedback.count_posts(9) == 0
