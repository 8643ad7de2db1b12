"""What providers tell is taken once, however often and in whatever order it comes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import NewRecipient
from relaygw.mail.outcome import Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Event, Kind, outweighs
from relaygw.store import doubts, suppression, webhooks
from relaygw.store.feedback import MatchedEvent, NewPost
from relaygw.store.mail_of_event import Clue, Found
from relaygw.store.reports import NewVerdict
from relaygw.store.side_tables import event_post, gateway_key, provider_event, verdict
from relaygw.store.store import Store, open_store
from tests.builders import accepted, taken, update_of
from tests.contract.conftest import clock_at

MINUTE_MS = 60_000


@pytest.fixture
def other(url: str, store: Store) -> Iterator[Store]:
    """Return the store of a second instance."""
    second = open_store(url)
    yield second
    second.close()


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[NewVerdict]:
    """Return what those who follow new verdicts are told, each of them the same."""
    told: list[list[NewVerdict]] = [[], [], []]

    def note(place: list[NewVerdict]) -> Callable[..., tuple[()]]:
        return lambda _tx, verdicts, *_: place.extend(verdicts) or ()

    monkeypatch.setattr(suppression, "note_verdicts", note(told[0]))
    monkeypatch.setattr(webhooks, "add_verdicts", note(told[1]))
    monkeypatch.setattr(doubts, "settle", note(told[2]))
    return told[0]


def sent(store: Store, *people: str) -> str:
    message = accepted(*people or ("b@cust.test",))
    store.intake.accept_batch([message])
    return message.queue_id


def event_of(queue_id: str | None, kind: Kind, key: str = "", **more: Any) -> MatchedEvent:
    rcpt_no = more.pop("rcpt_no", 0)
    event = Event(key=key or kind.value, kind=kind, **{"at_ms": clock_ms(), **more})
    return MatchedEvent(provider="p", event=event, queue_id=queue_id, rcpt_no=rcpt_no)


def last_words(store: Store) -> dict[tuple[str, int], str]:
    with store.database.read() as tx:
        rows = tx.execute(select(verdict.c.queue_id, verdict.c.rcpt_no, verdict.c.kind))
        return {(queue_id, rcpt_no): kind for queue_id, rcpt_no, kind in rows}


def events(store: Store) -> list[Any]:
    with store.database.read() as tx:
        return list(tx.execute(select(provider_event).order_by(provider_event.c.event_no)))


def posts_left(store: Store) -> int:
    with store.database.read() as tx:
        return len(tx.execute(select(event_post.c.post_no)).all())


# --- events --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_last_word_is_the_same_in_every_order(
    store: Store, followed: list[NewVerdict], order: tuple[int, ...]
) -> None:
    queue_id = sent(store)
    told = (Kind.DELIVERED, Kind.DEFERRED, Kind.COMPLAINED)
    for _ in range(3):
        for number in order:
            store.feedback.take([event_of(queue_id, told[number])])
    assert last_words(store) == {(queue_id, 0): "complained"}
    assert sorted(one.kind for one in followed) == sorted(told), "each once"
    assert followed[-1].address == "b@cust.test"
    for number, one in enumerate(followed):
        before = [earlier.kind for earlier in followed[:number]]
        assert one.is_last_word == all(outweighs(one.kind, kind) for kind in before)


def test_one_post_with_all_of_it_counts_the_same(store: Store, followed: list[NewVerdict]) -> None:
    queue_id = sent(store)
    kinds = (Kind.COMPLAINED, Kind.DELIVERED, Kind.COMPLAINED)
    new = store.feedback.take([event_of(queue_id, kind) for kind in kinds])
    assert [one.event.kind for one in new] == [Kind.COMPLAINED, Kind.DELIVERED]
    assert [one.is_last_word for one in followed] == [True, False]
    assert last_words(store) == {(queue_id, 0): "complained"}


def test_the_same_key_of_another_provider_is_another_thing(store: Store) -> None:
    queue_id = sent(store)
    one = event_of(queue_id, Kind.DELIVERED)
    another = MatchedEvent(provider="q", event=one.event, queue_id=queue_id, rcpt_no=0)
    assert len(store.feedback.take([one, another])) == 2


def test_two_instances_that_take_the_same_count_it_once(store: Store, other: Store) -> None:
    queue_ids = [sent(store) for _ in range(20)]
    told = [
        event_of(queue_id, kind, key=f"{queue_id} {kind}")
        for queue_id in queue_ids
        for kind in (Kind.DELIVERED, Kind.HARD, Kind.DEFERRED)
    ]
    new: list[MatchedEvent] = []
    begin = threading.Barrier(4)

    def take(one: Store, what: list[MatchedEvent]) -> None:
        begin.wait()
        for start in range(0, len(what), 7):
            new.extend(one.feedback.take(what[start : start + 7]))

    ways = [(store, told), (other, told), (store, told[::-1]), (other, told[::-1])]
    threads = [threading.Thread(target=take, args=way) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.event.key for one in new) == sorted(one.event.key for one in told)
    assert set(last_words(store).values()) == {"hard"}


def test_what_names_no_recipient_is_kept_and_judges_nobody(
    store: Store, followed: list[NewVerdict]
) -> None:
    queue_id = sent(store, "b@cust.test", "c@cust.test")
    store.feedback.take([event_of(queue_id, Kind.COMPLAINED, rcpt_no=None)])
    store.feedback.take([event_of(None, Kind.HARD, rcpt_no=None, address="x@cust.test")])
    assert [(one.queue_id, one.rcpt_no) for one in events(store)] == [
        (queue_id, None),
        (None, None),
    ]
    assert last_words(store) == {}
    assert followed == []


def test_mail_that_is_gone_meanwhile_gets_no_verdict(
    store: Store, followed: list[NewVerdict]
) -> None:
    queue_id = sent(store)
    told = [
        event_of("NOSUCHMAIL", Kind.HARD, "1"),
        event_of(queue_id, Kind.HARD, "2", rcpt_no=7),
    ]
    assert len(store.feedback.take(told)) == 2
    assert [(one.queue_id, one.rcpt_no) for one in events(store)] == [
        (None, None),
        (queue_id, None),
    ]
    assert last_words(store) == {}
    assert followed == []


def test_hostile_words_and_times_are_kept_as_far_as_they_can_be(store: Store) -> None:
    queue_id = sent(store)
    ugly = "a\0b\ud800c" + "x" * 100_000
    words = dict.fromkeys(("provider_id", "dsn", "detail", "raw"), ugly)
    for number, at_ms in enumerate((-5, 2**70, clock_ms() + 3_600_000)):
        told = event_of(queue_id, Kind.DELIVERED, f"{ugly}{number}", at_ms=at_ms, **words)
        assert len(store.feedback.take([told])) == 1
        assert store.feedback.take([told]) == []
    for row in events(store):
        assert row.detail.startswith("ab?c")
        assert 0 <= row.at_ms <= clock_ms()
        assert max(map(len, (row.detail, row.raw, row.dsn, row.event_key))) <= 65_536


def test_a_failure_in_what_follows_takes_everything_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_id = sent(store)
    store.feedback.receive([NewPost(provider="p", body=b"{}")])
    (post,) = store.feedback.claim_posts(limit=9, lease_ms=MINUTE_MS)

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(webhooks, "add_verdicts", fail)
        with pytest.raises(Exception, match="broken"):
            store.feedback.take([event_of(queue_id, Kind.HARD)], read=[post.post_no])
    assert (events(store), last_words(store), posts_left(store)) == ([], {}, 1)
    store.feedback.take([event_of(queue_id, Kind.HARD)], read=[post.post_no])
    assert (len(events(store)), len(last_words(store)), posts_left(store)) == (1, 1, 0)


# --- which mail an event is about ----------------------------------------------------------

REPLY = "250 Ok: queued as nhIMmON9SFOPcT0ii4nt2A"
P = frozenset({"p"})


def delivered(
    store: Store, *people: str | NewRecipient, reply: str = REPLY, provider: str = "p", **more: Any
) -> str:
    """Have a provider take a mail, and its words written."""
    addresses = people or ("b@cust.test",)
    message = accepted(*addresses, at_ms=clock_ms() - MINUTE_MS, **more)
    store.intake.accept_batch([message])
    store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms())
    told = tuple(taken(no, provider=provider, reply=reply) for no in range(len(addresses)))
    update = update_of(message.queue_id, provider=provider, recipients=told)
    store.leases.record_batch([update], incarnation="one", now_ms=clock_ms())
    while store.find.index_batch(limit=100):
        pass
    return message.queue_id


def match(store: Store, **clue: Any) -> tuple[str | None, tuple[int, ...]]:
    (found,) = store.feedback.match([Clue(**{"providers": P, **clue})])
    return found.queue_id, found.rcpt_nos


def test_a_marked_mail_is_found_at_once_with_the_address_that_was_used(store: Store) -> None:
    redirected = NewRecipient(address="qa@shop.test", original="b@cust.test")
    one = delivered(store, redirected, "Anna@Cust.test", '"c d"@xn--mller-kva.test')
    assert match(store, queue_id=one, address="qa@shop.test") == (one, (0,))
    assert match(store, queue_id=one, address="b@cust.test") == (one, ())
    assert match(store, queue_id=one, address="anna@CUST.test") == (one, (1,))
    assert match(store, queue_id=one, address='"c d"@m\u00fcller.test') == (one, (2,))
    assert match(store, queue_id=one, address="no address <>") == (one, ())
    assert match(store, queue_id=one) == (one, ()), "one of three"
    assert match(store, queue_id="NOSUCHMAIL", address="qa@shop.test") == (None, ())


def test_the_only_recipient_need_not_be_named(store: Store) -> None:
    queue_id = delivered(store, "b@cust.test")
    assert match(store, queue_id=queue_id) == (queue_id, (0,))
    twice = delivered(store, "qa@shop.test", "qa@shop.test")
    assert match(store, queue_id=twice) == (twice, (0, 1)), "one address, sent once"
    assert match(store, queue_id=twice, address="qa@shop.test") == (twice, (0, 1))


def test_the_archive_is_nobody_who_shares_a_mail_unless_nobody_is_named(store: Store) -> None:
    archived = delivered(store, "b@cust.test", "archive@shop.test", message_id="<long-1@shop.test>")
    several = delivered(store, "b@cust.test", "c@cust.test", "archive@shop.test")

    def is_shared(**clue: Any) -> bool:
        clue = {"providers": P, "was_sent": True, "archive": "Archive@shop.test", **clue}
        (found,) = store.feedback.match([Clue(**clue)])
        assert found.queue_id in (archived, several)
        return found.is_shared

    assert not is_shared(queue_id=archived, address="b@cust.test")
    assert not is_shared(message_id="long-1@shop.test", address="b@cust.test")
    assert is_shared(queue_id=archived, address="b@cust.test", archive=None)
    assert is_shared(queue_id=archived), "it may be about the archive"
    assert is_shared(queue_id=several, address="b@cust.test")


def test_a_mark_is_believed_of_those_who_were_sent_that_mail(store: Store) -> None:
    mine = delivered(store)
    assert match(store, queue_id=mine, providers=frozenset({"p", "p-promo"})) == (mine, (0,))
    other = frozenset({"other"})
    for address in (None, "b@cust.test", "nobody@cust.test"):
        assert match(store, queue_id=mine, providers=other, address=address) == (None, ())


def test_recipients_who_were_never_sent_get_no_verdict(store: Store) -> None:
    """Captured, blocked, or still to be tried; beside one who was delivered."""
    for state in (RecipientState.BLOCKED, RecipientState.PENDING, RecipientState.CAPTURED):
        kept = replace(taken(1, provider=None), state=state)
        is_captured = state is RecipientState.CAPTURED
        second = NewRecipient(
            address="b@cust.test", state=state if is_captured else RecipientState.PENDING
        )
        message = accepted("a@cust.test", second, at_ms=clock_ms() - MINUTE_MS)
        store.intake.accept_batch([message])
        one = message.queue_id
        assert match(store, queue_id=one, address="b@cust.test") == (None, ()), "not tried yet"
        store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms())
        waits = state is RecipientState.PENDING
        ending = DeliveryState.DEFERRED if waits else DeliveryState.FINISHED
        people = (taken(0, provider="p"), *[kept] * (not is_captured))
        update = update_of(
            one, state=ending, provider="p", recipients=people, due_at_ms=clock_ms() + MINUTE_MS
        )
        store.leases.record_batch([update], incarnation="one", now_ms=clock_ms())
        assert match(store, queue_id=one, address="a@cust.test") == (one, (0,))
        assert match(store, queue_id=one, address="b@cust.test") == (None, ())


def test_events_of_mail_in_hand_wait_until_it_is_known_to_whom_it_went(store: Store) -> None:
    message = accepted(at_ms=clock_ms() - MINUTE_MS)
    store.intake.accept_batch([message])
    one = message.queue_id
    clues = [Clue(queue_id=one, providers=P), Clue(queue_id=one, providers=frozenset({"other"}))]
    store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms())
    assert store.feedback.match(clues) == [Found(may_come=True)] * 2
    doubted = replace(taken(0, provider="p"), state=RecipientState.PENDING, verdict=Verdict.DOUBT)
    waiting = {"state": DeliveryState.DEFERRED, "due_at_ms": clock_ms() - 1, "doubted": True}
    update = update_of(one, provider="p", recipients=(doubted,), **waiting)
    store.leases.record_batch([update], incarnation="one", now_ms=clock_ms())
    assert store.feedback.match(clues) == [Found(one, (0,)), Found()]
    store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms())
    assert store.feedback.match(clues) == [Found(one, (0,)), Found(may_come=True)], "settles it"
    update = update_of(one, provider="other", recipients=(taken(0, provider="other"),))
    store.leases.record_batch([update], incarnation="one", now_ms=clock_ms())
    assert store.feedback.match(clues) == [Found(one, (0,))] * 2, "both may have it"


@pytest.mark.parametrize(
    "told",
    ["nhIMmON9SFOPcT0ii4nt2A", "nhIMmON9SFOPcT0ii4nt2A.filter0001.16648.5515E0B88.0"],
)
def test_mail_is_found_by_the_providers_id(store: Store, told: str) -> None:
    queue_id = delivered(store, "b@cust.test", "c@cust.test")
    delivered(store, reply="250 Ok: queued as nhIMmON9SFOPcT0ii4nt2B")
    assert match(store, provider_id=told, address="c@cust.test") == (queue_id, (1,))
    assert match(store, provider_id=told, address="x@cust.test") == (queue_id, ())
    assert match(store, provider_id=told, providers=frozenset({"q"})) == (None, ())
    assert match(store, provider_id=told.swapcase()) == (None, ())


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (
            "250 2.0.0 OK: queued as <202508020358.47907466195@smtp-relay.sendinblue.com>",
            "202508020358.47907466195@smtp-relay.sendinblue.com",
        ),
        (
            "250 Ok 01000154dc729264-93fdd7ea-f039-43d6-91ed-653e8547867c-000000",
            "01000154dc729264-93fdd7ea-f039-43d6-91ed-653e8547867c-000000",
        ),
    ],
)
def test_ids_of_other_forms_are_found(store: Store, reply: str, told: str) -> None:
    queue_id = delivered(store, reply=reply)
    assert match(store, provider_id=told, address="b@cust.test") == (queue_id, (0,))


def test_mail_is_found_by_its_message_id(store: Store) -> None:
    older = delivered(store, "b@cust.test", message_id="<order-17@shop.test>")
    newer = delivered(store, "c@cust.test", message_id="<order-17@shop.test>")
    delivered(store, "b@cust.test", message_id="<order-17@shop.test.evil>")
    told = "order-17@shop.test"
    assert match(store, message_id=told, address="b@cust.test") == (older, (0,))
    assert match(store, message_id=told, address="c@cust.test") == (newer, (0,))
    assert match(store, message_id=told, address="x@cust.test") == (newer, ())
    assert match(store, message_id=told, providers=frozenset({"q"})) == (None, ())
    assert match(store, message_id="order-1@shop.test", address="b@cust.test") == (None, ())


@pytest.mark.parametrize(
    ("message_id", "is_long"), [("abcde@f.test", True), ("abcd@f.test", False)]
)
def test_a_message_id_of_fewer_than_ten_signs_tells_nothing(
    store: Store, message_id: str, is_long: bool
) -> None:
    queue_id = delivered(store, "b@cust.test", message_id=f"<{message_id}>")
    found = match(store, message_id=message_id, address="b@cust.test")
    assert found == ((queue_id, (0,)) if is_long else (None, ()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "' OR 1=1 --",
        '"x" OR "y" OR longword',
        "x & !y:* longword",
        "\0longword",
        "." * 500,
    ],
)
def test_hostile_ids_find_nothing_and_break_nothing(store: Store, text: str) -> None:
    delivered(store)
    assert match(store, provider_id=text, message_id=text, address=text) == (None, ())


# --- posts ---------------------------------------------------------------------------------


def test_a_post_is_read_by_one_until_its_lease_ends(store: Store, other: Store) -> None:
    posts = [NewPost(provider="p", body=b"%d" % number) for number in range(3)]
    assert store.feedback.receive(posts) == [True] * 3
    mine = store.feedback.claim_posts(limit=2, lease_ms=MINUTE_MS)
    assert [(one.body, one.tries) for one in mine] == [(b"0", 1), (b"1", 1)]
    theirs = other.feedback.claim_posts(limit=9, lease_ms=MINUTE_MS)
    assert [one.body for one in theirs] == [b"2"]
    assert other.feedback.claim_posts(limit=9, lease_ms=MINUTE_MS) == []
    with clock_at(other, clock_ms() + 2 * MINUTE_MS):
        again = other.feedback.claim_posts(limit=9, lease_ms=MINUTE_MS)
    assert [(one.body, one.tries) for one in again] == [(b"0", 2), (b"1", 2), (b"2", 2)]


def test_a_post_that_fails_stands_in_nobodys_way(store: Store) -> None:
    store.feedback.receive([NewPost(provider="p", body=b"bad")])
    (bad,) = store.feedback.claim_posts(limit=1, lease_ms=MINUTE_MS)
    store.feedback.put_off(bad.post_no, wait_ms=MINUTE_MS)
    store.feedback.receive([NewPost(provider="p", body=b"good")])
    due = store.feedback.claim_posts(limit=1, lease_ms=MINUTE_MS)
    assert [one.body for one in due] == [b"good"]
    with clock_at(store, clock_ms() + 2 * MINUTE_MS):
        again = store.feedback.claim_posts(limit=9, lease_ms=MINUTE_MS)
    assert sorted((one.body, one.tries) for one in again) == [(b"bad", 2), (b"good", 2)]


def test_of_large_posts_few_are_taken_at_once(store: Store) -> None:
    store.feedback.receive([NewPost(provider="p", body=bytes(2**20)) for _ in range(5)])
    claimed = [len(store.feedback.claim_posts(limit=9, lease_ms=MINUTE_MS)) for _ in range(4)]
    assert claimed == [2, 2, 1, 0]
    assert store.feedback.count_posts(3) == 3


def test_what_is_over_its_time_goes(store: Store) -> None:
    queue_id = sent(store)
    post = NewPost(provider="p", body=b"", token="t", until_ms=clock_ms() + MINUTE_MS)
    store.feedback.receive([post])
    store.feedback.take([event_of(queue_id, Kind.HARD, "1"), event_of(None, Kind.HARD, "2")])
    assert store.feedback.forget_feedback(MINUTE_MS, limit=9) == 0
    assert store.feedback.told_at_ms("p") is not None
    assert store.feedback.told_at_ms("q") is None
    with clock_at(store, clock_ms() + 2 * MINUTE_MS):
        assert store.feedback.forget_feedback(MINUTE_MS, limit=9) == 3
    assert [one.queue_id for one in events(store)] == [queue_id]
    assert store.feedback.receive([post]) == [True], "the token is forgotten"


def test_a_token_is_used_once(store: Store, other: Store) -> None:
    post = NewPost(provider="p", body=b"{}", token="t" * 300, until_ms=clock_ms() + MINUTE_MS)
    assert store.feedback.receive([post, post]) == [True, False]
    assert other.feedback.receive([post]) == [False]
    elsewhere = NewPost(provider="q", body=b"{}", token="t" * 300, until_ms=clock_ms() + MINUTE_MS)
    assert store.feedback.receive([elsewhere]) == [True]
    assert posts_left(store) == 2


def test_instances_share_a_key(store: Store, other: Store) -> None:
    key = store.feedback.shared_key("mark")
    assert len(key) == 32
    assert store.feedback.shared_key("mark") == other.feedback.shared_key("mark") == key
    assert store.feedback.shared_key("another") != key
    with store.database.read() as tx:
        assert len(tx.execute(select(gateway_key)).all()) == 2
