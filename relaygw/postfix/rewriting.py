"""What Postfix makes of addresses before and after it chooses a way, and whom it refuses.

cleanup(8) maps to canonical addresses and through virtual aliases, local(8) through aliases,
smtp(8) to generic ones; smtpd(8) asks its access tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relaygw.postfix.main_cf import PostfixUnreadable, Service, split_list, unbraced
from relaygw.postfix.maps import Entry, Table, find
from relaygw.postfix.resolve import Delivery, Fate, Resolver, address_keys
from relaygw.settings.tree import Place

_MAX_STEPS = 100
_MAX_EXPANSIONS = 1000  # as virtual_alias_expansion_limit
RESTRICTIONS = (
    "smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions",
    "smtpd_relay_restrictions", "smtpd_recipient_restrictions", "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions",
)  # fmt: skip
_OWN_MAIL = ("permit_mynetworks", "permit_sasl_authenticated", "permit")
_REFUSING = ("reject", "defer", "defer_if_permit", "defer_if_reject")


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of one mail."""

    sender: str  # as the next hop sees it
    recipient: str
    delivery: Delivery
    others: tuple[str, ...] = ()  # recipients that an alias adds


class Rewriting:
    """The addresses of a configuration."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self._tables = resolver.tables

    def answer(self, sender: str, recipient: str) -> Answer:
        """Return what Postfix does with mail of its own networks. Raises PostfixUnreadable."""
        resolver = self.resolver
        door = resolver.configuration.service("smtp", "inet")
        refusal = self.access(resolver.qualified(recipient), door)
        used = self.cleaned("sender", sender)
        target, *others = self.final_recipients(recipient)
        delivery = refusal or resolver.route(used, target)
        return Answer(self.generic(used), self.generic(target), delivery, tuple(others))

    def final_sender(self, address: str) -> str:
        """Return a sender as the next hop sees it. Raises PostfixUnreadable."""
        return self.generic(self.cleaned("sender", address))

    def final_recipient(self, address: str) -> str:
        """Return a recipient as it is routed, the first of several. Raises PostfixUnreadable."""
        return self.final_recipients(address)[0]

    def final_recipients(self, address: str) -> list[str]:
        """Return who gets the mail for an address, after all aliases. Raises PostfixUnreadable."""
        waiting, found, steps = (
            self._virtual(self.cleaned("recipient", address)),
            dict[str, None](),
            0,
        )
        while waiting:
            one, steps = waiting.pop(0), steps + 1
            aliased = self._alias(one)
            if not aliased or one.lower() in map(str.lower, aliased):
                found[one] = None
            elif steps > _MAX_STEPS:
                raise PostfixUnreadable(
                    f"{self._place('alias_maps')}: {one} leads through more than {_MAX_STEPS} "
                    "aliases or in a circle; take one of them out"
                )
            else:
                waiting = [self.cleaned("recipient", each) for each in aliased] + waiting
        return [*found]

    # --- canonical, virtual, generic ---

    def cleaned(self, kind: str, address: str) -> str:
        """Return an address after canonical mapping and masquerading."""
        if not address:
            return address
        address = self.resolver.qualified(address)
        for name in (f"{kind}_canonical_maps", "canonical_maps"):
            address = self._repeated(name, address)
        return self._masqueraded(address) if kind == "sender" else address

    def generic(self, address: str) -> str:
        """Return an address as smtp(8) sends it."""
        found = self._mapped("smtp_generic_maps", address) if address else None
        return found or address

    def _repeated(self, name: str, address: str) -> str:
        seen = [address.lower()]
        while True:
            found = self._mapped(name, address)
            if found is None or found.lower() == address.lower():
                return address
            if found.lower() in seen or len(seen) > _MAX_STEPS:
                raise PostfixUnreadable(
                    f"{self._place(name)}: {name} leads in a circle: "
                    f"{' -> '.join((*seen, found.lower()))}; take one line out"
                )
            address = found
            seen.append(address.lower())

    def _mapped(self, name: str, address: str) -> str | None:
        tables = self._tables.of(name)
        entry = self.resolver.by_address(tables, address) if tables else None
        return self.target(entry, address) if entry is not None else None

    def target(self, entry: Entry, address: str) -> str:
        """Return what an entry makes of an address: `@domain` keeps the local part."""
        value = _first(entry.value)
        if value.startswith("@"):
            return f"{address.rpartition('@')[0]}{value}"
        return self.resolver.qualified(value)

    def _masqueraded(self, address: str) -> str:
        local, _, domain = address.rpartition("@")
        exceptions = self.resolver.configuration.values("masquerade_exceptions")
        if local.lower() in (one.lower() for one in exceptions):
            return address
        for masquerade in self.resolver.configuration.values("masquerade_domains"):
            bare = masquerade.removeprefix("!").lower()
            if domain.lower() == bare or domain.lower().endswith(f".{bare}"):
                return address if bare != masquerade.lower() else f"{local}@{bare}"
        return address

    def _virtual(self, address: str) -> list[str]:
        """Return what virtual aliases make of an address, through all steps."""
        tables = self._tables.of("virtual_alias_maps")
        found: dict[str, None] = {}
        waiting, steps = [address] if tables else [], 0
        while waiting:
            one = waiting.pop(0)
            entry = self.resolver.by_address(tables, one)
            steps += 1
            if entry is None:
                found[one] = None
            elif steps > _MAX_EXPANSIONS:
                raise PostfixUnreadable(
                    f"{entry.place}: {entry.key} leads in a circle of virtual aliases; take one out"
                )
            else:
                lines = (Entry(entry.key, word, entry.place) for word in split_list(entry.value))
                targets = [self.target(line, one) for line in lines]
                found |= dict.fromkeys(each for each in targets if each.lower() == one.lower())
                waiting = [each for each in targets if each.lower() != one.lower()] + waiting
        return [*found] if tables else [address]

    def _alias(self, address: str) -> list[str]:
        """Return what aliases(5) makes of a recipient of this host, as far as it is addresses."""
        local, _, domain = address.rpartition("@")
        if not self.resolver.is_local(domain):
            return []
        tables = self._tables.of("alias_maps", aliases=True)
        entry = find(tables, local.lower(), lookup=self.resolver.lookup)
        if entry is None:
            return []
        words = [one.strip("\"'") for one in split_list(entry.value)]
        return [self.resolver.qualified(one) for one in words if not re.match(r"[|/:\\]", one)]

    def _place(self, name: str) -> Place:
        return self.resolver.configuration.place(name)

    # --- who is refused ---

    def access(self, recipient: str, service: Service | None = None) -> Delivery | None:
        """Return why a recipient is refused mail of this host's networks, None if it is not."""
        for name in RESTRICTIONS:
            words = self.resolver.configuration.values(name, service)
            found = self._judged(words, name, recipient, service)
            if found is not None and found.fate is not Fate.SEND:
                return found
        return None

    def _judged(
        self,
        words: Sequence[str],
        name: str,
        recipient: str,
        service: Service | None,
        depth: int = 0,
    ) -> Delivery | None:
        """Return what a list decides; Fate.SEND is a permission, None is no decision."""
        place = self.resolver.configuration.place(name, service)
        for table, word in access_checks(self.resolver, words, place, service):
            if table is None:
                if word in _OWN_MAIL:
                    return Delivery(Fate.SEND)
                if word in _REFUSING:
                    return Delivery(Fate.REFUSE, (), "", word, (f"{place}: {name}: {word}",))
                classes = self.resolver.configuration.values("smtpd_restriction_classes", service)
                if word in classes and depth < 10:
                    inner = self.resolver.configuration.values(word, service)
                    found = self._judged(inner, name, recipient, service, depth + 1)
                    if found is not None:
                        return found
                continue
            found = self._entry_decision(table, recipient)
            if found is not None:
                return found
        return None

    def _entry_decision(self, table: Table, recipient: str) -> Delivery | None:
        for number, key in enumerate(access_keys(self.resolver, recipient)):
            entry = self.resolver.lookup(table, key, number > 0)
            if entry is not None:
                fate = access_fate(entry.value)
                line = f"{entry.place}: {entry.key} {entry.value}"
                return Delivery(fate, (), "", entry.value, (line,)) if fate is not None else None
        return None


def access_checks(
    resolver: Resolver, words: Sequence[str], place: Place, service: Service | None = None
) -> Iterator[tuple[Table | None, str]]:
    """Yield each restriction of a list: with its table where it asks one about recipients."""
    takes_table = False
    for word in words:
        if takes_table or re.match(r"(proxy:)?[a-z]+:", word):
            if takes_table:
                yield resolver.tables.table(unbraced(word), place), "check_recipient_access"
            takes_table = False
        elif word.startswith("{"):
            yield from access_checks(resolver, split_list(unbraced(word)), place, service)
        elif word == "check_recipient_access":
            takes_table = True
        else:
            yield None, word


def access_keys(resolver: Resolver, address: str) -> Iterator[str]:
    """Yield what an access table is asked for a recipient: whole, domains, `user@`."""
    local, _, domain = address.rpartition("@")
    yield address
    bare = resolver.without_extension(address)
    if bare is not None:
        yield bare
    parents = resolver.configuration.values("parent_domain_matches_subdomains")
    sign = "" if "smtpd_access_maps" in parents else "."
    while domain:
        yield domain
        _, dot, rest = domain.removeprefix(".").partition(".")
        domain = f"{sign}{rest}" if dot else ""
    yield f"{local}@"


def access_fate(action: str) -> Fate | None:
    """Return what an action of an access table does; None: nothing that decides."""
    word = action.split()[0].upper() if action.split() else ""
    if word in ("OK", "RELAY", "PERMIT") or (word.isdecimal() and word[0] not in "45"):
        return Fate.SEND
    if word == "REJECT" or re.fullmatch(r"5\d\d|5\.\d+\.\d+", word):
        return Fate.REFUSE
    if word.startswith("DEFER") or re.fullmatch(r"4\d\d|4\.\d+\.\d+", word):
        return Fate.LATER
    return Fate.DISCARD if word == "DISCARD" else None


def _first(value: str) -> str:
    words = split_list(value)
    return words[0] if words else value


__all__ = ["Answer", "Rewriting", "access_checks", "access_fate", "access_keys", "address_keys"]
