"""The table of sameness: what Postfix does with mail and what relaygw does, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relaygw.mail.words import counted
from relaygw.policy.recipients import Fate as OwnFate
from relaygw.policy.recipients import RecipientPolicy
from relaygw.policy.rewriting import Rewriter
from relaygw.policy.router import Router
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.settings.secrets import parse_user_name
from relaygw_postfix.access import SENDER, access_keys, access_tables, why_closed
from relaygw_postfix.classes import copied_classes, judged_senders
from relaygw_postfix.failures import Doubts, Failures
from relaygw_postfix.main_cf import PostfixUnreadable
from relaygw_postfix.maps import Postfix, Table
from relaygw_postfix.providers import policy_of
from relaygw_postfix.resolve import Delivery, Fate, Resolver, Stop, address_keys
from relaygw_postfix.rewriting import INCLUDE, NULL, Answer, Rewriting
from relaygw_postfix.samples import REST, sample
from relaygw_postfix.translation import Translation

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
class Copy:
    """What relaygw does for one recipient of a mail."""

    address: str
    fate: OwnFate
    providers: tuple[str, ...]  # none: it is not sent

    @property
    def is_sent(self) -> bool:
        """True where a provider gets it."""
        return bool(self.providers)


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
    resolver = made.rewriting.resolver
    judged = judged_senders(resolver)
    lists = (
        ([*routing.senders, *judged, *copied_classes(resolver, "sender_bcc_maps")], "senders"),
        ([*routing.recipients, *copied_classes(resolver, "recipient_bcc_maps")], "recipients"),
    )
    senders, recipients = (
        [sample(fromkey) for fromkey in dict.fromkeys((*classes, *rewritten.get(key, ())))]
        for classes, key in lists
    )
    senders.append("")
    if len(senders) * len(recipients) <= MAX_PAIRS:
        return [(sender, recipient) for sender in senders for recipient in recipients]
    rest = sample("")
    return [
        *((sender, rest) for sender in senders),
        *((rest, recipient) for recipient in recipients),
    ]


class Comparison:
    """Compares a configuration of Postfix with the settings that were made of it."""

    def __init__(
        self, rewriting: Rewriting, settings: Settings, secrets: Mapping[str, str]
    ) -> None:
        self._rewriting = rewriting
        self._doubts = Doubts(rewriting)
        self._failures = Failures(rewriting.resolver)
        configuration = rewriting.resolver.configuration
        failures = configuration.start_failures[:1]
        stops = [f"{failure}: Postfix does not start with this line" for failure in failures]
        self._closed = next(iter(stops), "") or why_closed(rewriting.resolver)
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
        own = self._copies(sender, recipient)
        found = list(self._differences(answer, own))
        if _is_sent(answer, own):
            used = self._rewriter.sender(sender)
            if used.lower() != answer.sender.lower():
                found.append((Result.OTHER, _changed("sender", answer.sender, used)))
            found += self._header_differences(answer, sender, recipient)
        if self._closed:
            is_sent = any(copy.is_sent for copy in own)
            found.append((Result.OTHER if is_sent else Result.KEPT, self._closed))
        found += [(Result.OTHER, text) for text in answer.added]
        places = f" ({'; '.join(answer.delivery.places)})" if answer.delivery.places else ""
        why = "; ".join(text for _, text in found)
        doubts = [*dict.fromkeys(self._doubts.of(sender, recipient, answer))]
        results = [*(result for result, _ in found), *(Result.UNPROVEN for _ in doubts)]
        worst = max(results, key=list(Result).index, default=Result.SAME)
        why = "; ".join((*([why + places] if why else []), *doubts))
        words = self._words(own[0].providers) if own[0].is_sent else own[0].fate.value
        return Row(sender, recipient, worst, postfix_words(answer), words, why)

    def _copies(self, sender: str, recipient: str) -> list[Copy]:
        """Return relaygw's copies of a mail, the archive's last."""
        used = self._rewriter.sender(sender)
        decided = [
            (target, self._policy.decide(target)) for target in self._rewriter.recipients(recipient)
        ]
        archive = self._settings.archive_to
        is_taken = any(outcome.fate is not OwnFate.REJECT for _, outcome in decided)
        if archive is not None and is_taken and archive not in dict(decided):
            decided.append((archive, self._policy.decide_archive(archive)))
        found = []
        for rewritten, decision in decided:
            address = decision.redirect_to or rewritten
            route = self._router.route_for(sender=used, recipient=address, headers={})
            is_sent = decision.fate is OwnFate.DELIVER and route is not None
            names = route.providers if is_sent and route is not None else ()
            found.append(Copy(address, decision.fate, names))
        return found

    def _differences(self, answer: Answer, own: Sequence[Copy]) -> Iterator[Difference]:
        """Yield how the copies of a mail differ, each beside that to the same address."""
        names, ways = (answer.recipient, *answer.others), (answer.delivery, *answer.ways)
        theirs = dict(zip(names, ways, strict=False))
        if len(theirs) < len(names):  # a copy is not looked for among the recipients
            yield Result.OTHER, f"Postfix sends it twice to {answer.recipient}"
        waiting = {own_copy.address.lower(): own_copy for own_copy in own}
        pairs = [(to, way, waiting.pop(to.lower(), None)) for to, way in theirs.items()]
        for to, way, copy in pairs:
            mine = copy or next(iter(waiting.values()), None)
            if copy is None and (mine is None or len(pairs) > 1):
                if not to.startswith(INCLUDE):
                    yield Result.OTHER, f"Postfix sends it to {to} as well"
                continue
            assert mine is not None
            waiting.pop(mine.address.lower(), None)
            yield from self._copy_differences(answer, to, way, mine)
        for own_copy in waiting.values():
            if own_copy.is_sent:
                yield Result.OTHER, f"relaygw sends it to {own_copy.address} as well"

    def _copy_differences(
        self, answer: Answer, to: str, way: Delivery, own: Copy
    ) -> Iterator[Difference]:
        yield from _fate_differences(answer, way, own.fate)
        if own.is_sent:
            for failure in self._failures.of(way):
                yield Result.OTHER, f"Postfix: deferred: {failure}"
        if own.is_sent and way.fate is Fate.SEND:
            if to.lower() != own.address.lower():
                yield Result.OTHER, _changed("recipient", to, own.address)
            yield from self._way_differences(way.stops, own.providers)

    def _header_differences(
        self, answer: Answer, sender: str, recipient: str
    ) -> Iterator[Difference]:
        """Yield what differs of From and To, were they as the envelope."""
        given = {"From": sender or sample(REST), "To": recipient}
        block = "".join(f"{field}: <{address}>\r\n" for field, address in given.items()) + "\r\n"
        lines = self._rewriter.headers(block.encode()).decode().splitlines()
        for line, theirs in zip(lines, (answer.header_from, answer.header_to), strict=False):
            field, _, value = line.partition(": ")
            own = value.strip("<>")
            if own.lower() != theirs.lower():
                yield Result.OTHER, _changed(f"{field} of the header", theirs or "none", own)

    def _way_differences(
        self, stops: Sequence[Stop], names: tuple[str, ...]
    ) -> Iterator[Difference]:
        if len(names) != len(stops):
            hops, own = counted(len(stops), "next hop"), counted(len(names), "provider")
            yield Result.OTHER, f"{hops} at Postfix, {own} at relaygw"
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
            f"{name} {provider.host}:{provider.port} tls {provider.tls.value} "
            f"login {provider.username or 'none'}"
            for name, provider in zip(names, providers, strict=True)
        )
        return ", then ".join(shown)


def _is_sent(answer: Answer, own: Sequence[Copy]) -> bool:
    """Return whether both send a copy."""
    ways = (answer.delivery, *answer.ways)
    return any(way.fate is Fate.SEND for way in ways) and any(copy.is_sent for copy in own)


def _fate_differences(answer: Answer, way: Delivery, fate: OwnFate) -> Iterator[Difference]:
    if fate is not _FATES.get(way.fate):
        text = f"Postfix: {way.fate} {way.reason}".rstrip()
        yield _result(answer, way, fate), f"{text}; relaygw: {fate}"


def _result(answer: Answer, way: Delivery, fate: OwnFate) -> Result:
    if fate is not OwnFate.DELIVER:
        return Result.OTHER if way.fate in _SENT else Result.KEPT
    is_refused_at_door = way.fate is Fate.REFUSE and not way.transport
    return Result.UNPROVEN if is_refused_at_door and answer.doubts else Result.OTHER


def _changed(what: str, theirs: str, own: str) -> str:
    return f"{what} {theirs or '<>'} at Postfix, {own or '<>'} at relaygw"


def _tls_differences(stop: Stop, provider: Provider) -> Iterator[Difference]:
    policy = provider.tls.value
    if policy_of(stop) != policy:
        yield Result.OTHER, f"tls {stop.tls} at Postfix, {policy} at relaygw"
    elif policy in ("required", "implicit") and stop.tls not in ("verify", "secure"):
        yield Result.STRICTER, f"tls {stop.tls} at Postfix; relaygw verifies the certificate"


def _user(login: tuple[str, str] | None) -> str:
    return login[0] if login is not None else "none"


def postfix_words(answer: Answer) -> str:
    """Return Postfix's part of the row in words."""
    delivery = answer.delivery
    if delivery.fate is not Fate.SEND:
        return f"{delivery.fate}: {delivery.reason}"
    shown = (
        f"{stop.hop} {'implicit TLS, ' if stop.is_wrapped else ''}level {stop.tls} login "
        f"{_user(stop.login)}"
        for stop in delivery.stops
    )
    return ", then ".join(shown)


def learn(postfix: Postfix, resolver: Resolver, pairs: Iterable[Pair]) -> None:
    """Ask a real Postfix at once for what the pairs will need of its tables."""
    asked: dict[int, set[str]] = {}
    tables: dict[int, Table] = {id(table): table for table in resolver.tables.all}
    for table in (*resolver.tables.all, *access_tables(resolver), *access_tables(resolver, SENDER)):
        tables[id(table)] = table
    addresses = {party for pair in pairs for party in pair if party and "@" in party}
    keys: set[str] = {"*", "<>", NULL}
    for address in addresses:
        domain = address.rpartition("@")[2].lower()
        keys |= {*address_keys(resolver, address), *access_keys(resolver, address)}
        keys |= {*resolver.transport_keys(address, domain)}
    for number in tables:
        asked.setdefault(number, set()).update(keys)
    for number, wanted in asked.items():
        table = tables[number]
        if table.kind not in postfix.types and not table.problem:
            table.failure = f"{table.spec}: this Postfix has no tables of type {table.kind}"
        postfix.learn(table, sorted(wanted))
