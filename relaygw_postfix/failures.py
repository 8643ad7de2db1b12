"""What keeps mail at Postfix from the way that its configuration tells: failures, and doubts.

By mistakes its smtp client defers mail instead of sending it. What may decide where a mail goes and
is not followed here proves nothing: a doubt is a text that begins with the place and the
parameter's name.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterator
from functools import cached_property
from ipaddress import ip_address
from itertools import product
from pathlib import Path

from relaygw_postfix.access import SENDER, access_tables
from relaygw_postfix.main_cf import Configuration, Service
from relaygw_postfix.maps import Table, find
from relaygw_postfix.resolve import SENDER_MAPS, Delivery, Fate, Resolver, Stop
from relaygw_postfix.rewriting import INCLUDE, Answer, Rewriting, is_end
from relaygw_postfix.samples import SAMPLE

LEVELS = ("none", "may", "encrypt", "fingerprint", "verify", "secure", "dane", "dane-only")
MECHANISMS = ("plain", "login", "cram-md5")
"""The ways to log in by a password that Postfix and relaygw share."""
_AUTHORITIES = ("smtp_tls_CAfile", "smtp_tls_CApath")
_PASSWORDS = "smtp_sasl_password_maps"
DECISIVE = (
    *SENDER_MAPS, "transport_maps", _PASSWORDS, "smtp_tls_policy_maps",
    "sender_canonical_maps", "recipient_canonical_maps", "canonical_maps", "smtp_generic_maps",
    "virtual_alias_maps", "relocated_maps",
)  # fmt: skip
"""Tables that are asked about any mail."""
_CLIENTS = ("smtp", "relay")
_LISTS_OF_USERS = {
    "mydestination": "local_recipient_maps",
    "virtual_mailbox_domains": "virtual_mailbox_maps",
}
"""Who is in none of these is refused where he has a mailbox."""


def unreadable_tables(resolver: Resolver) -> list[str]:
    """Problems of tables that cannot be read and decide where mail goes.

    None of it can be imported then. Raises PostfixUnreadable.
    """
    configuration = resolver.configuration
    services = [None, *(each for each in configuration.services if each.command in _CLIENTS)]
    tables = list(access_tables(resolver))
    for name, service in product(DECISIVE, services):
        is_used = "sasl" not in name or configuration.is_on("smtp_sasl_auth_enable", service)
        tables += resolver.tables.of(name, service) if is_used else []
    return list(dict.fromkeys(table.problem for table in tables if table.problem))


class Failures:
    """The mistakes of a configuration, each with its place."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._configuration: Configuration = resolver.configuration
        self._tables: dict[str, list[Table]] = {}

    def of(self, delivery: Delivery) -> Iterator[str]:
        """Yield why mail that has a way stays deferred for certain."""
        configuration = self._configuration
        service = configuration.service(delivery.transport)
        yield from dict.fromkeys(table.failure for table in self._asked(service) if table.failure)
        if not delivery.stops:
            return
        if service is None and configuration.services:
            yield f"master.cf: there is no service {delivery.transport}, so Postfix cannot send"
        yield from self._of_logins(delivery, service)
        for stop in delivery.stops:
            yield from self._of_family(stop, service)
            yield from self._of_level(stop, service)

    def doubted(self, delivery: Delivery) -> Iterator[str]:
        """Yield why it may stay deferred."""
        service = self._configuration.service(delivery.transport)
        yield from dict.fromkeys(table.missing_index for table in self._asked(service))
        for stop in delivery.stops:
            words = self._configuration.values("smtp_sasl_mechanism_filter", service)
            if stop.login and any(":" in word or "!" in word for word in words):
                yield self._said("smtp_sasl_mechanism_filter", "its result is unknown", service)
            if stop.tls == "none":
                continue
            for name in _AUTHORITIES:
                path = self._configuration.value(name, service)
                if path and not Path(path).exists():
                    yield self._said(name, f"{path} is not there, so TLS may not work", service)

    def _asked(self, service: Service | None) -> list[Table]:
        key = service.name if service is not None else ""
        if key not in self._tables:
            resolver = self._resolver
            found = [*access_tables(resolver), *access_tables(resolver, SENDER)]
            for name in (*DECISIVE, "sender_bcc_maps", "recipient_bcc_maps"):
                if self._is_used(name, service):
                    found += resolver.tables.of(name, service)
            self._tables[key] = found
        return self._tables[key]

    def _is_used(self, name: str, service: Service | None) -> bool:
        return name != _PASSWORDS or self._configuration.is_on("smtp_sasl_auth_enable", service)

    def _said(self, name: str, why: str, service: Service | None) -> str:
        return f"{self._configuration.place(name, service)}: {name}: {why}"

    def _of_logins(self, delivery: Delivery, service: Service | None) -> Iterator[str]:
        configuration = self._configuration
        if not configuration.is_on("smtp_sasl_auth_enable", service):
            return
        if not configuration.value(_PASSWORDS, service):
            why = "Postfix refuses to run without smtp_sasl_password_maps"
            yield self._said("smtp_sasl_auth_enable", why, service)
        if configuration.value("smtp_sasl_type", service) not in ("", "cyrus"):
            yield self._said("smtp_sasl_type", "Postfix logs in by cyrus only", service)
        if not any(stop.login for stop in delivery.stops):
            return
        words = [
            mechanism.lower()
            for mechanism in configuration.values("smtp_sasl_mechanism_filter", service)
        ]
        if words and not any(word in MECHANISMS or ":" in word or "!" in word for word in words):
            why = f"{', '.join(words)} leaves no way to log in by a password"
            yield self._said("smtp_sasl_mechanism_filter", why, service)
        for stop in delivery.stops:
            if stop.login and not stop.login[1]:
                yield self._said(
                    _PASSWORDS, f"{stop.login[0]} has no password; relaygw refuses an empty one",
                    service,
                )  # fmt: skip

    def _of_family(self, stop: Stop, service: Service | None) -> Iterator[str]:
        words = self._configuration.values("inet_protocols", service)
        try:
            family = f"ipv{ip_address(stop.hop.host).version}"
        except ValueError:
            return
        if words and not {"all", family} & {*words}:
            yield self._said("inet_protocols", f"{', '.join(words)} reaches no {stop.hop}", service)

    def _of_level(self, stop: Stop, service: Service | None) -> Iterator[str]:
        value = self._configuration.value
        place = self._resolver.tls_level(stop.written, service)[1]
        policy = self._resolver.tls_policy(stop.written, service)
        if stop.tls not in LEVELS:
            yield f"{place}: {stop.tls} is not a TLS level, so Postfix cannot send"
        has_any = any(
            value(name, service) for name in (*_AUTHORITIES, "smtp_tls_trust_anchor_file")
        )
        has_any |= self._configuration.is_on("tls_append_default_CA", service)
        has_any |= policy is not None and "tafile=" in policy.value
        if stop.tls in ("verify", "secure") and not has_any:
            yield (
                f"{place}: TLS level {stop.tls} without smtp_tls_CAfile: Postfix accepts no "
                "certificate"
            )


# --- doubts --------------------------------------------------------------------------------

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
_REWRITTEN = (*_MAPPING, "smtp_generic_maps")
_LISTS = ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains")
_SENDERS = (*SENDER_MAPS, "sender_canonical_maps", "canonical_maps", "smtp_generic_maps",
            "sender_bcc_maps")  # fmt: skip
_RECIPIENTS = ("transport_maps", "recipient_canonical_maps", "canonical_maps", "relocated_maps",
               "virtual_alias_maps", "smtp_generic_maps", "recipient_bcc_maps")  # fmt: skip


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
            for word in (entry.removeprefix("!") for entry in words):
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
                    action = bad.value.partition(" ")[0] or "an empty action"
                    yield f"{bad.place}: {name}: {action} depends on the content"
                elif table.problem or not table.patterns:
                    yield self._said(name, table.problem or "depends on the content")

    def _services(self) -> Iterator[str]:
        """Yield what is set for single services and read here for all."""
        configuration, door = self._configuration, self._resolver.door
        if configuration.value("cleanup_service_name", door) not in ("", "cleanup"):
            yield self._said("cleanup_service_name", "another cleanup maps addresses", door)
        for service in configuration.services:
            if service.command in _INNER and service.name in (*_INNER, "rewrite"):
                names = [
                    override for override in service.overrides if _FOLLOWED.fullmatch(override)
                ]
                yield from (
                    self._said(name, f"is set for {service.name}", service) for name in names
                )
        takers = [taker for taker in configuration.services if taker.command in ("smtpd", "pickup")]
        option = "receive_override_options"
        kinds = {"no_address_mappings" in configuration.values(option, taker) for taker in takers}
        if len(kinds) > 1 and any(configuration.value(name) for name in _MAPPING):
            example = next(taker for taker in takers if option in taker.overrides)
            yield self._said(option, "addresses are mapped by some services only", example)

    def _unnamed(self, names: tuple[str, ...]) -> Iterator[str]:
        """Yield patterns that may be meant for some of those whom a sample stands for."""
        for name in names:
            for table in self._resolver.tables.of(name):
                yield from (
                    f"{line.place}: {name}: /{line.source}/ may be for some of them"
                    for line in table.patterns
                    if line.told_apart is None and not (name in _REWRITTEN and line.local_parts)
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
                yield from self._of_strays(given, is_here=is_here)
        for address in (answer.recipient, *answer.others):
            if address.startswith(INCLUDE):
                yield self._said("alias_maps", f"the list {address} cannot be read")
        yield from self._of_copies(given, answer) if entry is None else ()
        if is_here:
            yield from (
                self._said(name, "may send mail for users of this host elsewhere")
                for name in _OF_MAILBOXES
                if self._configuration.value(name)
            )
            name = answer.recipient.removeprefix("\\").partition("@")[0]
            yield from _forwards(name)

    def _of_copies(self, recipient: str, answer: Answer) -> Iterator[str]:
        """Yield what keeps copies from being sent."""
        domain = recipient.rpartition("@")[2]
        name = _LISTS_OF_USERS.get(self._resolver.address_class(domain), "")
        if name and answer.others and self._configuration.value(name):
            yield self._said(name, f"{recipient} may be unknown, and refused without any copy")

    def _of_owner(self, local: str) -> Iterator[str]:
        tables: list[Table] = self._resolver.tables.of("alias_maps", aliases=True)
        owner = find(tables, f"owner-{local.lower()}", lookup=self._resolver.lookup)
        if owner is not None:
            yield f"{owner.place}: alias_maps: {owner.key} becomes the sender"

    def _of_strays(self, address: str, *, is_here: bool) -> Iterator[str]:
        local, is_user = address.rpartition("@")[0], self._rewriting.has_user(address)
        if is_here and not is_user and not self._rewriting.stray_users():
            yield self._said(
                "luser_relay", "gets what the sendmail command brings for unknown users"
            )
        elif not is_here and is_user is None and SAMPLE not in local:
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
