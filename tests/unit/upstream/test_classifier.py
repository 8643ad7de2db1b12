"""Replies to verdicts: the table of rules, and that every reply has an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.outcome import BEFORE_MAIL, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.settings.provider import Provider
from relaygw.upstream.classifier import Classifier
from tests.tables import each_of

GENERIC = Classifier(Provider(host="smtp.example.com"))
RETRY, THROTTLE, HOLD, BOUNCE = Verdict.RETRY, Verdict.THROTTLE, Verdict.HOLD, Verdict.BOUNCE
RCPT, DATA, MAIL, AUTH, END = Stage.RCPT, Stage.DATA, Stage.MAIL, Stage.AUTH, Stage.CONTENT


def classify(
    stage: Stage, reply: SmtpReply | None, *, in_doubt: bool = False
) -> tuple[Verdict, Scope]:
    meaning = GENERIC.meaning(stage, reply, in_doubt=in_doubt)
    return meaning.verdict, meaning.scope


@each_of(
    ("stage", "reply", "verdict", "scope"),
    [
        (END, "250 2.0.0 Ok: queued", Verdict.DELIVERED, Scope.MESSAGE),
        (END, "202 odd", Verdict.DELIVERED, Scope.MESSAGE),
        (Stage.GREETING, "554 no", RETRY, Scope.PROVIDER),
        (Stage.GREETING, "421 busy", RETRY, Scope.PROVIDER),
        (Stage.EHLO, "550 5.7.1 no", RETRY, Scope.PROVIDER),
        (Stage.STARTTLS, "454 4.7.0 no", RETRY, Scope.PROVIDER),
        (AUTH, "535 5.7.8 no", HOLD, Scope.CREDENTIAL),
        (AUTH, "534 5.7.9 weak", HOLD, Scope.CREDENTIAL),
        (AUTH, "530 5.7.0 first", HOLD, Scope.CREDENTIAL),
        (AUTH, "550 5.7.30 Basic authentication is not supported", HOLD, Scope.CREDENTIAL),
        (AUTH, "454 4.7.0 Too many login attempts", RETRY, Scope.PROVIDER),
        (AUTH, "451 Authentication failed: Maximum credits exceeded", RETRY, Scope.PROVIDER),
        (END, "421 4.7.0 Try again later", RETRY, Scope.PROVIDER),
        (RCPT, "421 bye", RETRY, Scope.PROVIDER),
        (MAIL, "421 4.7.0 Too many messages, slow down", THROTTLE, Scope.PROVIDER),
        (END, "421 4.7.0 Rate limit exceeded", THROTTLE, Scope.PROVIDER),
        (MAIL, "421 too many messages in this connection", RETRY, Scope.PROVIDER),
        (END, "421 4.2.1 Hourly limit of this account reached", HOLD, Scope.PROVIDER),
        (MAIL, "450 4.7.1 slow down", THROTTLE, Scope.PROVIDER),
        (MAIL, "450 4.7.1 later", THROTTLE, Scope.PROVIDER),
        (END, "451 4.7.1 slow down", THROTTLE, Scope.PROVIDER),
        (END, "451 4.7.1 Too many messages", THROTTLE, Scope.PROVIDER),
        (END, "451 4.7.1 Message content deferred by policy", RETRY, Scope.MESSAGE),
        (RCPT, "450 4.7.1 <g@x.test>: Greylisted", RETRY, Scope.RECIPIENT),
        (RCPT, "550 <quota@x.test>: User unknown", BOUNCE, Scope.RECIPIENT),
        (END, "554 5.4.0 Error: too many hops", BOUNCE, Scope.MESSAGE),
        (END, "554 5.7.1 Message rated as spam", RETRY, Scope.MESSAGE),
        (END, "550 5.6.0 header line length limit exceeded", BOUNCE, Scope.MESSAGE),
        (END, "550 5.6.0 too many MIME parts", BOUNCE, Scope.MESSAGE),
        (MAIL, "550 5.4.5 Daily sending rate exceeded", HOLD, Scope.PROVIDER),
        (RCPT, "450 4.2.1 later", RETRY, Scope.RECIPIENT),
        (END, "451 4.3.0 later", RETRY, Scope.MESSAGE),
        (RCPT, "550 5.1.1 no such user", BOUNCE, Scope.RECIPIENT),
        (RCPT, "550 5.1.1 too many unknown users", BOUNCE, Scope.RECIPIENT),
        (RCPT, "550 no such user", BOUNCE, Scope.RECIPIENT),
        (RCPT, "552 5.2.2 over quota", BOUNCE, Scope.RECIPIENT),
        (RCPT, "554 5.2.2 over quota", BOUNCE, Scope.RECIPIENT),
        (RCPT, "550 mailbox over quota", BOUNCE, Scope.RECIPIENT),
        (RCPT, "552 5.5.3 too many recipients", RETRY, Scope.RECIPIENT),
        (RCPT, "552 Too many recipients", RETRY, Scope.RECIPIENT),
        (RCPT, "552 5.3.4 too big", BOUNCE, Scope.RECIPIENT),
        (MAIL, "552 5.3.4 Message size exceeds limit", BOUNCE, Scope.MESSAGE),
        (MAIL, "552 Message size limit exceeded", BOUNCE, Scope.MESSAGE),
        (END, "554 5.2.3 too large", BOUNCE, Scope.MESSAGE),
        (END, "552 no room", RETRY, Scope.MESSAGE),
        (END, "552 5.7.0 sending quota reached", HOLD, Scope.PROVIDER),
        (END, "550 5.4.5 Daily user sending limit exceeded", HOLD, Scope.PROVIDER),
        (END, "550 5.7.0 too many emails per second", HOLD, Scope.PROVIDER),
        (END, "554 5.2.0 SubmissionQuotaExceededException", HOLD, Scope.PROVIDER),
        (RCPT, "550 Sending rate exceeded", RETRY, Scope.RECIPIENT),
        (RCPT, "550 User over quota", RETRY, Scope.RECIPIENT),
        (RCPT, "554 5.7.1 <x@y.test>: Relay access denied", RETRY, Scope.RECIPIENT),
        (END, "552 5.2.2 The email account is over quota", RETRY, Scope.MESSAGE),
        (END, "550 5.7.1 spam rate of this content too high", RETRY, Scope.MESSAGE),
        (END, "554 5.7.0 Monthly limit reached", HOLD, Scope.PROVIDER),
        (MAIL, "550 API key revoked", HOLD, Scope.CREDENTIAL),
        (END, "550 5.7.1 You are not authorized to send from x", HOLD, Scope.SENDER_DOMAIN),
        (MAIL, "554 5.7.1 Client host blocked using zen.spamhaus.org", RETRY, Scope.MESSAGE),
        (END, "550 Maximum credits exceeded", HOLD, Scope.PROVIDER),
        (END, "550 5.7.1 separate corporate policy", RETRY, Scope.MESSAGE),
        (END, "554 5.7.1 spam", RETRY, Scope.MESSAGE),
        (MAIL, "553 5.1.8 sender", HOLD, Scope.SENDER_DOMAIN),
        (DATA, "554 5.5.1 no", RETRY, Scope.MESSAGE),
        (Stage.LOCAL, "552 5.3.4 too large", BOUNCE, Scope.MESSAGE),
        (Stage.LOCAL, "554 5.6.3 no conversion", HOLD, Scope.MESSAGE),
        (Stage.LOCAL, "550 5.6.7 not ASCII", BOUNCE, Scope.RECIPIENT),
        (MAIL, "354 go", RETRY, Scope.MESSAGE),
        (DATA, "250 ok", RETRY, Scope.MESSAGE),
    ],
)
def test_rules(stage: Stage, reply: str, verdict: Verdict, scope: Scope) -> None:
    code, _, text = reply.partition(" ")
    assert classify(stage, SmtpReply(int(code), (text,))) == (verdict, scope)


@each_of("stage", Stage)
def test_no_reply_waits(stage: Stage) -> None:
    scope = Scope.PROVIDER if stage in BEFORE_MAIL else Scope.MESSAGE
    assert classify(stage, None) == (RETRY, scope)


TEXTS = st.one_of(
    st.text(), st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3} (quota|rate|size|mailbox full|x)")
)


@given(st.sampled_from(Stage), st.integers(0, 999), TEXTS)
def test_every_reply_has_an_answer(stage: Stage, code: int, text: str) -> None:
    verdict, scope = classify(stage, SmtpReply(code, (text,)))
    assert isinstance(scope, Scope)
    assert (verdict is Verdict.DELIVERED) == (stage is END and 200 <= code < 300)
    if verdict is BOUNCE:
        assert 500 <= code < 600
        assert stage not in BEFORE_MAIL
    if not 200 <= code < 600:
        assert verdict is RETRY


@given(st.sampled_from(Stage), st.none() | st.builds(SmtpReply, st.integers(200, 599)))
def test_doubt_comes_first(stage: Stage, reply: SmtpReply | None) -> None:
    assert classify(stage, reply, in_doubt=True) == (Verdict.DOUBT, Scope.MESSAGE)


@pytest.mark.parametrize("stage", [DATA, END])
def test_one_of_several_that_is_refused_after_the_content_bounces_nobody(stage: Stage) -> None:
    """Which of them it is, nobody knows."""
    unknown = SmtpReply(550, ("5.1.1 User unknown",))
    alone = GENERIC.meaning(stage, unknown)
    assert (alone.verdict, alone.scope) == (BOUNCE, Scope.RECIPIENT)
    several = GENERIC.meaning(stage, unknown, recipients=2)
    assert (several.verdict, several.scope) == (RETRY, Scope.MESSAGE)
    assert "max_recipients" in several.remedy
    assert GENERIC.meaning(RCPT, unknown, recipients=2).verdict is BOUNCE
    too_large = SmtpReply(552, ("5.3.4 too large",))
    assert GENERIC.meaning(stage, too_large, recipients=2).verdict is BOUNCE


@each_of(
    ("code", "text", "is_greylisting"),
    [
        (450, "4.2.0 Greylisted, see postgrey", True),
        (451, "4.7.1 Greylisting in action", True),
        (451, "greylisted", True),
        (451, "4.7.500 Server busy", False),
        (450, "4.7.25 Client host rejected: cannot find your hostname", False),
    ],
)
def test_only_what_says_so_is_greylisting(code: int, text: str, *, is_greylisting: bool) -> None:
    meaning = GENERIC.meaning(Stage.RCPT, SmtpReply(code, (text,)))
    assert meaning.verdict is Verdict.RETRY
    assert ("(greylisting)" in meaning.explanation) is is_greylisting
