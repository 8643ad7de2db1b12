"""Who may log in: since when, and when last, on both databases."""

from __future__ import annotations

from relaygw.mail.clock import clock_ms
from relaygw.store.sessions import KnownLogin
from relaygw.store.store import Store

ANNA, SHOP = ("web", "anna"), ("smtp", "shop")


def known(store: Store) -> dict[tuple[str, str], KnownLogin]:
    return {(one.kind, one.name): one for one in store.sessions.known()}


def near(found_ms: int | None, at_ms: int) -> bool:
    return found_ms is not None and abs(found_ms - at_ms) < 1000  # the clocks of two machines


def test_a_login_is_as_old_as_its_password(store: Store) -> None:
    now_ms = clock_ms()
    store.sessions.note_known({ANNA: "a", SHOP: "s"}, now_ms=now_ms - 50_000)
    store.sessions.note_known({ANNA: "a", SHOP: "s"}, now_ms=now_ms - 40_000)
    assert near(known(store)[ANNA].since_ms, now_ms - 50_000)
    store.sessions.note_used({ANNA: now_ms - 30_000})
    store.sessions.note_known({ANNA: "b"}, now_ms=now_ms)
    found = known(store)
    assert near(found[ANNA].since_ms, now_ms)
    assert near(found[ANNA].used_at_ms, now_ms - 30_000)
    assert near(found[SHOP].since_ms, now_ms - 50_000)
    assert found[SHOP].used_at_ms is None


def test_the_latest_use_counts_whoever_writes_it_first(store: Store) -> None:
    now_ms = clock_ms()
    store.sessions.note_used({ANNA: now_ms - 10_000, SHOP: now_ms - 20_000})
    store.sessions.note_used({ANNA: now_ms - 60_000, SHOP: now_ms})
    found = known(store)
    assert near(found[ANNA].used_at_ms, now_ms - 10_000)
    assert near(found[SHOP].used_at_ms, now_ms)
    # used before anybody noted who is known: its password is not another one
    store.sessions.note_known({ANNA: "a"}, now_ms=now_ms + 5000)
    assert near(known(store)[ANNA].since_ms, now_ms - 10_000)
