"""Instances whose clocks are minutes off share a PostgreSQL queue as if they were not."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from operator import attrgetter
from typing import Any

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.envelope import NewDelivery, NewRecipient, Released
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.mail.outcome import Verdict
from relaygw.mail.search import parse_find, parse_search
from relaygw.mail.standing_hold import HoldScope
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.suppression import Cause, Suppression
from relaygw.mail.verdict import Event, Kind
from relaygw.policy.rhythm import MailKind
from relaygw.store.all_tables import whole_metadata
from relaygw.store.audit import AuditEntry, Trail
from relaygw.store.feedback import MatchedEvent, NewPost
from relaygw.store.guard import GuardAction, GuardEntry
from relaygw.store.holds import Hold
from relaygw.store.home import Home
from relaygw.store.limits import SenderNote
from relaygw.store.mail_of_event import Clue
from relaygw.store.outbox import Sent
from relaygw.store.postgres import PostgresDatabase
from relaygw.store.release import Release
from relaygw.store.repeats import Repeat
from relaygw.store.rules import StoreRules, WebhookRule
from relaygw.store.selection import Selection
from relaygw.store.sessions import WebSession
from relaygw.store.shape import ShapeKey
from relaygw.store.store import Store, open_store, store_on
from relaygw.store.visitors import Throttled, TokenUse
from relaygw.store.watch import Incident
from tests.altered_store import REPOSITORIES
from tests.builders import accepted, instance, standing_hold
from tests.contract.test_store_contract import defer, finish

FAST_MS = 600_000
TOLERANCE_MS = 50_000  # a busy machine is slow; clocks here are ten minutes or an hour wrong


def fast_ms() -> int:
    """Return the time by a clock that is ten minutes fast."""
    return clock_ms() + FAST_MS


@pytest.fixture
def right(queue_url: str) -> Iterator[Store]:
    """Return the store of a machine that has the database's time."""
    store = open_store(queue_url)
    store.instances.register(instance("right"))
    yield store
    store.close()


@pytest.fixture
def fast(right: Store, queue_url: str) -> Iterator[Store]:
    store = store_on(PostgresDatabase(queue_url, here_ms=fast_ms))
    store.instances.register(instance("fast"))
    yield store
    store.close()


def claimed(store: Store, here_ms: Callable[[], int], *, in_ms: int = 0) -> list[str]:
    """Return what a store's machine gets when it asks by its own clock."""
    name = "fast" if here_ms is fast_ms else "right"
    now_ms = here_ms() + in_ms
    found = store.leases.claim("default", limit=10, incarnation=name, now_ms=now_ms)
    for one in found:
        age_ms = now_ms - one.accepted_at_ms
        assert abs(age_ms - in_ms) < TOLERANCE_MS, "mail is as old as it is"
    return [one.queue_id for one in found]


def test_new_mail_of_a_fast_machine_is_due_for_all(right: Store, fast: Store) -> None:
    message = accepted(at_ms=fast_ms())
    fast.intake.accept_batch([message])
    due_at_ms = right.leases.next_due_at_ms("default")
    assert due_at_ms is not None
    assert abs(due_at_ms - clock_ms()) < TOLERANCE_MS
    assert claimed(right, clock_ms) == [message.queue_id]


def test_what_a_fast_machine_puts_off_waits_as_long_as_it_says(right: Store, fast: Store) -> None:
    message = accepted(at_ms=clock_ms())
    right.intake.accept_batch([message])
    assert claimed(fast, fast_ms) == [message.queue_id]
    now_ms = fast_ms()
    update = defer(message.queue_id, due_at_ms=now_ms + 60_000)
    assert fast.leases.record_batch([update], incarnation="fast", now_ms=now_ms).lost == ()
    for store, here_ms in ((right, clock_ms), (fast, fast_ms)):
        assert claimed(store, here_ms, in_ms=50_000) == []
        due_at_ms = store.leases.next_due_at_ms("default")
        assert due_at_ms is not None
        assert abs(due_at_ms - here_ms() - 60_000) < TOLERANCE_MS
    assert claimed(right, clock_ms, in_ms=65_000) == [message.queue_id]


def test_a_fast_machine_deletes_nothing_before_its_time(right: Store, fast: Store) -> None:
    old, orphan = (accepted(at_ms=clock_ms()) for _ in range(2))
    right.intake.accept_batch([old])
    right.intake.add_chunks(orphan.queue_id, 0, [b"x"])
    claimed(right, clock_ms)
    right.leases.record_batch([finish(old.queue_id)], incarnation="right", now_ms=clock_ms())
    retention_ms = FAST_MS // 2
    ages_ms = dict.fromkeys(("finished", "orphans"), retention_ms)
    assert fast.janitor.purge(ages_ms, limit=10) == 0
    assert right.intake.read_chunk(orphan.queue_id, 0) == b"x"


def test_what_one_learnt_of_a_provider_is_as_old_for_all(right: Store, fast: Store) -> None:
    for store, group in ((right, "right"), (fast, "fast")):
        store.limits.lower_rate(group, per_s=30.0, guard_s=1.0)
        store.limits.lower_connections(group, own=3, incarnation="right", guard_s=1.0)
        store.limits.acquire_permits(group, wanted=1, limit=0, incarnation="right")
    for store, here_ms in ((right, clock_ms), (fast, fast_ms)):
        for account in store.limits.accounts().values():
            for at_ms in (account.ceiling_at_ms, account.connections_at_ms, account.wanted_at_ms):
                assert abs(at_ms - here_ms()) < TOLERANCE_MS


def test_the_guard_against_one_trouble_counted_twice_holds_between_clocks(
    right: Store, fast: Store
) -> None:
    right.limits.lower_rate("p", per_s=30.0, guard_s=60.0)
    fast.limits.lower_rate("p", per_s=5.0, guard_s=60.0)
    assert right.limits.accounts()["p"].ceiling_per_s == 30.0
    fast.limits.lower_connections("p", own=3, incarnation="fast", guard_s=60.0)
    right.limits.lower_connections("p", own=8, incarnation="right", guard_s=60.0)
    assert right.limits.accounts()["p"].ceiling_connections == 3


def test_a_hold_is_probed_at_one_time_and_counted_once(right: Store, fast: Store) -> None:
    now_ms = fast_ms()
    fast.holds.put_hold(
        Hold(
            scope="provider",
            key="p",
            reason="r",
            remedy="",
            since_ms=now_ms - 60_000,
            probe_at_ms=now_ms + 60_000,
        )
    )
    for store, here_ms in ((right, clock_ms), (fast, fast_ms)):
        (hold,) = store.holds.in_force()
        assert hold.probe_at_ms is not None
        assert abs(hold.since_ms + 60_000 - here_ms()) < TOLERANCE_MS
        assert abs(hold.probe_at_ms - 60_000 - here_ms()) < TOLERANCE_MS
    right.holds.drop_hold("provider", "p")
    for store, here_ms in ((right, clock_ms), (fast, fast_ms)):
        until_ms = here_ms()
        held_ms = store.holds.stopped_ms("p", since_ms=until_ms - 3_600_000)
        assert abs(held_ms - 60_000) < TOLERANCE_MS


def test_time_held_by_operators_is_by_one_clock(right: Store, fast: Store) -> None:
    message = accepted(at_ms=clock_ms())
    right.intake.accept_batch([message])
    entry = AuditEntry(at_ms=0, actor="a", action="x", target="t", affected=0, detail="")
    for store, here_ms, to in (
        (fast, fast_ms, DeliveryState.HELD),
        (right, clock_ms, DeliveryState.DEFERRED),
    ):
        store.queue.change_state(
            [message.queue_id],
            from_states=frozenset(DeliveryState),
            to=to,
            hold=HoldCause(HoldCode.OTHER, "operator"),
            entry=replace(entry, at_ms=here_ms()),
        )
    assert claimed(fast, fast_ms) == [message.queue_id]
    (shown,) = right.queue.search(Selection(queue_ids=(message.queue_id,)), limit=1)
    assert shown.deliveries[0].attempts == 0
    (found,) = right.audit.entries(limit=1)
    assert abs(found.at_ms - time.time_ns() // 1_000_000) < TOLERANCE_MS


def test_older_than_means_the_same_everywhere(right: Store, fast: Store) -> None:
    message = accepted(at_ms=clock_ms())
    right.intake.accept_batch([message])
    young = Selection(accepted_before_ms=fast_ms() - FAST_MS // 2)
    assert fast.queue.search(young, limit=1) == []
    old = Selection(accepted_before_ms=fast_ms() + FAST_MS // 2)
    assert len(fast.queue.search(old, limit=1)) == 1


def test_heartbeats_are_as_old_as_they_are(right: Store, fast: Store) -> None:
    for store, here_ms in ((right, clock_ms), (fast, fast_ms)):
        for one in store.instances.registered():
            assert abs(one.heartbeat_at_ms - here_ms()) < TOLERANCE_MS
            assert abs(one.started_at_ms - here_ms()) < TOLERANCE_MS


def test_a_clock_that_is_set_is_noticed_with_the_next_heartbeat(queue_url: str) -> None:
    set_by_ms = 0
    store = store_on(PostgresDatabase(queue_url, here_ms=lambda: clock_ms() + set_by_ms))
    store.instances.register(instance("set"))
    assert abs(store.clock_ms() - clock_ms()) < TOLERANCE_MS
    set_by_ms = -FAST_MS
    store.instances.heartbeat("set")
    assert abs(store.clock_ms() - clock_ms()) < TOLERANCE_MS
    store.close()


def test_history_and_incidents_have_one_time_for_all(right: Store, fast: Store) -> None:
    fast.watch.add_history(fast_ms(), {("x", "a"): 1})
    right.watch.add_history(clock_ms(), {("x", "a"): 2})
    assert sum(point.amount for point in right.watch.history(clock_ms() - 300_000)) == 3
    assert sum(point.amount for point in fast.watch.history(fast_ms() - 300_000)) == 3
    since_ms = fast_ms()
    fast.watch.open_incident(
        Incident(incident_id="1", rule="x", key="", summary="", remedy="", since_ms=since_ms)
    )
    right.watch.end_incident("1", at_ms=clock_ms() + 5000)
    (seen,) = right.watch.incidents(clock_ms())
    assert abs(seen.since_ms - clock_ms()) < TOLERANCE_MS
    (seen,) = fast.watch.incidents(fast_ms())
    assert seen.recovered_at_ms is not None
    assert abs(seen.recovered_at_ms - fast_ms() - 5000) < TOLERANCE_MS
    assert fast.watch.incidents(fast_ms() + 60_000) == []


# --- every verb, by a machine whose clock is wrong ---------------------------------------------

HOUR_MS = 3_600_000
LEAST_MS = 10**12  # a greater number is a time
VERBS = {
    f"{repository}.{verb}"
    for repository, kind in REPOSITORIES.items()
    for verb, member in vars(kind).items()
    if inspect.isfunction(member) and not verb.startswith("_")
} | {"clock_ms"}


RULES = StoreRules(
    tells_failures=True,
    keep_content=True,
    webhooks=(WebhookRule("shop", frozenset({"delivered"})),),
)


class WrongClock:
    """A store whose machine's clock is wrong, for the store and for whoever calls it."""

    def __init__(self, store: Store, wrong_ms: int) -> None:
        self.store = store
        self._wrong_ms = wrong_ms

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self._wrong_ms

    def call(self, verb: str, *given: Any, **named: Any) -> Any:
        right_ns = time.time_ns
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: right_ns() + self._wrong_ms * 1_000_000)
            return attrgetter(verb)(self.store)(*given, **named)


@pytest.fixture(params=[HOUR_MS, -HOUR_MS], ids=["fast", "slow"])
def wrong(request: pytest.FixtureRequest, right: Store, queue_url: str) -> Iterator[WrongClock]:
    store = open_store(queue_url, rules=RULES)
    yield WrongClock(store, request.param)
    store.close()


def walk_guard(call: Callable[..., Any], seen: MailClass, now_ms: int, entry: AuditEntry) -> None:
    """Go through the verbs of the guard."""
    new = GuardEntry(
        target=seen.source_id,
        source_id=seen.source_id,
        action=GuardAction.HOLD,
        label="h",
        reason="spam",
        actor="guard",
        at_ms=now_ms,
        new_since_ms=now_ms - 60_000,
    )
    assert call("guard.put_guard_entry", new, entry=entry)
    (kept,) = call("guard.guard_entries")
    assert abs(kept.at_ms - now_ms) <= TOLERANCE_MS
    assert abs(call("guard.counting_since_ms") - now_ms) <= TOLERANCE_MS
    (scope,) = call("guard.held_scopes")
    assert scope.holds_mail(seen)
    assert call("guard.scope_of", new) == scope
    assert call("guard.held_of", seen) == ([], "")
    assert [one.mail_class for one in call("sources.new_classes", now_ms - 60_000)] == [seen]
    assert call("sources.new_classes", now_ms + 60_000) == []
    assert call("guard.source_sums", now_ms)[seen.source_id].messages == 1
    assert call("guard.busiest_hour", seen.source_id, now_ms + HOUR_MS) == 1
    ((sender,),) = call("guard.known_mail", now_ms + 60_000).values()
    assert abs(sender.first_ms - now_ms) <= TOLERANCE_MS
    assert len(call("guard.classes_of", [seen.source_id])) == 1
    call("guard.bounced_since", now_ms - 60_000)
    assert call("guard.waiting_of", scope, seen.source) == ([], "")
    assert call("guard.recipient_domains", seen.source, [], since_ms=now_ms) == []
    assert call("guard.drop_guard_entry", seen.source_id, entry=entry)


def walk(wrong: WrongClock) -> tuple[dict[str, Any], set[str]]:
    """Use every verb as a gateway would; return what those said that tell of times."""
    used: set[str] = set()
    now_ms = wrong.now_ms()

    def call(verb: str, *given: Any, **named: Any) -> Any:
        used.add(verb)
        return wrong.call(verb, *given, **named)

    def entry(action: str) -> AuditEntry:
        return AuditEntry(
            at_ms=wrong.now_ms(), actor="a", action=action, target="t", affected=0, detail=action
        )

    call("instances.register", instance("wrong"))
    call("instances.heartbeat", "wrong")
    captured = NewRecipient(address="c@x.test", state=RecipientState.CAPTURED)
    sent, put_off, held, trash, kept, seen = (
        accepted(*people, at_ms=now_ms) for people in ([], [], [], [], [], [captured])
    )
    call("intake.accept_batch", [sent, put_off, held, trash, kept, seen])
    call("intake.add_chunks", accepted(at_ms=now_ms).queue_id, 0, [b"x"])
    assert call("leases.next_due_at_ms", "default") is not None
    claimed = call("leases.claim", "default", limit=9, incarnation="wrong", now_ms=wrong.now_ms())
    assert {one.queue_id for one in claimed} == {
        one.queue_id for one in (sent, put_off, held, trash, kept)
    }
    deferred = defer(put_off.queue_id, due_at_ms=wrong.now_ms() + 1000)
    doubted = replace(deferred.recipients[0], verdict=Verdict.DOUBT)
    outcomes = [
        replace(finish(sent.queue_id), due_at_ms=wrong.now_ms()),
        replace(deferred, recipients=(doubted,)),
    ]
    call("leases.record_batch", outcomes, incarnation="wrong", now_ms=wrong.now_ms())
    call("leases.give_back", [(one.queue_id, 0) for one in (held, trash)], incarnation="wrong")
    call("leases.free_unknown", "default", known=(), incarnation="wrong")
    call("instances.bury", "nobody")
    call("instances.stale_incarnations", 20.0)
    call("intake.read_chunk", kept.queue_id, 0)
    for one, to in ((held, DeliveryState.HELD), (trash, DeliveryState.DELETED)):
        call(
            "queue.change_state",
            [one.queue_id],
            from_states=frozenset(DeliveryState),
            to=to,
            entry=entry(f"queue.{to}"),
        )
    call("queue.undelete", [trash.queue_id], entry=entry("queue.undelete"))
    call("queue.expire", [trash.queue_id], reason="over", entry=entry("queue.expire"))
    moved = {"provider": "p", "ended": (), "is_forced": True}
    call("queue.move", [kept.queue_id], entry=entry("queue.move"), **moved)
    call("holds.release_held", HoldCause(HoldCode.OTHER, "why"), limit=9)
    call("holds.held_causes")
    call("leases.routes_waiting")
    call("holds.let_go", [(held.queue_id, 0)], HoldCause(HoldCode.OTHER, "another"))
    call("leases.reroute", [], entry=entry("queue.reroute"))
    call("instances.register", replace(instance("lost"), name="elsewhere"))
    call("instances.bury", "lost", is_lost=True)
    call("instances.ownerless")
    assert call("janitor.restart_waits", limit=9) == 0
    part = NewDelivery(
        released=Released.ALLOWED,
        route="default",
        stream="transactional",
        recipients=(NewRecipient(address="d@x.test"),),
    )
    released = Release(queue_id=seen.queue_id, deliveries=(part,), entry=entry("sandbox.release"))
    assert call("sandbox.release_captured", [released]) == {seen.queue_id}

    call("limits.acquire_permits", "p", wanted=1, limit=1, incarnation="wrong")
    call("limits.acquire_permits", "p", wanted=1, limit=1, incarnation="wrong")
    call("limits.permits_held", "p", incarnation="wrong")
    call("limits.release_permits", "p", count=0, incarnation="wrong")
    call("limits.take_tokens", "p", wanted=1, per_s=5.0)
    call("limits.use_quota", "p", wanted=1, quota=5)
    assert call("limits.quota_used", "p") == 1
    call("limits.lower_rate", "p", per_s=3.0, guard_s=1.0)
    call("limits.lower_connections", "p", own=2, incarnation="wrong", guard_s=1.0)
    note = SenderNote(provider="p", sender="s", accepted_at_ms=now_ms, refused_at_ms=now_ms)
    call("limits.note_senders", [note])
    hold = Hold(
        scope="provider", key="p", reason="", remedy="", since_ms=now_ms, probe_at_ms=now_ms
    )
    call("holds.put_hold", hold, entry=entry("provider.hold"))
    call("holds.put_hold", replace(hold, key="q"))
    standing = standing_hold(HoldScope.SUBJECT, "x", since_ms=now_ms, until_ms=now_ms)
    call("holds.put_standing", standing, entry=entry("hold.add"))
    call("holds.park", [(held.queue_id, 0)], standing.cause)
    call("holds.release_standing", {standing.hold_id})
    call("holds.renew_probe", hold.scope, hold.key, hold.probe_at_ms)
    call("holds.drop_hold", "provider", "q", entry=entry("provider.release"))
    assert 0 <= call("holds.stopped_ms", "p", since_ms=now_ms - 5000) < TOLERANCE_MS

    call("sandbox.index", {seen.queue_id: ContentFacts()})
    call("sandbox.mark_read", [seen.queue_id], is_read=True)
    call("sandbox.set_tags", [seen.queue_id], ["x"])
    call("sandbox.rename_tag", "x", "y")
    call("sandbox.tags")
    call("sandbox.delete_tag", "y")
    gone = accepted(captured, at_ms=now_ms)
    call("intake.accept_batch", [gone])
    call("intake.accept_batch", [accepted(captured, at_ms=now_ms)])
    call("sandbox.delete_captured", [gone.queue_id], entry=entry("sandbox.delete"))
    session = WebSession(
        token_hash="h",
        user_name="u",
        created_at_ms=now_ms,
        seen_at_ms=now_ms,
        expires_at_ms=now_ms + 60_000,
    )
    call("sessions.put", session)
    call("sessions.put", replace(session, token_hash="i"))
    call("sessions.drop", "i")

    call("watch.add_history", wrong.now_ms(), {("x", "a"): 1})
    call("watch.add_history", wrong.now_ms(), {("y", "a"): 1}, are_gauges=True)
    call("watch.duty", "watch", "wrong")
    call("watch.duties", ["watch", "report"], "wrong")
    incident = Incident(
        incident_id="1", rule="x", key="", summary="", remedy="", since_ms=wrong.now_ms()
    )
    call("watch.open_incident", incident)
    call("watch.reword_incidents", [incident])
    call("watch.end_incident", "1", at_ms=wrong.now_ms())
    call("watch.note_told", "1", "ops", is_recovery=False)
    call("watch.doubtful")
    call("audit.add", entry("config.changed"))

    parked, in_hand = accepted(at_ms=now_ms), accepted(at_ms=now_ms)
    call("intake.accept_batch", [parked, in_hand])
    call("intake.accept_batch", [accepted(at_ms=now_ms)], hold=HoldCause(HoldCode.OPERATOR, "x"))
    call(
        "queue.change_state",
        [parked.queue_id],
        from_states=frozenset(DeliveryState),
        to=DeliveryState.HELD,
        entry=entry("queue.held"),
    )
    call("leases.claim", "default", limit=9, incarnation="wrong", now_ms=wrong.now_ms())

    # of webhooks
    call("outbox.see_endpoints", {"shop": "shop"})
    post = call("outbox.next_post", "shop", limit=9, fits=len)
    call("outbox.note_taken", "shop", post.post_id)
    again = Sent(endpoints=["shop"], since_ms=now_ms - 60_000, before_ms=wrong.now_ms() + 60_000)
    assert call("outbox.count_sent", again) > 0
    assert call("outbox.send_again", again, entry=entry("webhooks.replay")) > 0
    told_post = call("outbox.next_post", "shop", limit=9, fits=len)
    call("outbox.note_refused", "shop", "x", wait_ms=60_000, pause_after_ms=0, is_gone=True)
    call("outbox.note_refused", "shop", "x", wait_ms=0, pause_after_ms=0, is_gone=False)
    call("outbox.resume", "shop", entry=entry("webhooks.resume"))
    assert call("outbox.forget_told", 60_000) == (False, {})
    assert call("outbox.forget_endpoint", "shop", seen_at_ms=0) is None

    # notices to senders
    call("notices.note_delayed", -2 * HOUR_MS, start="", limit=9)
    told_due = call("notices.due", limit=9)
    (failed,) = (one for one in told_due if one.kind == "failed")
    call("notices.put_off", failed, wait_ms=0)
    by = accepted(at_ms=wrong.now_ms(), sender="", drop_id="notice-1")
    assert call("notices.store_notice", failed, [by], detail="told")

    # nothing of this is over its time
    ages_ms = dict.fromkeys(("finished", "captured", "deleted", "orphans"), 60_000)
    assert call("janitor.purge", ages_ms, limit=9) == 0
    assert not call("janitor.shed_content", 60_000)
    assert not call("watch.forget_watched", 600_000)
    call("janitor.trim_captured", keep=9, limit=9)
    call("janitor.checkpoint")
    call("janitor.shrink")
    assert abs(call("clock_ms") - time.time_ns() // 1_000_000) < TOLERANCE_MS
    old = Selection(states=frozenset(DeliveryState), accepted_before_ms=now_ms + 60_000)
    bounds_ms = [60_000, 2 * HOUR_MS]
    assert call("queue.count_results", now_ms - 60_000)
    counted = call("queue.shape", old, by=ShapeKey.ROUTE, bounds_ms=bounds_ms)
    assert {one.step for one in counted} == {0}
    new = parse_search(f"after:{(now_ms - 60_000) // 1000}")
    assert call("sandbox.count_captured", new) == (1, 0)
    assert call("sandbox.captured_ids", new, limit=9) == [seen.queue_id]
    assert call("sandbox.taken_since", now_ms - 60_000)[0] <= 1
    assert call("queue.search_ids", old, limit=9)
    call("intake.taken_drops", ["d"])
    call("sessions.note_known", {("web", "otto"): "mark"}, now_ms=wrong.now_ms())
    call("sessions.note_used", {("web", "otto"): wrong.now_ms()})
    posts = [
        NewPost(provider="p", body=b"{}", token="t", until_ms=now_ms + 60_000) for _ in range(2)
    ]
    assert call("feedback.receive", posts) == [True, False]
    event = Event(key="k", kind=Kind.DELIVERED, at_ms=clock_ms())  # a provider's clock is right
    event_of = MatchedEvent(provider="p", event=event, queue_id=seen.queue_id, rcpt_no=0)
    call("feedback.put_off", 1, wait_ms=0)
    assert call("feedback.match", [Clue(queue_id=seen.queue_id)])[0].may_come
    (fresh,) = call("feedback.take", [event_of])
    (judged,) = call("reports.judged", fresh.verdicts)
    assert abs(judged.at_ms - wrong.now_ms()) < TOLERANCE_MS
    assert call("feedback.count_posts", 9) == 1
    assert call("feedback.forget_feedback", 60_000, limit=9) == 0
    call("reports.of_message", seen.queue_id)
    assert not call("reports.count_last_words", now_ms - 60_000)  # it is good news
    call("reports.last_words", now_ms - 60_000)
    assert call("reports.forget_strays") == 0
    call("feedback.shared_key", "mark")
    listed = Suppression(
        address="b@cust.test",
        cause=Cause.MANUAL,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + 60_000,
    )
    lifted = replace(listed, stream="promotional")
    assert call("suppressions.suppress", [listed, lifted], entry=entry("suppression.add")) == 2
    assert call("suppressions.suppress_batch", [listed], entry=None) == 0
    assert call("suppressions.looked_at_again", claimed[0]) == claimed[0]
    assert call("suppressions.lift", [lifted.key], entry=entry("suppression.remove")) == 1
    assert call("suppressions.purge_suppressed", limit=9) == 0
    assert call("suppressions.forget_refusals", 60_000) == 0
    assert call("suppressions.suppressed_lately", 60_000) == 0
    assert call("suppressions.count_suppressed", most=9) == 1
    call("suppressions.tell_planner")
    people = {"sender": "", "stream": "transactional"}
    assert call("suppressions.listed_for", ["b@cust.test"], **people) == {}
    assert not call("doubts.still_wait", seen.queue_id, [0])
    mail_class = MailClass.of(
        ("h", "", "", None, ""), sender_domain="", template="t", stream="transactional"
    )
    counted_mail = [ClassCount(mail_class, wrong.now_ms(), wrong.now_ms(), 1, 1)]
    assert call("sources.count_mail", counted_mail) == set()
    (hour,) = call("sources.class_hours", now_ms - HOUR_MS)
    assert 0 <= wrong.now_ms() - hour.hour_at_ms < HOUR_MS + TOLERANCE_MS
    assert call("sources.class_ids") == [(mail_class.class_id, mail_class.source_id)]
    assert call("sources.count_classes", now_ms - 60_000) == (1, 1, 1)
    walk_guard(call, mail_class, now_ms, entry("guard.hold"))
    assert not call("sources.forget_sources", 60_000)
    begun = call("digests.digest_state", "mail", until_ms=1)
    assert call("digests.pass_digest", "mail", state=begun, until_ms=2)
    call("digests.put_off_digest", "mail", state=begun, until_ms=2, wait_ms=0)
    again = Repeat("5e", put_off.queue_id, wrong.now_ms(), 2, "F", None, False, "h", "", "t", "d")
    windows = {"watched": ["5e"], "window_ms": HOUR_MS, "slice_ms": 60_000}
    assert call("repeats.count_repeats", "a", [again], **windows) == {}
    assert call("repeats.count_repeats", "b", [], **windows) == {"5e": 1}
    assert not call("repeats.forget_repeats", 60_000)
    of_shop = replace(mail_class, sender_domain="shop.test")
    call("rhythms.count_kinds", [ClassCount(of_shop, wrong.now_ms(), wrong.now_ms(), 8, 8)])
    kind = MailKind.of("shop.test", "transactional", "t")
    (kind_hour,) = call("rhythms.kind_hours", [kind], now_ms - HOUR_MS)[kind]
    assert kind_hour.messages == 8
    assert call("rhythms.messages_by_template", now_ms - 60_000) == {"t": 8}
    assert not call("rhythms.forget_kinds", 60_000)
    call("watch.sums", now_ms - 300_000, step_ms=60_000, series=["messages"])
    call("find.index_batch", limit=9)
    assert call("find.progress").waiting > 0  # what is new waits for its reply
    at = {"first_seen_ms": wrong.now_ms(), "last_seen_ms": wrong.now_ms()}
    call("visitors.note_uses", [TokenUse(token="t", kind="agent", value="curl", **at)])
    call(
        "visitors.note_throttled",
        [Throttled(listener="l", client="c", cause="rate", times=1, **at)],
    )
    call("homes.learn", Home(mark="m", hostname="h", since_ms=wrong.now_ms()))
    here = Home(mark="n", hostname="h", since_ms=wrong.now_ms())
    call("homes.adopt", here, entry=entry("db.adopt"))
    everything = [one.queue_id for one in (sent, put_off, held, trash, kept, seen)]
    asked: dict[str, Any] = {
        "queue.search": ((old,), {"limit": 9}),
        "queue.entries": ((everything,), {}),
        "queue.waiting": ((), {"limit": 9}),
        "queue.counts": ((), {}),
        "queue.attempts": ((put_off.queue_id,), {}),
        "queue.record_of": ((put_off.queue_id,), {}),
        "audit.entries": ((), {"limit": 20, "trail": Trail(since_ms=now_ms - 60_000)}),
        "audit.latest": (("db.adopt",), {"since_ms": now_ms - 60_000, "limit": 9}),
        "sandbox.unindexed": ((), {"limit": 9}),
        "sandbox.find_captured": ((new,), {"start": 0, "limit": 9}),
        "sandbox.captured_entry": ((None,), {}),
        "find.find": ((parse_find(f"x after:{(now_ms - 60_000) // 1000}"),), {"limit": 9}),
        "queue.failures": ((now_ms - 60_000,), {"step_ms": 60_000, "limit": 9}),
        "sessions.get": (("h",), {}),
        "sessions.known": ((), {}),
        "feedback.claim_posts": ((), {"limit": 9, "lease_ms": 0}),
        "feedback.told_at_ms": (("p",), {}),
        "suppressions.suppressed": ((), {"limit": 9}),
        "suppressions.suppressed_of": ((["b@cust.test"],), {}),
        "instances.registered": ((), {}),
        "limits.accounts": ((), {}),
        "limits.senders": ((), {}),
        "holds.in_force": ((), {}),
        "holds.standing": ((), {}),
        "holds.all_in_force": ((), {}),
        "holds.held_mail": ((), {}),
        "watch.in_hand_since": ((now_ms + 60_000,), {}),
        "watch.lost_instances": ((now_ms - 60_000,), {}),
        "watch.history": ((now_ms - 300_000,), {}),
        "sources.known_classes": ((now_ms - 60_000,), {}),
        "sources.sum_mail": (("host", now_ms - 60_000), {}),
        "repeats.storms": ((HOUR_MS,), {}),
        "rhythms.counting_since_ms": ((), {}),
        "rhythms.rhythmic": ((-HOUR_MS,), {}),
        "watch.incidents": ((now_ms - 60_000,), {}),
        "outbox.endpoints": ((), {}),
        "visitors.uses": ((now_ms - 60_000,), {}),
        "visitors.throttled": ((now_ms - 60_000,), {}),
        "homes.home": ((), {}),
        "doubts.history": ((put_off.queue_id, [0]), {}),
    }
    told = {verb: call(verb, *given, **named) for verb, (given, named) in asked.items()}
    told["outbox.next_post"] = told_post
    told["notices.due"] = told_due
    return told, used


def times_in(value: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yield every time in a value, wherever it stands."""
    if isinstance(value, int):
        if value > LEAST_MS:
            yield path, value
    elif is_dataclass(value):
        for field in fields(value):
            yield from times_in(getattr(value, field.name), f"{path}.{field.name}")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from times_in(one, f"{path}[{key}]")
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from times_in(one, f"{path}[{number}]")


def test_a_machine_whose_clock_is_an_hour_wrong_writes_and_reads_as_all_others(
    right: Store, wrong: WrongClock
) -> None:
    told, used = walk(wrong)
    assert used == VERBS, "each verb belongs into this walk"
    about_ms = 600_000  # slices of history and of a quota begin earlier
    for verb, result in told.items():
        found = list(times_in(result, verb))
        assert found, f"{verb} tells of no time"
        for path, at_ms in found:
            assert abs(at_ms - wrong.now_ms()) < about_ms, path
    now_ms = time.time_ns() // 1_000_000
    with right.database.read() as connection:
        for table in whole_metadata().sorted_tables:
            for row in connection.execute(table.select()):
                for column, value in row._mapping.items():
                    if isinstance(value, int) and value > LEAST_MS:
                        at_ms = value // 1000 if column.endswith("_us") else value
                        assert abs(at_ms - now_ms) < about_ms, f"{table.name}.{column}"
