"""Codes, keys and sentences of held mail say the same."""

from __future__ import annotations

import pytest

from relaygw.mail.hold import HoldCause, HoldCode, cause_of, provider_down, sender_refused

CAUSES = {
    "mode": HoldCause(HoldCode.MODE),
    "poison": HoldCause(HoldCode.POISON),
    "in_doubt": HoldCause(HoldCode.IN_DOUBT),
    "recovered": HoldCause(HoldCode.RECOVERED),
    "restored": HoldCause(HoldCode.RESTORED),
    "sender domain shop.test is refused by main": sender_refused("shop.test", ["main"]),
    "sender domain shop.test is refused by main, spare": sender_refused(
        "shop.test", ["main", "spare"]
    ),
    "sender domain  is refused by main": sender_refused("", ["main"]),
    "no provider of route default may send as a b@x.test": HoldCause(
        HoldCode.NO_SENDER, "default a b@x.test"
    ),
    "no daily_quota of route default covers its 7 recipients": HoldCause(
        HoldCode.OVER_QUOTA, "default 7"
    ),
    "needs 8BITMIME, which no provider of route default has for it: it is signed {}\nso": HoldCause(
        HoldCode.NEEDS_8BITMIME, "default it is signed {}\nso"
    ),
    "in doubt with main, which route default has no more": HoldCause(
        HoldCode.LOST_PROVIDER, "main default"
    ),
    "field X-SMTPAPI cannot be read": HoldCause(HoldCode.HEADER, "field X-SMTPAPI cannot be read"),
    "its header has no end": HoldCause(HoldCode.HEADER, "its header has no end"),
    "held by the guard, 0f: 40 mails of a new script": HoldCause(
        HoldCode.GUARD, "0f 40 mails of a new script"
    ),
    "storm 0f: the same: twice": HoldCause(HoldCode.STORM, "0f the same: twice"),
    "content check, iban: it has an IBAN": HoldCause(HoldCode.CONTENT_CHECK, "iban it has an IBAN"),
    "operator: ask {me} first": HoldCause(HoldCode.OPERATOR, "ask {me} first"),
    "operator: ": HoldCause(HoldCode.OPERATOR, ""),
    "standing hold 3f: mail to a.test": HoldCause(HoldCode.STANDING, "3f mail to a.test"),
    "waits for provider main": provider_down("main"),
    "waits for provider of its sender": provider_down("of its sender"),
    "20 messages in a row were refused alike: 550 no such user": HoldCause(
        HoldCode.REFUSED_ALIKE, "20 550 no such user"
    ),
    "what nobody has thought of": HoldCause(HoldCode.OTHER, "what nobody has thought of"),
    "": HoldCause(HoldCode.OTHER, ""),
}


@pytest.mark.parametrize(("sentence", "cause"), CAUSES.items())
def test_a_sentence_is_made_of_code_and_key_and_an_old_one_gives_both(
    sentence: str, cause: HoldCause
) -> None:
    assert cause.sentence == sentence
    assert cause_of(sentence) == cause


def test_every_code_has_an_example() -> None:
    assert {cause.code for cause in CAUSES.values()} == set(HoldCode)


def test_a_refused_sender_names_its_providers() -> None:
    cause = sender_refused("shop.test", ["main", "spare"])
    assert (cause.domain, cause.providers) == ("shop.test", ["main", "spare"])
    assert cause.is_refused("spare", "shop.test")
    assert not cause.is_refused("spare", "other.test")
    assert not cause.is_refused("mai", "shop.test")
    assert not HoldCause(HoldCode.OTHER, "shop.test main").is_refused("main", "shop.test")
