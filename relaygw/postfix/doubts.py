"""What may decide at Postfix where a mail goes and is not followed here: so nothing is proven.

A doubt is a text that begins with the place and the parameter's name.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from relaygw.postfix.classes import SAMPLE
from relaygw.postfix.deliveries import Fate
from relaygw.postfix.failures import Failures
from relaygw.postfix.maps import Table, find
from relaygw.postfix.resolve import SENDER_MAPS, Resolver
from relaygw.postfix.rewriting import INCLUDE, Answer, Rewriting, is_end

_OF_EACH = {
    "content_filter": "a filter gets the mail first",
    "smtpd_proxy_filter": "a filter gets the mail first",
    "smtpd_command_filter": "it may change the client's commands",
    "smtpd_milters": "a milter may refuse, redirect or change it",
    "smtpd_milter_maps": "a milter may refuse, redirect or change it",
    "non_smtpd_milters": "a milter may redirect or change what the sendmail command brings",
    "defer_transports": "mail of these transports waits",
    "smtp_tls_per_site": "it may choose another TLS level",
}
"""Parameters that may decide about any mail, as soon as they have a value."""
_OF_MAILBOXES = (
    "mailbox_transport", "mailbox_transport_maps", "fallback_transport", "fallback_transport_maps",
)  # fmt: skip
_CHECKS = ("header_checks", "mime_header_checks", "nested_header_checks", "body_checks")
_HARMLESS = re.compile(r"(DUNNO|INFO|WARN|IGNORE|REPLACE|PREPEND|STRIP)\b", re.I)
_INNER = ("cleanup", "trivial-rewrite", "qmgr", "oqmgr", "local")
_FOLLOWED = re.compile(
    r"\w+_(maps|classes|transport|domains|bcc|delimiter)|(my|relay)\w+|relayhost|append_\w+"
)
_MAPPING = ("canonical_maps", "sender_canonical_maps", "recipient_canonical_maps",
            "masquerade_domains", "virtual_alias_maps")  # fmt: skip
_LISTS = ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains")
_SENDERS = (*SENDER_MAPS, "sender_canonical_maps", "canonical_maps", "smtp_generic_maps")
_RECIPIENTS = ("transport_maps", "recipient_canonical_maps", "canonical_maps", "relocated_maps",
               "virtual_alias_maps", "smtp_generic_maps")  # fmt: skip


class Doubts:
    """The doubts about a configuration."""

    def __init__(self, rewriting: Rewriting) -> None:
        self._rewriting = rewriting
        self._resolver: Resolver = rewriting.resolver
        self._configuration = rewriting.resolver.configuration
        self._failures = Failures(rewriting.resolver)

    def of(self, sender: str, recipient: str, answer: Answer) -> Iterator[str]:
        """Yield what could make the answer another one."""
        yield from answer.doubts
        if answer.delivery.fate is Fate.REFUSE and not answer.delivery.transport:
            return  # it came no further than the door
        yield from self._of_all
        for address, names in ((sender, _SENDERS), (recipient, _RECIPIENTS)):
            if SAMPLE in address:
                yield from self._unnamed(names)
            elif address:
                yield from self._of_form(address)
        delivery = answer.delivery
        if delivery.fate is Fate.OTHER and delivery.transport != "local":
            yield f"{'; '.join(delivery.places)}: {delivery.reason}: a program may send it on"
        yield from self._of_mailboxes(recipient, answer)
        yield from self._of_login(answer)
        yield from filter(None, self._failures.doubted(answer.delivery))

    def _said(self, name: str, why: str, service: object = None) -> str:
        place = self._configuration.place(name, service)  # type: ignore[arg-type]
        return f"{place}: {name}: {why}"

    @cached_property
    def _of_all(self) -> list[str]:
        return [*dict.fromkeys((*self._set(), *self._checks(), *self._services()))]

    def _set(self) -> Iterator[str]:
        value, door = self._configuration.value, self._resolver.door
        for name, why in _OF_EACH.items():
            if value(name, door):
                yield self._said(name, why, door)
        if self._configuration.is_on("smtpd_reject_unlisted_sender", door):
            yield self._said("smtpd_reject_unlisted_sender", "unknown senders are refused", door)
        for name in (*_LISTS, "relay_recipient_maps"):
            words = self._configuration.values(name)
            place = self._configuration.place(name)
            for word in (one.removeprefix("!") for one in words):
                is_table = re.match(r"(proxy:)?[a-z]+:", word)
                table = self._resolver.tables.table(word, place) if is_table else None
                if table is not None and table.problem:
                    yield self._said(name, f"cannot be read: {table.problem}")
                elif table is not None and (table.failure or table.missing_index):
                    yield self._said(name, table.failure or table.missing_index)

    def _checks(self) -> Iterator[str]:
        for name in _CHECKS:
            for table in self._resolver.tables.of(name):
                bad = next((p for p in table.patterns if not _HARMLESS.match(p.value)), None)
                if bad is not None:
                    yield f"{bad.place}: {name}: {bad.value.split()[0]} depends on the content"
                elif table.problem or not table.patterns:
                    yield self._said(name, table.problem or "depends on the content")

    def _services(self) -> Iterator[str]:
        """Yield what is set for single services and read here for all."""
        configuration, door = self._configuration, self._resolver.door
        if configuration.value("cleanup_service_name", door) not in ("", "cleanup"):
            yield self._said("cleanup_service_name", "another cleanup maps addresses", door)
        for service in configuration.services:
            if service.command in _INNER and service.name in (*_INNER, "rewrite"):
                names = [one for one in service.overrides if _FOLLOWED.fullmatch(one)]
                yield from (self._said(one, f"is set for {service.name}", service) for one in names)
        takers = [one for one in configuration.services if one.command in ("smtpd", "pickup")]
        option = "receive_override_options"
        kinds = {"no_address_mappings" in configuration.values(option, one) for one in takers}
        if len(kinds) > 1 and any(configuration.value(one) for one in _MAPPING):
            one = next(one for one in takers if option in one.overrides)
            yield self._said(option, "addresses are mapped by some services only", one)

    def _unnamed(self, names: tuple[str, ...]) -> Iterator[str]:
        """Yield patterns that may be meant for some of those whom a sample stands for."""
        for name in names:
            for table in self._resolver.tables.of(name):
                yield from (
                    f"{line.place}: {name}: /{line.source}/ may be for some of them"
                    for line in table.patterns
                    if line.told_apart is None
                )

    def _of_form(self, address: str) -> Iterator[str]:
        local, at, _ = address.rpartition("@")
        if not at and not self._configuration.is_on("append_at_myorigin"):
            yield self._said("append_at_myorigin", f"{address} gets no domain")
        for sign, name in (("%", "allow_percent_hack"), ("!", "swap_bangpath")):
            if sign in (local or address):
                yield self._said(name, f"{sign} may name another host")

    def _of_mailboxes(self, recipient: str, answer: Answer) -> Iterator[str]:
        """Yield what local(8) goes by."""
        given = self._resolver.qualified(recipient)
        is_here = answer.delivery.transport == "local"
        entry = self._rewriting.alias_entry(given) if not is_end(given) else None
        if self._resolver.is_local(given.rpartition("@")[2]) or is_here:
            local = given.rpartition("@")[0]
            for table in self._resolver.tables.of("alias_maps", aliases=True):
                if table.problem:
                    yield self._said("alias_maps", f"cannot be read: {table.problem}")
                if table.failure or table.missing_index:
                    yield self._said("alias_maps", table.failure or table.missing_index)
            if entry is not None:
                yield from self._of_owner(local)
            strays = self._configuration.value("luser_relay")
            if strays and (is_here or strays in (answer.recipient, *answer.others)):
                yield from self._of_strays(local, is_here=is_here)
        for one in (answer.recipient, *answer.others):
            if one.startswith(INCLUDE):
                yield self._said("alias_maps", f"the list {one} cannot be read")
        if is_here:
            yield from (
                self._said(name, "may send mail for users of this host elsewhere")
                for name in _OF_MAILBOXES
                if self._configuration.value(name)
            )
            name = answer.recipient.removeprefix("\\").partition("@")[0]
            yield from _forwards(name)

    def _of_owner(self, local: str) -> Iterator[str]:
        tables: list[Table] = self._resolver.tables.of("alias_maps", aliases=True)
        owner = find(tables, f"owner-{local.lower()}", lookup=self._resolver.lookup)
        if owner is not None:
            yield f"{owner.place}: alias_maps: {owner.key} becomes the sender"

    def _of_strays(self, local: str, *, is_here: bool) -> Iterator[str]:
        if is_here:
            yield self._said(
                "luser_relay", "gets what the sendmail command brings for unknown users"
            )
        elif SAMPLE not in local:
            yield self._said("luser_relay", f"only if {local} is not a user of this host")

    def _of_login(self, answer: Answer) -> Iterator[str]:
        service = self._configuration.service(answer.delivery.transport)
        for stop in answer.delivery.stops:
            name = ("smtp_sasl_security_options" if stop.tls == "none"
                    else "smtp_sasl_tls_security_options")  # fmt: skip
            words = self._configuration.values(name, service)
            if stop.login and "noplaintext" in words:
                yield self._said(name, "noplaintext forbids most ways to log in", service)


def _forwards(local: str) -> Iterator[str]:
    """Yield the file by which a user of this host sends his mail on."""
    try:
        file = Path(pwd.getpwnam(local).pw_dir) / ".forward"
        if file.exists():
            yield f"{file}: forward_path: may send the mail elsewhere"
    except (KeyError, OSError, ValueError):
        return
