"""The section `webhooks`: where events may go, by what they are signed, and what is never shown."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic import ValidationError

from relaygw.errors import SettingsError
from relaygw.mail.verdict import Told
from relaygw.roles import store_rules
from relaygw.settings.model import Settings
from tests.tables import each_of

SHOP = {"url": "https://shop.test/hidden?key=hidden", "secret": "env:SECRET"}


def settings_with(*webhooks: dict[str, Any]) -> Settings:
    return Settings.model_validate({"mode": "sandbox", "webhooks": list(webhooks)})


@each_of(
    ("url", "is_right"),
    [
        ("https://shop.test/x", True),
        ("https://10.0.0.1/x", True),
        ("http://127.0.0.1:8080/x", True),
        ("http://[::1]/x", True),
        ("http://localhost/x", True),
        ("env:URL", True),
        ("http://shop.test/x", False),
        ("http://10.0.0.1/x", False),
        ("http://localhost.evil.test/x", False),
        ("ftp://shop.test/x", False),
        ("https://", False),
        ("shop.test", False),
    ],
)
def test_only_a_loopback_address_may_be_http(url: str, is_right: bool) -> None:
    try:
        settings_with({**SHOP, "url": url})
    except ValidationError as error:
        assert not is_right, error
        assert "hidden" not in str(error)
    else:
        assert is_right


@each_of(
    "wrong",
    [
        {"on": ["opened"]},
        {"on": ["accepted"]},
        {"on": "bounced"},
        {"secret": "whsec_bare"},
        {"secret": None},
        {"url": None},
        {"method": "PUT"},
    ],
)
def test_what_is_no_receiver_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_with({**SHOP, **wrong})


def test_two_receivers_have_two_names_and_two_urls() -> None:
    other = {**SHOP, "url": "https://other.test/"}
    settings_with(SHOP, other)
    with pytest.raises(ValidationError, match="is the URL of an earlier one"):
        settings_with(SHOP, {**SHOP, "on": ["bounced"]})
    with pytest.raises(ValidationError, match="is the name of an earlier one"):
        settings_with({**SHOP, "name": "webhook-2"}, other)


def test_a_receiver_is_another_one_by_its_url_alone() -> None:
    def endpoint(**more: Any) -> str:
        return settings_with({**SHOP, **more}).webhooks[0].endpoint

    same = endpoint()
    assert endpoint(name="shop", secret="env:OTHER", on=["bounced"]) == same
    assert endpoint(url="https://shop.test/hidden?key=other") != same
    assert endpoint(url="env:URL") != same
    assert same.isalnum()


def test_the_store_writes_what_a_receiver_wants() -> None:
    (everything,) = store_rules(settings_with(SHOP)).webhooks
    assert everything.kinds == {kind.value for kind in Told}
    (some,) = store_rules(settings_with({**SHOP, "on": ["bounced", "complained"]})).webhooks
    assert some.kinds == {"bounced", "complained"}
    assert store_rules(settings_with()).webhooks == ()


def key(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(size)).decode()


@each_of(
    ("secret", "count"),
    [
        (key(24), 1),
        (key(64), 1),
        (f"{key(24)} {key(32)}", 2),
        (key(23), 0),
        (key(65), 0),
        (key(24).removeprefix("whsec_"), 0),
        ("whsec_not base64", 0),
        ("whsec_%%%%", 0),
        (f"{key(24)} x", 0),
        ("   ", 0),
    ],
)
def test_a_secret_is_a_key_of_the_specification(secret: str, count: int) -> None:
    (webhook,) = settings_with({**SHOP, "secret": f"plain:{secret}"}).webhooks
    try:
        assert len(webhook.read_keys()) == count
    except SettingsError as error:
        assert count == 0, error
        assert secret.strip() == "" or secret not in str(error)


def test_a_url_by_reference_is_looked_at_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    (webhook,) = settings_with({**SHOP, "url": "env:SHOP_URL"}).webhooks
    monkeypatch.setenv("SHOP_URL", "http://shop.test/hidden")
    with pytest.raises(SettingsError) as error:
        webhook.read_url()
    assert str(error.value).startswith("env:SHOP_URL: is not https")
    assert "hidden" not in str(error.value)


def test_nothing_secret_is_shown() -> None:
    settings = settings_with({**SHOP, "secret": "plain:hidden"})
    shown = f"{settings!r} {settings.model_dump(mode='json')}"
    assert "hidden" not in shown
    assert "https://shop.test/***" in shown
