"""Rules about the gateway itself."""

from __future__ import annotations

import json
from typing import Any

from relaygw.alerting.facts import Finding, FleetFacts, QueueFacts
from relaygw.alerting.gateway_rules import own_findings
from relaygw.settings.alerts import AlertRules
from relaygw.store.audit import AuditEntry
from relaygw.store.visitors import TokenUse
from relaygw.store.watch import HistoryPoint

NOW_MS = 1_795_600_000_000


def found(**facts: Any) -> list[Finding]:
    queue = QueueFacts(**facts)
    return list(own_findings(FleetFacts(now_ms=NOW_MS, queue=queue), AlertRules()))


def change(host: str, *changed: str, what: str = "w", at_ms: int = NOW_MS) -> AuditEntry:
    detail = {"number": 2, "changed": changed, "what": what, "who": ["relaygw.yaml, of eve"]}
    return AuditEntry(
        at_ms=at_ms,
        actor=f"reload on {host}",
        action="settings.change",
        target=host,
        affected=len(changed),
        detail=json.dumps(detail),
    )


def failures(number: int, label: str, *, minutes_ago: int = 0) -> HistoryPoint:
    at_ms = NOW_MS - NOW_MS % 300_000 - minutes_ago * 60_000
    return HistoryPoint(slice_at_ms=at_ms, series="login_failures", label=label, amount=number)


def use(token: str, kind: str, value: str, at_ms: int = NOW_MS - 5000) -> TokenUse:
    return TokenUse(token=token, kind=kind, value=value, first_seen_ms=at_ms, last_seen_ms=at_ms)


def test_a_change_is_told_with_its_keys_and_who() -> None:
    (one,) = found(changes=[change("gw1", "mode", "providers.x (new)")])
    assert one.kind == ("config_changed", "w")
    assert one.since_ms == NOW_MS
    for word in ("gw1", "reload", "mode, providers.x (new)", "of eve"):
        assert word in one.summary


def test_the_same_change_of_a_fleet_is_told_once_and_another_beside_it() -> None:
    same = [change(f"gw{n}", "mode", at_ms=NOW_MS - n * 1000) for n in range(9)]
    rolled, other = found(changes=[*same, change("gw1", "mode", what="back")])
    assert (rolled.key, other.key) == ("w", "back")
    assert rolled.since_ms == NOW_MS - 8000
    assert "and 6 more" in rolled.summary


def test_a_first_start_is_no_change_and_many_keys_are_cut() -> None:
    assert found(changes=[change("gw1")]) == []
    (one,) = found(changes=[change("gw1", *(f"k{n}\x1b[2J" for n in range(100)))])
    assert len(one.summary) < 500
    assert "\x1b" not in one.summary


def test_failed_logins_are_told_by_door_from_ten_on_with_the_networks() -> None:
    smtp = [failures(4, "smtp 192.0.2.0/24"), failures(4, "smtp other", minutes_ago=30)]
    assert found(points=[*smtp, failures(9, "web 192.0.2.0/24")]) == []
    old = failures(90, "smtp 192.0.2.0/24", minutes_ago=70)
    assert found(points=[*smtp, old]) == []
    (one,) = found(points=[*smtp, failures(3, "smtp 198.51.100.0/24")])
    assert one.kind == ("login_failures", "smtp")
    assert "192.0.2.0/24 (4), 198.51.100.0/24 (3), others (4)" in one.summary


def test_a_stranger_is_told_once_a_token() -> None:
    uses = [
        use("ci", "agent", "evil"),
        use("ci", "network", "192.0.2.0/24"),
        use("qa", "agent", "x"),
    ]
    first, second = found(strangers=uses)
    assert (first.key, second.key) == ("ci", "qa")
    assert "by the user agent evil, from 192.0.2.0/24" in first.summary


def test_a_strangers_user_agent_puts_no_text_into_an_alert() -> None:
    for agent in ("Call +49 1234 now", "curl; pay us", "Grüße", "(none)", "x" * 99, "a!b"):
        (one,) = found(strangers=[use("ci", "agent", agent)])
        for word in ("+49", "pay", "Gr", "none)", "xxx", "a!b"):
            assert word not in one.summary
    (one,) = found(strangers=[use("ci", "agent", "Scraper (+http:)")])
    assert "by the user agent Scraper, which" in one.summary
