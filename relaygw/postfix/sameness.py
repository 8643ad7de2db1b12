"""The table of sameness: what Postfix does with mail and what relaygw does, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from relaygw.policy.recipients import Fate as OwnFate
from relaygw.policy.recipients import RecipientPolicy
from relaygw.policy.rewriting import Rewriter
from relaygw.policy.router import Router
from relaygw.postfix.access import SENDER, access_keys, access_tables
from relaygw.postfix.classes import judged_senders, sample
from relaygw.postfix.failures import Doubts, Failures
from relaygw.postfix.main_cf import PostfixUnreadable
from relaygw.postfix.maps import Postfix, Table
from relaygw.postfix.providers import policy_of
from relaygw.postfix.resolve import Fate, Resolver, Stop, address_keys
from relaygw.postfix.rewriting import INCLUDE, Answer, Rewriting
from relaygw.postfix.translation import Translation
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.settings.secrets import parse_user_name

MAX_PAIRS = 5000
_FATES = {
    Fate.SEND: OwnFate.DELIVER, Fate.REFUSE: OwnFate.REJECT, Fate.DISCARD: OwnFate.DROP,
}  # fmt: skip
_SENT = (Fate.SEND, Fate.REDIRECT, Fate.FILTER)  # somebody gets it
Pair = tuple[str, str]


class Result(StrEnum):
    """How far two ways agree."""

    SAME = "same"
    KEPT = "sent by neither"  # but what becomes of it differs
    STRICTER = "stricter"  # TLS that asks for more; the way is the same
    UNPROVEN = "not proven"  # the DNS decides, or what is not followed here
    OTHER = "not the same"


Difference = tuple[Result, str]


@dataclass(frozen=True, slots=True)
class Row:
    """One mail."""

    sender: str
    recipient: str
    result: Result
    postfix: str
    relaygw: str
    why: str = ""


def pairs_of(made: Translation) -> list[Pair]:
    """Return mail of each class of senders to each class of recipients, as many as is useful.

    What is rewritten is a class, too.
    """
    routing, rewritten = made.routing, made.rewritten
    judged = judged_senders(made.rewriting.resolver)
    lists = (([*routing.senders, *judged], "senders"), (routing.recipients, "recipients"))
    senders, recipients = (
        [sample(one) for one in dict.fromkeys((*classes, *rewritten.get(key, ())))]
        for classes, key in lists
    )
    senders.append("")
    if len(senders) * len(recipients) <= MAX_PAIRS:
        return [(sender, recipient) for sender in senders for recipient in recipients]
    rest = sample("")
    return [*((one, rest) for one in senders), *((rest, one) for one in recipients)]


class Comparison:
    """Compares a configuration of Postfix with the settings that were made of it."""

    def __init__(
        self, rewriting: Rewriting, settings: Settings, secrets: Mapping[str, str]
    ) -> None:
        self._rewriting = rewriting
        self._doubts = Doubts(rewriting)
        self._failures = Failures(rewriting.resolver)
        self._settings = settings
        self._secrets = secrets
        self._router = Router(settings.routes)
        self._policy = RecipientPolicy(settings.mode, settings.recipients)
        self._rewriter = Rewriter(settings.rewrite, settings.hostname)

    def rows(self, pairs: Iterable[Pair]) -> Iterator[Row]:
        """Yield a row for each pair."""
        for sender, recipient in pairs:
            yield self._row(sender, recipient)

    def _row(self, sender: str, recipient: str) -> Row:
        try:
            answer = self._rewriting.answer(sender, recipient)
        except PostfixUnreadable as error:
            return Row(sender, recipient, Result.OTHER, "no answer", "", str(error))
        own_sender = self._rewriter.sender(sender)
        own_recipient = self._rewriter.recipients(recipient)[0]
        fate = self._policy.decide(own_recipient).fate
        route = self._router.route_for(sender=own_sender, recipient=own_recipient, headers={})
        is_sent = fate is OwnFate.DELIVER and route is not None
        names = route.providers if is_sent and route is not None else ()
        own = self._words(names) if is_sent else fate.value
        found = list(_fate_differences(answer, fate))
        if is_sent:
            failures = self._failures.of(answer.delivery)
            found += [(Result.OTHER, f"Postfix: deferred: {one}") for one in failures]
        if is_sent and answer.delivery.fate is Fate.SEND:
            found += _address_differences(answer, own_sender, own_recipient)
            found += self._way_differences(answer, names)
        found += _others(answer)
        places = f" ({'; '.join(answer.delivery.places)})" if answer.delivery.places else ""
        why = "; ".join(text for _, text in found)
        doubts = [*dict.fromkeys(self._doubts.of(sender, recipient, answer))]
        results = [*(result for result, _ in found), *(Result.UNPROVEN for _ in doubts)]
        worst = max(results, key=list(Result).index, default=Result.SAME)
        why = "; ".join((*([why + places] if why else []), *doubts))
        return Row(sender, recipient, worst, postfix_words(answer), own, why)

    def _way_differences(self, answer: Answer, names: tuple[str, ...]) -> Iterator[Difference]:
        stops = answer.delivery.stops
        if len(names) != len(stops):
            yield (
                Result.OTHER,
                f"{len(stops)} next hops at Postfix, {len(names)} providers at relaygw",
            )
        for stop, name in zip(stops, names, strict=False):
            provider = self._settings.providers[name]
            if (stop.hop.host, stop.hop.port) != (provider.host.lower(), provider.port):
                own = f"{provider.host}:{provider.port}"
                yield Result.OTHER, f"next hop {stop.hop} at Postfix, {own} at relaygw"
            elif stop.hop.is_mx:
                yield (
                    Result.UNPROVEN,
                    f"Postfix asks the DNS for the MX of {stop.hop.host}, relaygw does not",
                )
            if stop.login != self._login(name, provider):
                own = provider.username or "none"
                yield Result.OTHER, f"login {_user(stop.login)} at Postfix, {own} at relaygw"
            yield from _tls_differences(stop, provider)

    def _login(self, name: str, provider: Provider) -> tuple[str, str] | None:
        if provider.username is None:
            return None
        password = self._secrets.get(name, "")
        user = parse_user_name(provider.username)
        if isinstance(user, str):
            return user, password
        if user.kind == "plain":
            return user.target, password
        return (password, password) if user == provider.password else None

    def _words(self, names: tuple[str, ...]) -> str:
        providers = [self._settings.providers[name] for name in names]
        shown = (
            f"{name} {one.host}:{one.port} tls {one.tls.value} login {one.username or 'none'}"
            for name, one in zip(names, providers, strict=True)
        )
        return ", then ".join(shown)


def _fate_differences(answer: Answer, fate: OwnFate) -> Iterator[Difference]:
    delivery = answer.delivery
    if fate is not _FATES.get(delivery.fate):
        text = f"Postfix: {delivery.fate} {delivery.reason}".rstrip()
        yield _result(answer, fate), f"{text}; relaygw: {fate}"


def _result(answer: Answer, fate: OwnFate) -> Result:
    theirs = answer.delivery.fate
    if fate is not OwnFate.DELIVER:
        return Result.OTHER if theirs in _SENT else Result.KEPT
    is_refused_at_door = theirs is Fate.REFUSE and not answer.delivery.transport
    return Result.UNPROVEN if is_refused_at_door and answer.doubts else Result.OTHER


def _address_differences(answer: Answer, sender: str, recipient: str) -> Iterator[Difference]:
    for what, theirs, own in (
        ("sender", answer.sender, sender),
        ("recipient", answer.recipient, recipient),
    ):
        if theirs.lower() != own.lower():
            yield Result.OTHER, f"{what} {theirs or '<>'} at Postfix, {own or '<>'} at relaygw"


def _others(answer: Answer) -> Iterator[Difference]:
    others = [one for one in answer.others if not one.startswith(INCLUDE)]
    if others:
        yield Result.OTHER, f"Postfix sends it to {', '.join(others)} as well"
    yield from ((Result.OTHER, text) for text in answer.added)


def _tls_differences(stop: Stop, provider: Provider) -> Iterator[Difference]:
    policy = provider.tls.value
    if policy_of(stop) != policy:
        yield Result.OTHER, f"tls {stop.tls} at Postfix, {policy} at relaygw"
    elif policy in ("required", "implicit") and stop.tls not in ("verify", "secure"):
        yield Result.STRICTER, f"tls {stop.tls} at Postfix; relaygw verifies the certificate"


def _user(login: tuple[str, str] | None) -> str:
    return login[0] if login is not None else "none"


def postfix_words(answer: Answer) -> str:
    """Return what Postfix does, in words."""
    delivery = answer.delivery
    if delivery.fate is not Fate.SEND:
        return f"{delivery.fate}: {delivery.reason}"
    shown = (
        f"{one.hop} {'implicit TLS, ' if one.is_wrapped else ''}level {one.tls} login "
        f"{_user(one.login)}"
        for one in delivery.stops
    )
    return ", then ".join(shown)


def learn(postfix: Postfix, resolver: Resolver, pairs: Iterable[Pair]) -> None:
    """Ask a real Postfix at once for what the pairs will need of its tables."""
    asked: dict[int, set[str]] = {}
    tables: dict[int, Table] = {id(one): one for one in resolver.tables.all}
    for one in (*resolver.tables.all, *access_tables(resolver), *access_tables(resolver, SENDER)):
        tables[id(one)] = one
    addresses = {one for pair in pairs for one in pair if one and "@" in one}
    keys: set[str] = {"*", "<>"}
    for address in addresses:
        domain = address.rpartition("@")[2].lower()
        keys |= {*address_keys(resolver, address), *access_keys(resolver, address)}
        keys |= {*resolver.transport_keys(address, domain)}
    for number in tables:
        asked.setdefault(number, set()).update(keys)
    for number, wanted in asked.items():
        postfix.learn(tables[number], sorted(wanted))
