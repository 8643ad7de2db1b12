"""Listeners, users and routes by them: what is refused, and that the reason names the remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relaygw.errors import SettingsError
from relaygw.settings.load import LoadedSettings

Load = Callable[..., LoadedSettings]
Fail = Callable[..., list[str]]
HASH = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$4m7RPnoLSPPNPLEvyQ4hSA"
RELAY = "mode: production\nproviders: {main: {host: smtp.example.com}}\n"
DEFAULT = "routes: [{name: default, providers: [main]}]\n"
USER = f"users: [{{name: shop1, password_hash: '{HASH}'}}]\n"


def relay(listener: str, users: str = "") -> str:
    return RELAY + DEFAULT + users + f"listeners: [{{{listener}}}]\n"


WIDE = [
    *("0.0.0.0/1", "8.0.0.0/7", "64.0.0.0/8", "2000::/3", "2a00::/12", "::/0", "0.0.0.0/0"),
    "11.0.0.0/9, 12.0.0.0/9",
    "5.0.0.0/9, 6.0.0.0/9",
]


@pytest.mark.parametrize("networks", WIDE)
def test_much_of_the_internet_is_an_open_relay(lines_of: Fail, networks: str) -> None:
    listed = ", ".join(f"'{network}'" for network in networks.split(", "))
    [line] = lines_of(relay(f"bind: '0.0.0.0:25', allow: [{listed}]"))
    assert line.startswith("relaygw.yaml:4: listeners.0.allow: lets ")
    assert "an open relay" in line
    assert line.endswith("or write auth: required")


@pytest.mark.parametrize(
    "networks",
    [
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
        *("'fc00::/7'", "'fe80::/10'", "'2a01:4f8::/32'", "203.0.113.0/24, 198.51.100.0/24"),
    ],
)
def test_own_networks_and_sites_are_none(load: Load, networks: str) -> None:
    loaded = load(relay(f"bind: '0.0.0.0:25', allow: [{networks}]"))
    assert loaded.settings.listeners[0].allow


def test_with_a_login_for_everyone_no_network_is_too_wide(load: Load) -> None:
    tls = "tls: {mode: starttls, cert: missing.pem}"
    # the certificate is no matter of the model
    with pytest.raises(SettingsError, match=r"missing\.pem"):
        load(relay(f"bind: '0.0.0.0:25', allow: [0.0.0.0/0], auth: required, {tls}", USER))


@pytest.mark.parametrize("networks", ["64:ff9b::/96", "::ffff:0:0/96", "::ffff:0.0.0.0/100"])
def test_all_of_ipv4_written_as_ipv6_is_an_open_relay(lines_of: Fail, networks: str) -> None:
    [line] = lines_of(relay(f"bind: '0.0.0.0:25', allow: ['{networks}']"))
    assert "an open relay" in line


def test_a_proxy_whose_word_anyone_can_give_is_an_open_relay(lines_of: Fail, load: Load) -> None:
    [line] = lines_of(relay("bind: '0.0.0.0:25', proxy_protocol: [0.0.0.0/0]"))
    assert "listeners.0.proxy_protocol: trusts everyone to name the client: an open relay" in line
    balanced = "bind: '127.0.0.1:25', proxy_protocol: [127.0.0.1/32]"
    [line] = lines_of(relay(f"{balanced}, allow: [0.0.0.0/0]"))
    assert "listeners.0.allow: lets everyone send through 127.0.0.1:25: an open relay" in line
    load(relay(f"{balanced}, allow: [10.0.0.0/8]"))


BROKEN = [
    ("bind: '127.0.0.1:25', auth: required", "", "listeners.0.auth: required lets nobody log in: "
    "the"),
    (
        "bind: '10.0.0.1:25', auth: required",
        USER,
        "listeners.0.auth: required lets nobody log in: passwords are not accepted over a network "
        "without",
    ),
    ("bind: '127.0.0.1:25', auth: false", USER, 'listeners.0.auth: false is not one of off, opt'),
    ("bind: '127.0.0.1:25', auth: off", USER, "users: cannot log in: every listener has auth: off"),
    ("bind: '127.0.0.1:25', tls: {mode: implicit}", "", "listeners.0.tls.cert: is required for"),
    ("bind: '127.0.0.1:25', tls: {cert: a.pem}", "", "listeners.0.tls.mode: off uses no certif"),
    ("bind: '127.0.0.1:25', proxy_protocol: [10.0.0.1/8]", "", "listeners.0.proxy_protocol.0: "),
    ("bind: '127.0.0.1:25', rate_per_client: 600", "", "listeners.0.rate_per_client: 600 is not a"),
]  # fmt: skip


@pytest.mark.parametrize(("listener", "users", "line"), BROKEN)
def test_listeners_that_cannot_be_meant(
    lines_of: Fail, listener: str, users: str, line: str
) -> None:
    [found] = lines_of(relay(listener, users))
    assert found.partition(": ")[2].startswith(line)


def test_a_mode_may_only_be_stricter(lines_of: Fail, load: Load) -> None:
    text = "mode: staging\nproviders: {main: {host: smtp.example.com}}\n" + DEFAULT
    [line] = lines_of(text + "listeners: [{bind: '127.0.0.1:25', mode: production}]\n")
    assert line.startswith(
        "relaygw.yaml:4: listeners.0.mode: production is less strict than the gateway's mode stag"
    )
    [line] = lines_of(text + USER.replace("}", ", mode: production}"))
    assert line.startswith(
        "relaygw.yaml:4: users.0.mode: production is less strict than the gateway's mode staging"
    )
    for mode in ("staging", "sandbox"):
        assert load(text + f"listeners: [{{bind: '127.0.0.1:25', mode: {mode}}}]\n")


USERS = [
    ("[{name: a/b, password_hash: '" + HASH + "'}]", "users.0.name: "),
    ("[{name: shop1, password_hash: secret}]", "users.0.password_hash: the value (not shown) is "),
    ("[{name: shop1, password_hash: '" + HASH.replace("m=64", "m=999999") + "'}]",
     "users.0.password_hash: the value (not shown) takes more than 256 MiB"),
    ("[{name: A, password_hash: '" + HASH + "'}, {name: a, password_hash: '" + HASH + "'}]",
     'users.1.name: "a" is the name of an earlier user'),
]  # fmt: skip


@pytest.mark.parametrize(("users", "line"), USERS)
def test_users_that_cannot_be_meant(lines_of: Fail, users: str, line: str) -> None:
    [found] = lines_of(RELAY + DEFAULT + f"users: {users}\n")
    assert found.partition(": ")[2].startswith(line)
    assert "argon2id$" not in found


def test_a_route_names_listeners_and_users_that_there_are(lines_of: Fail, load: Load) -> None:
    text = RELAY + "listeners: [{bind: '127.0.0.1:25'}]\n" + USER
    route = "routes: [{{name: a, {}, providers: [main]}}, {{name: default, providers: [main]}}]\n"
    assert load(text + route.format("listener: ['127.0.0.1:25'], user: [shop1]"))
    [line] = lines_of(text + route.format("listener: ['127.0.0.1:26']"))
    assert 'routes.0.listener.0: "127.0.0.1:26" is not one of the listeners; write one of: ' in line
    [line] = lines_of(text + route.format("user: [shop2]"))
    assert 'routes.0.user.0: "shop2" is not one of the users; write one of: shop1' in line


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("127.0.0.1:25", "127.0.0.1:25"),
        ("localhost:25", "127.0.0.1:25"),
        ("0.0.0.0:25", "127.0.0.1:25"),
        ('"[::1]:25"', '"[::]:25"'),
    ],
)
def test_two_listeners_on_one_address(lines_of: Fail, first: str, second: str) -> None:
    listeners = f"listeners: [{{bind: {first}}}, {{bind: {second}}}]\n"
    (line,) = lines_of("mode: sandbox\n" + listeners)
    assert f"listeners.1.bind: {second.strip(chr(34))} is taken by listeners.0.bind" in line
    assert "choose another port" in line


def test_an_address_of_the_pages_is_no_listener_s(lines_of: Fail, load: Load) -> None:
    (line,) = lines_of("mode: sandbox\nlisteners: [{bind: 127.0.0.1:8025}]\n")
    assert "web.bind: 127.0.0.1:8025 is taken by listeners.0.bind" in line
    binds = ["127.0.0.1:0", "127.0.0.1:0", "127.0.0.2:25", "127.0.0.1:25", '"[::1]:25"']
    listeners = ", ".join(f"{{bind: {bind}}}" for bind in binds)
    load(f"mode: sandbox\nlisteners: [{listeners}]\n")
