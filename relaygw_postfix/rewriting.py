"""What Postfix makes of addresses before and after it chooses a way.

cleanup(8) maps to canonical addresses and through virtual aliases, local(8) through aliases,
smtp(8) to generic ones; smtpd(8) refuses who is on no list.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import parseaddr

from relaygw.settings.tree import Place
from relaygw_postfix.access import Access
from relaygw_postfix.main_cf import PostfixUnreadable, Service, read_text, split_list
from relaygw_postfix.maps import Entry, find
from relaygw_postfix.resolve import Delivery, Fate, Resolver
from relaygw_postfix.samples import REST, sample

NULL = '""'  # the null sender, as cleanup(8) looks it up
_KINDS = {"From": "sender", "To": "recipient"}
_MAX_STEPS = 100
_MAX_MAPPINGS = 10
_MAX_EXPANSIONS = 1000  # as virtual_alias_expansion_limit
_END = re.compile(r"[|/:\\]")
INCLUDE = ":include:"
_ROOT = "root"  # every host has this user
_ALIAS_WORD = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^\s,"])+')


class AddressCircle(PostfixUnreadable):
    """An address leads back to itself, so Postfix delivers its mail nowhere."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of one mail."""

    sender: str  # as the next hop sees it
    recipient: str
    delivery: Delivery
    others: tuple[str, ...] = ()  # recipients that an alias or a copy adds
    ways: tuple[Delivery, ...] = ()  # of these
    added: tuple[str, ...] = ()  # what else is done to it
    doubts: tuple[str, ...] = ()  # restrictions that were not followed
    header_from: str = ""  # From as the next hop sees it, if it was the sender, or anybody
    header_to: str = ""  # To, if it was the recipient


class Rewriting:
    """The addresses of a configuration."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self._tables = resolver.tables
        self.access = Access(resolver)
        options = resolver.configuration.values("receive_override_options", resolver.door)
        self.notes: dict[str, None] = {}  # on what maps do with addresses that were asked for
        self._is_mapped = "no_address_mappings" not in options
        # of this host's own mail; of other clients' only where they are listed
        clients = resolver.configuration.parameter("local_header_rewrite_clients")
        self._is_header_mapped = clients is None or bool(clients.value)
        transport = resolver.configuration.value("local_transport").partition(":")[0]
        service = resolver.configuration.service(transport)
        # aliases are local(8)'s; another transport never asks them
        self._has_aliases = (service.command if service is not None else transport) == "local"

    def answer(self, sender: str, recipient: str) -> Answer:
        """Return the fate of mail of Postfix's own networks. Raises PostfixUnreadable."""
        resolver = self.resolver
        asked = resolver.qualified(sender), resolver.qualified(recipient)
        found = self.access.judge(sender, recipient)
        added, doubts = tuple(found.added), tuple(found.doubts)
        try:
            used = self.cleaned("sender", sender)
            target, *others = self.final_recipients(recipient)
        except AddressCircle as error:
            delivery = found.delivery or Delivery(Fate.LATER, (), "", "a circle", (str(error),))
            return Answer(*asked, delivery, (), (), added, doubts)
        refusal = found.delivery or self._unlisted(asked[1])
        others = others + self._copies(used, [target, *others]) if refusal is None else []
        delivery = refusal or self._way(used, target)
        service = resolver.configuration.service(delivery.transport)
        final = self.generic(used, service), self.generic(target, service)
        ways = tuple(self._way(used, other) for other in others)
        services = (resolver.configuration.service(way.transport) for way in ways)
        others = [self.generic(other, each) for other, each in zip(others, services, strict=True)]
        header_from = self.in_header("From", sender or sample(REST), service)
        header_to = self.in_header("To", recipient, service)
        return Answer(*final, delivery, tuple(others), ways, added, doubts, header_from, header_to)

    def _way(self, sender: str, recipient: str) -> Delivery:
        if not is_end(recipient):
            return self.resolver.route(sender, recipient)
        place = str(self._place("alias_maps"))
        fate = Fate.OTHER if recipient.startswith("|") else Fate.LOCAL
        return Delivery(fate, (), "local", recipient, (place,))

    def _unlisted(self, recipient: str) -> Delivery | None:
        """Return the refusal of somebody whom no list of relay_domains knows."""
        configuration, domain = self.resolver.configuration, recipient.rpartition("@")[2]
        tables, option = self._tables.of("relay_recipient_maps"), "smtpd_reject_unlisted_recipient"
        if not tables or not configuration.is_on(option, self.resolver.door):
            return None
        if self.resolver.address_class(domain) != "relay_domains":
            return None
        names = ("recipient_canonical_maps", "canonical_maps", "virtual_alias_maps")
        tables = [*tables, *(table for name in names for table in self._tables.of(name))]
        if self.resolver.by_address(tables, recipient) is not None:
            return None
        where = str(self._place("relay_recipient_maps"))
        reason = "unknown in relay_recipient_maps"
        return Delivery(Fate.REFUSE, (), "", reason, (f"{where}: {reason}",))

    def _copies(self, sender: str, recipients: Iterable[str]) -> list[str]:
        """Return who gets a copy, too."""
        if not self._is_mapped:
            return []
        found = self._results("sender_bcc_maps", sender)[:1] if sender else []
        found += [
            result for to in recipients for result in self._results("recipient_bcc_maps", to)[:1]
        ]
        always = self.resolver.configuration.value("always_bcc")
        found += [always] if always else []
        return list(dict.fromkeys(to for address in found for to in self.final_recipients(address)))

    def archives(self) -> list[str]:
        """Return who gets a copy of all mail. Raises PostfixUnreadable."""
        always = self.resolver.configuration.value("always_bcc")
        found = self.final_recipients(always) if always and self._is_mapped else []
        return [self.generic(address) for address in found]

    def final_sender(self, address: str) -> str:
        """Return a sender as the next hop sees it, the null sender as well.

        Raises PostfixUnreadable.
        """
        return self.generic(self.cleaned("sender", address))

    def final_recipients(self, address: str) -> list[str]:
        """Return who gets the mail for an address, after all aliases. Raises PostfixUnreadable.

        Addresses come first; behind them are the files and programs of aliases.
        """
        found = self._expanded(
            self._virtual(self.cleaned("recipient", address)), self._alias, _MAX_STEPS,
            "{} leads through too many aliases or a loop; remove one of them", "alias_maps",
        )  # fmt: skip
        return sorted(found, key=is_end)

    def _expanded(
        self,
        waiting: list[str],
        step: Callable[[str], list[str]],
        limit: int,
        problem: str,
        name: str,
    ) -> list[str]:
        """Return the final addresses; one that leads to itself stays, beside the others."""
        found: dict[str, None] = {}
        steps = 0
        while waiting:
            address = waiting.pop(0)
            targets = [] if is_end(address) else step(address)
            steps += bool(targets)
            if steps > limit:
                raise AddressCircle(f"{self._place(name)}: {problem.format(address)}")
            found |= dict.fromkeys([address] if not targets else [])
            found |= dict.fromkeys(each for each in targets if each.lower() == address.lower())
            waiting = [each for each in targets if each.lower() != address.lower()] + waiting
        return [*found]

    # --- canonical, virtual, generic ---

    def cleaned(self, kind: str, address: str, part: str = "envelope") -> str:
        """Return an address after canonical mapping and masquerading; `part` may be the header."""
        if part == "header" and not self._is_header_mapped:
            return address
        if not self._is_mapped:
            return self.resolver.qualified(address)
        values = self.resolver.configuration.values
        address = self.resolver.qualified(address) or NULL
        for name in (f"{kind}_canonical", "canonical"):
            if f"{part}_{kind}" in values(f"{name}_classes"):
                address = self._repeated(f"{name}_maps", address)
        is_masked = f"{part}_{kind}" in values("masquerade_classes")
        address = self._masqueraded(address) if is_masked else address
        return "" if address == NULL else address

    def in_header(self, field: str, address: str, service: Service | None = None) -> str:
        """Return an address of a header field as the next hop sees it, nothing of none there."""
        found = self._checked("header_checks", field, address)
        if found:
            found = self.cleaned(_KINDS[field], found, "header")
        return self._checked("smtp_header_checks", field, self.generic(found, service), service)

    def _checked(self, name: str, field: str, address: str, service: Service | None = None) -> str:
        """Return the address that checks leave in a field, nothing where they take it out."""
        for table in self._tables.of(name, service):
            entry = table.find(f"{field}: Name <{address}>") if table.patterns else None
            verb, _, rest = (entry.value if entry is not None else "").partition(" ")
            if verb.upper() == "IGNORE":
                return ""
            if verb.upper() == "REPLACE":
                name, _, text = rest.strip().partition(":")
                return parseaddr(text)[1] if name.lower() == field.lower() else ""
        return address

    def generic(self, address: str, service: Service | None = None) -> str:
        """Return an address as smtp(8) sends it."""
        found = self._results("smtp_generic_maps", address, service) if address else []
        return found[0] if found else address

    def _repeated(self, name: str, address: str) -> str:
        seen = [address]
        for _ in range(_MAX_MAPPINGS):
            found = next(iter(self._results(name, seen[-1])), seen[-1])
            if found.lower() == seen[-1].lower():
                return seen[-1]
            seen.append(found)
        way = " -> ".join(dict.fromkeys((*seen, seen[0])))
        self.notes[f"{self._place(name)}: {name} leads in a loop: {way}; remove one line"] = None
        return seen[-1]  # Postfix sends it all the same

    def _results(self, name: str, address: str, service: Service | None = None) -> list[str]:
        """Return the results of a map for an address, none where it does not know it."""
        tables = self._tables.of(name, service)
        if not tables or is_end(address):
            return []
        entry = self.resolver.by_address(tables, address)
        if entry is None:
            return []
        extension = self._extension(name, entry, address)
        words = split_list(entry.value) or [entry.value]
        return [self._target(word, address, extension) for word in words]

    def _extension(self, name: str, entry: Entry, address: str) -> str:
        """Return `+text` where the entry is of the address without it, and it is kept."""
        bare = self.resolver.without_extension(address)
        kept = self.resolver.configuration.values("propagate_unmatched_extensions")
        kind = next((word for word in ("canonical", "virtual", "generic") if word in name), "")
        if bare is None or kind not in kept:
            return ""
        local, short = address.rpartition("@")[0], bare.rpartition("@")[0]
        return local[len(short) :] if entry.key.lower() in (bare.lower(), short.lower()) else ""

    def _target(self, value: str, address: str, extension: str = "") -> str:
        """Return the address that an entry means: `@domain` keeps the local part."""
        if value.startswith("@"):
            return f"{address.rpartition('@')[0]}{value}"
        local, at, domain = self.resolver.qualified(value).rpartition("@")
        return f"{local}{extension}{at}{domain}"

    def _masqueraded(self, address: str) -> str:
        local, _, domain = address.rpartition("@")
        exceptions = self.resolver.configuration.values("masquerade_exceptions")
        if local.lower() in (exception.lower() for exception in exceptions):
            return address
        for masquerade in self.resolver.configuration.values("masquerade_domains"):
            bare = masquerade.removeprefix("!").lower()
            if domain.lower() == bare or domain.lower().endswith(f".{bare}"):
                return address if bare != masquerade.lower() else f"{local}@{bare}"
        return address

    def _virtual(self, address: str) -> list[str]:
        """Return the results of virtual aliases for an address, through all steps."""
        if not self._is_mapped:
            return [address]
        return self._expanded(
            [address], lambda target: self._results("virtual_alias_maps", target), _MAX_EXPANSIONS,
            "{} leads through a loop of virtual aliases; remove one", "virtual_alias_maps",
        )  # fmt: skip

    def _alias(self, address: str) -> list[str]:
        """Return the results of aliases(5) for a recipient of this host."""
        domain = address.rpartition("@")[2]
        if not self.resolver.is_local(domain) or not self._has_aliases:
            return []
        entry = self.alias_entry(address)
        strays = [] if self.has_user(address) else self.stray_users()
        found: list[str] = []
        for word in alias_words(entry.value) if entry is not None else strays:
            for each in self._included(word):
                target = each if is_end(each) else self.resolver.qualified(each)
                if target.lower() == address.lower():  # the user himself
                    found += strays or [target]
                    continue
                is_here = is_end(target) or self.resolver.is_local(target.rpartition("@")[2])
                found += [target] if is_here else self._virtual(self.cleaned("recipient", target))
        return found

    def alias_entry(self, address: str) -> Entry | None:
        """Return the line of aliases(5) for an address of this host."""
        tables = self._tables.of("alias_maps", aliases=True)
        for form in (address, self.resolver.without_extension(address)):
            local = form.rpartition("@")[0].lower() if form is not None else ""
            entry = find(tables, local, lookup=self.resolver.lookup) if local else None
            if entry is not None:
                return entry
        return None

    def has_user(self, address: str) -> bool | None:
        """Return whether a local address is that of a user; None: the host is another one."""
        forms = (address, self.resolver.without_extension(address))
        names = [form.rpartition("@")[0].lower() for form in forms if form is not None]
        if _ROOT in names:
            return True
        is_known = self.resolver.configuration.is_of_this_host
        return any(map(_is_user, names)) if is_known else None

    def users(self) -> list[str]:
        """Return the users of this host as far as it lists them; of another host root alone."""
        is_known = self.resolver.configuration.is_of_this_host
        return sorted({account.pw_name for account in pwd.getpwall()}) if is_known else [_ROOT]

    def stray_users(self) -> list[str]:
        """Return who gets the mail for users that the host does not have, if that is let in."""
        given = self.resolver.configuration.parameter("luser_relay")
        is_let_in = not self.resolver.configuration.value("local_recipient_maps")
        is_plain = given is not None and "@" in given.value and "$" not in given.value
        return [given.value] if given is not None and is_plain and is_let_in else []

    def _included(self, word: str) -> list[str]:
        """Return the lines of a list that an alias names; what cannot be read stays its name."""
        if not word.startswith(INCLUDE):
            return [word]
        try:
            text = read_text(self._tables.relocated(word.removeprefix(INCLUDE)))
        except PostfixUnreadable:
            return [word]
        lines = (line.strip() for line in text.splitlines())
        return [
            alias_word
            for line in lines
            if not line.startswith("#")
            for alias_word in alias_words(line)
        ]

    def _place(self, name: str) -> Place:
        return self.resolver.configuration.place(name)


def _is_user(name: str) -> bool:
    try:
        return bool(pwd.getpwnam(name))
    except (KeyError, OSError, ValueError):
        return False


def is_end(word: str) -> bool:
    """Return whether a word of an alias is a file, a program or a mailbox, not an address."""
    return bool(_END.match(word))


def alias_words(value: str) -> list[str]:
    """Return the words of a line of aliases(5); what stands in quotes is one."""
    return [word.replace('"', "") for word in _ALIAS_WORD.findall(value)]
