"""`relay_to`: the providers and the route that it makes, and what it refuses."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relaygw.errors import SettingsError
from relaygw.settings.load import LoadedSettings, load_settings, origin_lines
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Relay

Load = Callable[..., LoadedSettings]
Fail = Callable[..., list[str]]
CANARY = "hunter2canary"
TWO = """\
mode: production
relay_to:
  - {url: "smtp://shop@gw1:587", password: env:KEY}
  - smtp://gw2:587
"""
WITH_PASSWORD = 'write {url: "smtp://USER@HOST:PORT", password: "env:NAME"}'


@pytest.mark.parametrize("mode", ["production", "staging", "sandbox"])
def test_it_stands_for_a_provider_each_and_a_route_over_them(load: Load, mode: str) -> None:
    settings = load(TWO.replace("production", mode)).settings
    assert settings.providers == {
        "gw1": Provider.model_validate(
            {"host": "gw1", "username": "shop", "password": "env:KEY", "send_source": True}
        ),
        "gw2": Provider.model_validate({"host": "gw2", "send_source": True}),
    }
    (route,) = settings.routes
    assert (route.name, route.providers, route.is_unconditional) == (
        "default",
        ("gw1", "gw2"),
        True,
    )


def test_the_default_is_verified_tls_and_no_chained_transactions(load: Load) -> None:
    gw1 = load(TWO).settings.providers["gw1"]
    assert (gw1.tls, gw1.port, gw1.chain_transactions) == ("required", 587, "auto")


def test_other_providers_and_routes_go_first(load: Load) -> None:
    text = TWO + (
        "providers: {promo: {host: a.test}}\n"
        "routes: [{name: promo, sender: ['@promo.test'], providers: [promo]}]\n"
    )
    settings = load(text).settings
    assert list(settings.providers) == ["promo", "gw1", "gw2"]
    assert [route.name for route in settings.routes] == ["promo", "default"]


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "name"),
    [
        ("smtp://gw1", "gw1", 587, "required", "gw1"),
        ("smtp://GW1.Example.com/", "gw1.example.com", 587, "required", "gw1-example-com"),
        ("smtp://gw1:25", "gw1", 25, "required", "gw1-25"),
        ("smtps://gw1", "gw1", 465, "implicit", "gw1-465"),
        ("smtps://gw1:587?tls=implicit", "gw1", 587, "implicit", "gw1"),
        ("smtp://gw1?tls=none", "gw1", 587, "none", "gw1"),
        ("smtp://gw1?tls=encrypt", "gw1", 587, "encrypt", "gw1"),
        ("smtp://gw1?tls=opportunistic", "gw1", 587, "opportunistic", "gw1"),
        ("smtp://10.0.0.5:25", "10.0.0.5", 25, "required", "10-0-0-5-25"),
        ("smtp://[fd00::1]:25", "fd00::1", 25, "required", "fd00--1-25"),
        ("smtp://[::1]", "::1", 587, "required", "1"),
        (f"smtp://{'a' * 60}.example.com:2525", f"{'a' * 60}.example.com", 2525, "required",
         f"{'a' * 58}-2525"),
    ],
)  # fmt: skip
def test_forms_of_a_url(load: Load, url: str, host: str, port: int, tls: str, name: str) -> None:
    settings = load(f"mode: production\nrelay_to: ['{url}']\n").settings
    provider = settings.providers[name]
    assert (provider.host, provider.port, provider.tls) == (host, port, tls)
    assert settings.routes[0].providers == (name,)


def test_a_user_name_may_have_an_at_sign(load: Load) -> None:
    text = TWO.replace("shop@", "shop%40example.com@")
    assert load(text).settings.providers["gw1"].username == "shop@example.com"


def test_a_password_in_clear_goes_to_this_machine_only(load: Load, lines_of: Fail) -> None:
    local = TWO.replace("gw1:587", "127.0.0.1:25?tls=none")
    assert load(local).settings.providers["127-0-0-1-25"].tls == "none"
    [line] = lines_of(TWO.replace("gw1:587", "gw1?tls=none"))
    assert line == (
        "relaygw.yaml:3: relay_to.0: a mapping would send the password in clear text; remove "
        "tls=none, or write a provider with auth_without_tls: true on a trusted network"
    )


def test_it_is_shown_as_written_and_so_are_origins(load: Load) -> None:
    loaded = load(TWO)
    lines = {key: (value, origin) for key, value, origin in origin_lines(loaded)}
    assert lines["relay_to.0.url"] == ('"smtp://shop@gw1:587"', "relaygw.yaml:3")
    assert lines["relay_to.0.password"] == ('"env:KEY"', "relaygw.yaml:3")
    assert lines["relay_to.1"] == ('"smtp://gw2:587"', "relaygw.yaml:4")
    assert lines["providers.gw1.host"] == ('"gw1"', "relaygw.yaml:3")
    assert lines["providers.gw2.send_source"] == ("true", "relaygw.yaml:4")
    assert lines["providers.gw2.max_connections"] == ("5", "default")
    assert lines["routes.0.providers"] == ('["gw1", "gw2"]', "relaygw.yaml:2")


def test_it_may_come_from_the_environment(load: Load) -> None:
    loaded = load(
        "mode: production\n",
        {
            "RELAYGW__RELAY_TO": "[smtp://gw1, smtp://gw2]",
            "RELAYGW__RELAY_TO__2__URL": "smtp://shop@gw3",
            "RELAYGW__RELAY_TO__2__PASSWORD": "env:KEY",
        },
    )
    assert list(loaded.settings.providers) == ["gw1", "gw2", "gw3"]
    assert loaded.origins["providers.gw1.host"] == "environment RELAYGW__RELAY_TO"


def test_settings_with_it_survive_pickling(load: Load) -> None:
    settings = load(TWO).settings
    assert pickle.loads(pickle.dumps(settings)) == settings


USER = "has a user name but no password; " + WITH_PASSWORD
NO_USER = "has a password but no user name; " + WITH_PASSWORD
SCHEME = "is not a URL of smtp or smtps; write e.g. smtp://gw1.example.com:587"
REST = "is not smtp://USER@HOST:PORT; remove everything after the port"
HOLDS = f"holds a password; {WITH_PASSWORD}, and change the exposed password"
MAPPING = f"a mapping is not a gateway; {WITH_PASSWORD}"
ENTRIES: list[tuple[str, str]] = [
    ("smtp://shop@gw1", f'"smtp:..." {USER}'),
    ("{url: 'smtp://gw1', password: env:KEY}", f"a mapping {NO_USER}"),
    (f"smtp://shop:{CANARY}@gw1", f'"smtp:..." {HOLDS}'),
    (f"smtp://shop:{CANARY}@{CANARY}@gw1", f'"smtp:..." {HOLDS}'),
    (f"{{url: 'smtp://shop:{CANARY}@gw1', password: env:KEY}}", f"a mapping {HOLDS}"),
    (f"smtp://shop:{CANARY}/x@gw1", f'"smtp:..." {SCHEME}'),
    (f"smtp://shop:25#{CANARY}@gw1", f'"smtp:..." {REST}'),
    (f"smtp://shop:25?{CANARY}@gw1", '"smtp:..." has an unknown query; write '
     "?tls=required or ?tls=encrypt or ?tls=opportunistic or ?tls=none, or none"),
    ("smtp://gw1/path", f'"smtp:..." {REST}'),
    ("smtp://gw1:0", f'"smtp:..." {REST}'),
    ("smtp://gw1:70000", f'"smtp:..." {SCHEME}'),
    ("smtp://", f'"smtp:..." {SCHEME}'),
    ("http://gw1", f'"http:..." {SCHEME}'),
    ("gw1:587", f'"gw1:..." {SCHEME}'),
    ("gw1", f'"gw1" {SCHEME}'),
    (f"shop@{CANARY}", f"the value (not shown) {SCHEME}"),
    ("smtp://-gw1", '"smtp:..." has no host name or IP address; write e.g. '
     "smtp://gw1.example.com:587"),
    ("smtp://gw1?tls=maybe", '"smtp:..." has an unknown query; write ?tls=required or '
     "?tls=encrypt or ?tls=opportunistic or ?tls=none, or none"),
    ("smtps://gw1?tls=none", '"smtps:..." has an unknown query; write ?tls=implicit, or '
     "none"),
    ("5", "5 is not a URL; write e.g. smtp://gw1.example.com:587"),
    ("~", "null is not a URL; write e.g. smtp://gw1.example.com:587"),
    ("{uri: smtp://gw1}", MAPPING),
    ("{url: smtp://gw1, port: 25}", MAPPING),
    (f"{{url: 'smtp://u@gw1', password: {CANARY}}}", "a mapping has a password that is not a "
     "secret reference; write env:NAME, file:PATH, credential:NAME, command:ARGV or plain:VALUE"),
    ("{url: 'smtp://u%00@gw1', password: env:K}", "a mapping has an invalid user name; "
     "write e.g. smtp://gw1.example.com:587"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "problem"), ENTRIES, ids=[entry for entry, _ in ENTRIES])
def test_what_is_no_gateway_gets_one_line(
    load: Load, lines_of: Fail, entry: str, problem: str
) -> None:
    text = f"mode: production\nrelay_to:\n  - smtp://ok\n  - {entry}\n"
    assert lines_of(text) == [f"relaygw.yaml:4: relay_to.1: {problem}"]
    with pytest.raises(SettingsError) as caught:
        load(text)
    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


def test_it_is_a_list(lines_of: Fail) -> None:
    [line] = lines_of(f"mode: production\nrelay_to: smtp://u:{CANARY}@gw1\n")
    assert line == ("relaygw.yaml:2: relay_to: a single value is not a list; write [VALUE, VALUE]")


CONFLICTS = [
    (
        "relay_to: [smtp://gw1, smtp://GW1:587]\n",
        ["2: relay_to.1: repeats gw1:587; remove one"],
    ),
    (
        "relay_to: [smtp://gw1]\nproviders: {gw1: {host: a.test}}\n",
        [
            '2: relay_to.0: creates a provider "gw1", but there is one of that name; rename it, or '
            "remove this entry and list the provider in a route"
        ],
    ),
    (
        "relay_to: [smtp://gw1]\nproviders: {a: {host: a.test}}\n"
        "routes: [{name: all, providers: [a]}]\n",
        [
            '4: routes.0: route "all" has no condition, so relay_to is never used; remove one of '
            "the two"
        ],
    ),
    (
        "relay_to: [smtp://gw1]\nproviders: {a: {host: a.test}}\n"
        "routes: [{name: default, sender: ['@a.test'], providers: [a]}]\n",
        [
            '4: routes.0.name: "default" is the name of the route that relay_to creates; choose '
            "another"
        ],
    ),
]


@pytest.mark.parametrize(("text", "lines"), CONFLICTS, ids=[lines[0] for _, lines in CONFLICTS])
def test_it_does_not_fit_with_the_rest(lines_of: Fail, text: str, lines: list[str]) -> None:
    assert lines_of("mode: production\n" + text) == [f"relaygw.yaml:{line}" for line in lines]


def test_an_empty_list_is_nothing(lines_of: Fail) -> None:
    keys = [line.split(": ")[1] for line in lines_of("mode: production\nrelay_to: []\n")]
    assert keys == ["providers", "routes"]


def test_a_plain_password_needs_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "relaygw.yaml"
    file.write_text(TWO.replace("env:KEY", "plain:x"))
    file.chmod(0o644)
    with pytest.raises(SettingsError, match=r"^relaygw.yaml:3: relay_to.0.password: plain:\*\*\*:"):
        load_settings(config=file, environ={})


@pytest.mark.parametrize("value", ["smtp://gw1", {"url": "smtp://u@gw1", "password": "env:K"}])
def test_the_written_form_can_be_read_again(value: Any) -> None:
    assert Relay.parse(Relay.parse(value).written()) == Relay.parse(value)
    assert Relay.parse(value).written() == value
