"""Rules about the gateway itself: who changed it or tries to get in, what hangs. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from relaygw.alerting.facts import Finding
from relaygw.alerting.history import HOUR_MS, totals
from relaygw.mail.clock import utc_text
from relaygw.mail.keys import packed, unpacked
from relaygw.mail.words import printable, some_of
from relaygw.observe.history import Series
from relaygw.observe.labels import OTHER
from relaygw.policy.settings_change import parse_change
from relaygw.settings.alerts import AlertRules, Rule
from relaygw.store.audit import AuditEntry
from relaygw.store.visitors import TokenUse

if TYPE_CHECKING:
    from relaygw.alerting.facts import FleetFacts, HostFacts
    from relaygw.observe.hang import Hang

_MOST_KEYS = 8
_MOST_NAMES = 3
_PROGRAM = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,29}(?![^\s/;(])")
_HANG_REMEDY = (
    "nothing, if somebody stopped or debugged it; if it comes again, look in the log for what "
    "came before, and at the disk and the memory of the machine; mail that a killed delivery was "
    "sending may be sent twice"
)
_DOORS = {"smtp": "by SMTP", "web": "at the web pages and the API"}


def own_findings(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    """Return the events of the gateway that somebody should know of."""
    yield from _config_changed(facts)
    yield from _login_failures(facts, rules)
    yield from _api_strangers(facts)


def process_findings(facts: HostFacts) -> Iterator[Finding]:
    """Return the supervisor's notes of a host: hangs, and a reload it refused."""
    yield from _hangs(facts)
    if facts.refused_reload is not None:
        yield Finding(
            Rule.RELOAD_REFUSED,
            f"{facts.host} reload",
            f"{facts.host} refused its last reload, and runs on with the settings of before: "
            f"{printable(facts.refused_reload.reason)}",
            "correct the configuration until relaygw check is content, then reload again",
            facts.refused_reload.at_ms,
            is_certain=True,
        )


def _hangs(facts: HostFacts) -> Iterator[Finding]:
    """Of each role the last time."""
    last = {
        stall.role: stall for stall in sorted(facts.hangs, key=lambda stall: stall.ended_ms is None)
    }
    for role, hang in last.items():
        yield Finding(
            Rule.ROLE_HUNG,
            packed(facts.host, role),
            f"{role} (pid {hang.pid}) on {facts.host} {_hang_words(hang)}",
            _HANG_REMEDY,
            hang.since_ms,
            is_certain=True,
        )


def _hang_words(hang: Hang) -> str:
    since = utc_text(hang.since_ms)
    if hang.ended_ms is None:
        return f"has hung since {since}; unless it goes on it is killed and restarted"
    until = f"hung from {since} to {utc_text(hang.ended_ms)}"
    return f"{until}, and goes on" if hang.is_back else f"{until}; another process has its place"


def _config_changed(facts: FleetFacts) -> Iterator[Finding]:
    """Tell of a change once, also where several gateways made it one after the other."""
    same: defaultdict[str, list[AuditEntry]] = defaultdict(list)
    for entry in facts.queue.changes:
        change = parse_change(entry.detail)
        if change.changed:
            same[change.what].append(entry)
    for what, entries in same.items():
        first = entries[-1]
        change = parse_change(first.detail)
        hosts = some_of(sorted({audit_entry.target for audit_entry in entries}), _MOST_NAMES)
        by = unpacked(first.actor)[0]
        whose = some_of(change.who, _MOST_NAMES) or "none of its files was written since"
        yield Finding(
            Rule.CONFIG_CHANGED,
            what,
            printable(
                f"the configuration of {hosts} changed by a {by}: "
                f"{some_of(change.changed, _MOST_KEYS)}; {whose}"
            ),
            "nothing, if one of you or your deployment did this; if nobody knows of it, look who "
            "may write the file; relaygw audit --action settings.change lists all changes",
            first.at_ms,
            is_certain=True,
        )


def _login_failures(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    since_ms = facts.now_ms - HOUR_MS
    failed = totals(facts.queue.points, Series.LOGIN_FAILURES, since_ms=since_ms)
    for kind, door in _DOORS.items():
        mine = {
            network.removeprefix(f"{kind} "): number
            for network, number in failed.items()
            if network.startswith(f"{kind} ")
        }
        count = sum(mine.values())
        if count >= rules.login_failures:
            most = sorted(mine, key=lambda network: (network == OTHER, -mine[network], network))
            named = [
                f"{'others' if network == OTHER else network} ({mine[network]})" for network in most
            ]
            yield Finding(
                Rule.LOGIN_FAILURES,
                kind,
                f"{count} logins {door} failed within an hour, from {some_of(named, _MOST_NAMES)}",
                "the log names the users that exist; correct the password of the program, or keep "
                "that network out: a firewall, web.networks",
                is_certain=True,
            )


def _api_strangers(facts: FleetFacts) -> Iterator[Finding]:
    by_token: defaultdict[str, list[TokenUse]] = defaultdict(list)
    for use in facts.queue.strangers:
        by_token[use.token].append(use)
    for token, uses in by_token.items():
        new = list(dict.fromkeys(_used_words(token_use) for token_use in uses))
        yield Finding(
            Rule.API_STRANGER,
            token,
            printable(
                f"the token {token} of the API is used {some_of(new, _MOST_NAMES)}, which it was "
                "never used with before"
            ),
            "if that is not one of your programs, a stranger knows the token: write a new one, and "
            "reload; relaygw users list shows who may log in",
            min(token_use.first_seen_ms for token_use in uses),
            is_certain=True,
        )


def _used_words(use: TokenUse) -> str:
    """Return the user of a token; of a user agent, a stranger's text, the name alone."""
    if use.kind == "network":
        return f"from {use.value}"
    name = _PROGRAM.match(use.value)
    return f"by the user agent {name[0]}" if name else "by a user agent without a usual name"
