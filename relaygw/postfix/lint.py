"""All mistakes in a configuration of Postfix: place, problem, what to do in Postfix and here."""

from __future__ import annotations

from relaygw.postfix.lint_files import FILE_RULES
from relaygw.postfix.lint_hops import HOP_RULES
from relaygw.postfix.lint_senders import SENDER_RULES
from relaygw.postfix.mistakes import Finding, Subject
from relaygw.postfix.rewriting import Rewriting


def findings(rewriting: Rewriting) -> list[Finding]:
    """Return all mistakes, by place. Raises PostfixUnreadable."""
    subject = Subject(rewriting)
    found = [one for rule in (*HOP_RULES, *SENDER_RULES, *FILE_RULES) for one in rule(subject)]
    return sorted(dict.fromkeys(found), key=_in_order)


def _in_order(one: Finding) -> tuple[str, int]:
    name, _, line = one.place.rpartition(":")
    return (name, int(line)) if line.isdecimal() else (one.place, 0)
