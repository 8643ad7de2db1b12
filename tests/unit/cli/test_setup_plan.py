"""What setup asks, and the configuration that follows: it loads, whatever the service."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from relaygw.cli.setup_plan import (
    Answers,
    as_yaml,
    configuration,
    difference,
    problem_of,
    questions,
)
from relaygw.settings.load import load_settings
from relaygw.settings.model import Settings
from relaygw.settings.presets import presets

HASH = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$qaWmiEvqxJUTQKBMbvDRaQ"
SHOP = Answers(use="shop", preset="sendgrid", sender="shop@example.com")


def asked(answers: Answers) -> list[str]:
    return [one.name for one in questions(answers)]


def loaded(directory: Path, answers: Answers) -> Settings:
    config = directory / "relaygw.yaml"
    tree = configuration(answers, directory=directory, password_hash=HASH)
    config.write_text(as_yaml(tree))
    config.chmod(0o600)
    return load_settings(config=config, environ={"XDG_STATE_HOME": str(directory)}).settings


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({}, ["use"]),
        ({"use": "sandbox"}, []),
        ({"use": "shop"}, ["preset", "sender", "keep_content"]),
        ({"use": "shop", "preset": "sendgrid"}, ["sender", "keep_content"]),
        ({"use": "shop", "preset": "ses"}, ["region", "username", "sender", "keep_content"]),
        ({"use": "shop", "preset": "mailtrap"}, ["sender", "keep_content"]),
        (
            {"use": "shop", "preset": "mailtrap", "variant": "sandbox"},
            ["username", "sender", "keep_content"],
        ),
        ({"use": "shop", "preset": "other"}, ["host", "sender", "keep_content"]),
        (
            {"use": "shop", "preset": "other", "host": "smtp.x.test"},
            ["username", "sender", "keep_content"],
        ),
        ({"use": "shop", "host": "smtp.x.test"}, ["username", "sender", "keep_content"]),
        ({"use": "staging", "preset": "sendgrid"}, ["sender", "allow", "keep_content"]),
        ({"use": "gateway", "preset": "sendgrid"}, ["sender", "networks", "keep_content"]),
        (
            {"use": "gateway", "preset": "sendgrid", "networks": ("10.0.0.0/8",)},
            ["sender", "keep_content"],
        ),
        (
            {"use": "shop", "preset": "microsoft365", "username": "a@x.test"},
            ["login", "tenant", "client_id", "certificate", "sender", "keep_content"],
        ),
        (
            {"use": "shop", "preset": "microsoft365", "username": "a@x.test", "login": "password"},
            ["sender", "keep_content"],
        ),
        (
            {"use": "shop", "preset": "gmail", "username": "a@x.test", "login": "token"},
            ["client_id", "sender", "keep_content"],
        ),
        ({"use": "shop", "preset": "workspace"}, ["username", "sender", "keep_content"]),
        (
            {"use": "shop", "preset": "workspace", "username": "a@x.test"},
            ["login", "sender", "keep_content"],
        ),
    ],
)
def test_what_is_asked_follows_from_what_is_known(given: dict[str, Any], left: list[str]) -> None:
    assert asked(Answers(**given)) == left


def test_the_smallest_files(tmp_path: Path) -> None:
    tree = configuration(Answers(use="sandbox"), directory=tmp_path, password_hash=HASH)
    assert tree == {"mode": "sandbox"}
    tree = configuration(SHOP, directory=Path("/etc/relaygw"), password_hash=HASH)
    assert tree == {
        "mode": "production",
        "providers": {
            "sendgrid": {"preset": "sendgrid", "password": "file:/etc/relaygw/secrets/sendgrid"}
        },
        "routes": [{"name": "default", "providers": ["sendgrid"]}],
        "rewrite": {
            "default_domain": "example.com",
            "senders": {
                "www-data@example.com": "shop@example.com",
                "root@example.com": "shop@example.com",
            },
        },
        "web": {"users": [{"name": "admin", "password_hash": HASH, "role": "admin"}]},
    }
    assert yaml.safe_load(as_yaml(tree)) == tree


@pytest.mark.parametrize("use", ["shop", "gateway", "staging"])
@pytest.mark.parametrize("name", sorted(presets()))
def test_every_service_makes_a_configuration_that_loads(
    tmp_path: Path, use: str, name: str
) -> None:
    answers = Answers(
        use=use,
        preset=name,
        sender="shop@example.com",
        allow=("dev@qa.test", "@qa.test") if use == "staging" else (),
        networks=("10.0.0.0/16",) if use == "gateway" else (),
    )
    examples = {
        "region": "eu-west-1",
        "username": "user@example.com",
        "tenant": "example.com",
        "client_id": "app",
    }
    while missing := [one.name for one in questions(answers) if one.is_needed]:
        answers = replace(answers, **{missing[0]: examples[missing[0]]})
    settings = loaded(tmp_path, answers)
    (provider,) = settings.providers.values()
    assert provider.has_credentials == answers.needs_key
    assert settings.mode == ("staging" if use == "staging" else "production")
    if use == "gateway":
        (listener,) = settings.listeners
        assert str(listener.bind) == "0.0.0.0:25"
        assert "10.0.0.0/16" in map(str, listener.allow)
    if use == "staging":
        assert list(map(str, settings.recipients.allow)) == ["dev@qa.test", "@qa.test"]


def test_sent_mail_is_kept_on_wish(tmp_path: Path) -> None:
    assert loaded(tmp_path, SHOP).queue.keep_content == 0
    assert loaded(tmp_path, replace(SHOP, keep_content="7d")).queue.keep_content == 7 * 86_400
    problem = problem_of(replace(SHOP, keep_content="seven"), "keep_content")
    assert problem.startswith('--keep-content "seven"')


def test_a_service_without_a_preset(tmp_path: Path) -> None:
    answers = replace(SHOP, preset=None, host="smtp.x.test", port=2525, tls="encrypt")
    provider = loaded(tmp_path, answers).providers["main"]
    assert (provider.host, provider.port, provider.tls) == ("smtp.x.test", 2525, "encrypt")
    assert not answers.needs_key
    answers = replace(answers, username="shop")
    assert answers.needs_key
    provider = loaded(tmp_path, answers).providers["main"]
    assert str(provider.password) == f"file:{tmp_path}/secrets/main"


def test_another_login_of_the_pages_is_no_difference() -> None:
    place = Path("/etc/relaygw")
    wanted = configuration(SHOP, directory=place, password_hash="one")
    found = configuration(SHOP, directory=place, password_hash="two")
    assert difference(wanted, found) == []
    other = replace(SHOP, preset="mailgun", username="x@y.test")
    assert difference(configuration(other, directory=place, password_hash=""), found) == [
        "providers",
        "routes",
    ]
    assert difference(wanted, ["no mapping"]) == sorted(wanted)


def test_every_question_has_an_option_of_setup() -> None:
    from relaygw.cli.setup import setup

    options = {option for one in setup.params for option in one.opts}
    for use in ("shop", "gateway", "staging"):
        for preset in (None, "other", "ses", "microsoft365"):
            for one in questions(Answers(use=use, preset=preset)):
                assert one.option in options
                assert re.fullmatch(r"--[a-z-]+", one.option)
