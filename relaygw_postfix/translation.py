"""A relaygw.yaml that does what a Postfix does: its values, its secrets, what is said of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from relaygw.mail.words import some_of
from relaygw.settings.addresses import (
    EVERY_SENDER,
    NULL_SENDER,
    Address,
    Domain,
    Entry,
    RewriteKey,
    SenderKey,
)
from relaygw.settings.section import fits, format_duration
from relaygw_postfix.failures import unreadable_tables
from relaygw_postfix.main_cf import Configuration, PostfixUnreadable
from relaygw_postfix.maps import Table, Tables
from relaygw_postfix.patterns import PatternLine, addresses_of, local_parts_of
from relaygw_postfix.providers import Providers, timeouts
from relaygw_postfix.report import REFUSED, Report, seconds
from relaygw_postfix.resolve import Fate, Resolver
from relaygw_postfix.rewriting import AddressCircle, Rewriting, is_end
from relaygw_postfix.routes import Routing
from relaygw_postfix.samples import PROBES, REST, SAMPLE, sample
from relaygw_postfix.sections import listeners, recipients, tell_restrictions

_REWRITES = {
    "sender": ("sender_canonical_maps", "canonical_maps", "smtp_generic_maps"),
    "recipient": (
        "recipient_canonical_maps", "canonical_maps", "virtual_alias_maps", "smtp_generic_maps",
    ),
}  # fmt: skip


Rules = dict[str, list[str]]
"""What addresses, `@domain` and others become."""


@dataclass
class Translation:
    """What is written, and how it was found."""

    values: dict[str, Any]
    secrets: dict[str, str]  # by file name
    report: Report
    rewriting: Rewriting
    routing: Routing
    rewritten: dict[str, list[str]]  # what maps of addresses know, by the key of `rewrite`


def translate(rewriting: Rewriting, secrets_directory: Path) -> Translation:
    """Return the relaygw.yaml for a configuration. Raises PostfixUnreadable.

    `secrets_directory` is where the files of the passwords will lie.
    """
    configuration = rewriting.resolver.configuration
    report = Report()
    check_readable(rewriting.resolver)
    providers = Providers(configuration, report, secrets_directory)
    routing = Routing(rewriting, providers, report)
    routing.find_out()
    routes = routing.routes()
    providers.tell()
    shared = timeouts(configuration)
    for provider in providers.values.values():
        provider |= {"timeouts": shared} if shared else {}
    values: dict[str, Any] = {"mode": "staging" if routing.is_allow_list else "production"}
    hostname = configuration.value("smtp_helo_name") or configuration.value("myhostname")
    if fits(Domain, hostname):
        values["hostname"] = hostname
    found, rewritten = listeners(configuration, report), dict[str, list[str]]()
    retry = dict(_retry(configuration, report))
    sections = {
        "listeners": found,
        "providers": providers.values,
        "routes": routes,
        "recipients": dict(recipients(routing, report)),
        "rewrite": dict(_rewrite(rewriting, report, rewritten)),
        "retry": retry,
        "bounces": dict(_bounces(rewriting.resolver, report, is_warned="warn_after" in retry)),
        "log": dict(_log(configuration)),
    }
    values |= {name: section for name, section in sections.items() if section}
    if routing.led:  # rewriting comes first: what it leads elsewhere is on no way to the reader
        listed = values["recipients"]["allow"]
        keys = [key for key in rewritten.get("recipients", ()) if "@" in key]
        finals = [to for key in keys for to in rewriting.final_recipients(_address(key))]
        targets = [final.removeprefix(SAMPLE) for final in finals if not is_end(final)]
        named = [target for target in targets if fits(Entry, target)]
        values["recipients"]["allow"] = list(dict.fromkeys((*listed, *named)))
    values |= _archive(rewriting, report, values.get("recipients", {}))
    tell_restrictions(rewriting.resolver, report)
    for note in rewriting.notes:
        report.warn(note)
    _judge(configuration, report)
    for table in rewriting.resolver.tables.all:
        for note in (table.problem, *table.notes):
            if note:
                report.warn(note)
    return Translation(values, providers.secrets, report, rewriting, routing, rewritten)


def _archive(rewriting: Rewriting, report: Report, recipients: dict[str, Any]) -> dict[str, str]:
    """Return who gets a copy of all mail; staging lets it out where Postfix sends it."""
    found = [archive for archive in rewriting.archives() if fits(Address, archive)]
    found = [archive for archive in found if not rewriting.resolver.is_local(_domain(archive))]
    name, resolver = "always_bcc", rewriting.resolver
    if len(found) != 1:
        if resolver.configuration.value(name):
            report.warn(
                f"{resolver.configuration.place(name)}: {name}: leads to "
                f"{', '.join(found) or 'no address elsewhere'}, and archive_to is one address: "
                "write that of a mailbox or a list"
            )
        return {}
    if "allow" in recipients and resolver.route("", found[0]).fate is Fate.SEND:
        recipients["allow"] = list(dict.fromkeys((*recipients["allow"], found[0])))
    return {"archive_to": found[0]}


def check_readable(resolver: Resolver) -> None:
    """Raise PostfixUnreadable for a line that Postfix fails with, and for unreadable tables.

    What the line was meant to say, such as a TLS level, is not guessed.
    """
    problems = [*resolver.configuration.problems, *unreadable_tables(resolver)]
    if problems:
        raise PostfixUnreadable("\n".join(problems))


# --- addresses ------------------------------------------------------------------------------


def _rewrite(
    rewriting: Rewriting, report: Report, known: dict[str, list[str]]
) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the section; `known` gets what could be rewritten, and is compared."""
    resolver = rewriting.resolver
    _tell_classes(resolver, report)
    if fits(Domain, resolver.origin):
        yield "default_domain", resolver.origin
    if rewriting.cleaned("sender", "bob", "header") != "bob":
        report.warn(
            f"{resolver.configuration.place('append_at_myorigin')}: header addresses without a "
            f"domain (From: <bob>): Postfix completes them to {resolver.qualified('bob')}; relaygw "
            "completes the envelope, and From of the sendmail command; have programs write full "
            "addresses"
        )
    senders: Rules = {}
    for key, place in _keys("sender", rewriting):
        known.setdefault("senders", []).extend([key] if fits(SenderKey, key) else [])
        with _circles_told(report):
            _put(senders, key, [rewriting.final_sender(_address(key))], place, report)
    senders |= _of_everybody(rewriting)
    senders = _needed(senders)
    _tell_patterns("sender", rewriting, senders, report)
    if senders:
        yield "senders", {key: target for key, (target,) in senders.items()}
    recipients: Rules = {}
    for key, place in _keys("recipient", rewriting):
        known.setdefault("recipients", []).extend([key] if fits(RewriteKey, key) else [])
        with _circles_told(report):
            _put_recipients(recipients, key, place, rewriting, report)
    recipients = _needed(recipients)
    _tell_users(rewriting, report)
    _tell_patterns("recipient", rewriting, recipients, report)
    if recipients:
        yield "recipients", {key: x[0] if len(x) == 1 else x for key, x in recipients.items()}
    signs = resolver.configuration.value("recipient_delimiter")
    if signs and (senders or recipients):
        if len(signs) > 1:
            report.warn(
                f"{resolver.configuration.place('recipient_delimiter')}: recipient_delimiter: "
                f"relaygw knows one sign, here {signs[0]}; write rules for addresses with others"
            )
        yield "recipient_delimiter", signs[0]
    fields = _in_header(rewriting, senders, recipients, report)
    if fields != ["senders"]:
        yield "header", fields


def _put_recipients(
    found: Rules, key: str, place: str, rewriting: Rewriting, report: Report
) -> None:
    """Add the rule for a recipient; who stays on this host never comes to smtp(8)."""
    resolver = rewriting.resolver
    targets = rewriting.final_recipients(_address(key))
    finals = [
        (target, target if is_end(target) else rewriting.generic(target)) for target in targets
    ]
    kept = [
        target for target, final in finals
        if any(is_end(each) or resolver.is_local(_domain(each)) for each in (target, final))
    ]  # fmt: skip
    sent = [final for target, final in finals if target not in kept]
    if sent and kept:
        report.warn(
            f"{place}: {key}: relaygw has no mailboxes and runs no programs: {', '.join(kept)} "
            f"will not receive it, but {', '.join(sent)}"
        )
    if sent:
        _put(found, key, sent, place, report)
    elif resolver.is_local(_domain(key)):  # a rule for the whole domain is not for this address
        _put(found, key, [_address(key)], place, report)


def _of_everybody(rewriting: Rewriting) -> Rules:
    """Return the rules for every other sender, and for the null sender."""
    finals = [rewriting.final_sender(probe) for probe in PROBES]
    to_domain = f"@{_domain(finals[0])}"
    null, found = rewriting.final_sender(""), Rules()
    if len({*finals}) == 1 and fits(Address, finals[0]):
        found[EVERY_SENDER] = [finals[0]]
    elif fits(Entry, to_domain) and finals == [_joined(probe, to_domain) for probe in PROBES]:
        found[EVERY_SENDER] = [to_domain]
    if null and fits(Address, null):
        found[NULL_SENDER] = [null]
    return found


def _in_header(
    rewriting: Rewriting, senders: Rules, recipients: Rules, report: Report
) -> list[str]:
    """Return whose addresses are rewritten in header fields: as for most of the rules."""
    found = []
    for field, name, rules in (("From", "senders", senders), ("To", "recipients", recipients)):
        single = {
            _address(key): targets[0]
            for key, targets in rules.items()
            if len(targets) == 1 and "@" in _address(key) and targets[0] != key
        }
        alike = [
            key for key, to in single.items()
            if rewriting.in_header(field, key).lower() == _joined(key, to).lower()
        ]  # fmt: skip
        if 2 * len(alike) > len(single) or (name == "senders" and not single):
            found.append(name)
        if alike and len(alike) < len(single):
            rest = [key for key in single if key not in alike]
            does = "rewrites" if name in found else "does not rewrite"
            report.warn(
                f"rewrite.header: Postfix rewrites {some_of(alike)} in header fields, too, and "
                f"{some_of(rest)} in the envelope only; relaygw {does} the {name} of the header"
            )
    return found


def _tell_classes(resolver: Resolver, report: Report) -> None:
    """Say where a map is not for envelope and header alike."""
    configuration, option = resolver.configuration, "receive_override_options"
    if "no_address_mappings" in configuration.values(option, resolver.door):
        place = configuration.place(option, resolver.door)
        report.warn(f"{place}: {option}: no addresses are mapped, so the maps are not imported")
    for name, kinds in (
        ("sender_canonical", ("sender",)),
        ("recipient_canonical", ("recipient",)),
        ("canonical", ("sender", "recipient")),
    ):
        classes = (
            configuration.values(f"{name}_classes") if configuration.value(f"{name}_maps") else []
        )
        for kind in kinds:
            if f"header_{kind}" in classes and f"envelope_{kind}" not in classes:
                report.warn(
                    f"{configuration.place(f'{name}_classes')}: {name}_classes: Postfix maps the "
                    f"{kind}s of the header only; relaygw rewrites none: it has the envelope "
                    "alone, or both"
                )


def _tell_users(rewriting: Rewriting, report: Report) -> None:
    """Say whose mail luser_relay leads elsewhere."""
    strays, resolver = rewriting.stray_users(), rewriting.resolver
    if not strays or not resolver.local_domains or resolver.is_local(_domain(strays[0])):
        return
    configuration, example = resolver.configuration, f"user@{resolver.local_domains[0]}"
    users = (
        f"mail for those it has, here {some_of(rewriting.users())}, is captured and never sent"
        if configuration.is_of_this_host
        else "a copy of its configuration does not say which users it has, so their mail, which "
        "Postfix puts into their mailboxes, goes there, too: to have it captured, write each into "
        f'rewrite.recipients, as "{example}": "{example}"'
    )
    report.warn(
        f"{configuration.place('luser_relay')}: luser_relay: mail for users whom the host does not "
        f"have goes to {strays[0]}, as at Postfix; {users}"
    )


def _domain(address: str) -> str:
    return address.rpartition("@")[2]


def _address(key: str) -> str:
    return sample(REST if key == EVERY_SENDER else key)


def _joined(address: str, target: str) -> str:
    """Return an address after a rule: `@domain` keeps the local part."""
    return f"{address.rpartition('@')[0]}{target}" if target.startswith("@") else target


@contextmanager
def _circles_told(report: Report) -> Iterator[None]:
    try:
        yield
    except AddressCircle as error:
        report.warn(f"{error}: Postfix does not deliver this mail, and it is not rewritten here")


def _put(found: Rules, key: str, finals: list[str], place: str, report: Report) -> None:
    targets = [final.removeprefix(SAMPLE) if key[0] == "@" else final for final in finals]
    kind = SenderKey if key in (EVERY_SENDER, NULL_SENDER) else RewriteKey
    if fits(kind, key) and all(fits(Entry, target) and SAMPLE not in target for target in targets):
        found[key] = list(dict.fromkeys(targets))
    elif finals != [_address(key)]:
        report.warn(
            f"{place}: {key} -> {', '.join(targets)} does not rewrite addresses or domains to "
            "others; left out"
        )


def _needed(found: Rules) -> Rules:
    """Return rules without those that say what a wider one, or none, does."""
    kept = {}
    for key, targets in found.items():
        wider = next((found[wider_key] for wider_key in _wider(key) if wider_key in found), [key])
        usual = [_joined(key, target) if key[0] != "@" else target for target in wider]
        if [target.lower() for target in targets] != [target.lower() for target in usual]:
            kept[key] = targets
    return kept


def _wider(key: str) -> Iterator[str]:
    if key in (EVERY_SENDER, NULL_SENDER):
        return
    if "@" in key[1:] and not key.endswith("@*"):
        yield f"{key.rpartition('@')[0]}@*".lower()
        yield f"@{_domain(key)}".lower()
    yield EVERY_SENDER


def _keys(kind: str, rewriting: Rewriting) -> Iterator[tuple[str, str]]:
    """Yield what may be rewritten, with its line: addresses, `@domain`, local parts."""
    resolver = rewriting.resolver
    here = list(dict.fromkeys((resolver.origin.lower(), *resolver.local_domains)))
    tables = [table for name in _REWRITES[kind] for table in resolver.tables.of(name)]
    seen: dict[str, str] = {}
    for table in tables:
        for key, place in _keys_of(table, here):
            seen.setdefault(key, place)
    # where another line is for the domain, the first of the two holds
    domains = [key for key in seen if key.startswith("@")]
    for line in (pattern for table in tables for pattern in table.patterns):
        for local, domain in product(line.local_parts, domains):
            seen.setdefault(f"{local}{domain}", str(line.place))
    yield from seen.items()
    if kind == "recipient":
        aliases = _aliases(rewriting, here)
        yield from ((key, place) for key, place in aliases.items() if key not in seen)
        if rewriting.stray_users():
            where = resolver.configuration.place("luser_relay")
            names = [*rewriting.users(), ""]
            found = (f"{name}@{domain}" for domain in resolver.local_domains for name in names)
            yield from ((key, str(where)) for key in found if key not in seen)
    elif resolver.configuration.values("masquerade_domains"):
        where = resolver.configuration.place("masquerade_domains")
        exceptions = resolver.configuration.values("masquerade_exceptions")
        for domain in here:
            keys = (f"@{domain}", *(f"{exception.lower()}@{domain}" for exception in exceptions))
            yield from ((sender, str(where)) for sender in keys if sender not in seen)


def _aliases(rewriting: Rewriting, here: list[str]) -> dict[str, str]:
    """Return the names of aliases(5), alone and at each domain of this host, with their lines."""
    found: dict[str, str] = {}
    for table in rewriting.resolver.tables.of("alias_maps", aliases=True):
        for entry in table.entries:
            for key in (entry.key, *(f"{entry.key}@{domain}" for domain in here)):
                if fits(RewriteKey, key):
                    found.setdefault(key.lower(), str(entry.place))
    return found


def _keys_of(table: Table, here: list[str]) -> Iterator[tuple[str, str]]:
    everyone = [f"@{domain}" for domain in here]
    for line in table.patterns:
        yield from ((key, str(line.place)) for key in (*_names_in(line, here), *everyone))
    for entry in table.entries:
        if table.is_static:
            yield from ((domain, str(entry.place)) for domain in everyone)
        elif "@" in entry.key:
            yield entry.key.lower(), str(entry.place)
        else:
            yield from ((f"{entry.key.lower()}{domain}", str(entry.place)) for domain in everyone)


def _names_in(line: PatternLine, here: list[str]) -> list[str]:
    """Return the addresses and domains that a pattern names, its exceptions, too.

    A local part is one at this host.
    """
    if line.addresses is not None:
        return [
            address for address in line.addresses if not address.startswith(".") and address != "*"
        ]
    found = [f"{local}@{domain}" for local in local_parts_of(line.source) for domain in here]
    found += [f"{local}@*" for local in line.local_parts]
    found += [address for address in addresses_of(line.source) or () if address.find("@") > 0]
    return found


def _tell_patterns(kind: str, rewriting: Rewriting, written: Iterable[str], report: Report) -> None:
    """Say of each pattern that stands for more than relaygw can name what is written of it."""
    known = {key: (_address(key), rewriting.cleaned(kind, _address(key))) for key in written}
    for name in _REWRITES[kind]:
        lines = (line for table in rewriting.resolver.tables.of(name) for line in table.patterns)
        for line, what in ((line, _beyond_names(line)) for line in lines):
            mine = [key for key, forms in known.items() if any(map(line.matches, forms))]
            here = f"; relaygw rewrites those it knows, here {some_of(mine)}: write each other"
            nothing = f", and nothing of it is in relaygw.yaml: write each {kind}"
            is_written = EVERY_SENDER in known and line.matches(sample(REST))
            if what and not is_written:
                report.warn(
                    f"{line.place}: /{line.source}/ is {what}{here if mine else nothing} in use "
                    f'into rewrite.{kind}s, as ADDRESS: ADDRESS or "@domain": ADDRESS'
                )


def _beyond_names(line: PatternLine) -> str:
    """Describe a pattern that is more than a list of what relaygw can name, "" for such a list."""
    if line.local_parts:
        return ""
    named = None if line.condition.is_negated else addresses_of(line.source)
    if named is None or (line.around and any(address.find("@") < 1 for address in named)):
        return "no list of addresses and domains"
    if "*" in named:
        return "every address"
    below = ", ".join(address[1:] for address in named if address.startswith("."))
    return f"every address below {below}" if below else ""


# --- the rest -------------------------------------------------------------------------------


def _retry(configuration: Configuration, report: Report) -> Iterator[tuple[str, str]]:
    found: dict[str, float] = {}
    for key, name, unit in (
        ("first", "minimal_backoff_time", ""),
        ("max", "maximal_backoff_time", ""),
        ("lifetime", "maximal_queue_lifetime", "d"),
        ("warn_after", "delay_warning_time", "h"),
    ):
        if configuration.parameter(name) is None:
            continue
        text = configuration.value(name)
        value = seconds(text if re.search(r"[a-z]", text) else text + unit)
        if value is None:
            report.warn(f"{configuration.place(name)}: {name}: {text} is not a time; left out")
            continue
        if key == "warn_after" and not value:
            continue  # off
        found[key] = value or 1.0
    if "first" in found and found["first"] > found.get("max", 3600.0):
        found["max"] = found["first"]
    if found.get("warn_after", 0.0) >= found.get("lifetime", 5 * 86400.0):
        del found["warn_after"]  # the bounce comes first
    yield from ((key, format_duration(value)) for key, value in found.items())


def _bounces(resolver: Resolver, report: Report, *, is_warned: bool) -> Iterator[tuple[str, str]]:
    """Yield who is told of failures, where the file shows that somebody reads it."""
    configuration = resolver.configuration
    if "bounce" in configuration.values("notify_classes"):
        name = "bounce_notice_recipient"
        address = configuration.value(name)
        address = address if "@" in address else f"{address}@{resolver.origin}"
        if fits(Address, address):
            yield "to", address
            return
        report.warn(f"{configuration.place(name)}: {name}: {address} is not an address; left out")
    if is_warned:
        yield "to", "sender"


def _log(configuration: Configuration) -> Iterator[tuple[str, str]]:
    if configuration.parameter("syslog_name") is not None:
        name = configuration.value("syslog_name")
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,31}", name):
            yield "syslog_name", name


def _judge(configuration: Configuration, report: Report) -> None:
    """Say of header_checks what only its lines tell."""
    name = "header_checks"
    tables = Tables(configuration).of(name)
    if tables and not _only_logs(tables):
        report.judge(
            name, REFUSED, "relaygw does not change or check header fields; it logs the subject"
        )


def _only_logs(tables: list[Table]) -> bool:
    lines = [line for table in tables for line in table.patterns]
    return bool(lines) and all(re.match(r"(INFO|WARN|DUNNO)\b", line.value) for line in lines)
