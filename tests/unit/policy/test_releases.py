"""Whom captured mail may reach that somebody lets go: at the release and at each attempt."""

from __future__ import annotations

from typing import Any

from relaygw.mail.envelope import Released, Source
from relaygw.policy.recipients import Refusal, Screen, strictest
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from tests.tables import each_of

STAGING_BIND = "127.0.0.1:2525"
EVERY_MODE = tuple(Mode)
OUTSIDE = (
    "b@cust.test",
    "dev+x@agency.test",
    "dev@b.qa.agency.test",
    "dev@xqa.agency.test",
    "dev@qa.agency.test.evil.test",
    "dev@agency.te\u0455t",  # a Cyrillic letter
    "dev@agency\u3002test",  # a full stop of another script
    "dev\u212a@agency.test",  # the Kelvin sign
    '"dev "@agency.test',  # quotes that are needed: another mailbox
    '"dev@agency.test"@cust.test',
    "b%cust.test@qa.agency.test",
    "cust.test!b@qa.agency.test",
    '"b@cust.test"@qa.agency.test',
    '"b\\@cust.test"@qa.agency.test',
    "b\uff20cust.test@qa.agency.test",
    "b\uff05cust.test@qa.agency.test",
    "dev@[127.0.0.1]",
    "dev@b\u00fccher.test",  # the list has its A-label form
)
BLOCKED = ("x@spam.test", "Abuse@Customer.TEST", '"abuse"@customer.test', "x@\u017fpam.test")
NO_ADDRESS = (
    "",
    "root",
    "postmaster",
    "@qa.agency.test",
    "dev@agency.test, b@cust.test",
    "dev@agency.test b@cust.test",
    "dev@agency.test\r\nRCPT TO:<b@cust.test>",
    "<dev@agency.test>",
    "Dev <dev@agency.test>",
    "dev@agency.test.",
    "dev@agency..test",
    "-dev@agency.test",
    "@relay.test:dev@agency.test",
    "dev(b@cust.test)@agency.test",
    "=?utf-8?q?dev=40cust=2Etest?=@agency.test",
    "dev\\x00@agency.test",
    "dev@agency.test\x00",
    "dev\udcff@agency.test",
    f"{'x' * 1001}@agency.test",
)


def policy(mode: Mode = Mode.STAGING, **sections: Any) -> Screen:
    return Screen(
        Settings.model_validate(
            {
                "mode": mode,
                "providers": {"p": {"host": "smtp.example.com"}},
                "routes": [{"name": "default", "providers": ["p"]}],
                "listeners": [{"bind": "127.0.0.1:25"}]
                if mode is not Mode.PRODUCTION
                else [{"bind": "127.0.0.1:25"}, {"bind": STAGING_BIND, "mode": "staging"}],
                "recipients": {
                    "allow": ["dev@agency.test", "@qa.agency.test", "@xn--bcher-kva.test"],
                    "block": ["@spam.test", "abuse@customer.test"],
                },
                **sections,
            }
        )
    )


def judge(
    target: str,
    *,
    mode: Mode = Mode.STAGING,
    accepted_in: Mode = Mode.STAGING,
    source: Source | None = None,
    anyone: bool = False,
    **sections: Any,
) -> Released | Refusal | None:
    found = policy(mode, **sections).judge(
        target, source=source or Source(), accepted_in=accepted_in, anyone=anyone
    )
    assert (found.released is None) != (found.refusal is None)
    return found.released or found.refusal


class TestCapturedByItsMode:
    """What staging or sandbox captured, whatever the gateway's mode is now."""

    @each_of("target", ["dev@agency.test", "DEV@Agency.Test", "x+y@QA.agency.test"])
    @each_of("mode", EVERY_MODE)
    @each_of("accepted_in", [Mode.STAGING, Mode.SANDBOX])
    def test_goes_to_the_allow_list(self, mode: Mode, accepted_in: Mode, target: str) -> None:
        assert judge(target, mode=mode, accepted_in=accepted_in) is Released.ALLOWED

    @each_of("target", OUTSIDE)
    @each_of("mode", EVERY_MODE)
    @each_of("accepted_in", [Mode.STAGING, Mode.SANDBOX])
    def test_goes_nowhere_else_without_an_admin(
        self, mode: Mode, accepted_in: Mode, target: str
    ) -> None:
        assert judge(target, mode=mode, accepted_in=accepted_in) is Refusal.OUTSIDE
        named = judge(target, mode=mode, accepted_in=accepted_in, anyone=True)
        assert named is Released.ANYONE

    @each_of("anyone", [False, True])
    @each_of("target", BLOCKED)
    @each_of("mode", EVERY_MODE)
    @each_of("accepted_in", [Mode.STAGING, Mode.SANDBOX])
    def test_never_goes_to_the_block_list(
        self, mode: Mode, accepted_in: Mode, target: str, anyone: bool
    ) -> None:
        found = judge(target, mode=mode, accepted_in=accepted_in, anyone=anyone)
        assert found is Refusal.BLOCKED

    @each_of("anyone", [False, True])
    @each_of("target", NO_ADDRESS)
    @each_of("mode", EVERY_MODE)
    @each_of("accepted_in", [Mode.STAGING, Mode.SANDBOX])
    def test_never_goes_to_what_is_no_address(
        self, mode: Mode, accepted_in: Mode, target: str, anyone: bool
    ) -> None:
        found = judge(target, mode=mode, accepted_in=accepted_in, anyone=anyone)
        assert found is Refusal.INVALID


def test_an_admin_opens_nothing_for_an_allowed_address() -> None:
    assert judge("dev@agency.test", anyone=True) is Released.ALLOWED


def test_an_entry_with_a_percent_sign_allows_that_very_address() -> None:
    allow = {"allow": ["b%cust.test@qa.agency.test"]}
    assert judge("b%cust.test@qa.agency.test", recipients=allow) is Released.ALLOWED
    assert judge("c%cust.test@qa.agency.test", recipients=allow) is Refusal.OUTSIDE


def test_a_target_is_not_rewritten_and_not_redirected() -> None:
    sections: dict[str, Any] = {
        "rewrite": {"recipients": {"b@cust.test": "dev@agency.test"}, "default_domain": "q.test"},
        "recipients": {"allow": ["dev@agency.test"], "refused": "redirect:dev@agency.test"},
    }
    assert judge("b@cust.test", **sections) is Refusal.OUTSIDE
    assert judge("root", **sections) is Refusal.INVALID


def test_mail_of_production_needs_no_list_as_long_as_it_is_production() -> None:
    captured_there = Mode.PRODUCTION  # blocked: capture, or a local recipient without a rule
    assert judge("b@cust.test", mode=captured_there, accepted_in=captured_there) == "allowed"
    assert judge("root", mode=captured_there, accepted_in=captured_there) is Refusal.INVALID
    assert judge("x@spam.test", mode=captured_there, accepted_in=captured_there) == "blocked"
    for stricter in (Mode.STAGING, Mode.SANDBOX):
        assert judge("b@cust.test", mode=stricter, accepted_in=captured_there) == "outside"


def test_the_mode_of_a_listener_counts_when_it_has_become_stricter() -> None:
    source = Source(listener=STAGING_BIND)
    found = judge("b@cust.test", mode=Mode.PRODUCTION, accepted_in=Mode.PRODUCTION, source=source)
    assert found is Refusal.OUTSIDE


@each_of("mode", EVERY_MODE)
@each_of("accepted_in", EVERY_MODE)
@each_of("target", ["dev@agency.test", *OUTSIDE, *BLOCKED])
@each_of("anyone", [False, True])
def test_what_is_released_may_be_sent_and_nothing_else(
    mode: Mode, accepted_in: Mode, target: str, anyone: bool
) -> None:
    rules = policy(mode)
    found = rules.judge(target, source=Source(), accepted_in=accepted_in, anyone=anyone)
    marks = [found.released.value] if found.released else ["allowed", "an unknown word"]
    for mark in marks:
        obstacle = rules.obstacle_of(Source(), accepted_in, mark)(target)
        assert (obstacle is None) == (found.released is not None), mark


@each_of("now", EVERY_MODE)
@each_of("then", EVERY_MODE)
@each_of("target", ["dev@agency.test", *OUTSIDE, *BLOCKED])
def test_mail_that_is_sent_again_keeps_the_stricter_mode(
    now: Mode, then: Mode, target: str
) -> None:
    obstacle = policy(now).obstacle_of(Source(), then, Released.RESENT)(target)
    # a mode that was flipped to production opens nothing, and a sandbox no allow list
    if target in BLOCKED:
        assert obstacle == "blocked"
        return
    is_allowed = target not in OUTSIDE and strictest(now, then) is Mode.STAGING
    may_go = is_allowed or strictest(now, then) is Mode.PRODUCTION
    assert obstacle == (None if may_go else "mode")


def test_a_list_that_changed_holds_and_a_block_blocks() -> None:
    def obstacle(target: str, released: str, **lists: list[str]) -> str | None:
        rules = policy(recipients=lists)
        return rules.obstacle_of(Source(), Mode.STAGING, released)(target)

    assert obstacle("dev@agency.test", "allowed", allow=["dev@agency.test"]) is None
    assert obstacle("dev@agency.test", "allowed", allow=[]) == "mode"
    assert obstacle("b@cust.test", "anyone", allow=[]) is None
    assert obstacle("b@cust.test", "anyone", block=["@cust.test"]) == "blocked"
    assert obstacle("dev@agency.test", "allowed", block=["dev@agency.test"]) == "blocked"
