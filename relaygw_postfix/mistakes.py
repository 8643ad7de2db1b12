"""What a mistake in a configuration of Postfix is, the rules about its files, and a mend.

The rules about files: lines, permissions, old indexes, tables that nothing uses.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from relaygw.settings.addresses import is_loopback_host
from relaygw.settings.tree import Place
from relaygw_postfix.classes import host_of, recipient_classes, sender_classes, written_hops
from relaygw_postfix.failures import unreadable_tables
from relaygw_postfix.main_cf import Configuration, Parameter, PostfixUnreadable, Service, read_text
from relaygw_postfix.maps import INDEXES, Entry, Table
from relaygw_postfix.report import Report
from relaygw_postfix.resolve import Delivery, Hop, Resolver, Stop, hop_of
from relaygw_postfix.rewriting import Rewriting
from relaygw_postfix.samples import REST, SAMPLE, sample


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake."""

    place: str
    rule: str
    problem: str
    postfix: str  # what to do there
    relaygw: str  # what relaygw does, or what to do here
    is_hint: bool = False  # it is as Postfix has it by default

    @property
    def kind(self) -> str:
        """What it is called."""
        return "hint" if self.is_hint else "mistake"

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}: {self.problem}"


class Subject:
    """What the rules look at."""

    def __init__(self, rewriting: Rewriting) -> None:
        self.rewriting = rewriting
        self.resolver: Resolver = rewriting.resolver
        self.configuration: Configuration = self.resolver.configuration

    def place(self, name: str) -> str:
        """Return where a parameter is set."""
        return str(self.configuration.place(name))

    @cached_property
    def deliveries(self) -> list[tuple[str, Delivery]]:
        """The ways of senders to anybody, and of anybody to recipients."""
        found, nobody = [], Report()
        senders = sender_classes(self.resolver, nobody)
        recipients = recipient_classes(self.resolver, nobody)
        for sender, recipient in chain(
            ((address_class, REST) for address_class in senders),
            ((REST, address_class) for address_class in recipients),
        ):
            try:
                found.append((sender, self.resolver.route(sample(sender), sample(recipient))))
            except PostfixUnreadable:
                continue
        return found

    @cached_property
    def hops(self) -> dict[tuple[Hop, str], Delivery]:
        """Each next hop and its transport, once; those of the recipients' own are not here."""
        return {
            (stop.hop, delivery.transport): delivery
            for _, delivery in self.deliveries
            for stop in delivery.stops
            if SAMPLE not in stop.hop.host
        }

    def service(self, transport: str) -> Service | None:
        """Return the service of a transport."""
        return self.configuration.service(transport)

    def passwords(self, service: Service | None = None) -> list[Entry]:
        """Return the lines of the password maps."""
        tables = self.resolver.tables.of("smtp_sasl_password_maps", service)
        return [entry for table in tables for entry in table.entries if not table.is_static]


Rule = Callable[[Subject], Iterator[Finding]]


# --- without the mistakes ---------------------------------------------------------------


_WRAPPED_PORTS = (465, 2465)


def mended(configuration: Configuration) -> Configuration:
    """Return the configuration with logins where there are passwords."""
    found = replace(configuration, parameters=dict(configuration.parameters))
    names = ("smtp_sasl_auth_enable", "smtp_sender_dependent_authentication")
    if not configuration.value("smtp_sasl_password_maps"):
        return found
    for name in names:
        place = configuration.place(name)
        found.parameters[name] = Parameter(name, "yes", Place("--mend", place.line, place.file))
    return found


class MendedResolver(Resolver):
    """Finds a password in whatever form it is written, and never sends one in clear.

    Aliases of all addresses make no domain one of virtual aliases.
    """

    @cached_property
    def _written(self) -> set[str]:
        return {written_hop.lower() for written_hop in written_hops(self)}

    def is_listed(self, name: str, domain: str, *, parents: bool = False) -> bool:
        """Return whether a domain is in a list; see Resolver."""
        if name == "virtual_alias_domains" and self.has_every_domain_aliased:
            return False
        return super().is_listed(name, domain, parents=parents)

    def login_entry(
        self, sender: str, hop: Hop, written: str, service: Service | None = None
    ) -> Entry | None:
        """Return the line that was meant; see Resolver."""
        found = super().login_entry(sender, hop, written, service)
        if found is not None and "@" in found.key and not self._is_own_hop(sender, hop):
            found = super().login_entry("", hop, written, service)  # his password is for others
        if found is not None or not self.configuration.is_on("smtp_sasl_auth_enable", service):
            return found
        for table in self.tables.of("smtp_sasl_password_maps", service):
            for entry in table.entries:
                is_of_host = host_of(entry.key) == hop.host
                if is_of_host and entry.key.lower() not in self._written:
                    return entry
        return None

    def _is_own_hop(self, sender: str, hop: Hop) -> bool:
        """Return whether a sender's mail goes there but for single recipients."""
        _, nexthop, _ = self._by_class(sender, sample(REST).partition("@")[2])
        return host_of(nexthop) == hop.host and hop_of(nexthop).port == hop.port

    def _stop(self, sender: str, hop: Hop, written: str, service: Service | None) -> Stop:
        stop = super()._stop(sender, hop, written, service)
        if hop.port in _WRAPPED_PORTS:
            stop = replace(stop, is_wrapped=True)
        is_open = stop.login is not None and stop.tls in ("none", "may")
        if is_open and not is_loopback_host(hop.host):
            stop = replace(stop, tls="verify")
        return stop


# --- mistakes in the files -----------------------------------------------------------------

_TABLE_WORD = re.compile(r"(?:proxy:)*([a-z]+):(/[^\s,{}]+)")
_CACHE = re.compile(r"\w+_(cache_database|cache_map)|address_verify_map")
"""What Postfix writes for itself: no tables of the administrator."""
_SECOND_S = 1.0
_MAX_SCRIPT_BYTES = 2**20
_HERE_DOCUMENT = re.compile(r"\bcat\s*<<\s*['\"]?(/\S+?)['\"]?\s*>>?\s*(\w+)")


def _tables(subject: Subject) -> Iterator[tuple[str, Table]]:
    """Yield every table that a parameter names, with the parameter's place."""
    configuration = subject.configuration
    services = [None, *configuration.services]
    for service in services:
        names = configuration.parameters if service is None else service.overrides
        for name in (parameter for parameter in names if not _CACHE.fullmatch(parameter)):
            for kind, path in _TABLE_WORD.findall(_expanded(subject, name, service)):
                is_alias = name in ("alias_maps", "alias_database")
                if kind in INDEXES or kind in ("texthash", "regexp", "pcre"):
                    place = configuration.place(name, service)
                    table = subject.resolver.tables.table(f"{kind}:{path}", place, aliases=is_alias)
                    yield name, table


def _expanded(subject: Subject, name: str, service: object) -> str:
    try:
        return subject.configuration.value(name, service)  # type: ignore[arg-type]
    except PostfixUnreadable:
        return ""


def _permissions(subject: Subject) -> Iterator[Finding]:
    for name, table in _tables(subject):
        if "sasl_password" not in name or table.path is None:
            continue
        for path in (table.path, table.index):
            if path is not None and path.exists() and path.stat().st_mode & stat.S_IROTH:
                yield Finding(
                    str(path), "readable-passwords", "everyone on this host may read the passwords",
                    f"chmod 600 {path}", "writes each password into a file of its own, mode 0600",
                )  # fmt: skip


def _old_indexes(subject: Subject) -> Iterator[Finding]:
    for name, table in _tables(subject):
        text, index = table.path, table.index
        if text is None or index is None:
            continue
        command = "postalias" if name in ("alias_maps", "alias_database") else "postmap"
        remedy = f"{command} {table.spec}"
        if not index.exists():
            if text.exists():
                yield Finding(
                    str(text), "no-index",
                    f"{index.name} is not there: Postfix defers all mail that needs {name}",
                    remedy, "reads the text file",
                )  # fmt: skip
            continue
        if text.exists() and text.stat().st_mtime > index.stat().st_mtime + _SECOND_S:
            yield Finding(
                str(text), "old-index",
                f"is newer than {index.name}, which Postfix reads: the change has no effect",
                remedy, "imports what Postfix uses: the lines of the index",
            )  # fmt: skip


def _unused_files(subject: Subject) -> Iterator[Finding]:
    used = {table.path.resolve() for _, table in _tables(subject) if table.path is not None}
    for index in sorted(subject.configuration.directory.glob("*")):
        if index.suffix in set(INDEXES.values()) and index.with_suffix("").resolve() not in used:
            yield Finding(
                str(index), "unused-table", "no parameter names this table",
                "name it in main.cf, or remove it", "does not import it",
            )  # fmt: skip


def _unused_lines(subject: Subject) -> Iterator[Finding]:
    """Yield maps by sender that lead to hosts without a password, and passwords for nobody."""
    hosts = {hop.host for hop, _ in subject.hops}
    # patterns may lead where no sample goes
    hosts |= {host_of(text) for text in written_hops(subject.resolver)}
    for entry in subject.passwords():
        bare = re.sub(r":\w+$", "", entry.key).strip("[]").lower()
        if "@" not in entry.key and bare not in hosts:
            yield Finding(
                str(entry.place), "unused-password", f"no mail goes to {entry.key}",
                "remove the line, or correct the name", "does not import it",
            )  # fmt: skip


def _broken_tables(subject: Subject) -> Iterator[Finding]:
    stops = unreadable_tables(subject.resolver)
    tables = [table for _, table in _tables(subject)]
    notes = [note for table in tables for note in (table.problem, *table.notes) if note]
    for note in dict.fromkeys((*stops, *notes)):
        place, _, text = note.partition(": ")
        does = "imports nothing until then" if note in stops else "ignores it"
        yield Finding(place, "table", text, "fix the line", does)


def _shell_lines(subject: Subject) -> Iterator[Finding]:
    """Yield here-documents the wrong way round, and what they left behind."""
    for path in sorted(subject.configuration.directory.iterdir()):
        if not path.is_file() or path.stat().st_size > _MAX_SCRIPT_BYTES:
            continue
        if path.suffix in {*INDEXES.values(), ".proto"}:
            continue
        try:
            text = read_text(path)
        except PostfixUnreadable:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            match = _HERE_DOCUMENT.search(line)
            if match is not None:
                yield Finding(
                    f"{path.name}:{number}", "here-document",
                    f"`{line.strip()[:60]}` writes into a file {match[2]}, and nothing into "
                    f"{match[1]}",
                    f"cat >> {match[1]} << {match[2]}", "reads what is in main.cf",
                )  # fmt: skip
        if path.name == "EOF" and re.search(r"^\w+\s*=", text, re.M):
            yield Finding(
                path.name, "here-document",
                "holds parameters that were meant for main.cf: a here-document with its files "
                "swapped",
                "move its lines into main.cf, and remove it", "reads what is in main.cf",
            )  # fmt: skip


def _comments(subject: Subject) -> Iterator[Finding]:
    for parameter in subject.configuration.parameters.values():
        if re.search(r"\s#", parameter.value):
            yield Finding(
                str(parameter.place), "comment-in-value",
                f"{parameter.name}: main.cf has no comments after a value; this one is part of the "
                "value",
                "put the comment on a line of its own", "remove it from what is imported",
            )  # fmt: skip
    for parameter in subject.configuration.repeated:
        later = subject.configuration.parameters[parameter.name]
        yield Finding(
            str(parameter.place), "set-twice",
            f"{parameter.name} is set again at {later.place}, which applies",
            "remove one of the two", "uses the later one, like Postfix",
        )  # fmt: skip


def _unknown(subject: Subject) -> Iterator[Finding]:
    report = Report()
    for verdict in report.verdicts(subject.configuration):
        if verdict.why.startswith("Postfix has no such parameter"):
            yield Finding(
                str(verdict.parameter.place), "unknown", f"{verdict.parameter.name}: {verdict.why}",
                "correct the name, or remove the line", "does not import it",
            )  # fmt: skip
    for problem in subject.configuration.problems:
        place, _, text = problem.partition(": ")
        yield Finding(
            place, "not-readable", text, "fix the line", "imports nothing until then",
        )  # fmt: skip
    for failure in subject.configuration.start_failures:
        place, _, text = failure.partition(": ")
        yield Finding(
            place, "does-not-start", f"{text}; Postfix does not start with it", "correct the value",
            "imports the value unchanged, where it has such a setting",
        )  # fmt: skip


def _passwords_in_main_cf(subject: Subject) -> Iterator[Finding]:
    for table in subject.resolver.tables.of("smtp_sasl_password_maps"):
        if table.path is None and not table.problem:
            yield Finding(
                subject.place("smtp_sasl_password_maps"), "readable-passwords",
                f"a {table.kind} table in main.cf, which everyone on this host may read",
                "a file of mode 600, as hash:/etc/postfix/sasl_passwd",
                "writes each password into a file of its own, mode 0600",
            )  # fmt: skip


FILE_RULES: tuple[Rule, ...] = (
    _comments,
    _unknown,
    _permissions,
    _passwords_in_main_cf, _old_indexes, _unused_files, _unused_lines, _broken_tables, _shell_lines,
)  # fmt: skip
