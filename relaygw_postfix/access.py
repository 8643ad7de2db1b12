"""Whom smtpd(8) refuses of what this host's networks send, and what its tables do with the mail.

A restriction that is not followed here, and stands before the decision, is a doubt about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from relaygw.settings.tree import Place
from relaygw_postfix.main_cf import Configuration, Service, split_list, unbraced
from relaygw_postfix.maps import Entry, Table
from relaygw_postfix.resolve import Delivery, Fate, Resolver

RESTRICTIONS = (
    "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions",
    "smtpd_relay_restrictions", "smtpd_recipient_restrictions", "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
)  # fmt: skip
RECIPIENT, SENDER = "check_recipient_access", "check_sender_access"
PERMITTING = ("permit_mynetworks", "permit_sasl_authenticated", "permit")
REFUSING = ("reject", "defer", "defer_if_permit")
_OF_GREETING = tuple(
    f"reject_{what}_{host}" for what in ("invalid", "non_fqdn", "unknown")
    for host in ("helo_hostname", "hostname")
)  # fmt: skip
_SPEECH = (
    "reject_unauth_pipelining", "reject_multi_recipient_bounce", "defer_if_reject",
    "permit_auth_destination", *_OF_GREETING,
)  # fmt: skip
"""Refuse no mail to one recipient from a client that speaks SMTP well."""
_WITH_ARGUMENT = re.compile(r"check_\w+|(reject|permit)_(rbl|rhsbl|dnswl|rhswl)_\w+|sleep")
_TABLE = re.compile(r"(proxy:)?[a-z]+:.+", re.S)
_MAX_DEPTH = 10
_PASSING = ("DUNNO", "WARN", "INFO", "DEFER_IF_REJECT", "")
_ASIDE = {"HOLD": Fate.HOLD, "FILTER": Fate.FILTER, "REDIRECT": Fate.REDIRECT,
          "DISCARD": Fate.DISCARD_ALL}  # fmt: skip
_ADDED = {"PREPEND": "Postfix adds a header field", "BCC": "Postfix sends a copy"}


@dataclass(slots=True)
class Judgement:
    """What the restrictions say of one mail."""

    delivery: Delivery | None = None  # None: it goes on
    doubts: list[str] = field(default_factory=list)  # what was not followed and could decide
    added: list[str] = field(default_factory=list)  # what else is done to the mail


@dataclass(frozen=True, slots=True)
class Check:
    """One restriction of a list, with the table that it asks."""

    word: str
    table: Table | None = None


def checks(resolver: Resolver, words: Sequence[str], name: str, place: Place) -> Iterator[Check]:
    """Yield the restrictions of a list; of tables those that are asked about addresses."""
    asking = ""
    waiting = [*words]
    while waiting:
        word = waiting.pop(0)
        if asking:
            is_followed = asking in (RECIPIENT, SENDER)
            table = resolver.tables.table(unbraced(word), place) if is_followed else None
            yield Check(asking, table)
            asking = ""
        elif word.startswith("{"):
            waiting = split_list(unbraced(word)) + waiting
        elif _WITH_ARGUMENT.fullmatch(word):
            asking = word
        elif _TABLE.fullmatch(word):  # the old form: what it is asked about is said by the list
            kind = {"smtpd_sender_restrictions": SENDER, "smtpd_recipient_restrictions": RECIPIENT}
            waiting = [kind.get(name, "check_client_access"), word, *waiting]
        else:
            yield Check(word)


def lists(resolver: Resolver) -> Iterator[tuple[str, list[Check]]]:
    """Yield the lists of restrictions, and the classes that they may name."""
    configuration, door = resolver.configuration, resolver.door
    for name in (*RESTRICTIONS, *configuration.values("smtpd_restriction_classes", door)):
        words, place = configuration.values(name, door), configuration.place(name, door)
        yield name, list(checks(resolver, words, name, place))


def access_tables(resolver: Resolver, kind: str = RECIPIENT) -> Iterator[Table]:
    """Yield the tables that restrictions ask about recipients, or about senders."""
    for _, found in lists(resolver):
        yield from (
            check.table for check in found if check.word == kind and check.table is not None
        )


def access_keys(resolver: Resolver, address: str) -> Iterator[str]:
    """Yield what an access table is asked for an address: whole, domains, `user@`."""
    if not address:
        yield "<>"
        return
    domain = address.rpartition("@")[2]
    found = [form for form in (address, resolver.without_extension(address)) if form is not None]
    yield from found
    yield from resolver.parents(domain, "smtpd_access_maps")
    yield from (f"{form.rpartition('@')[0]}@" for form in found)


_GUARDS = ("reject_unauth_destination", "defer_unauth_destination", "reject", "defer",
           "defer_if_permit", "check_relay_domains")  # fmt: skip
_GUARDED = ("smtpd_relay_restrictions", "smtpd_recipient_restrictions")


def why_closed(resolver: Resolver) -> str:
    """Return why smtpd(8) stops at its start instead of taking mail, "" where it runs."""
    configuration, door = resolver.configuration, resolver.door
    is_there = door is not None or not configuration.services
    if not is_there or any(_is_guarded(resolver, name, 0) for name in _GUARDED):
        return ""
    name, level = _GUARDED[0], configuration.value("compatibility_level")
    place = configuration.place(name, door)
    is_old = configuration.parameter(name, door) is None
    why = f"its default is empty at compatibility_level {level}; " if is_old else ""
    return (
        f"{place}: {name}: {why}neither it nor {_GUARDED[1]} has reject_unauth_destination or "
        "another restriction that refuses strangers, so Postfix's smtpd stops and takes no mail"
    )


def _is_guarded(resolver: Resolver, name: str, depth: int) -> bool:
    configuration, door = resolver.configuration, resolver.door
    classes = configuration.values("smtpd_restriction_classes", door)
    words = iter(configuration.values(name, door))
    for word in words:
        if word == "warn_if_reject":
            next(words, None)
        elif word == "permit":
            return False  # what comes after it is ignored
        elif word.lower() in _GUARDS or (
            word in classes and depth < _MAX_DEPTH and _is_guarded(resolver, word, depth + 1)
        ):
            return True
    return False


class Access:
    """The restrictions of the port that takes this host's mail."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._configuration: Configuration = resolver.configuration
        self._door: Service | None = resolver.door
        self._classes = self._configuration.values("smtpd_restriction_classes", self._door)

    def judge(self, sender: str, recipient: str) -> Judgement:
        """Return the fate of mail at the door."""
        found, full = Judgement(), self._resolver.qualified
        unsure: Judgement | None = None
        asked = {SENDER: full(sender), RECIPIENT: full(recipient)}
        for name in RESTRICTIONS:
            words = self._configuration.values(name, self._door)
            access_list = _List(self, name, asked, (sender, recipient), found)
            decision = access_list.judged(words)
            if decision is not None and decision.fate is not Fate.SEND:
                # what might have permitted it stands before this one, in this list
                doubts = [text for word, text in access_list.doubts if not _is_refusal(word)]
                if not doubts:
                    return Judgement(decision)
                unsure = unsure or Judgement(decision, doubts)
                continue
            found.doubts += [
                text for word, text in access_list.doubts if not word.startswith("permit")
            ]
        return unsure or found


def _is_refusal(word: str) -> bool:
    return word.startswith(("reject", "defer", "warn"))


@dataclass(slots=True)
class _List:
    """One list, as it is followed for one mail."""

    access: Access
    name: str
    asked: dict[str, str]
    written: tuple[str, str]  # sender and recipient, as the client has them
    found: Judgement
    doubts: list[tuple[str, str]] = field(default_factory=list)  # restriction, text

    def judged(self, words: Sequence[str], name: str = "", depth: int = 0) -> Delivery | None:
        """Return the decision of a list; Fate.SEND is a permission, None is no decision."""
        access, name = self.access, name or self.name
        place = access._configuration.place(name, access._door)
        is_muted = False  # by warn_if_reject
        for check in checks(access._resolver, words, self.name, place):
            if check.word == "warn_if_reject":
                is_muted = True
                continue
            decision = self._decision(check, name, place, depth)
            if decision is not None and (decision.fate is Fate.SEND or not is_muted):
                return decision
            is_muted = False
        return None

    def _decision(self, check: Check, name: str, place: Place, depth: int) -> Delivery | None:
        access, word = self.access, check.word
        if check.table is not None:
            return self._of_table(check.table, self.asked[word], word, place, depth)
        if word in PERMITTING:
            return Delivery(Fate.SEND)
        said = self._is_refused_by(word)
        if said is True:
            return Delivery(Fate.REFUSE, (), "", word, (f"{place}: {name}: {word}",))
        if word in access._classes and depth < _MAX_DEPTH:
            inner = access._configuration.values(word, access._door)
            return self.judged(inner, word, depth + 1)
        if word == "permit_auth_destination" and self._is_ours():
            return Delivery(Fate.SEND)
        if said is None:
            self.doubts.append((word, f"{place}: {name}: {word} is not supported"))
        return None

    def _is_refused_by(self, word: str) -> bool | None:
        """Return whether a restriction refuses the mail; None: only Postfix knows."""
        if word in REFUSING:
            return True
        if word in _SPEECH:
            return False
        if word == "reject_unlisted_recipient":  # is asked in the end, if that is not switched off
            option = "smtpd_reject_unlisted_recipient"
            return False if self.access._configuration.is_on(option, self.access._door) else None
        if word in ("reject_unauth_destination", "defer_unauth_destination"):
            return not self._is_ours()
        if word in ("reject_non_fqdn_sender", "reject_non_fqdn_recipient"):
            address = self.written[word.endswith("recipient")]
            domain = address.rpartition("@")[2]
            is_short = "." not in domain and not domain.startswith("[")
            return bool(address) and address.lower() != "postmaster" and is_short
        return None

    def _is_ours(self) -> bool:
        return bool(self.access._resolver.address_class(self.asked[RECIPIENT].rpartition("@")[2]))

    def _of_table(
        self, table: Table, address: str, word: str, place: Place, depth: int
    ) -> Delivery | None:
        if table.problem:
            self.doubts.append((word, table.problem))
            return None
        resolver = self.access._resolver
        for number, key in enumerate(access_keys(resolver, address)):
            entry = resolver.lookup(table, key, number > 0)
            if entry is not None:
                return self._of_entry(entry, depth)
        return None

    def _of_entry(self, entry: Entry, depth: int) -> Delivery | None:
        verb, _, rest = entry.value.strip().partition(" ")
        line = f"{entry.place}: {entry.key} {entry.value}"
        action = verb.upper()
        fate = _ASIDE.get(action)
        if fate is not None:  # holds unless a list refuses the mail
            self.found.delivery = Delivery(fate, (), "", rest.strip() or action, (line,))
            return Delivery(Fate.SEND) if fate is Fate.DISCARD_ALL else None
        if action in _ADDED:
            self.found.added.append(f"{_ADDED[action]}: {rest.strip()} ({entry.place})")
            return None
        if action in _PASSING:
            return None
        fate = access_fate(action)
        if fate is not None:
            return Delivery(fate, (), "", entry.value, (line,))
        if depth >= _MAX_DEPTH:
            return None
        return self.judged(split_list(entry.value), "", depth + 1)


def access_fate(action: str) -> Fate | None:
    """Return the decision of an action in an access table; None: no such action."""
    word = action.split()[0].upper() if action.split() else ""
    if word in ("OK", "RELAY", "PERMIT") or (word.isdecimal() and word[0] not in "45"):
        return Fate.SEND
    if word == "REJECT" or re.fullmatch(r"5\d\d|5\.\d+\.\d+", word):
        return Fate.REFUSE
    if word in ("DEFER", "DEFER_IF_PERMIT") or re.fullmatch(r"4\d\d|4\.\d+\.\d+", word):
        return Fate.LATER
    return _ASIDE.get(word)
