"""The rules at and around their thresholds."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from relaygw.alerting.facts import Complaints, Finding, FleetFacts, HostFacts, QueueFacts
from relaygw.alerting.guard_words import finding_of, learning_finding
from relaygw.alerting.history import HOUR_MS, busiest_hour, waiting_then
from relaygw.alerting.rules import HOST_RULES, QUEUE_RULES, fleet_findings, host_findings
from relaygw.mail.clock import utc_text
from relaygw.mail.mail_class import MailClass
from relaygw.mail.state import DeliveryState
from relaygw.observe.hang import Hang
from relaygw.observe.maildrop import LeftMail
from relaygw.observe.reload import RefusedReload
from relaygw.policy.endings import EndingLogin
from relaygw.policy.guard import Suspect, Trouble
from relaygw.policy.lost_gateways import LostInstance
from relaygw.policy.receivers import Endpoint
from relaygw.policy.storms import Storm
from relaygw.policy.untended import Untended
from relaygw.settings.alerts import Rule
from relaygw.settings.guard import Guard
from relaygw.settings.model import Settings
from relaygw.settings.presets import Ending
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import Hold
from relaygw.store.queue import LaneCount
from relaygw.store.visitors import TokenUse
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint
from relaygw.upstream.failure import Unreached
from tests.tables import each_of

SLICE_MS = HISTORY_SLICE_MS
NOW_MS = 1_795_600_000_000 // SLICE_MS * SLICE_MS + 1000
"""A second after a slice has begun."""
MINUTE_MS = 60_000

SETTINGS = Settings.model_validate(
    {
        "mode": "production",
        "hostname": "gw.test",
        "listeners": [{"bind": "127.0.0.1:25"}],
        "providers": {"main": {"host": "smtp.example.com"}, "spare": {"host": "smtp.example.net"}},
        "routes": [{"name": "default", "providers": ["main", "spare"]}],
        "webhooks": [{"name": "shop", "url": "https://shop.test/", "secret": "env:SECRET"}],
    }
)


def receiver(**more: Any) -> Endpoint:
    values: dict[str, Any] = {"failures": 3, "next_at_ms": 0, "dropped": 0, "waiting": 5}
    names = (one for one in Endpoint.__slots__ if one not in values)
    mine = {"endpoint": SETTINGS.webhooks[0].endpoint, "last_error": "shop.test answered 500"}
    return Endpoint(**dict.fromkeys(names) | values | mine | more)


CHANGE = AuditEntry(
    at_ms=NOW_MS,
    actor="start on gw1",
    action="settings.change",
    target="gw1",
    affected=1,
    detail='{"changed": ["mode"]}',
)
STRANGER = TokenUse(
    token="ci", kind="agent", value="curl", first_seen_ms=NOW_MS, last_seen_ms=NOW_MS
)


def hold(scope: str, key: str = "main", **more: Any) -> Hold:
    values: dict[str, Any] = {
        "reason": "why",
        "remedy": "do this",
        "since_ms": NOW_MS - 5,
        "probe_at_ms": NOW_MS + 5,
    }
    return Hold(scope=scope, key=key, **values | more)


def point(series: str, amount: int, label: str = "main", *, minutes_ago: float = 0) -> HistoryPoint:
    at_ms = NOW_MS - int(minutes_ago * MINUTE_MS)
    return HistoryPoint(
        slice_at_ms=at_ms - at_ms % SLICE_MS, series=series, label=label, amount=amount
    )


def lane(
    deliveries: int = 1, *, state: str = "deferred", age_ms: int = 0, since_ms: int = NOW_MS
) -> LaneCount:
    return LaneCount(
        route="default",
        stream="transactional",
        state=DeliveryState(state),
        deliveries=deliveries,
        recipients=deliveries,
        oldest_accepted_at_ms=NOW_MS - age_ms,
        oldest_changed_at_ms=since_ms,
    )


def test_a_remedy_says_what_to_do_about_a_certificate() -> None:
    reason = "certificate not verified: Hostname mismatch (main[192.0.2.1]:587)"
    facts = FleetFacts(now_ms=NOW_MS, holds=(hold("unreachable", reason=reason),))
    (finding,) = fleet_findings(facts, SETTINGS)
    assert finding.remedy == "set host to the name in the certificate"


@pytest.mark.parametrize("scope", ["provider", "credential", "sender domain"])
def test_a_remedy_that_is_a_sentence_goes_on_without_its_full_stop(scope: str) -> None:
    facts = FleetFacts(now_ms=NOW_MS, holds=(hold(scope, remedy="Buy credits."),))
    (finding,) = fleet_findings(facts, SETTINGS)
    assert finding.remedy.startswith("Buy credits; ")


def found(*, holds: tuple[Hold, ...] = (), **queue: Any) -> list[tuple[str, str]]:
    facts = FleetFacts(now_ms=NOW_MS, holds=holds, queue=QueueFacts(**queue))
    findings = fleet_findings(facts, SETTINGS)
    always = fleet_findings(replace(facts, queue=QueueFacts()), SETTINGS)
    assert {one for one in findings if one.rule in QUEUE_RULES} == {*findings} - {*always}
    return [(one.rule.value, one.key) for one in findings]


def test_nothing_is_wrong_with_a_gateway_that_works() -> None:
    assert (
        found(
            lanes=(lane(900), lane(500, state="held", age_ms=90 * HOUR_MS)),
            points=(
                point("accepted", 1000, "default"),
                point("delivered", 1000),
                point("bounced", 19),
                point("refused", 500, "554 5.7.1"),
                point("queue", 800, "deferred", minutes_ago=30),
            ),
            quotas={"main": 0.899},
            busiest_hour={"default": 250},
        )
        == []
    )


# --- what stands still --------------------------------------------------------------------

LOST = LostInstance(
    incarnation="x", name="gw2", role="front", pid=1, heartbeat_at_ms=NOW_MS - 25_000, leases=0
)


STORM = Storm(
    messages=6,
    held=0,
    same_ids=1,
    host="10.0.0.5",
    script="",
    template="Order #",
    recipient_domain="cust.test",
    first_id="A",
    last_id="B",
    first_ms=NOW_MS - 5,
)


def waiting(rule: Rule, *, is_told: bool = True) -> Untended:
    return Untended(
        kind="mode",
        rule=rule,
        key="k",
        deliveries=1,
        since_ms=NOW_MS - 5,
        summary="mail waits",
        remedy="do this",
        is_told=is_told,
    )


@pytest.mark.parametrize("rule", [Rule.HELD, Rule.ROUTE_GONE, Rule.STUCK])
def test_mail_that_waits_for_somebody_is_told_in_its_time(rule: Rule) -> None:
    assert found(untended=[waiting(rule)]) == [(rule, "k")]
    assert found(untended=[waiting(rule, is_told=False)]) == []


def test_a_lost_gateway_is_told_since_its_last_heartbeat() -> None:
    (one,) = fleet_findings(FleetFacts(now_ms=NOW_MS, lost=[LOST]), SETTINGS)
    assert (one.rule, one.key, one.since_ms) == (Rule.INSTANCE_LOST, "gw2", NOW_MS - 25_000)


# --- receivers of webhooks ----------------------------------------------------------------


@each_of(
    ("one", "words"),
    [
        (receiver(), None),
        (receiver(failures=0, last_error=None, waiting=0), None),
        (receiver(failures=0, oldest_at_ms=NOW_MS - 23 * HOUR_MS), None),
        (receiver(paused_at_ms=NOW_MS, failing_since_ms=5), "is tried hourly: shop.test answered"),
        (receiver(paused_at_ms=NOW_MS, endpoint="of another configuration"), None),
        (receiver(disabled_at_ms=NOW_MS, last_error="answered 410"), "gets nothing any more"),
        (receiver(failures=0, oldest_at_ms=NOW_MS - 25 * HOUR_MS), "more than a day"),
    ],
)
def test_a_receiver_is_told_of_when_it_fails_for_long(one: Endpoint, words: str | None) -> None:
    facts = FleetFacts(now_ms=NOW_MS, queue=QueueFacts(webhooks=[one]))
    summaries = [
        finding.summary
        for finding in fleet_findings(facts, SETTINGS)
        if (finding.rule, finding.key) == (Rule.WEBHOOK_FAILING, "shop")
    ]
    assert len(summaries) == (words is not None)
    assert all(words in summary and "5 events wait" in summary for summary in summaries if words)


# --- providers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "rule", "words"),
    [
        (hold("unreachable"), "provider_down", "provider main cannot be reached: why"),
        (hold("provider"), "provider_down", "provider main is held: why"),
        (
            hold("provider", probe_at_ms=None),
            "provider_down",
            "provider main is held by an operator: why",
        ),
        (
            hold("sender domain", "main shop.test"),
            "provider_down",
            "provider main refuses mail from shop.test: why",
        ),
        (hold("credential"), "auth_failed", "provider main refuses the login: why"),
    ],
)
def test_holds_and_outages(one: Hold, rule: str, words: str) -> None:
    facts = FleetFacts(now_ms=NOW_MS, holds=(one,))
    (finding,) = fleet_findings(facts, SETTINGS)
    assert (finding.rule, finding.key, finding.since_ms) == (rule, one.key, one.since_ms)
    assert finding.summary == words
    assert "relaygw " in finding.remedy or finding.rule is Rule.AUTH_FAILED


def test_of_several_holds_on_a_provider_the_outage_is_told() -> None:
    facts = FleetFacts(now_ms=NOW_MS, holds=(hold("unreachable"), hold("provider")))
    (finding,) = fleet_findings(facts, SETTINGS)
    assert "cannot be reached" in finding.summary


@pytest.mark.parametrize(("seconds", "is_wrong"), [(19.9, False), (20.0, True)])
def test_a_provider_that_answers_nothing_is_known_before_it_counts_as_down(
    seconds: float, is_wrong: bool
) -> None:
    facts = FleetFacts(now_ms=NOW_MS, unreached={"main": Unreached(seconds), "gone": Unreached(99)})
    findings = fleet_findings(facts, SETTINGS)
    assert [(one.rule, one.key) for one in findings] == [("provider_down", "main")] * is_wrong
    assert [one.since_ms for one in findings] == [NOW_MS - 20_000] * is_wrong
    unreached = {"main": Unreached(30.0)}
    both = FleetFacts(now_ms=NOW_MS, unreached=unreached, holds=(hold("unreachable"),))
    (finding,) = fleet_findings(both, SETTINGS)
    assert finding.summary == "provider main cannot be reached: why"


def test_why_a_provider_is_not_reached_is_told_where_it_is_known() -> None:
    reason = "certificate not verified: Hostname mismatch (main[192.0.2.1]:587)"
    facts = FleetFacts(now_ms=NOW_MS, unreached={"main": Unreached(30.0, reason)})
    (finding,) = fleet_findings(facts, SETTINGS)
    assert finding.summary == f"provider main cannot be reached: {reason}"
    assert finding.remedy == "set host to the name in the certificate"


def test_providers_that_are_not_configured_any_more_do_not_count() -> None:
    assert found(holds=(hold("unreachable", "gone"), hold("sender domain", "gone x.test"))) == []


# --- nothing goes out ---------------------------------------------------------------------

WAITS = {"lanes": (lane(age_ms=16 * MINUTE_MS),)}
CAME_IN = point("accepted", 1, "default", minutes_ago=16)


@each_of(
    ("queue", "is_wrong"),
    [
        ({**WAITS, "points": (CAME_IN,)}, True),
        ({**WAITS, "points": (CAME_IN, point("deferred", 5))}, True),
        ({**WAITS, "points": (CAME_IN, point("delivered", 1, minutes_ago=15))}, False),
        ({**WAITS, "points": (CAME_IN, point("delivered", 1, minutes_ago=25))}, True),
        ({**WAITS, "points": ()}, False),  # a quiet night with an old mail
        ({"lanes": (lane(age_ms=14 * MINUTE_MS),), "points": (CAME_IN,)}, False),
        ({"lanes": (lane(age_ms=99 * HOUR_MS, state="held"),), "points": (CAME_IN,)}, False),
        ({"lanes": (), "points": (CAME_IN,)}, False),
    ],
)
def test_nothing_was_delivered(queue: dict[str, Any], is_wrong: bool) -> None:
    assert (("no_delivery", "") in found(**queue)) is is_wrong


@pytest.mark.parametrize(
    ("points", "is_wrong"),
    [
        ((point("refused", 10, "451 4.3.0"),), True),
        ((point("refused", 5, "451 4.3.0"), point("refused", 5, "452 4.3.1")), True),
        ((point("refused", 9, "451 4.3.0"),), False),
        ((point("refused", 10, "451 4.3.0", minutes_ago=4),), True),
        ((point("refused", 10, "451 4.3.0", minutes_ago=10),), False),
        ((point("refused", 99, "452 4.5.3"), point("refused", 99, "554 5.7.1")), False),
    ],
)
def test_the_front_refuses(points: tuple[HistoryPoint, ...], is_wrong: bool) -> None:
    assert (("front_refusing", "") in found(points=points)) is is_wrong


# --- the queue ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "is_wrong"),
    [
        (lane(age_ms=4 * HOUR_MS), False),
        (lane(age_ms=4 * HOUR_MS + 1), True),
        (lane(age_ms=4 * HOUR_MS + 1, state="incoming"), True),
        (lane(age_ms=4 * HOUR_MS + 1, state="held"), False),
    ],
)
def test_mail_waits_for_long(one: LaneCount, is_wrong: bool) -> None:
    assert (("queue_age", "default") in found(lanes=(one,))) is is_wrong


@pytest.mark.parametrize(
    ("now", "then", "is_wrong"),
    [
        (1600, point("queue", 1000, "deferred", minutes_ago=30), True),
        (1500, point("queue", 1000, "deferred", minutes_ago=30), False),
        (1000, point("queue", 0, "deferred", minutes_ago=30), False),
        (1001, point("queue", 0, "deferred", minutes_ago=30), True),
        (9999, point("queue", 0, "deferred", minutes_ago=50), False),  # nobody looked then
        (9999, point("queue", 0, "deferred", minutes_ago=10), False),
    ],
)
def test_the_queue_grows(now: int, then: HistoryPoint, is_wrong: bool) -> None:
    assert (("queue_growth", "") in found(lanes=(lane(now),), points=(then,))) is is_wrong


def test_held_mail_is_no_growth() -> None:
    then = point("queue", 0, "deferred", minutes_ago=30)
    assert found(lanes=(lane(5000, state="held"),), points=(then,)) == []
    points = (then, point("queue", 5000, "held", minutes_ago=30))
    assert waiting_then(points, from_ms=NOW_MS - HOUR_MS, until_ms=NOW_MS) == 0


# --- what providers say -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounced", "delivered", "minutes_ago", "is_wrong"),
    [
        (20, 379, 0, True),
        (20, 380, 0, False),
        (19, 0, 0, False),
        (20, 0, 60, True),
        (20, 0, 66, False),
    ],
)
def test_much_bounces(bounced: int, delivered: int, minutes_ago: int, is_wrong: bool) -> None:
    points = (
        point("bounced", bounced, minutes_ago=minutes_ago),
        point("delivered", delivered, minutes_ago=minutes_ago),
        point("delivered", 1000, "spare"),
    )
    assert (("bounce_rate", "main") in found(points=points)) is is_wrong


@pytest.mark.parametrize(
    ("hard", "soft", "before", "is_wrong"),
    [(20, 0, 360, True), (19, 500, 0, False), (20, 0, 380, False)],
)
def test_hard_bounces_that_are_reported_count_of_what_was_taken_a_while_ago(
    hard: int, soft: int, before: int, is_wrong: bool
) -> None:
    points = (
        point("verdicts", hard, "main hard"),
        point("verdicts", soft, "main soft"),
        point("verdicts", 99, "gone hard"),
        point("delivered", 20),
        point("delivered", before, minutes_ago=90),
    )
    assert (("bounce_rate", "main") in found(points=points)) is is_wrong
    assert ("bounce_rate", "gone") not in found(points=points)


@pytest.mark.parametrize(
    ("number", "sent", "is_wrong"), [(3, 2999, True), (3, 3000, False), (2, 2, False)]
)
def test_complaints_of_a_senders_domain(number: int, sent: int, is_wrong: bool) -> None:
    wrong = found(complaints={"shop.test": Complaints(number, sent)})
    assert (("sender_complaints", "shop.test") in wrong) is is_wrong


@pytest.mark.parametrize(
    ("accepted", "usual", "is_wrong"),
    [
        (500, {"default": 124}, True),
        (500, {"default": 125}, False),
        (499, {}, False),
        (500, {}, True),  # a route that had no mail so far
        (99999, None, False),  # too little is known
    ],
)
def test_more_mail_than_usual(accepted: int, usual: dict[str, int] | None, is_wrong: bool) -> None:
    points = (point("accepted", accepted, "default"), point("delivered", accepted))
    wrong = found(points=points, busiest_hour=usual)
    assert (("volume_anomaly", "default") in wrong) is is_wrong


@pytest.mark.parametrize(("share", "is_wrong"), [(0.899, False), (0.9, True), (1.2, True)])
def test_a_quota_is_nearly_used_up(share: float, is_wrong: bool) -> None:
    assert (("quota_near", "main") in found(quotas={"main": share})) is is_wrong


def test_a_clock_that_was_set() -> None:
    facts = FleetFacts(now_ms=NOW_MS, clock_step="set back by 3600 s")
    (finding,) = fleet_findings(facts, SETTINGS)
    assert (finding.rule, finding.key) == ("clock_step", "set back by 3600 s")
    assert finding.summary == "the clock of the queue was set back by 3600 s"
    assert fleet_findings(FleetFacts(now_ms=NOW_MS), SETTINGS) == []


def test_mail_in_doubt() -> None:
    assert found(doubts={"main": 1}) == [("in_doubt", "main")]


def hang(role: str, pid: int, **more: Any) -> Hang:
    return Hang(role=role, pid=pid, since_ms=NOW_MS - 60_000, **more)


# --- hosts --------------------------------------------------------------------------------


@each_of(
    ("facts", "wrong"),
    [
        (HostFacts(host="gw1", volumes={"/var": 0.1}), []),
        (HostFacts(host="gw1", volumes={"/var": 0.0999}), [("disk_low", "gw1 /var")]),
        (HostFacts(host="gw1", certificates={":465": 14 * 86400.0}), []),
        (
            HostFacts(host="gw1", certificates={":465": 14 * 86400.0 - 1}),
            [("certificate_expiring", "gw1 :465")],
        ),
        (
            HostFacts(host="gw1", unusable={":465": "key.pem cannot be read"}),
            [("certificate_expiring", "gw1 :465")],
        ),
        (
            HostFacts(host="gw1", certificates={":465": -5.0}),
            [("certificate_expiring", "gw1 :465")],
        ),
        (HostFacts(host="gw1", maildrop=LeftMail(path="/m", waiting=9)), []),
        (
            HostFacts(host="gw1", maildrop=LeftMail(path="/m", waiting=9, late=1)),
            [("maildrop_stuck", "gw1 /m")],
        ),
        (
            HostFacts(host="gw1", maildrop=LeftMail(path="/m", aside=1)),
            [("maildrop_stuck", "gw1 /m")],
        ),
        (
            HostFacts(host="gw1", maildrop=LeftMail(path="/m", trouble="Permission denied")),
            [("maildrop_stuck", "gw1 /m")],
        ),
        (
            HostFacts(host="gw1", hangs=[hang("delivery", 7), hang("front", 8)]),
            [("role_hung", "gw1 delivery"), ("role_hung", "gw1 front")],
        ),
        (
            HostFacts(host="gw1", refused_reload=RefusedReload(at_ms=NOW_MS, reason="b: no")),
            [("reload_refused", "gw1 reload")],
        ),
    ],
)
def test_what_is_wrong_with_a_host(facts: HostFacts, wrong: list[tuple[str, str]]) -> None:
    findings = host_findings(facts, SETTINGS)
    assert [(one.rule.value, one.key) for one in findings] == wrong
    assert {one.rule for one in findings} <= HOST_RULES


def test_words_of_a_hang() -> None:
    def words(*hangs: Hang) -> list[str]:
        findings = host_findings(HostFacts(host="gw1", hangs=hangs), SETTINGS)
        assert all(one.is_certain and one.since_ms == NOW_MS - 60_000 for one in findings)
        return [one.summary.replace(utc_text(NOW_MS - 60_000), "A") for one in findings]

    end = utc_text(NOW_MS)
    assert words(hang("delivery", 7)) == [
        "delivery (pid 7) on gw1 has hung since A; unless it goes on it is killed and restarted"
    ]
    assert words(hang("delivery", 7, ended_ms=NOW_MS)) == [
        f"delivery (pid 7) on gw1 hung from A to {end}; another process has its place"
    ]
    assert words(hang("front", 7, ended_ms=NOW_MS, is_back=True)) == [
        f"front (pid 7) on gw1 hung from A to {end}, and goes on"
    ]
    # of several the one that hangs, else the last
    assert words(hang("front", 8), hang("front", 7, ended_ms=NOW_MS))[0].startswith("front (pid 8)")
    ended = (hang("front", pid, ended_ms=NOW_MS) for pid in (7, 8))
    assert words(*ended)[0].startswith("front (pid 8)")


def test_a_certificate_that_cannot_be_used_may_leave_no_tls() -> None:
    facts = HostFacts(host="gw1", unusable={":465": "key.pem cannot be read"})
    (finding,) = host_findings(facts, SETTINGS)
    assert finding.remedy.endswith("loaded before, and where none was, TLS is not offered")


def test_words_of_a_certificate() -> None:
    def words(left_s: float) -> str:
        facts = HostFacts(host="gw1", certificates={":465": left_s})
        return host_findings(facts, SETTINGS)[0].summary

    assert words(3 * 86400.0 + 1) == "the certificate of :465 on gw1 expires in 3 days"
    assert words(30 * 3600.0) == "the certificate of :465 on gw1 expires in 30 hours"
    assert words(0) == "the certificate of :465 on gw1 has expired"


@pytest.mark.parametrize(
    ("suppressed", "delivered", "is_wrong"), [(19, 0, False), (20, 380, False), (21, 379, True)]
)
def test_many_are_suppressed(suppressed: int, delivered: int, is_wrong: bool) -> None:
    queue = QueueFacts(points=(point("delivered", delivered),), suppressed=suppressed)
    found = fleet_findings(FleetFacts(now_ms=NOW_MS, queue=queue), SETTINGS)
    assert [one.rule for one in found] == [Rule.SUPPRESSION] * is_wrong


@each_of(
    "changes, keys",
    [
        ([{}], ["10.0.0.5"]),
        ([{"messages": 5, "same_ids": 0}], []),
        ([{"messages": 5}], ["10.0.0.5 Message-ID"]),
        ([{"messages": 2}, {"messages": 9}, {"messages": 7}], ["10.0.0.5"]),
        ([{}, {"host": "local"}], ["10.0.0.5", "local"]),
        ([{"host": f"10.0.1.{n}"} for n in range(50)], [f"10.0.1.{n}" for n in range(20)]),
    ],
)
def test_a_storm_is_told_once_for_each_host(changes: list[dict[str, Any]], keys: list[str]) -> None:
    queue = QueueFacts(storms=[replace(STORM, **one) for one in changes])
    found = fleet_findings(FleetFacts(now_ms=NOW_MS, queue=queue), SETTINGS)
    assert [one.kind for one in found] == [("storm", key) for key in keys]


def guard_finding(trouble: Trouble) -> Finding:
    """Return what is told of a source."""
    one = MailClass.of(
        ("h", "", "", 33, "up.php"), sender_domain="s", template="Win #", stream="transactional"
    )
    suspect = Suspect(
        trouble=trouble,
        key=one.source_id,
        source_id=one.source_id,
        class_ids=(one.class_id,),
        per_hour=40,
        limit=30,
        since_ms=NOW_MS,
    )
    held = {one.class_id: one.source_id} if trouble is Trouble.NEW else {}
    return finding_of(suspect, [one], ["web.test"], held=held)


@pytest.mark.parametrize(
    ("more", "state", "stream", "mail_ms", "pause_ms", "is_told"),
    [
        ((), "deferred", "transactional", 121_000, 121_000, True),
        ((), "incoming", "transactional", 121_000, 121_000, True),
        ((), "deferred", "transactional", 121_000, 119_000, False),
        ((), "deferred", "transactional", 119_000, 121_000, False),
        ((), "held", "transactional", 121_000, 121_000, False),
        ((), "deferred", "promotional", 121_000, 121_000, False),
        (("spare",), "deferred", "transactional", 121_000, 121_000, False),  # that one takes it
    ],
)
def test_transactional_mail_behind_a_pause_is_told_after_two_minutes(
    more: tuple[str, ...], state: str, stream: str, mail_ms: int, pause_ms: int, is_told: bool
) -> None:
    providers = {name: {"host": f"{name}.test"} for name in ("main", "spare")}
    routes = [{"name": "default", "stream": stream, "providers": ["main", *more]}]
    settings = Settings.model_validate(
        {"mode": "production", "hostname": "gw.test", "providers": providers, "routes": routes}
    )
    waits = replace(lane(state=state, age_ms=mail_ms), stream=stream)
    facts = FleetFacts(
        now_ms=NOW_MS,
        holds=(hold("paused", since_ms=NOW_MS - pause_ms),),
        queue=QueueFacts(lanes=(waits,)),
    )
    told = [one for one in fleet_findings(facts, settings) if one.rule is Rule.PROVIDER_PAUSED]
    assert [one.key for one in told] == ["main"] * is_told
    for one in told:
        assert one.summary == "transactional mail waits for provider main, which is paused: why"
        assert "relaygw provider release" in one.remedy


@pytest.mark.parametrize(
    ("state", "stream", "rate", "in_hand_ms", "is_told"),
    [
        ("active", "transactional", None, 121_000, True),
        ("active", "transactional", None, 119_000, False),
        ("active", "promotional", None, 121_000, False),
        ("incoming", "transactional", None, 121_000, False),
        ("active", "transactional", None, 2 * HOUR_MS, False),  # its worker is stuck
        ("active", "transactional", "2/m", 121_000, False),  # its turn comes that late
        ("active", "transactional", "2/m", 241_000, True),
    ],
)
def test_transactional_mail_that_a_provider_does_not_answer_is_told_after_two_minutes(
    state: str, stream: str, rate: str | None, in_hand_ms: int, is_told: bool
) -> None:
    provider = {"host": "main.test", **({"rate": rate} if rate else {})}
    routes = [{"name": "default", "stream": stream, "providers": ["main"]}]
    settings = Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "providers": {"main": provider},
            "routes": routes,
        }
    )
    waits = replace(lane(state=state, since_ms=NOW_MS - in_hand_ms), stream=stream)
    facts = FleetFacts(now_ms=NOW_MS, queue=QueueFacts(lanes=(waits,)))
    told = [one for one in fleet_findings(facts, settings) if one.rule is Rule.PROVIDER_PAUSED]
    assert [one.key for one in told] == ["main"] * is_told
    for one in told:
        assert "waits for a connection or an answer of provider main" in one.summary
        assert "relaygw check --online" in one.remedy
    held = replace(facts, holds=(hold("provider"),))
    assert Rule.PROVIDER_PAUSED not in {one.rule for one in fleet_findings(held, settings)}


PAUSES = tuple(hold("paused", name, since_ms=NOW_MS - HOUR_MS) for name in ("main", "spare"))


ENDING = EndingLogin("main", Ending(at=date(2026, 12, 31), text="it is off", remedy="do b"))


def test_every_rule_has_a_remedy_and_a_summary_on_one_line() -> None:
    everything = FleetFacts(
        now_ms=NOW_MS,
        holds=(hold("unreachable"), hold("credential"), *PAUSES),
        queue=QueueFacts(
            lanes=(lane(5000, age_ms=5 * HOUR_MS),),
            points=(
                point("queue", 0, "deferred", minutes_ago=30),
                point("accepted", 5000, "default", minutes_ago=20),
                point("bounced", 100),
                point("refused", 100, "451 4.3.0"),
                point("login_failures", 100, "smtp 192.0.2.0/24"),
            ),
            changes=[CHANGE],
            strangers=[STRANGER],
            doubts={"main": 1},
            quotas={"main": 1.0},
            busiest_hour={},
            complaints={"shop.test": Complaints(3, 3)},
            untended=[waiting(rule) for rule in (Rule.HELD, Rule.ROUTE_GONE, Rule.STUCK)],
            webhooks=[receiver(paused_at_ms=NOW_MS)],
            suppressed=100,
            storms=[STORM],
            endings=[ENDING],
        ),
        lost=(LOST,),
        clock_step="set back by 3600 s",
    )
    host = HostFacts(
        host="gw1",
        volumes={"/var": 0.0},
        certificates={":465": 0.0},
        maildrop=LeftMail(path="/m", aside=1),
        hangs=[hang("front", 8)],
        refused_reload=RefusedReload(at_ms=NOW_MS, reason="b: no"),
    )
    findings: list[Finding] = [
        *fleet_findings(everything, SETTINGS),
        *host_findings(host, SETTINGS),
        *(guard_finding(trouble) for trouble in Trouble),
        learning_finding(3, NOW_MS, Guard()),
    ]
    # what silence says is looked at where its rhythms are
    assert {one.rule for one in findings} == set(Rule) - {Rule.SILENCE}
    assert all(one.remedy and "\n" not in one.summary + one.remedy for one in findings)


# --- sums ---------------------------------------------------------------------------------


def test_the_busiest_hour_is_twelve_slices_in_a_row() -> None:
    points = [point("accepted", 10, "default", minutes_ago=5 * n) for n in range(1, 30)]
    points += [point("accepted", 1, "promo", minutes_ago=60 * n) for n in range(1, 5)]
    assert busiest_hour(points, until_ms=NOW_MS) == {"default": 120, "promo": 1}
    assert busiest_hour(points, until_ms=NOW_MS - HOUR_MS)["default"] == 120
    assert busiest_hour(points, until_ms=NOW_MS - 140 * MINUTE_MS) == {
        "default": 10,
        "promo": 1,
    }
