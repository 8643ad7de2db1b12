"""The rules: what of the facts is trouble. Pure; docs/operating.md has the table.

Whoever is told should know what to do, so each finding has a remedy, which names a command
where there is one.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import chain

from relaygw.alerting.facts import Finding, FleetFacts, HostFacts
from relaygw.alerting.gateway_rules import own_findings, process_findings
from relaygw.alerting.history import HOUR_MS, total, totals, waiting_then
from relaygw.mail.keys import packed
from relaygw.mail.outcome import Scope
from relaygw.mail.state import DeliveryState
from relaygw.mail.verdict import Kind
from relaygw.mail.words import span
from relaygw.observe.history import Series
from relaygw.policy.lost_gateways import lost_gateways
from relaygw.policy.receivers import trouble_of
from relaygw.policy.router import providers_of
from relaygw.policy.storms import told_of
from relaygw.policy.untended import most_in_hand_s, turn_s
from relaygw.settings.alerts import AlertRules, Rule
from relaygw.settings.model import Settings
from relaygw.settings.routes import Stream
from relaygw.settings.section import format_duration
from relaygw.settings.webhooks import named_webhooks
from relaygw.store.holds import PAUSED, STOPS, UNREACHABLE, Hold
from relaygw.upstream.failure import known_remedy

HOST_RULES = frozenset(
    {
        Rule.DISK_LOW,
        Rule.CERTIFICATE_EXPIRING,
        Rule.MAILDROP_STUCK,
        Rule.ROLE_HUNG,
        Rule.RELOAD_REFUSED,
    }
)
"""Rules whose keys begin with the name of a host; the others are about the shared queue."""
QUEUE_RULES = frozenset(
    {
        Rule.PROVIDER_PAUSED,
        *(Rule.NO_DELIVERY, Rule.FRONT_REFUSING, Rule.QUEUE_AGE, Rule.QUEUE_GROWTH),
        *(Rule.BOUNCE_RATE, Rule.SENDER_COMPLAINTS, Rule.SUPPRESSION, Rule.VOLUME_ANOMALY),
        *(Rule.STORM, Rule.QUOTA_NEAR, Rule.IN_DOUBT, Rule.HELD, Rule.ROUTE_GONE, Rule.STUCK),
        *(Rule.WEBHOOK_FAILING, Rule.CONFIG_CHANGED, Rule.LOGIN_FAILURES, Rule.API_STRANGER),
        Rule.LOGIN_ENDS,
    }
)
"""Rules that look at `FleetFacts.queue`, which is not looked at as often as the rest."""
GROWTH_LEAST = 1000
REFUSALS = ("451 4.3.", "452 4.3.")
_GROWTH_WINDOW_MS = (25 * 60_000, 35 * 60_000)
_REFUSALS_WINDOW_MS = 300_000
_UNREACHED_S = 20
_UNREACHED_REMEDY = (
    "relaygw check --online tests it; mail waits, or takes the next provider of its route"
)
_UNANSWERED_REMEDY = (
    "relaygw check --online shows whether it answers; its time limits (timeouts) end the wait"
)
_LIST_HOLDS = "relaygw provider list shows why; relaygw provider release ends it"


def fleet_findings(facts: FleetFacts, settings: Settings) -> list[Finding]:
    """Return the troubles of the queue and its providers."""
    rules = settings.alert_rules
    found = chain(
        _providers(facts, settings),
        _paused(facts, settings),
        _unanswered(facts, settings),
        _no_delivery(facts, rules),
        _front_refusing(facts, rules),
        _queue_age(facts, rules),
        _queue_growth(facts, rules),
        _bounce_rate(facts, rules),
        _complaints(facts, rules),
        _suppression(facts, rules),
        _volume(facts, rules),
        _storms(facts, settings),
        _quota(facts, rules),
        _in_doubt(facts),
        _untended(facts),
        _clock_step(facts),
        _endings(facts),
        _webhooks(facts, settings),
        own_findings(facts, rules),
    )
    return list({finding.kind: finding for finding in found}.values())


def host_findings(facts: HostFacts, settings: Settings) -> list[Finding]:
    """Return the troubles of one host."""
    rules, host, found = settings.alert_rules, facts.host, []
    for directory, free in facts.volumes.items():
        if free < rules.disk_free:
            summary = f"{_percent(free)} of the volume of {directory} on {host} is free"
            least = f"below {_percent(settings.queue.min_free)} (queue.min_free)"
            remedy = f"free some space; {least} new mail is refused"
            found.append(Finding(Rule.DISK_LOW, packed(host, str(directory)), summary, remedy))
    for listener, left_s in facts.certificates.items():
        if left_s < rules.certificate_left:
            summary = f"the certificate of {listener} on {host} {_end_words(left_s)}"
            remedy = "renew it; the file is reloaded automatically"
            found.append(
                Finding(Rule.CERTIFICATE_EXPIRING, packed(host, str(listener)), summary, remedy)
            )
    for listener, problem in facts.unusable.items():
        summary = f"{host} cannot use the file of the certificate for {listener}: {problem}"
        remedy = (
            "relaygw check shows what is wrong; until then clients see the one that was loaded "
            "before, and where none was, TLS is not offered"
        )
        found.append(
            Finding(Rule.CERTIFICATE_EXPIRING, packed(host, str(listener)), summary, remedy)
        )
    left = facts.maildrop
    if left is not None and left.summary is not None:
        # mail of local programs, who were told that it is on its way
        summary = f"on {host}: {left.summary}"
        found.append(
            Finding(Rule.MAILDROP_STUCK, packed(host, str(left.path)), summary, left.remedy)
        )
    return [*found, *process_findings(facts)]


def _providers(facts: FleetFacts, settings: Settings) -> Iterator[Finding]:
    """Look at holds and outages; of several on one provider the outage is what is told."""
    yield from _silent(facts, settings)
    for hold in sorted(facts.holds, key=lambda hold: hold.scope == UNREACHABLE):
        provider = hold.provider
        if provider not in settings.providers:
            continue
        if hold.scope == Scope.CREDENTIAL:
            summary = f"provider {provider} refuses the login: {hold.reason}"
            remedy = hold.remedy.rstrip(".") or "replace it with a valid one"
            remedy += "; a new one is tried automatically, and nothing bounces meanwhile"
            yield Finding(Rule.AUTH_FAILED, hold.key, summary, remedy, hold.since_ms)
        elif hold.scope == UNREACHABLE:
            summary = f"provider {provider} cannot be reached: {hold.reason}"
            remedy = known_remedy(hold.reason) or _UNREACHED_REMEDY
            yield Finding(Rule.PROVIDER_DOWN, hold.key, summary, remedy, hold.since_ms)
        elif hold.scope in (Scope.PROVIDER, Scope.SENDER_DOMAIN):
            remedy = "; ".join(filter(None, [hold.remedy.rstrip("."), _LIST_HOLDS]))
            summary = _held_words(hold)
            yield Finding(Rule.PROVIDER_DOWN, hold.key, summary, remedy, hold.since_ms)


def _paused(facts: FleetFacts, settings: Settings) -> Iterator[Finding]:
    """Find pauses that transactional mail waits behind, as no other provider takes it."""
    before_ms = facts.now_ms - int(settings.alert_rules.paused * 1000)
    stopped = {hold.key for hold in facts.holds if hold.scope in STOPS}
    behind: set[str] = set()
    for lane in facts.queue.lanes:
        is_meant = lane.stream == Stream.TRANSACTIONAL and lane.state is not DeliveryState.HELD
        names = providers_of(settings, lane.route)
        if is_meant and lane.oldest_accepted_at_ms <= before_ms and stopped.issuperset(names):
            behind.update(names)
    for hold in facts.holds:
        if hold.scope == PAUSED and hold.since_ms <= before_ms and hold.key in behind:
            what = f"transactional mail waits for provider {hold.key}, which is paused: "
            remedy = "; ".join(filter(None, [hold.remedy.rstrip("."), _LIST_HOLDS]))
            yield Finding(Rule.PROVIDER_PAUSED, hold.key, what + hold.reason, remedy, hold.since_ms)


def _unanswered(facts: FleetFacts, settings: Settings) -> Iterator[Finding]:
    """Find providers that transactional mail in hand waits for, behind no hold and no rate."""
    stopped = {hold.key for hold in facts.holds if hold.scope in STOPS}
    for lane in facts.queue.lanes:
        names = [name for name in providers_of(settings, lane.route) if name not in stopped]
        is_in_hand = lane.stream == Stream.TRANSACTIONAL and lane.state is DeliveryState.ACTIVE
        if not (is_in_hand and names):
            continue
        since_ms = lane.oldest_changed_at_ms
        waited_s = (facts.now_ms - since_ms) / 1000
        least_s = settings.alert_rules.paused + turn_s(settings.providers[names[0]])
        if least_s <= waited_s <= most_in_hand_s(settings, lane.route, 1):  # after that: _stuck
            what = f"transactional mail waits for a connection or an answer of provider {names[0]}"
            what += f", the first of it for {span(facts.now_ms - since_ms)}"
            yield Finding(Rule.PROVIDER_PAUSED, names[0], what, _UNANSWERED_REMEDY, since_ms)


def _silent(facts: FleetFacts, settings: Settings) -> Iterator[Finding]:
    """Find providers that answer nothing, so that each try to connect takes its full time."""
    for provider, (seconds, reason) in facts.unreached.items():
        if provider in settings.providers and seconds >= _UNREACHED_S:
            why = reason or f"no connection for {_UNREACHED_S} s"
            what = f"provider {provider} cannot be reached: {why}"
            remedy = known_remedy(reason) or _UNREACHED_REMEDY
            since_ms = facts.now_ms - int(seconds * 1000)
            yield Finding(Rule.PROVIDER_DOWN, provider, what, remedy, since_ms)


def _held_words(hold: Hold) -> str:
    if hold.scope == Scope.SENDER_DOMAIN:
        domain = hold.sender_domain or "<>"
        return f"provider {hold.provider} refuses mail from {domain}: {hold.reason}"
    if hold.probe_at_ms is None:
        return f"provider {hold.provider} is held by an operator: {hold.reason}"
    return f"provider {hold.provider} is held: {hold.reason}"


def _no_delivery(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    window_ms = int(rules.no_delivery * 1000)
    since_ms = facts.now_ms - window_ms
    oldest_ms = min(_oldest_by_route(facts).values(), default=facts.now_ms)
    is_quiet = not total(facts.queue.points, Series.ACCEPTED, since_ms=since_ms - window_ms)
    if oldest_ms > since_ms or is_quiet:
        return
    if not total(facts.queue.points, Series.DELIVERED, since_ms=since_ms):
        what = f"mail waits, and none was delivered for {format_duration(rules.no_delivery)}"
        remedy = (
            "relaygw status shows a failing provider and what to do, and relaygw queue shape --by "
            "reason what mail waits for"
        )
        yield Finding(Rule.NO_DELIVERY, "", what, remedy)


def _front_refusing(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    since_ms = facts.now_ms - _REFUSALS_WINDOW_MS
    refused = totals(facts.queue.points, Series.REFUSED, since_ms=since_ms)
    count = sum(number for code, number in refused.items() if code.startswith(REFUSALS))
    if count >= rules.refusals:
        yield Finding(
            Rule.FRONT_REFUSING,
            "",
            f"mail is refused: {count} replies 451 or 452 within a few minutes; clients that do "
            "not retry lose their mail",
            "the log shows the reason: the queue cannot be written, or the disk is full",
        )


def _oldest_by_route(facts: FleetFacts) -> dict[str, int]:
    """Return when the oldest mail was accepted that waits and is not held."""
    oldest: dict[str, int] = {}
    for lane in facts.queue.lanes:
        if lane.state is not DeliveryState.HELD:
            before = oldest.get(lane.route, lane.oldest_accepted_at_ms)
            oldest[lane.route] = min(before, lane.oldest_accepted_at_ms)
    return oldest


def _queue_age(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    for route, oldest_ms in _oldest_by_route(facts).items():
        age_s = (facts.now_ms - oldest_ms) / 1000
        if age_s > rules.queue_age:
            limit = format_duration(rules.queue_age)
            what = f"the oldest mail of route {route} waits for more than {limit}"
            remedy = f"relaygw queue list --route {route} --older-than {limit} shows why"
            yield Finding(Rule.QUEUE_AGE, route, what, remedy)


def _queue_growth(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    least_ms, most_ms = _GROWTH_WINDOW_MS
    then = waiting_then(
        facts.queue.points, from_ms=facts.now_ms - most_ms, until_ms=facts.now_ms - least_ms
    )
    now = sum(lane.deliveries for lane in facts.queue.lanes if lane.state is not DeliveryState.HELD)
    if then is not None and now > GROWTH_LEAST and now - then > rules.queue_growth:
        what = f"{now} messages wait, {now - then} more than half an hour ago"
        remedy = "relaygw status shows which provider is slow, held or at its limit"
        yield Finding(Rule.QUEUE_GROWTH, "", what, remedy)


def _bounce_rate(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    points, since_ms = facts.queue.points, facts.now_ms - HOUR_MS
    delivered = totals(points, Series.DELIVERED, since_ms=since_ms)
    refused = totals(points, Series.BOUNCED, since_ms=since_ms)
    reported = totals(points, Series.VERDICTS, since_ms=since_ms)
    # what is reported is of mail that was taken a while ago
    earlier = totals(points, Series.DELIVERED, since_ms=since_ms - HOUR_MS)
    for provider in sorted({*refused, *earlier}):
        later = reported.get(f"{provider} {Kind.HARD}", 0)
        count = refused.get(provider, 0) + later
        sent = refused.get(provider, 0) + (earlier if later else delivered).get(provider, 0)
        share = count / max(sent, count, 1)
        if share > rules.bounce_rate and count >= rules.bounce_least:
            told = f", {later} of them reported after it was accepted" if later else ""
            yield Finding(
                Rule.BOUNCE_RATE,
                provider,
                f"{_percent(share)} of the mail sent through provider {provider} in the last hour "
                f"bounced ({count} recipients{told})",
                "check the replies in the log; many providers suspend accounts above 5 %",
            )


def _complaints(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    for domain, (number, sent) in facts.queue.complaints.items():
        share = number / sent
        is_one = "." in domain  # else it stands for several
        of_domain = f" --sender-domain {shlex.quote(domain)}" if is_one else ""
        if share > rules.complaint_rate and number >= rules.complaint_least:
            yield Finding(
                Rule.SENDER_COMPLAINTS,
                domain,
                f"{_percent(share)} of the recipients of mail from {domain or '<>'} reported it as "
                f"spam within a day ({number} of {sent})",
                f"relaygw queue list --result complained{of_domain} shows it; mailbox services "
                "block senders above 0.3 %",
            )


def _suppression(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    since_ms, count = facts.now_ms - HOUR_MS, facts.queue.suppressed
    delivered = total(facts.queue.points, Series.DELIVERED, since_ms=since_ms)
    share = count / max(1, count + delivered)
    if share > rules.bounce_rate and count >= rules.bounce_least:
        yield Finding(
            Rule.SUPPRESSION,
            "",
            f"{count} addresses were suppressed in the last hour, {_percent(share)} of those that "
            "got mail: they bounced for good, complained or unsubscribed",
            "relaygw suppress list shows which and why; if a provider was wrong, relaygw suppress "
            "remove lifts them",
        )


def _volume(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    usual = facts.queue.busiest_hour
    if usual is None:
        return
    accepted = totals(facts.queue.points, Series.ACCEPTED, since_ms=facts.now_ms - HOUR_MS)
    for route, count in accepted.items():
        most = usual.get(route, 0)
        if count >= rules.volume_least and count > most * rules.volume_factor:
            yield Finding(
                Rule.VOLUME_ANOMALY,
                route,
                f"{count} recipients of route {route} within an hour; the busiest hour of the "
                f"last days had {most}",
                f"check who sends it: relaygw queue list --route {route}; relaygw provider hold "
                "stops it, and no mail is lost",
            )


def _storms(facts: FleetFacts, settings: Settings) -> Iterator[Finding]:
    for told in told_of(facts.queue.storms, settings.storms):
        yield Finding(Rule.STORM, *told)


def _quota(facts: FleetFacts, rules: AlertRules) -> Iterator[Finding]:
    for provider, share in facts.queue.quotas.items():
        if share >= rules.quota_near:
            what = f"provider {provider} has used {_percent(share)} of its daily quota"
            remedy = (
                "raise daily_quota, or add another provider to its routes; mail beyond the quota "
                "waits"
            )
            yield Finding(Rule.QUOTA_NEAR, provider, what, remedy)


def _in_doubt(facts: FleetFacts) -> Iterator[Finding]:
    for provider, count in facts.queue.doubts.items():
        yield Finding(
            Rule.IN_DOUBT,
            provider,
            f"provider {provider} lost the connection after the final dot of {count} messages: "
            "they may be sent twice",
            "relaygw queue list --reason in_doubt shows those that are held; ask the provider "
            "which of them it accepted, then use relaygw queue release or delete",
        )


def _untended(facts: FleetFacts) -> Iterator[Finding]:
    for untended in (*facts.queue.untended, *lost_gateways(facts.lost)):
        if untended.is_told:
            summary = untended.alert or untended.summary
            yield Finding(untended.rule, untended.key, summary, untended.remedy, untended.since_ms)


def _clock_step(facts: FleetFacts) -> Iterator[Finding]:
    if facts.clock_step is not None:
        yield Finding(
            Rule.CLOCK_STEP,
            facts.clock_step,  # a step back after one forward is another incident
            f"the clock of the queue was {facts.clock_step}",
            "waiting mail needs no action; keep the clock in sync by NTP, on the host or the "
            "database server: timedatectl shows whether it is",
        )


def _endings(facts: FleetFacts) -> Iterator[Finding]:
    for ending in facts.queue.endings:
        what = ending.words(facts.now_ms)
        yield Finding(Rule.LOGIN_ENDS, ending.provider, what, ending.remedy, is_certain=True)


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def _end_words(left_s: float) -> str:
    if left_s <= 0:
        return "has expired"
    days, hours = int(left_s // 86400), int(left_s % 86400 // 3600)
    return f"expires in {days} days" if days > 1 else f"expires in {days * 24 + hours} hours"


def _webhooks(facts: FleetFacts, settings: Settings) -> Iterator[Finding]:
    """Look at receivers of webhooks: nobody else notices that one is told nothing."""
    names = {receiver.endpoint: name for name, receiver in named_webhooks(settings).items()}
    for webhook in facts.queue.webhooks:
        if webhook.endpoint in names:
            name = names[webhook.endpoint]
            trouble = trouble_of(name, webhook, now_ms=facts.now_ms)
            if trouble is not None and trouble.is_told:
                what, remedy = trouble.summary, trouble.remedy
                yield Finding(Rule.WEBHOOK_FAILING, name, what, remedy, trouble.since_ms)
