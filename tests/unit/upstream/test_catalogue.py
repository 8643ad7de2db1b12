"""The reply catalogue against what providers document: the lines, variants, and the unknown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.outcome import BEFORE_MAIL, Limit, Meaning, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.settings.provider import Provider
from relaygw.upstream.classifier import GENERIC, Classifier, catalogue
from tests.tables import each_of

PRESETS = [
    "sendgrid",
    "mailgun",
    "ses",
    "gmail",
    "workspace",
    "microsoft365",
    "postmark",
    "sparkpost",
    "mandrill",
    "brevo",
    "mailjet",
    "smtp2go",
    "resend",
    "mailtrap",
    "zeptomail",
    "zoho",
    "cloudflare",
    "scaleway",
    "azure",
    "mailersend",
    "infobip",
    "oci",
]
EVERYONE = [*PRESETS, GENERIC]
_STATUS = re.compile(r"[245]\.\d+\.\d+(?= )")


@cache
def classifier(name: str) -> Classifier:
    """Return the classifier of a preset, or the generic one."""
    preset = None if name == GENERIC else name
    return Classifier(Provider(host="smtp.example.com", preset=preset))


@dataclass(frozen=True, kw_only=True)
class Documented:
    provider: str
    stage: str
    line: str
    verdict: str
    scope: str
    source: str
    limit: str | None = None
    wait_s: tuple[float, ...] | None = None

    @property
    def reply(self) -> SmtpReply:
        code, _, text = self.line.partition(" ")
        return SmtpReply(int(code), tuple(text.split("|")))

    def meaning(self, reply: SmtpReply | None = None) -> Meaning:
        return classifier(self.provider).meaning(Stage[self.stage.upper()], reply or self.reply)

    def check(self, reply: SmtpReply | None = None) -> None:
        meaning = self.meaning(reply)
        found = (meaning.verdict, meaning.scope, meaning.limit)
        assert found == (self.verdict, self.scope, self.limit), reply or self.line
        if self.wait_s is not None:
            assert meaning.wait_s == tuple(self.wait_s)


LINES = [
    Documented(**one)
    for one in yaml.load(
        (Path(__file__).parent / "documented_replies.yaml").read_text(encoding="utf-8"),
        Loader=yaml.CSafeLoader,
    )["lines"]
]
EVERY_LINE = each_of("one", LINES, ids=lambda one: f"{one.provider}-{one.line[:40]}")


@EVERY_LINE
def test_documented_line(one: Documented) -> None:
    assert one.source
    one.check()
    if one.verdict != "retry":
        assert one.meaning().explanation
    if one.verdict in ("hold", "throttle"):
        assert one.meaning().remedy


def wrapped(reply: SmtpReply, width: int, *, with_status: bool) -> SmtpReply:
    """Break the text into lines of at most `width`, the status repeated on each or not."""
    status = _STATUS.match(reply.lines[0])
    lead = f"{status[0]} " if status else ""
    bare = " ".join(line.removeprefix(lead) for line in reply.lines).split()
    lines, rest = [bare[0]], bare[1:]
    for word in rest:
        if len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return SmtpReply(
        reply.code,
        tuple(
            f"{lead if with_status or not number else ''}{line}"
            for number, line in enumerate(lines)
        ),
    )


@EVERY_LINE
@each_of("width", [1, 12, 25, 60])
@each_of("with_status", [True, False])
def test_other_line_breaks(one: Documented, width: int, with_status: bool) -> None:
    one.check(wrapped(one.reply, width, with_status=with_status))


def variants(one: Documented) -> Iterator[SmtpReply]:
    """Yield the line as another account in another region would see it."""
    code, status = one.reply.code, _STATUS.match(one.reply.lines[0])
    lead = status[0] if status else ""
    text = one.reply.text.removeprefix(lead)
    for changed in (
        text.upper(),
        text.lower(),
        re.sub(r"\d+", lambda number: str(int(number[0]) + 7), text),
        re.sub(r"\S+@\S+", "quota-and-rate.limit@too-many-credits.example", text),
        re.sub(r"\b(us|eu)-(east|west)-\d", "ap-southeast-3", text, flags=re.IGNORECASE),
        re.sub(r"\bexample\.com|\bdoe\.com|\b\w+\.org\b", "boutique-élan.example", text),
        text.replace(" ", "  "),
        f"{text} [req id=0a1B2c3D, host smtp-42]",
        text.rstrip(". "),
    ):
        yield SmtpReply(code, (lead + changed,))


@EVERY_LINE
def test_variants(one: Documented) -> None:
    for reply in variants(one):
        one.check(reply)


@each_of("section", EVERYONE)
def test_every_row_is_documented(section: str) -> None:
    """Explanations are unique, so that they name the row which decided."""
    hit = {one.meaning().explanation for one in LINES}
    assert [row.explanation for row in catalogue()[section] if row.explanation not in hit] == []


def test_explanations_name_rows() -> None:
    seen: dict[str, object] = {}
    for rows in catalogue().values():
        for row in rows:
            assert row.explanation
            assert row.source
            assert row.remedy or row.verdict in ("retry", "bounce")
            assert seen.setdefault(row.explanation, row) is row, row.explanation


def test_the_sections_are_the_presets() -> None:
    assert set(catalogue()) == {*PRESETS, GENERIC}


@each_of("other", EVERYONE)
def test_no_row_leaks(other: str) -> None:
    """What one provider says is judged at another by that one's rows and the generic ones."""
    own = {row.explanation for row in (*catalogue()[other], *catalogue()[GENERIC])}
    for one in LINES:
        meaning = classifier(other).meaning(Stage[one.stage.upper()], one.reply)
        assert meaning.explanation in own or meaning == unknown()[meaning.scope]


def test_the_same_words_mean_other_things_elsewhere() -> None:
    """Mailtrap's 535 is no bad password, Mailgun's 421 is no pause; at others they are."""
    many = SmtpReply(535, ("5.7.8 Too many connections per account",))
    assert classifier("mailtrap").meaning(Stage.AUTH, many).verdict is Verdict.THROTTLE
    assert classifier("brevo").meaning(Stage.AUTH, many).verdict is Verdict.HOLD
    closed = SmtpReply(421, ("Domain x.example is not allowed to send: Account disabled",))
    assert classifier("mailgun").meaning(Stage.DATA, closed).verdict is Verdict.HOLD
    assert classifier(GENERIC).meaning(Stage.DATA, closed).verdict is Verdict.RETRY


@cache
def unknown() -> dict[Scope, Meaning]:
    """Return what a reply means that no row knows, by whom it is about."""
    stages = (Stage.RCPT, Stage.CONTENT, Stage.GREETING)
    found = [classifier(GENERIC).meaning(stage, SmtpReply(399)) for stage in stages]
    return {meaning.scope: meaning for meaning in found}


WORDS = st.lists(
    st.sampled_from(
        [
            "quota",
            "rate",
            "limit",
            "exceeded",
            "too",
            "many",
            "fast",
            "sender",
            "domain",
            "verified",
            "not",
            "account",
            "your",
            "daily",
            "authenticate",
            "relay",
            "denied",
            "recipients",
            "mailbox",
            "full",
            "size",
            "large",
            "spam",
            "policy",
            "virus",
            "connections",
            "blocked",
            "credits",
            "<quota@x.example>",
            "sent",
            "4.7.1",
            "5.1.1",
            "again",
            "later",
        ]
    )
    | st.text(max_size=12),
    max_size=14,
).map(" ".join)
ANY_TEXT = st.one_of(
    WORDS,
    st.text(max_size=200),
    st.builds(
        "{} {}".format, st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True), WORDS
    ),
)


@given(
    st.sampled_from(EVERYONE),
    st.sampled_from(Stage),
    st.integers(0, 999),
    st.lists(ANY_TEXT, min_size=1, max_size=4),
)
def test_promises_hold_for_every_reply(
    provider: str, stage: Stage, code: int, lines: list[str]
) -> None:
    meaning = classifier(provider).meaning(stage, SmtpReply(code, tuple(lines)))
    is_delivered = stage is Stage.CONTENT and 200 <= code < 300
    assert (meaning.verdict is Verdict.DELIVERED) == is_delivered
    if meaning.verdict is Verdict.BOUNCE:
        assert 500 <= code < 600
        assert stage not in BEFORE_MAIL
        assert meaning.scope in (Scope.RECIPIENT, Scope.MESSAGE)
    if not 400 <= code < 600 and not is_delivered:
        assert meaning.verdict is Verdict.RETRY
    if stage in BEFORE_MAIL:
        assert meaning.scope in (Scope.PROVIDER, Scope.CREDENTIAL)
    assert (meaning.limit is not None) == (meaning.verdict is Verdict.THROTTLE)
    assert all(wait_s > 0 for wait_s in meaning.wait_s)


@given(
    st.sampled_from(EVERYONE),
    st.sampled_from([Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT]),
    st.integers(400, 499) | st.integers(540, 599).filter(lambda code: code != 556),  # RFC 7504
    st.from_regex(r"[j-z ]{0,40}", fullmatch=True),
)
def test_what_no_row_knows_is_tried_again(
    provider: str, stage: Stage, code: int, text: str
) -> None:
    meaning = classifier(provider).meaning(stage, SmtpReply(code, (text,)))
    assert meaning.verdict is Verdict.RETRY
    assert meaning.wait_s == ()


@given(st.sampled_from(EVERYONE), st.sampled_from(sorted(BEFORE_MAIL)))
def test_an_odd_refusal_before_mail_never_bounces(provider: str, stage: Stage) -> None:
    meaning = classifier(provider).meaning(stage, SmtpReply(599, ("5.9.9 zzz",)))
    assert meaning.verdict in (Verdict.RETRY, Verdict.HOLD)


@pytest.mark.parametrize("sign", ["<", "<@", "@", "a", "<a@", "-", "5.1.1 "])
def test_no_text_is_slow(sign: str) -> None:
    """Longer than any reply that is read; a rule that goes wild would time out here."""
    for name in EVERYONE:
        classifier(name).meaning(Stage.CONTENT, SmtpReply(550, (sign * 30_000,)))
        classifier(name).meaning(Stage.CONTENT, SmtpReply(450, tuple([sign * 500] * 60)))


def test_limits_default_by_stage() -> None:
    gmail = classifier("gmail")
    busy = SmtpReply(421, ("4.4.5 Server busy, try again later.",))
    assert gmail.meaning(Stage.GREETING, busy).limit is Limit.CONNECTIONS
    assert gmail.meaning(Stage.RCPT, busy).limit is Limit.RATE
