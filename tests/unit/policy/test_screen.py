"""Who may receive is looked at again at each attempt, by the mode of listener and user, too."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.inbound.local_mail import IMPORT_LISTENER
from relaygw.mail.envelope import ClaimedDelivery, Source
from relaygw.policy.recipients import Screen
from relaygw.settings.model import Settings
from tests.builders import claimed


def screen(**sections: Any) -> Screen:
    return Screen(
        Settings.model_validate(
            {
                "mode": "production",
                "providers": {"p": {"host": "smtp.example.com"}},
                "routes": [{"name": "default", "providers": ["p"]}],
                "listeners": [
                    {"bind": "127.0.0.1:25"},
                    {"bind": "127.0.0.1:2525", "mode": "staging"},
                ],
                "recipients": {"allow": ["dev@agency.test"]},
                **sections,
            }
        )
    )


@pytest.mark.parametrize(
    ("listener", "held"),
    [("127.0.0.1:25", []), ("127.0.0.1:2525", ["customer@x.test"]), (None, [])],
)
def test_mail_of_a_staging_listener_stays_on_its_list(
    listener: str | None, held: list[str]
) -> None:
    mail = claimed("dev@agency.test", "customer@x.test", source=Source(listener=listener))
    assert [one.address for one in screen().sort(mail).held] == held


def test_what_a_listener_accepted_keeps_its_mode_when_the_listener_is_gone() -> None:
    mail = claimed("customer@x.test", source=Source(listener="10.0.0.1:25"), mode="staging")
    assert len(screen().sort(mail).held) == 1


def test_imported_mail_keeps_the_mode_of_its_acceptance() -> None:
    for mode, held in (("staging", ["customer@x.test"]), ("production", [])):
        mail = claimed(
            "dev@agency.test", "customer@x.test", source=Source(listener=IMPORT_LISTENER), mode=mode
        )
        assert [one.address for one in screen().sort(mail).held] == held


def released(*recipients: str, mark: str, mode: str = "staging") -> ClaimedDelivery:
    return claimed(*recipients, released=mark, mode=mode)


@pytest.mark.parametrize("mode", ["staging", "sandbox"])
def test_released_mail_is_held_for_those_who_left_the_list(mode: str) -> None:
    """Also with a gateway that is in production by now."""
    for gateway in ("production", "staging", "sandbox"):
        now = screen(mode=gateway, listeners=[{"bind": "127.0.0.1:25"}])
        mail = released("dev@agency.test", "customer@x.test", mark="allowed", mode=mode)
        found = now.sort(mail)
        assert [one.address for one in found.sendable] == ["dev@agency.test"], gateway
        assert [one.address for one in found.held] == ["customer@x.test"], gateway


def test_an_admins_release_passes_but_for_the_block_list() -> None:
    recipients = {"allow": [], "block": ["@blocked.test"]}
    for gateway in ("production", "staging", "sandbox"):
        now = screen(mode=gateway, listeners=[{"bind": "127.0.0.1:25"}], recipients=recipients)
        found = now.sort(released("customer@x.test", "x@blocked.test", mark="anyone"))
        assert [one.address for one in found.sendable] == ["customer@x.test"], gateway
        assert [one.address for one in found.blocked] == ["x@blocked.test"], gateway


def test_a_mark_of_another_version_opens_nothing() -> None:
    assert len(screen().sort(released("customer@x.test", mark="everybody")).held) == 1


def test_without_a_release_a_sandbox_sends_nothing() -> None:
    now = screen(mode="sandbox", listeners=[{"bind": "127.0.0.1:25"}])
    assert len(now.sort(claimed("dev@agency.test", mode="sandbox")).held) == 1


def test_a_mailbox_is_sent_to_once_by_its_first_spelling() -> None:
    mail = claimed("b@X.test", "c@x.test", "B@x.test")
    assert screen().sort(mail).by_address() == {"b@X.test": [0, 2], "c@x.test": [1]}
