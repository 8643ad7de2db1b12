"""What a running Postfix did with mail, by its log, against what relaygw would do with it."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from relaygw.errors import InvalidAddress
from relaygw.mail.address import check_address
from relaygw.mail.content import READ_HEADER_BYTES, read_header
from relaygw.policy.recipients import Decision, Fate, RecipientPolicy
from relaygw.policy.rewriting import Rewriter
from relaygw.policy.router import Router
from relaygw.settings.model import Settings
from relaygw.settings.routes import Route
from relaygw_postfix.maillog import REJECTED, Logged
from relaygw_postfix.sameness import Result

_RELAY = re.compile(r"(?P<host>[^\[\]]+)\[[^\]]*\](?::(?P<port>\d+))?")
_SAID = re.compile(
    r"(?:connect to|host|conversation with|lost connection with) "
    r"(?P<host>[\w.-]+)\[[^\]]*\](?::(?P<port>\d+))?"
)
_NOT_FOUND = re.compile(r"Name service error for name=(?P<host>[\w.-]+)")
_MAILBOX, _PROGRAM = "put into a mailbox of this host", "given to a program"
_NEVER_LOGGED: Mapping[str, object] = {"listener": (), "user": ()}
_KEPT_BY = {"local": _MAILBOX, "virtual": _MAILBOX, "lmtp": _PROGRAM, "pipe": _PROGRAM}
MAX_ROWS = 20_000
"""Rows that are kept apart; of others only the results are counted."""


@dataclass(frozen=True, slots=True)
class ShadowRow:
    """What both do with mail from one address to another."""

    sender: str
    recipient: str
    result: Result
    relay: str  # of Postfix: HOST:PORT, or what it did instead
    policy: str  # of relaygw: deliver, capture, drop, reject; and why
    route: str  # "": none is used
    providers: tuple[str, ...]  # NAME HOST:PORT, in order
    why: str


@dataclass(slots=True)
class Tally:
    """Rows with how often each was seen, by the status that Postfix logged."""

    results: Counter[Result] = field(default_factory=Counter)
    rows: dict[ShadowRow, Counter[str]] = field(default_factory=dict)
    left_out: int = 0

    def add(self, row: ShadowRow, status: str, number: int = 1) -> None:
        """Count a row."""
        self.results[row.result] += number
        if row not in self.rows and len(self.rows) >= MAX_ROWS:
            self.left_out += number
            return
        self.rows.setdefault(row, Counter())[status] += number

    @property
    def total(self) -> int:
        """How many deliveries were compared."""
        return self.results.total()

    @property
    def has_findings(self) -> bool:
        """Whether anything is not the same."""
        return self.results[Result.OTHER] > 0


@dataclass(frozen=True, slots=True)
class _Done:
    """What Postfix did: tried a host, or something else."""

    host: str = ""
    port: int | None = None
    fate: Fate | None = None  # that relaygw has, too
    words: str = ""  # of what it did instead; neither these nor a host: the log does not tell

    def __str__(self) -> str:
        if not self.host:
            return self.words or "deferred"
        return self.host if self.port is None else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Own:
    """What relaygw would do."""

    decision: Decision
    recipient: str
    route: Route | None
    doubt: str = ""  # why another route may be taken
    everybody: str = ""  # all that the recipient becomes, where that are several


class Shadow:
    """Compares deliveries that were logged with what a configuration does.

    `copies` tells the header fields that routes ask for.
    """

    def __init__(self, settings: Settings, copies: Copies | None = None) -> None:
        self._copies = copies
        self._providers = settings.providers
        self._policy = RecipientPolicy(settings.mode, settings.recipients)
        self._archive_to = settings.archive_to
        self._rewriter = Rewriter(settings.rewrite, settings.hostname)
        self._router = Router(settings.routes)
        self._asks_sender = any(route.sender for route in settings.routes)
        self._unseen = _partly_known(settings.routes, {"header": {}, **_NEVER_LOGGED})
        self._unseen_with_header = _partly_known(settings.routes, _NEVER_LOGGED)

    def is_copy(self, logged: Logged) -> bool:
        """Return whether it is a copy's own delivery."""
        found = self._copies.addresses if self._copies is not None else ()
        return any(
            address and address.lower() in found for address in (logged.recipient, logged.original)
        )

    def row(self, logged: Logged) -> ShadowRow:
        """Compare both for a recipient."""
        done = _done(logged)
        header = self._copies.header_of(logged.message_id) if self._copies is not None else None
        own = self._own(logged, header)
        result, why = self._judge(logged, done, own)
        fate = own.decision.fate
        reason = f": {own.decision.reason}" if own.decision.reason else ""
        route = own.route if fate is Fate.DELIVER else None
        return ShadowRow(
            sender=logged.sender if logged.sender is not None else "?",
            recipient=logged.original or logged.recipient,
            result=result,
            relay=str(done),
            policy=f"{fate}{reason}",
            route=route.name if route is not None else "",
            providers=tuple(self._shown(name) for name in route.providers) if route else (),
            why=why,
        )

    def _shown(self, name: str) -> str:
        provider = self._providers[name]
        return f"{name} {provider.host}:{provider.port}"

    def _own(self, logged: Logged, header: Mapping[str, str] | None) -> _Own:
        """Return relaygw's way for the recipient of a line, or for the first instead."""
        who = self._rewriter.sender(logged.sender or "")
        everybody = self._rewriter.recipients(logged.original or logged.recipient)
        mine = (address for address in everybody if address.lower() == logged.recipient.lower())
        whom = next(mine, everybody[0])
        try:
            check_address(whom)
        except InvalidAddress as error:
            return _Own(Decision(Fate.CAPTURE, f"invalid address: {error}"), whom, None)
        decision = self._policy.decide(whom)
        whom = decision.redirect_to or whom
        route = self._router.route_for(sender=who, recipient=whom, headers=header or {})
        if route is None and decision.fate is Fate.DELIVER:
            decision = Decision(Fate.CAPTURE, "no route matches")
        doubt = self._doubt(who, whom, header, route)
        return _Own(decision, whom, route, doubt, ", ".join(everybody) if everybody[1:] else "")

    def _doubt(
        self, sender: str, recipient: str, header: Mapping[str, str] | None, route: Route | None
    ) -> str:
        """Return which earlier route may match by what is not known of the mail."""
        what = "listener or user" if header is not None else "header, listener or user"
        for earlier_route, known in self._unseen if header is None else self._unseen_with_header:
            if earlier_route is route:
                break
            if known.route_for(sender=sender, recipient=recipient, headers=header or {}) is None:
                continue
            if route is None or earlier_route.providers != route.providers:
                copy = "; it has no copy" if header is None and self._copies is not None else ""
                return (
                    f"route {earlier_route.name} has a condition that a maillog does not show: "
                    f"{what}{copy}"
                )
        return ""

    def _judge(self, logged: Logged, done: _Done, own: _Own) -> tuple[Result, str]:
        is_sent = own.decision.fate is Fate.DELIVER
        if not done.host and not done.words:
            return Result.UNPROVEN, "Postfix has deferred it, and its log names no host"
        if logged.sender is None and self._asks_sender and is_sent:
            return Result.UNPROVEN, "its sender is not in the log, and a route needs it"
        if logged.status == REJECTED and self._archives(own):
            said = f"{done} at Postfix; relaygw takes it, and sends a copy to {self._archive_to}"
            return Result.OTHER, said
        if not done.host or not is_sent:
            return _judge_kept(done, own, is_sent=is_sent)
        is_renamed = own.recipient.lower() != logged.recipient.lower()
        said = f"recipient {logged.recipient} at Postfix, {own.recipient} at relaygw"
        if is_renamed and not self._may_be_generic(logged, own):
            return Result.OTHER, said
        if own.doubt:
            return Result.UNPROVEN, own.doubt
        judged = self._judge_way(done, own.route.providers if own.route is not None else ())
        if judged[0] is Result.SAME and own.everybody:
            said = f"relaygw sends it to {own.everybody}; a line of a maillog shows one of them"
            return Result.UNPROVEN, said
        if not is_renamed or judged[0] is Result.OTHER:
            return judged
        return (
            Result.UNPROVEN,
            f"{said}: smtp_generic_maps may do so, too, and are not in a maillog",
        )

    def _archives(self, own: _Own) -> bool:
        """Return whether a copy of the mail would be sent."""
        if self._archive_to is None or own.decision.fate is Fate.REJECT:
            return False
        return self._policy.decide_archive(self._archive_to).fate is Fate.DELIVER

    def _may_be_generic(self, logged: Logged, own: _Own) -> bool:
        """Return whether smtp(8) may have sent what relaygw does: it logs what it was given."""
        given = self._rewriter.recipients(logged.recipient)
        return own.recipient.lower() in (address.lower() for address in given)

    def _judge_way(self, done: _Done, names: tuple[str, ...]) -> tuple[Result, str]:
        for number, name in enumerate(names):
            provider = self._providers[name]
            if provider.host.lower() == done.host and done.port in (None, provider.port):
                if number == 0:
                    return Result.SAME, ""
                said = f"relaygw uses {name} only while {names[0]} is held or down"
                return Result.UNPROVEN, said
        shown = ", then ".join(map(self._shown, names))
        return Result.OTHER, f"{done} at Postfix, {shown} at relaygw"


def _partly_known(
    routes: Iterable[Route], unknown: Mapping[str, object]
) -> list[tuple[Route, Router]]:
    """Return the routes that ask for what is unknown, each with one of the rest it asks for."""
    return [
        (route, Router([route.model_copy(update=unknown)]))
        for route in routes
        if any(getattr(route, name) for name in unknown)
    ]


def _judge_kept(done: _Done, own: _Own, *, is_sent: bool) -> tuple[Result, str]:
    fate = own.decision.fate
    if not done.host and not is_sent:
        is_same = done.fate is fate
        return (Result.SAME, "") if is_same else (Result.KEPT, f"{done} at Postfix, {fate} here")
    if is_sent:
        return Result.OTHER, f"{done} at Postfix, sent to a provider by relaygw"
    return Result.OTHER, f"sent by Postfix; relaygw: {fate} ({own.decision.reason or 'policy'})"


def _done(logged: Logged) -> _Done:
    """Return Postfix's action."""
    if logged.status == REJECTED:
        return _Done(fate=Fate.REJECT, words=f"refused on receipt: {logged.text}")
    if logged.daemon in _KEPT_BY:
        is_command = logged.text.startswith("delivered to command")
        return _Done(words=_PROGRAM if is_command else _KEPT_BY[logged.daemon])
    if logged.daemon == "discard":
        return _Done(fate=Fate.DROP, words="discarded")
    found = _RELAY.fullmatch(logged.relay) or _SAID.search(logged.text)
    if found is not None:
        return _Done(found["host"].lower(), int(found["port"]) if found["port"] else None)
    found = _NOT_FOUND.search(logged.text)
    if found is not None:
        return _Done(found["host"].lower())
    if logged.status == "bounced":
        return _Done(fate=Fate.REJECT, words=f"refused: {logged.text}")
    return _Done()


# --- copies -----------------------------------------------------------------------------
# The headers of the copies of mail that a Postfix's `always_bcc` puts into a Maildir.


_PLACES = ("new", "cur")
_RECIPIENT_OF_COPY = ("delivered-to", "x-original-to")  # added by local(8) and virtual(8)
_MAX_KNOWN = 100_000
_LINE_END = re.compile(rb"\r?\n")


class Copies:
    """What copies tell of mail; new ones are looked for when a mail is not known."""

    def __init__(self, directory: Path, fields: frozenset[str]) -> None:
        """Read what is there of `fields` (lower case); raises OSError where it is not a Maildir."""
        self.addresses: set[str] = set()
        """Who gets the copies: his mail is none of the shop's."""
        self._places = [directory / name for name in _PLACES]
        self._fields = fields
        self._seen: set[str] = set()
        self._known: OrderedDict[str, Mapping[str, str] | None] = OrderedDict()
        self._look()

    def header_of(self, message_id: str | None) -> Mapping[str, str] | None:
        """Return the values of the fields by lower-case name; None: there is no copy.

        Nor is there one where copies of the same Message-ID differ in them.
        """
        if message_id is None:
            return None
        if message_id not in self._known:
            self._look()
        return self._known.get(message_id)

    def _look(self) -> None:
        for place in self._places:
            for file in place.iterdir():
                name = file.name.partition(":")[0]  # without the flags, which change
                if name not in self._seen:
                    self._seen.add(name)
                    self._read(file)

    def _read(self, file: Path) -> None:
        try:
            with file.open("rb") as copy:
                head = _LINE_END.sub(b"\r\n", copy.read(READ_HEADER_BYTES))
        except FileNotFoundError:  # its reader has moved it
            self._seen.discard(file.name.partition(":")[0])
            return
        facts = read_header(head, self._fields.union(_RECIPIENT_OF_COPY))
        values = facts.values
        self.addresses |= {values[name].lower() for name in _RECIPIENT_OF_COPY if name in values}
        told = {name: values[name] for name in self._fields & values.keys()}
        is_same = self._known.setdefault(facts.message_id, told) == told
        self._known[facts.message_id] = told if is_same else None
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
