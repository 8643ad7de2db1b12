"""What is told of sources and classes that the guard suspects, and what to do."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from relaygw.alerting.facts import Finding
from relaygw.mail.clock import DAY_MS, utc_text
from relaygw.mail.mail_class import MailClass
from relaygw.mail.words import counted, some_of
from relaygw.policy.guard import FIRST_DAY_FACTOR, Suspect, Trouble
from relaygw.settings.alerts import Rule
from relaygw.settings.guard import Guard

_EXAMPLES = 3
_RULES = {
    Trouble.NEW: Rule.SOURCE_NEW,
    Trouble.BURST: Rule.SOURCE_VOLUME,
    Trouble.FLOOD: Rule.SOURCE_VOLUME,
    Trouble.REFUSED: Rule.SOURCE_VOLUME,
}
GUARD_RULES = frozenset(_RULES.values())


def finding_of(
    suspect: Suspect,
    named: Sequence[MailClass],
    domains: Sequence[str],
    *,
    held: Mapping[str, str] = MappingProxyType({}),
    allowed: Collection[str] = (),
) -> Finding:
    """Return the finding about a suspect, whose mail is of these classes and went there.

    `held` has the entries that hold classes, `allowed` the classes and sources that may send more.
    """
    return Finding(
        _RULES[suspect.trouble],
        suspect.key,
        _summary(suspect, named, domains),
        _remedy(suspect, named, held, allowed),
        since_ms=suspect.since_ms,
        is_certain=True,
    )


def trouble_words(suspect: Suspect) -> str:
    """Return a suspicion in words, for the reason of a hold."""
    return {
        Trouble.NEW: "new templates",
        Trouble.BURST: "more mail than usual",
        Trouble.FLOOD: "much mail",
        Trouble.REFUSED: "refused recipients",
    }[suspect.trouble]


def _summary(suspect: Suspect, named: Sequence[MailClass], domains: Sequence[str]) -> str:
    number, limit, mail_class, many = suspect.per_hour, suspect.limit, named[0], ""
    if 0 < suspect.messages < number and suspect.trouble is not Trouble.REFUSED:
        number, many = suspect.messages, f", whose recipients count as {number},"
    scripts = f" of {counted(suspect.sources, 'new script')}" if suspect.sources > 1 else ""
    templates = [f"“{each.template}”" for each in named]
    told = {
        Trouble.NEW: f"{number} messages of {counted(len(named), 'new template')}{scripts}{many} "
        f"within an hour, more than {limit}",
        Trouble.BURST: f"{number} messages{many} within an hour, usual is less than {limit}",
        Trouble.FLOOD: f"{number} messages{many} within an hour, more than {limit}",
        Trouble.REFUSED: f"{number} recipients refused within an hour, more than {limit}",
    }[suspect.trouble]
    to = f", to recipients at {some_of(domains, _EXAMPLES)}" if domains else ""
    return f"{_who(mail_class)}: {told}: {some_of(templates, _EXAMPLES)}{to}"


def _who(mail_class: MailClass) -> str:
    """Return script, uid and host, each by its name."""
    parts = [
        f"script {mail_class.script}" if mail_class.script else "no script",
        *([f"uid {mail_class.uid}"] if mail_class.uid is not None else []),
        *([f"login {mail_class.user}"] if mail_class.user else []),
        f"host {mail_class.host}",
    ]
    return ", ".join(parts)


def _remedy(
    suspect: Suspect,
    named: Sequence[MailClass],
    held: Mapping[str, str],
    allowed: Collection[str],
) -> str:
    if held:
        ((target, _),) = Counter(held.values()).most_common(1)
        what = "it is held, other mail flows on"
        others = "relaygw guard list has the other scripts; " if suspect.sources > 1 else ""
        if len(held) < len(named):
            what = f"{counted(len(held), 'template')} of {len(named)} are held, the rest flows on"
        return (
            f"{what}: relaygw queue list --reason {target} shows it, relaygw guard release "
            f"{target} sends it and allows it from now on, relaygw queue delete --reason {target} "
            f"deletes it; {others}look at that script and host"
        )
    target = shlex.quote(suspect.class_ids[0] if len(suspect.class_ids) == 1 else suspect.source_id)
    hold = f"relaygw guard hold {target} holds it"
    if not {suspect.source_id, *suspect.class_ids}.isdisjoint(allowed):
        return (
            f"it was allowed, so all of it is sent: {hold}, relaygw guard allow {target} "
            "--per-hour N allows more"
        )
    return (
        f"nothing of it is held; if nobody knows of it that host was broken into: {hold}; "
        f"else relaygw guard allow {target}"
    )


def learning_finding(sources: int, begun_ms: int, guard: Guard) -> Finding:
    """Return the notice of a queue's first day: nothing is wrong, and what is told of all the same.

    `sources` are those that sent since it began to count.
    """
    late, much = (limit * FIRST_DAY_FACTOR for limit in (guard.new_per_hour, guard.source_per_hour))
    return Finding(
        Rule.GUARD_LEARNING,
        "",
        f"the guard is learning who sends here: {counted(sources, 'source')} so far; from "
        f"{utc_text(begun_ms + DAY_MS, '%Y-%m-%d %H:%M')} on it tells of what is new",
        f"nothing to do; until then it tells of floods alone: more than {late} mails an hour of "
        f"something that came late, or {much} of one source; relaygw sources shows who sends",
        since_ms=begun_ms,
        is_certain=True,
    )


def more_findings(number: int) -> list[Finding]:
    """Return one finding of all that there are too many of."""
    if not number:
        return []
    summary = f"{number} more sources send much more than before"
    remedy = "relaygw sources --since 1h shows them"
    return [Finding(Rule.SOURCE_VOLUME, "", summary, remedy, is_certain=True)]
