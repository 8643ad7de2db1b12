"""Mail that does not move by itself, and what to do about it. Pure; see docs/states.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from relaygw.mail.clock import utc_text
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.keys import packed
from relaygw.mail.outcome import Scope
from relaygw.mail.standing_mail import HeldMail, MailInHand
from relaygw.mail.words import age, counted
from relaygw.policy.router import provider_of_route, provider_route, providers_of
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Stream

ROLLING_S = 900.0
Key = TypeVar("Key")
Item = TypeVar("Item")
_STEPS_TO_OPEN = 6  # greeting or TLS, EHLO, STARTTLS, EHLO, two of AUTH
_STEPS_OF_MAIL = 3  # MAIL, RCPT, DATA: pipelined replies come together
_LEAST_WINDOW = 4  # deliveries that a worker has at hand of a slow route


CONTENT = "content"  # why mail is held that no provider of its route can be given as it is
_WORDS = {
    HoldCode.LOST_PROVIDER: HoldCode.IN_DOUBT.value,
    HoldCode.NEEDS_8BITMIME: CONTENT,
    HoldCode.HEADER: CONTENT,
    HoldCode.PROVIDER_DOWN: HoldCode.OTHER.value,  # nothing is held for these
    HoldCode.REFUSED_ALIKE: HoldCode.OTHER.value,
}


def why_held(code: HoldCode) -> str:
    """Return the word for what is held: the code's own, or that of several."""
    return _WORDS.get(code, code.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What waits on a route, and when the oldest of it was accepted."""

    route: str
    deliveries: int
    accepted_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the queue has that may stand still."""

    held: Sequence[HeldMail] = ()
    in_hand: Sequence[MailInHand] = ()  # for longer than `shortest_in_hand_s`
    lanes: Sequence[Lane] = ()
    holds: frozenset[tuple[str, str]] = frozenset()  # in force: scope and key
    ending: frozenset[str] = frozenset()  # standing holds that end by themselves
    others: Sequence[str] = ()  # workers with other settings: they may know other routes
    home: str | None = None  # the machine that the queue belongs to, where this is another one


@dataclass(frozen=True, slots=True, kw_only=True)
class Untended:
    """What waits for somebody."""

    kind: str  # a word of `why_held`, `route_gone`, `stuck` or `instance_lost`
    rule: Rule
    key: str  # the kind, the route, or the host
    deliveries: int
    since_ms: int | None  # the longest of it; None: nobody knows
    summary: str
    remedy: str
    examples: tuple[str, ...] = ()  # queue ids
    is_told: bool = True  # False: status shows it, an alert would come too early
    alert: str = ""  # what an alert says, if not `summary`: its text stays as it begins


ROUTE_GONE = "route_gone"
STUCK = "stuck"
OTHER_MACHINE = "other_machine"
AWAY_REMEDY = (
    "if this is the machine that sends: relaygw db adopt; on a copy of it: set mode: staging, and "
    "reload"
)
_HELD: dict[str, tuple[str, str]] = {
    HoldCode.MODE.value: (
        "the mode or the recipient lists do not permit it",
        "correct mode and recipients and reload: it is then checked again",
    ),
    HoldCode.POISON.value: (
        "workers failed or died with it three times",
        "the log shows the error, and whether the provider may have it; then use relaygw queue "
        "release --reason poison to try it again",
    ),
    HoldCode.IN_DOUBT.value: (
        "a provider may have taken it, so it is not retried automatically",
        "ask the provider which of them it accepted, then use relaygw queue release or delete "
        "(relaygw queue list --reason doubt)",
    ),
    HoldCode.SENDER_REFUSED.value: (
        "its sender was refused, but that hold has ended",
        "relaygw queue release --reason 'is refused by' tries it again",
    ),
    HoldCode.NO_SENDER.value: (
        "no provider of its route may send as its sender",
        "add the sender to senders of a provider of the route and reload: it is then checked "
        "again; or relaygw queue move --reason 'may send as' --to PROVIDER",
    ),
    HoldCode.OVER_QUOTA.value: (
        "it has more recipients than the daily_quota of its route",
        "raise daily_quota and reload: it is then checked again; or relaygw queue move --reason "
        "daily_quota --to PROVIDER",
    ),
    CONTENT: (
        "no provider of its route can accept it as it is",
        "relaygw queue explain ID shows the obstacle; then use relaygw queue move --id ID --to "
        "PROVIDER, or release",
    ),
    HoldCode.RECOVERED.value: (
        "it comes from a damaged queue, and may have been sent already",
        "check the mail log, then use relaygw queue release --reason recovered, or delete",
    ),
    HoldCode.RESTORED.value: (
        "it comes from a backup, and may have been sent since",
        "check the mail log, then use relaygw queue release --reason restored, or delete",
    ),
    HoldCode.GUARD.value: (
        "the guard holds its class of mail",
        "relaygw guard list shows which; relaygw guard release sends it, relaygw queue delete "
        "--reason 'held by the guard' deletes it",
    ),
    HoldCode.STORM.value: (
        "the same mail went to the same recipient too often",
        "relaygw queue list --reason storm shows it; then use relaygw queue release or delete",
    ),
    HoldCode.CONTENT_CHECK.value: (
        "the content check found what must not be mailed",
        "relaygw queue list --reason 'content check' shows it; then use relaygw queue release or "
        "delete",
    ),
    HoldCode.OPERATOR.value: (
        "an operator holds it",
        "relaygw queue release --reason 'operator:' releases it",
    ),
    HoldCode.STANDING.value: (
        "a standing hold keeps it",
        "relaygw hold list shows which; relaygw hold end ID ends it, and its mail is due",
    ),
    HoldCode.OTHER.value: ("", "relaygw queue explain ID shows why, and what to do"),
}
"""What is told of held mail: why, and the remedy; docs/states.md has a row for each."""
_KNOWN = frozenset({HoldCode.OPERATOR.value, HoldCode.STANDING.value})
"""Who holds mail for these knows of it at first."""
KINDS = (*_HELD, ROUTE_GONE, STUCK, OTHER_MACHINE)


def untended(standing: Standing, settings: Settings, *, now_ms: int) -> list[Untended]:
    """Return the mail that waits for somebody, the longest held first."""
    return [
        *_away(standing),
        *_held(standing, settings, now_ms),
        *_without_route(standing, settings, now_ms),
        *_stuck(standing.in_hand, settings, now_ms),
    ]


# --- on another machine -------------------------------------------------------------------


def away_words(home: str) -> str:
    """Return why nothing is sent, as a sentence."""
    return (
        f"nothing is sent: the queue belongs to {home}, and this one may be a "
        "copy of it; mail is accepted, and waits"
    )


def _away(standing: Standing) -> Iterator[Untended]:
    if standing.home is not None:
        yield Untended(
            kind=OTHER_MACHINE,
            rule=Rule.HELD,
            key=OTHER_MACHINE,
            deliveries=sum(lane.deliveries for lane in standing.lanes),
            since_ms=None,
            summary=away_words(standing.home),
            remedy=AWAY_REMEDY,
        )


# --- held ---------------------------------------------------------------------------------


def _held(standing: Standing, settings: Settings, now_ms: int) -> Iterator[Untended]:
    alone = (
        held_mail for held_mail in standing.held if not _is_attended(held_mail.cause, standing)
    )
    for why, groups in grouped(
        (why_held(held_mail.cause.code), held_mail) for held_mail in alone
    ).items():
        words, remedy = _HELD[why]
        oldest = min(groups, key=lambda group: group.since_ms)
        what = words or oldest.cause.sentence[:100] or "the reason is not recorded"
        number = sum(group.deliveries for group in groups)
        age_s = (now_ms - oldest.since_ms) / 1000
        many = f"{deliveries(number)} {'is' if number == 1 else 'are'} held"
        more = number - len(oldest.examples)
        of = f"({' '.join(oldest.examples)}{f' and {more} more' if more > 0 else ''}): {what}"
        yield Untended(
            kind=why,
            rule=Rule.HELD,
            key=why,
            deliveries=number,
            since_ms=oldest.since_ms,
            summary=f"{many}, the longest for {age(now_ms - oldest.since_ms)} {of}",
            alert=f"mail is held since {utc_text(oldest.since_ms)}, at first "
            f"{deliveries(number)} {of}",
            remedy=remedy,
            examples=oldest.examples,
            # who forgets what they hold is told
            is_told=why not in _KNOWN or age_s > settings.alert_rules.queue_age,
        )


def _is_attended(cause: HoldCause, standing: Standing) -> bool:
    """True for what a hold in force is about that ends by itself, or by a probe; it is shown."""
    if cause.hold_id is not None:
        return cause.hold_id in standing.ending
    if cause.code is not HoldCode.SENDER_REFUSED:
        return False
    names = ((Scope.SENDER_DOMAIN, packed(name, cause.domain)) for name in cause.providers)
    return any(name in standing.holds for name in names)


# --- a route that is gone -----------------------------------------------------------------


def known_routes(settings: Settings) -> frozenset[str]:
    """Return the routes that a worker with these settings takes mail of."""
    asides = (provider_route(name, stream) for name in settings.providers for stream in Stream)
    return frozenset([*(route.name for route in settings.routes), *asides])


def gone_words(route: str) -> str:
    """Return a route that is not in the configuration, as the middle of a sentence."""
    provider = provider_of_route(route)
    what = f"route {route}" if provider is None else f"provider {provider}"
    return f"{what}, which is not in the configuration"


def gone_remedy(route: str) -> str:
    """Return the remedy for mail of such a route."""
    what = "route" if provider_of_route(route) is None else "provider"
    return (
        f"add the {what} to the configuration again and reload, or relaygw queue move --route "
        f"{route} --to PROVIDER (--force for what may have been sent already)"
    )


def _without_route(standing: Standing, settings: Settings, now_ms: int) -> Iterator[Untended]:
    known = known_routes(settings)
    gone = ((lane.route, lane) for lane in standing.lanes if lane.route not in known)
    for route, mine in grouped(gone).items():
        number = sum(lane.deliveries for lane in mine)
        age_s = (now_ms - min(lane.accepted_at_ms for lane in mine)) / 1000
        who = "no worker sends"
        if standing.others:
            who = f"only {', '.join(standing.others)}, with other settings, may send"
        yield Untended(
            kind=ROUTE_GONE,
            rule=Rule.ROUTE_GONE,
            key=route,
            deliveries=number,
            since_ms=None,
            summary=f"{who} {deliveries(number)} of {gone_words(route)}",
            remedy=gone_remedy(route),
            is_told=not standing.others or age_s > ROLLING_S,
        )


# --- in hand for too long -----------------------------------------------------------------


def longest_in_hand_s(provider: Provider, recipients: int) -> float:
    """Return how long a worker may have a delivery: an attempt, and what goes before it."""
    limits = provider.timeouts
    parts = max(1, -(-recipients // provider.max_recipients))
    opening_s = limits.connect + _STEPS_TO_OPEN * limits.command
    # the content has one more `command`: what is sent is taken within it, piece by piece
    part_s = (_STEPS_OF_MAIL + 1) * limits.command + limits.final_reply
    return opening_s + parts * part_s + turn_s(provider)


def turn_s(provider: Provider) -> float:
    """Return how long a delivery in hand may wait for its turn at the provider's rate."""
    return 0.0 if provider.rate is None else _LEAST_WINDOW / provider.rate.per_s


def shortest_in_hand_s(settings: Settings) -> float:
    """Return for how long nothing in hand is worth a look."""
    return min(
        (longest_in_hand_s(provider, 1) for provider in settings.providers.values()), default=3600.0
    )


def _stuck(in_hand: Iterable[MailInHand], settings: Settings, now_ms: int) -> Iterator[Untended]:
    late = (
        mail_in_hand
        for mail_in_hand in in_hand
        if now_ms - mail_in_hand.since_ms
        > most_in_hand_s(settings, mail_in_hand.route, mail_in_hand.recipients) * 1000
    )
    for worker, mine in grouped(
        (mail_in_hand.worker, mail_in_hand) for mail_in_hand in late
    ).items():
        first = min(mine, key=lambda mail_in_hand: mail_in_hand.since_ms)
        yield Untended(
            kind=STUCK,
            rule=Rule.STUCK,
            key=worker,
            deliveries=len(mine),
            since_ms=first.since_ms,
            summary=f"delivery worker {first.pid} on {worker} is sending {deliveries(len(mine))} "
            f"for longer than an attempt lasts, {first.queue_id} for "
            f"{age(now_ms - first.since_ms)}",
            remedy=f"restart the gateway on {worker}: they are queued again; one that is being "
            "sent may be sent twice",
            examples=tuple(dict.fromkeys(mail_in_hand.queue_id for mail_in_hand in mine[:2])),
        )


def most_in_hand_s(settings: Settings, route: str, recipients: int) -> float:
    """Return how long a worker may have a delivery of a route, by whatever provider it goes."""
    used = [settings.providers[name] for name in providers_of(settings, route)]
    limits = [
        longest_in_hand_s(provider, recipients) for provider in used or settings.providers.values()
    ]
    return max(limits, default=3600.0)


def grouped(pairs: Iterable[tuple[Key, Item]]) -> dict[Key, list[Item]]:
    """Return the items by key, in their order."""
    groups: defaultdict[Key, list[Item]] = defaultdict(list)
    for key, member in pairs:
        groups[key].append(member)
    return groups


# --- words --------------------------------------------------------------------------------


def deliveries(number: int) -> str:
    """Return `1 delivery`, `3 deliveries`."""
    return counted(number, "delivery", "deliveries")
