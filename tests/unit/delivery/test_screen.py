"""Who may receive is looked at again at each attempt, by the mode of listener and user, too."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.delivery.attempt import Screen
from relaygw.mail.envelope import Source
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
