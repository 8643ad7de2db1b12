"""Rows of the configuration: asked first, and not able to break a promise."""

from __future__ import annotations

from itertools import product

from relaygw.mail.outcome import BEFORE_MAIL, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.settings.provider import Provider, ReplyRow
from relaygw.upstream.classifier import Classifier
from tests.tables import each_of


def classifier(*rows: dict[str, object], preset: str | None = None) -> Classifier:
    read = tuple(map(ReplyRow.model_validate, rows))
    return Classifier(Provider(host="smtp.example.com", preset=preset, replies=read))


def test_own_rows_come_before_those_of_the_preset_and_the_generic_ones() -> None:
    own = classifier(
        {"code": "454", "text": "sending rate", "verdict": "hold", "explanation": "mine"},
        {"code": "454", "verdict": "throttle"},
        preset="ses",
    )
    rate = SmtpReply(454, ("Throttling failure: Maximum sending rate exceeded.",))
    assert own.meaning(Stage.CONTENT, rate).explanation == "mine"
    quota = SmtpReply(454, ("Throttling failure: Daily message quota exceeded.",))
    assert own.meaning(Stage.CONTENT, quota).verdict is Verdict.THROTTLE
    denied = SmtpReply(554, ("Message rejected: Email address is not verified.",))
    assert own.meaning(Stage.CONTENT, denied).scope is Scope.SENDER_DOMAIN


def test_all_conditions_must_hold() -> None:
    own = classifier(
        {"stages": ["mail"], "code": "55.", "status": r"5\.7\.9", "text": "odd", "verdict": "hold"}
    )
    for stage, code, text, verdict in (
        (Stage.MAIL, 550, "5.7.9 so ODD", Verdict.HOLD),
        (Stage.CONTENT, 550, "5.7.9 odd", Verdict.RETRY),
        (Stage.MAIL, 544, "5.7.9 odd", Verdict.RETRY),
        (Stage.MAIL, 550, "5.7.90 odd", Verdict.RETRY),
        (Stage.MAIL, 550, "odd", Verdict.RETRY),
        (Stage.MAIL, 550, "5.7.9 <odd@odd.example> odd@odd.example", Verdict.RETRY),
    ):
        assert own.meaning(stage, SmtpReply(code, (text,))).verdict is verdict, text


def test_a_status_condition_needs_a_status() -> None:
    own = classifier({"status": ".*", "verdict": "hold"})
    assert own.meaning(Stage.CONTENT, SmtpReply(451, ("later",))).verdict is Verdict.RETRY
    assert own.meaning(Stage.CONTENT, SmtpReply(451, ("4.0.0 later",))).verdict is Verdict.HOLD


@each_of("verdict", ["retry", "throttle", "hold", "bounce"])
@each_of("scope", [None, *Scope])
@each_of("code", ["", "5..", "[45]..", ".*", "250"])
def test_no_row_breaks_a_promise(verdict: str, scope: str | None, code: str) -> None:
    """A row for everything, as wide as the settings let it be, asked at every stage."""
    try:
        own = classifier({"verdict": verdict, "scope": scope, "code": code, "text": "x"})
    except ValueError:
        return
    for stage, reply_code in product(Stage, (200, 250, 354, 399, 400, 421, 499, 500, 535, 599)):
        meaning = own.meaning(stage, SmtpReply(reply_code, ("x",)))
        is_delivered = stage is Stage.CONTENT and reply_code < 300
        assert (meaning.verdict is Verdict.DELIVERED) == is_delivered
        if reply_code < 400 and not is_delivered:
            assert meaning.verdict is Verdict.RETRY
        if meaning.verdict is Verdict.BOUNCE:
            assert reply_code >= 500
            assert stage not in BEFORE_MAIL
        if stage in BEFORE_MAIL:
            assert meaning.scope in (Scope.PROVIDER, Scope.CREDENTIAL)


def test_a_2xx_to_rcpt_bounces_where_a_row_knows_that_it_delivers_nothing() -> None:
    own = classifier(
        {"text": "on our list", "verdict": "hold"},
        {"text": "on our list", "verdict": "bounce"},
        {"stages": ["rcpt"], "code": "25[4-9]", "text": "on our list", "verdict": "bounce"},
    )
    for stage, code, text, verdict in (
        (Stage.RCPT, 254, "x is on our list", Verdict.BOUNCE),
        (Stage.RCPT, 254, "<on our list@cust.test> ok", Verdict.RETRY),
        (Stage.RCPT, 250, "x is on our list", Verdict.RETRY),
        (Stage.CONTENT, 254, "x is on our list", Verdict.DELIVERED),
        (Stage.MAIL, 254, "x is on our list", Verdict.RETRY),
    ):
        assert own.meaning(stage, SmtpReply(code, (text,))).verdict is verdict, (stage, code)


@each_of("stage", Stage)
def test_doubt_and_silence_come_before_own_rows(stage: Stage) -> None:
    own = classifier({"text": ".*", "verdict": "bounce"})
    any_reply = SmtpReply(550, ("no",))
    assert own.meaning(stage, any_reply, in_doubt=True).verdict is Verdict.DOUBT
    assert own.meaning(stage, None).verdict is Verdict.RETRY


def test_a_row_without_a_scope_concerns_whom_its_verdict_does() -> None:
    reply = SmtpReply(550, ("x",))
    for verdict, stage, scope in (
        ("hold", Stage.AUTH, Scope.CREDENTIAL),
        ("hold", Stage.MAIL, Scope.PROVIDER),
        ("hold", Stage.CONTENT, Scope.PROVIDER),
        ("throttle", Stage.CONTENT, Scope.PROVIDER),
        ("retry", Stage.CONTENT, Scope.MESSAGE),
    ):
        meaning = classifier({"text": "x", "verdict": verdict}).meaning(stage, reply)
        assert meaning.scope is scope, (verdict, stage)


def test_a_status_that_each_line_repeats_is_no_part_of_the_phrase() -> None:
    own = classifier({"text": r"^5\.1\.1 no such user 5\.1\.1 twice$", "verdict": "hold"})
    lines = ("5.1.1 no such", "5.1.1 user 5.1.1 twice")
    assert own.meaning(Stage.RCPT, SmtpReply(550, lines)).verdict is Verdict.HOLD
