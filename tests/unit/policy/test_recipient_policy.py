"""Who receives: modes, lists, and addresses that try to slip through."""

from __future__ import annotations

import pytest

from relaygw.policy.recipients import Fate, RecipientPolicy
from relaygw.settings.addresses import Recipients, Refused
from relaygw.settings.section import Mode
from tests.tables import each_of

LISTS = Recipients(allow=("dev@ok.test", "@qa.test"), block=("@spam.test", "abuse@customer.test"))


def fate(mode: Mode, address: str, recipients: Recipients = LISTS) -> Fate:
    return RecipientPolicy(mode, recipients).decide(address).fate


@pytest.mark.parametrize(
    "address", ["dev@ok.test", "DEV@OK.TEST", "anyone@qa.test", "dev+x@QA.test"]
)
def test_staging_delivers_to_the_allow_list(address: str) -> None:
    assert fate(Mode.STAGING, address) is Fate.DELIVER


@each_of(
    "address",
    [
        "dev+x@ok.test",
        "dev@sub.ok.test",
        "dev@xok.test",
        "dev@ok.test.evil.test",
        "dev@ok.tеst",
        "dev@o\u212a.test",  # the Kelvin sign
        '"dev@ok.test"@other.test',
        "x@sub.qa.test",
        "x%other.test@qa.test",
        "other.test!x@qa.test",
        '"x@other.test"@qa.test',
        "customer\uff20other.test@qa.test",
        "customer\ufe6bother.test@qa.test",
        "x\uff05other.test@qa.test",
        "dev",
        "postmaster",
    ],
)
def test_staging_captures_everything_else(address: str) -> None:
    assert fate(Mode.STAGING, address) is Fate.CAPTURE


def test_the_sandbox_captures_all() -> None:
    assert fate(Mode.SANDBOX, "dev@ok.test") is Fate.CAPTURE


def test_production_delivers_but_for_the_block_list() -> None:
    assert fate(Mode.PRODUCTION, "cust@other.test") is Fate.DELIVER
    assert fate(Mode.PRODUCTION, "x@spam.test") is Fate.DROP
    assert fate(Mode.PRODUCTION, "Abuse@Customer.test") is Fate.DROP


def test_a_redirect_goes_to_the_named_address_only() -> None:
    recipients = Recipients(allow=("qa@ok.test",), refused="redirect:qa@ok.test")
    decision = RecipientPolicy(Mode.STAGING, recipients).decide("cust@other.test")
    assert (decision.fate, decision.redirect_to) == (Fate.DELIVER, "qa@ok.test")


def test_a_redirect_to_somebody_who_is_not_listed_captures() -> None:
    refused = Refused(action="redirect", redirect_to="x@other.test")
    recipients = Recipients.model_construct(allow=(), block=(), refused=refused)
    decision = RecipientPolicy(Mode.STAGING, recipients).decide("cust@other.test")
    assert (decision.fate, decision.redirect_to) == (Fate.CAPTURE, None)


def test_an_address_without_a_domain_is_captured_in_production() -> None:
    assert fate(Mode.PRODUCTION, "root") is Fate.CAPTURE


@pytest.mark.parametrize(
    ("mode", "address", "obstacle"),
    [
        (Mode.PRODUCTION, "cust@other.test", None),
        (Mode.STAGING, "cust@other.test", "mode"),
        (Mode.STAGING, "dev@ok.test", None),
        (Mode.SANDBOX, "dev@ok.test", "mode"),
        (Mode.PRODUCTION, "x@spam.test", "blocked"),
    ],
)
def test_every_attempt_is_checked_again(mode: Mode, address: str, obstacle: str | None) -> None:
    assert RecipientPolicy(mode, LISTS).obstacle_in(mode, address) == obstacle


@pytest.mark.parametrize(
    "address",
    [
        '"abuse"@customer.test',
        '"a\\buse"@customer.test',
        "ABUSE@CUSTOMER.TEST",
        "a@b\u00fccher.test",
        "a@xn--bcher-kva.test",
        "a@B\u00dcCHER.test.",
    ],
)
def test_the_block_list_knows_every_spelling(address: str) -> None:
    lists = Recipients(block=("abuse@customer.test", "@xn--bcher-kva.test"))
    assert fate(Mode.PRODUCTION, address, lists) is Fate.DROP
    assert (
        RecipientPolicy(Mode.PRODUCTION, lists).obstacle_in(Mode.PRODUCTION, address) == "blocked"
    )
