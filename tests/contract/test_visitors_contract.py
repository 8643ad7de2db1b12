"""What every store must do with uses of tokens, throttled clients, and the home of a queue."""

from __future__ import annotations

from relaygw.store.audit import AuditEntry
from relaygw.store.home import Home
from relaygw.store.store import Store
from relaygw.store.visitors import MAX_THROTTLED, MAX_VALUES, Throttled, TokenUse
from tests.builders import NOW_MS


def use(value: str, at_ms: int = NOW_MS, *, token: str = "ci", kind: str = "agent") -> TokenUse:
    return TokenUse(token=token, kind=kind, value=value, first_seen_ms=at_ms, last_seen_ms=at_ms)


def throttled(client: str, times: int = 1, at_ms: int = NOW_MS) -> Throttled:
    stamps = {"first_seen_ms": at_ms, "last_seen_ms": at_ms}
    return Throttled(listener="l", client=client, cause="rate", times=times, **stamps)


def test_only_what_comes_later_than_another_is_strange(store: Store) -> None:
    store.visitors.note_uses([use("curl"), use("10.0.0.0/24", kind="network")])
    store.visitors.note_uses([use("evil", NOW_MS + 9, token="qa")])
    assert store.visitors.uses(are_strange=True) == []
    store.visitors.note_uses([use("curl", NOW_MS + 5), use("evil", NOW_MS + 7)])
    (strange,) = store.visitors.uses(NOW_MS, are_strange=True)
    assert (strange.token, strange.value) == ("ci", "evil")
    assert store.visitors.uses(NOW_MS + 8, are_strange=True) == []
    (curl,) = (one for one in store.visitors.uses() if one.value == "curl")
    assert (curl.first_seen_ms, curl.last_seen_ms) == (NOW_MS, NOW_MS + 5)


def test_what_a_token_was_used_with_is_bounded_and_the_longest_unused_goes(store: Store) -> None:
    store.visitors.note_uses([use(f"a{number:03}", NOW_MS + number) for number in range(80)])
    store.visitors.note_uses([use("b", NOW_MS + 100), use("net", kind="network")])
    kept = [one.value for one in store.visitors.uses()]
    assert len(kept) == MAX_VALUES + 1
    assert {"b", "a079", "net"} < set(kept)
    assert "a030" not in kept


def test_throttled_clients_add_up_and_are_bounded(store: Store) -> None:
    store.visitors.note_throttled([throttled("a", 2), throttled("b")])
    store.visitors.note_throttled([throttled("a", 5, NOW_MS + 9)])
    first, second = store.visitors.throttled()
    assert (first.client, first.times, first.last_seen_ms) == ("a", 7, NOW_MS + 9)
    assert (first.first_seen_ms, second.client) == (NOW_MS, "b")
    many = range(10, 10 + MAX_THROTTLED)
    store.visitors.note_throttled([throttled(str(n), at_ms=NOW_MS + n) for n in many])
    assert [one.client for one in store.visitors.throttled()] == [str(n) for n in reversed(many)]
    assert [one.client for one in store.visitors.throttled(NOW_MS + many[-1])] == [str(many[-1])]


def test_a_home_is_learnt_once_and_changed_by_adoption_alone(store: Store) -> None:
    first = Home(mark="m1", hostname="a", since_ms=NOW_MS)
    other = Home(mark="m2", hostname="b", since_ms=NOW_MS)
    nowhere = Home(mark="", hostname="c", since_ms=NOW_MS)
    store.homes.learn(nowhere)
    assert store.homes.home() is None
    for home in (first, other):
        store.homes.learn(home)
    assert store.homes.home() == first
    entry = AuditEntry(
        at_ms=NOW_MS, actor="a", action="db.adopt", target="b", affected=1, detail=""
    )
    store.homes.adopt(nowhere, entry=entry)
    assert store.homes.home() == nowhere
    store.homes.learn(other)  # the machine has got an id
    assert store.homes.home() == other
