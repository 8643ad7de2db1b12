"""What a provider's reply means: verdict and scope, by generic rules.

Pure and total: every stage with every reply, or with none, gets an answer; what no rule knows
is RETRY. A refusal before MAIL FROM says nothing about a message and never bounces one. A 5xx
that speaks of rates, quotas or credits is the account's trouble and holds the provider.
RFC 5321 sections 4.2 and 4.5.3.1.10, RFC 3463, RFC 4954 section 6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relaygw.mail.outcome import BEFORE_MAIL, Meaning, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.settings.provider import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """All conditions must hold; an empty one always does. `scope` None: see `_own_scope`."""

    stages: frozenset[Stage] = frozenset()
    code: str = ""  # pattern for the three digits
    status: str = ""  # pattern for the enhanced status; a reply without one does not match
    text: str = ""  # pattern searched in the text, case ignored
    verdict: Verdict
    scope: Scope | None = None

    def matches(self, stage: Stage, reply: SmtpReply) -> bool:
        if self.stages and stage not in self.stages:
            return False
        if self.code and not re.fullmatch(self.code, str(reply.code)):
            return False
        if self.status and not re.fullmatch(self.status, str(reply.status or "")):
            return False
        return (
            not self.text
            or re.search(self.text, _ADDRESS.sub("", reply.text), re.IGNORECASE) is not None
        )


_AUTH = frozenset({Stage.AUTH})
_RCPT = frozenset({Stage.RCPT})
# of the account, not of this message: "too many hops", "rated as spam" and the like are not
_FULL_ACCOUNT = (
    r"\brate\b|throttl|too fast|quota|credits|(?<!length )(?<!size )limit exceeded"
    r"|too many (?!hops|received|(mime )?parts|headers|lines)"
)
_ADDRESS = re.compile(r"<[^>]*>|\S+@\S+")  # what a client typed must not look like a reason

_RULES = (
    _Rule(code="421", verdict=Verdict.RETRY, scope=Scope.PROVIDER),
    _Rule(stages=_AUTH, code="5..", verdict=Verdict.HOLD, scope=Scope.CREDENTIAL),
    _Rule(stages=BEFORE_MAIL, verdict=Verdict.RETRY, scope=Scope.PROVIDER),
    _Rule(stages=frozenset({Stage.CONTENT}), code="2..", verdict=Verdict.DELIVERED),
    # greylisting: that recipient's server wants to see it again, the provider is fine
    _Rule(stages=_RCPT, code="4..", status=r"4\.7\..*", verdict=Verdict.RETRY),
    _Rule(code="4..", status=r"4\.7\..*", verdict=Verdict.THROTTLE, scope=Scope.PROVIDER),
    # RFC 5321 4.5.3.1.10: some say 552 where 452, send the others later, is meant
    _Rule(stages=_RCPT, code="5..", text="too many recipients", verdict=Verdict.RETRY),
    _Rule(stages=_RCPT, code="5..", status=r"5\.1\..*|5\.2\.2", verdict=Verdict.BOUNCE),
    _Rule(stages=_RCPT, code="5..", text="mailbox.*(full|quota)", verdict=Verdict.BOUNCE),
    # before the account rule: "message size limit exceeded" is about this message only
    _Rule(code="5..", status=r"5\.3\.4|5\.2\.3", verdict=Verdict.BOUNCE),
    _Rule(code="552", text=r"\bsize|large|\bbig", verdict=Verdict.BOUNCE),
    _Rule(stages=_RCPT, code="552", verdict=Verdict.BOUNCE),
    _Rule(code="5..", text=_FULL_ACCOUNT, verdict=Verdict.HOLD, scope=Scope.PROVIDER),
    _Rule(code="5..", verdict=Verdict.BOUNCE),
)
"""The first rule that matches decides."""


class Classifier:
    """Says what the replies of one provider mean."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def meaning(self, stage: Stage, reply: SmtpReply | None, *, in_doubt: bool = False) -> Meaning:
        """Return what `reply` at `stage` means and whom it concerns.

        `reply` is None when none came; `in_doubt` says that the final dot had been sent by then.
        """
        if in_doubt:
            return Meaning(verdict=Verdict.DOUBT, scope=Scope.MESSAGE)
        if reply is None:
            is_early = stage in BEFORE_MAIL
            return Meaning(
                verdict=Verdict.RETRY, scope=Scope.PROVIDER if is_early else Scope.MESSAGE
            )
        for rule in _RULES:
            if rule.matches(stage, reply):
                return Meaning(verdict=rule.verdict, scope=rule.scope or _own_scope(stage, reply))
        return Meaning(verdict=Verdict.RETRY, scope=_own_scope(stage, reply))


def _own_scope(stage: Stage, reply: SmtpReply) -> Scope:
    """Return RECIPIENT for what one recipient's address met with, else MESSAGE."""
    is_address = stage is Stage.LOCAL and str(reply.status) == "5.6.7"
    return Scope.RECIPIENT if stage is Stage.RCPT or is_address else Scope.MESSAGE
