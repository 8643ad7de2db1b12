"""Which keys changed, never with values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relaygw.policy.settings_change import changed_keys, keys_of, parse_change
from relaygw.settings.model import Settings

HASHES = [f"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$qaWmiEvqxJUTQKBMbvDRa{x}" for x in "QA"]
BASE: dict[str, Any] = {
    "mode": "production",
    "hostname": "gw.test",
    "listeners": [{"bind": "127.0.0.1:25"}],
    "providers": {"main": {"host": "smtp.example.com", "password": "env:KEY", "username": "u"}},
    "routes": [{"name": "default", "providers": ["main"]}],
    "users": [{"name": "shop1", "password_hash": HASHES[0]}],
    "rewrite": {"senders": {"root@shop.test": "ops@shop.test"}},
}


def changed(**sections: Any) -> list[str]:
    before, after = (keys_of(Settings.model_validate(one)) for one in (BASE, {**BASE, **sections}))
    return [name for name, _ in changed_keys(before, after)]


SPARE = {"spare": {"host": "smtp.example.net"}}
MAIN = BASE["providers"]["main"]


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({}, []),
        ({"retry": {"first": "30s"}}, []),  # what it is by default
        ({"mode": "staging"}, ["mode"]),
        ({"providers": {**BASE["providers"], **SPARE}}, ["providers.spare (new)"]),
        ({"providers": {"main": {**MAIN, "password": "env:K2"}}}, ["providers.main.password"]),
        (
            {"users": [{"name": "shop1", "password_hash": HASHES[1]}]},
            ["users[shop1].password_hash"],
        ),
        ({"users": []}, ["users (removed)"]),
        ({"rewrite": {}}, ["rewrite (removed)"]),
        (
            {"rewrite": {"senders": {"root@shop.test": "evil@x.test"}}},
            ["rewrite.senders.root@shop.test"],
        ),
        (
            {"listeners": [{"bind": "127.0.0.1:25", "allow": ["10.0.0.0/8"]}]},
            ["listeners[127.0.0.1:25].allow (new)"],
        ),
        ({"recipients": {"block": ["a@x.test", "b@x.test"]}}, ["recipients (new)"]),
    ],
)
def test_the_keys_that_differ_are_named(sections: dict[str, Any], names: list[str]) -> None:
    assert changed(**sections) == names


def test_a_long_list_is_one_value() -> None:
    many = {f"r{number}@shop.test": "ops@shop.test" for number in range(500)}
    keys = keys_of(Settings.model_validate({**BASE, "rewrite": {"senders": many}}))
    assert len(json.dumps(keys)) < 2000
    turned = {"senders": dict(reversed(many.items()))}
    assert keys == keys_of(Settings.model_validate({**BASE, "rewrite": turned}))


@pytest.mark.parametrize("detail", ["", "x", "[]", '{"number": "x", "keys": 3, "changed": null}'])
def test_what_no_gateway_wrote_says_nothing(detail: str) -> None:
    change = parse_change(detail)
    assert (change.number, change.keys, change.changed) == (0, None, ())
