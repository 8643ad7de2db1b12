"""The listener for events, and what each preset needs to be believed."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from relaygw.errors import SettingsError
from relaygw.settings.model import Settings, fingerprint
from relaygw.settings.presets import presets
from tests.tables import each_of
from tests.unit.settings.conftest import Load

TOPIC = "arn:aws:sns:eu-west-1:123456789012:events"
LOGIN = {"password": "env:KEY"}
SES = {"preset": "ses", "region": "eu-west-1", "username": "u", **LOGIN}
HEAD = {"mode": "production", "routes": [{"name": "all", "providers": ["p"]}]}


def values(provider: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**HEAD, "providers": {"p": provider}, **more}


def settings(provider: dict[str, Any], **more: Any) -> str:
    return yaml.safe_dump(values(provider, **more))


@each_of(
    "preset, events, problem",
    [
        ("sendgrid", {}, "has no secret; write events: {secret: …}"),
        ("sendgrid", {"secret": "env:K", "topic": TOPIC}, "has a topic, which sendgrid does not"),
        ("mailtrap", {"secret": "env:K"}, "needs a preset that reports events: brevo, mailgun, "),
        (None, {"secret": "env:K"}, "sendgrid, ses; remove it"),
        ("postmark", {"secret": "user:password"}, "is not a secret reference"),
    ],
)
def test_what_a_provider_lacks_is_told(
    load: Load, preset: str | None, events: dict[str, Any], problem: str
) -> None:
    provider = {"preset": preset, "host": "a.test", "username": "u", **LOGIN, "events": events}
    with pytest.raises(SettingsError) as caught:
        load(settings(provider, events={"bind": "127.0.0.1:8026"}))
    assert problem in str(caught.value)
    assert "user:password" not in str(caught.value), "it may be a secret"


@each_of("topic", ["events", "arn:aws:sns:eu-west-1:12:events", f"{TOPIC} ", "https://x.test"])
def test_a_topic_is_an_arn(load: Load, topic: str) -> None:
    with pytest.raises(SettingsError, match="is not the ARN of a topic"):
        load(settings({**SES, "events": {"topic": topic}}))


def test_amazon_needs_a_topic_and_takes_a_secret(load: Load) -> None:
    with pytest.raises(SettingsError, match="has no topic"):
        load(settings({**SES, "events": {"secret": "env:K"}}))
    found = load(settings({**SES, "events": {"secret": "env:K", "topic": TOPIC}})).settings
    assert found.providers["p"].events is not None


def test_a_listener_for_nobody_is_refused(load: Load) -> None:
    with pytest.raises(SettingsError, match="would listen for nobody"):
        load(settings({"host": "a.test"}, events={"bind": "0.0.0.0:8026"}))


def test_no_two_listen_on_one_address(load: Load) -> None:
    provider = {"preset": "sendgrid", **LOGIN, "events": {"secret": "env:K"}}
    with pytest.raises(SettingsError, match=r"is taken by web\.bind"):
        load(settings(provider, events={"bind": "127.0.0.1:8025"}))


def test_a_public_address_is_fine_and_secrets_do_not_route() -> None:
    provider: dict[str, Any] = {"preset": "sendgrid", "host": "h.test"}
    written = values(provider, listeners=[{"bind": "127.0.0.1:25"}])
    before = Settings.model_validate(written)
    provider["events"] = {"secret": "env:K"}
    after = Settings.model_validate({**written, "events": {"bind": "0.0.0.0:8026"}})
    assert fingerprint(before) == fingerprint(after)


def test_each_service_that_reports_has_a_field_for_the_mark() -> None:
    reporting = {name for name, one in presets().items() if one.events}
    assert reporting == {"brevo", "mailgun", "postmark", "resend", "sendgrid", "ses"}
    assert reporting == {name for name, one in presets().items() if one.mark is not None}
