"""What a provider's reply means: verdict and scope.

Asked in this order: the user's own rows, those of the provider's preset, the generic ones. Pure
and total: every stage with every reply, or with none, gets an answer; what no row knows is
RETRY, a 5xx at RCPT or after the content as well. Delivered is what was answered 2xx after the
final dot, and nothing else; only a 5xx from MAIL on bounces, and only for what a row knows as the
fault of the recipient or of the message. RFC 5321 section 4.2, RFC 3463, RFC 4954 section 6.

What is asked about is the reply as it came: one with a secret masked could mean something else.
"""

from __future__ import annotations

from relaygw.mail.outcome import BEFORE_MAIL, Meaning, Scope, SmtpReply, Stage, Verdict
from relaygw.settings.provider import Provider
from relaygw.upstream.catalogue import (
    GENERIC,
    PlacedRow,
    look_at,
    own_scope,
    preset_rows,
    rules_by_stage,
)

_DELIVERED = Meaning(
    verdict=Verdict.DELIVERED,
    scope=Scope.MESSAGE,
    explanation="The provider has taken the message and is responsible for it now.",
    source="RFC 5321, 4.2.5",
    rule="2xx after the final dot",
)
IN_DOUBT = Meaning(
    verdict=Verdict.DOUBT,
    scope=Scope.MESSAGE,
    explanation="The connection was lost after the whole message was sent, before the reply came: "
    "nobody knows whether the provider has taken it.",
    remedy="Look into the provider's own log before you release it; it may be sent twice.",
)
_NO_SESSION = Meaning(
    verdict=Verdict.RETRY,
    scope=Scope.PROVIDER,
    explanation="No session with the provider could be opened.",
    remedy="Check host, port and TLS of the provider, and whether a firewall blocks the port.",
)
_NO_REPLY = Meaning(
    verdict=Verdict.RETRY,
    scope=Scope.MESSAGE,
    explanation="The connection was lost before the message was sent.",
)
_REFUSED_HERE = "relaygw did not hand it over: this provider cannot take such a message."
_LOCAL = Meaning(verdict=Verdict.BOUNCE, scope=Scope.MESSAGE, explanation=_REFUSED_HERE)
_LOCAL_ADDRESS = Meaning(verdict=Verdict.BOUNCE, scope=Scope.RECIPIENT, explanation=_REFUSED_HERE)
_LOCAL_CONTENT = Meaning(
    verdict=Verdict.HOLD,
    scope=Scope.MESSAGE,
    explanation="The content has 8-bit bytes, the provider has no 8BITMIME, and the content cannot "
    "be rewritten without loss.",
    remedy="Give its route a provider with 8BITMIME, or have its program write it in ASCII.",
    source="RFC 6152, 3",
)
_NOT_SENT = Meaning(verdict=Verdict.RETRY, scope=Scope.MESSAGE)
_WHOSE = Meaning(
    verdict=Verdict.RETRY,
    scope=Scope.MESSAGE,
    wait_s=(3600.0,),
    explanation="One of several recipients is refused after the content; which, nobody says.",
    remedy="Set max_recipients of this provider to 1, so that each one gets an answer of its own.",
    rule="a refusal of one recipient after the content, of several",
)
_UNKNOWN = {
    stage: Meaning(
        verdict=Verdict.RETRY,
        scope=own_scope(stage),
        explanation="No rule knows this reply; what is not known is tried again.",
        remedy="If it comes again and again, ask the provider and write a row of your own.",
        rule="none",
    )
    for stage in Stage
}


class Classifier:
    """Says what the replies of one provider mean."""

    def __init__(self, provider: Provider) -> None:
        own = [
            PlacedRow(f"own row {number}", row) for number, row in enumerate(provider.replies, 1)
        ]
        self._rules = rules_by_stage((*own, *preset_rows(provider.preset), *preset_rows(GENERIC)))

    def meaning(
        self,
        stage: Stage,
        reply: SmtpReply | None,
        *,
        in_doubt: bool = False,
        recipients: int = 1,
    ) -> Meaning:
        """Return what `reply` at `stage` means and whom it concerns.

        `reply` is None when none came; `in_doubt` says that the final dot had been sent by then.
        `recipients` are those of the transaction: a refusal of one of several after the content
        bounces nobody.
        """
        if in_doubt:
            return IN_DOUBT
        if stage is Stage.LOCAL:
            return _local(reply)
        if reply is None:
            return _NO_SESSION if stage in BEFORE_MAIL else _NO_REPLY
        code = reply.code
        if stage is Stage.CONTENT and 200 <= code < 300:  # nearly every reply: no rule is asked
            return _DELIVERED
        if 400 <= code < 600:
            seen = look_at(reply)
            for rule in self._rules[stage]:
                if rule.matches(seen):
                    is_one_of_several = recipients > 1 and stage is not Stage.RCPT
                    return _WHOSE if is_one_of_several and rule.bounces_one else rule.meaning
        return _UNKNOWN[stage]


def _local(reply: SmtpReply | None) -> Meaning:
    """Return what it means that the provider was not asked (SIZE, 8BITMIME, SMTPUTF8)."""
    if reply is None or not reply.is_permanent:
        return _NOT_SENT
    return {"5.6.7": _LOCAL_ADDRESS, "5.6.3": _LOCAL_CONTENT}.get(str(reply.status), _LOCAL)
