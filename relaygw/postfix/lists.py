"""The section recipients for whom a Postfix refuses, discards or keeps on its host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from relaygw.postfix.access import RESTRICTIONS, SENDER, access_fate, access_tables, lists
from relaygw.postfix.classes import REST
from relaygw.postfix.deliveries import Fate
from relaygw.postfix.report import Report
from relaygw.postfix.resolve import Resolver
from relaygw.postfix.routes import Routing, covering
from relaygw.settings.addresses import Address, Entry
from relaygw.settings.section import fits

_DISCARDS = (Fate.DISCARD, Fate.DISCARD_ALL)


def recipients(routing: Routing, report: Report) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the section; what differs is told."""
    refused, dropped = routing.of_fate(Fate.REFUSE), routing.of_fate(*_DISCARDS)
    kept = routing.of_fate(Fate.LOCAL, Fate.OTHER, Fate.LATER, Fate.HOLD, Fate.REDIRECT)
    if routing.is_allow_list:
        yield from _allow_list(routing, report)
        # the others are not on the list anyway
        refused, dropped, kept = (
            [one for one in classes if _is_exception(one, routing)]
            for classes in (refused, dropped, kept)
        )
    blocked = [*refused, *dropped, *kept]
    if not blocked:
        return
    # one answer for all that is blocked: the one that loses least
    used = "capture" if kept else "reject" if refused else "drop"
    if kept:
        report.warn(
            f"{_named(kept)}: Postfix keeps this mail on this host, or sends it to somebody else; "
            "relaygw has no mailboxes: it is captured and never sent. Name a reader: "
            "rewrite.recipients: {root: ADDRESS}"
        )
    for does, classes, own in (("discards", dropped, "drop"), ("refuses", refused, "reject")):
        if classes and used != own:
            report.warn(
                f"{_named(classes)}: Postfix {does} this mail; recipients.blocked is {used}, "
                "because it applies to all blocked mail"
            )
    for one in routing.of_fate(Fate.SEND):
        wider = next((each for each in covering(one) if each in blocked), None)
        if wider is not None and not routing.is_allow_list:
            report.warn(
                f"{one}: Postfix sends this mail, though {wider} is blocked; relaygw's lists have "
                f"no exceptions: remove {wider} from recipients.block, or this mail is not sent"
            )
    signs = routing.rewriting.resolver.configuration.values("recipient_delimiter")
    if signs and any("@" in one[1:] for one in blocked):
        report.warn(
            f"recipients.block: Postfix means addresses with what follows {signs[0]}, too, such as "
            f"user{signs[0][0]}text@domain; relaygw blocks an address as it is written: add those "
            "that are used"
        )
    yield "block", list(_entries(blocked, "recipients.block", report))
    yield "blocked", used


def _allow_list(routing: Routing, report: Report) -> Iterator[tuple[str, Any]]:
    rest = routing.fates[REST]
    allowed = list(_entries(routing.of_fate(Fate.SEND), "recipients.allow", report))
    does = "refuses is captured, with 250 to the client: shops would retry forever"
    refused = ""
    if rest.fate in _DISCARDS:
        refused, does = "drop", "discards is dropped"
    elif rest.fate is Fate.HOLD:
        does = "holds is captured, and released by hand"
    elif rest.fate is Fate.REDIRECT and fits(Address, rest.reason):
        refused, does = f"redirect:{rest.reason}", "sends to another address is also sent there"
        allowed = list(dict.fromkeys((*allowed, rest.reason)))
    elif rest.fate is not Fate.REFUSE:
        does = f"does with the others ({rest.fate}) is not done: they are captured"
    yield "allow", allowed
    if refused:
        yield "refused", refused
    report.warn(
        f"{rest.places[0] if rest.places else 'main.cf'}: only listed recipients receive, so the "
        f"mode is staging; what Postfix {does}"
    )


def _is_exception(one: str, routing: Routing) -> bool:
    """True for a class within one that receives."""
    wider = (each for each in covering(one) if each and each in routing.fates)
    return any(routing.fates[each].fate is Fate.SEND for each in wider)


def _named(classes: list[str]) -> str:
    return ", ".join(classes[:4]) + (" ..." if len(classes) > 4 else "")


def _entries(classes: list[str], where: str, report: Report) -> Iterator[str]:
    for one in classes:
        if fits(Entry, one):
            yield one
        elif f"@{one[1:]}" in classes:
            report.warn(
                f"{where}: Postfix means the domains below {one[1:]}, too, and relaygw's lists "
                f'have whole domains only; add those that are used, as "@sub.{one[1:]}"'
            )
        else:
            report.warn(
                f"{where}: {one} is not an entry of that list; write the domains themselves"
            )


_JUDGED = re.compile(
    r"permit_(mynetworks|sasl_authenticated)|permit|reject|defer(_if_(permit|reject))?|"
    r"(reject|defer)_unauth_destination|reject_(non_fqdn|unknown|invalid|unlisted|unverified)_\w+|"
    r"reject_unauth_pipelining|reject_multi_recipient_bounce|warn_if_reject|check_recipient_access"
)
"""Restrictions that are imported, or that only strangers meet, who never come in here."""
_PASSED = re.compile(
    r"(DUNNO|OK|RELAY|PERMIT|REJECT|DEFER(_IF_PERMIT)?|DISCARD|[1-9][\d.]*)\b", re.I
)
_OF_A_PORT = (*RESTRICTIONS, "receive_override_options", "content_filter", "smtpd_milters")


def tell_restrictions(resolver: Resolver, report: Report) -> None:
    """Say which restrictions and actions are not imported; nothing is passed over."""
    configuration, door = resolver.configuration, resolver.door
    classes = configuration.values("smtpd_restriction_classes", door)
    for name, found in lists(resolver):
        for word in (one.word for one in found):
            if not _JUDGED.fullmatch(word) and word not in classes:
                report.warn(
                    f"{configuration.place(name, door)}: {name}: {word} is not imported; relaygw "
                    "takes mail of the networks and users in listeners and users, and applies no "
                    "other restriction"
                )
    for service in (one for one in configuration.services if one.kind == "inet"):
        names = [one for one in service.overrides if one in _OF_A_PORT]
        if names and door is not None and service is not door and service.command == "smtpd":
            report.warn(
                f"{service.place}: {service.name}: its own {', '.join(names)}: not imported; the "
                f"lists, and the table of sameness, are those of {door.name}"
            )
    _tell_actions(resolver, classes, report)


def _tell_actions(resolver: Resolver, classes: list[str], report: Report) -> None:
    tables = list(access_tables(resolver))
    for entry in (entry for table in tables for entry in table.entries):
        if not _PASSED.match(entry.value) and entry.value not in classes:
            report.warn(
                f"{entry.place}: {entry.key}: "
                f"{entry.value.partition(' ')[0] or 'an empty action'} is not imported; relaygw's "
                "lists allow or block"
            )
    for table in access_tables(resolver, SENDER):
        bad = [one for one in table.entries if access_fate(one.value) not in (None, Fate.SEND)]
        if bad:
            more = f" (and {len(bad) - 1} more lines)" if len(bad) > 1 else ""
            report.warn(
                f"{bad[0].place}: {bad[0].key}: {bad[0].value.split()[0]} is for a sender{more}, "
                "and relaygw restricts only the senders of users (users.senders)"
            )
    if tables:
        report.warn(
            "recipients: Postfix applies its access tables to SMTP mail only; relaygw's lists "
            "also apply to mail from the sendmail command"
        )
