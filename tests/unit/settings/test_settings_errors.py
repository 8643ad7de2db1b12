"""Broken configurations and the lines they must get."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaygw.errors import SettingsError
from relaygw.settings.load import LoadedSettings, load_settings
from tests.rights import needs

Load = Callable[..., LoadedSettings]
Fail = Callable[..., list[str]]
CANARY = "hunter2canary"
RELAY = "mode: production\nproviders: {main: {host: smtp.test}}\n"
DEFAULT = "routes: [{name: default, providers: [main]}]\n"

LINES = [
    ("", "relaygw.yaml: mode: is required; write one of production, staging, sandbox"),
    ("- a\n", "relaygw.yaml:1: has no keys; write KEY: VALUE, e.g. mode: sandbox"),
    (
        "mode: prod",
        'relaygw.yaml:1: mode: "prod" is not one of production, staging, sandbox; did you mean '
        "production?",
    ),
    (
        "mode: sandbox\nproviders:\n  promo:\n    host: a.test\n    port: 25a\n",
        'relaygw.yaml:5: providers.promo.port: "25a" is not an integer 1-65535; write e.g. 587',
    ),
    (
        "mode: sandbox\nproviders: {promo: {host: a.test, port: true}}\n",
        "relaygw.yaml:2: providers.promo.port: true is not an integer 1-65535; write e.g. 587",
    ),
    (
        "mode: sandbox\nproviders: {promo: {}}\n",
        "relaygw.yaml:2: providers.promo.host: is required; write e.g. smtp.example.com",
    ),
    (
        "mode: sandbox\nqueue:\n  retenton: 7d\n",
        "relaygw.yaml:3: queue.retenton: is not a key here; did you mean retention?",
    ),
    (
        "mode: sandbox\nqueue:\n  colour: ~\n",
        "relaygw.yaml:3: queue.colour: is not a key here; the keys are url, password, "
        "allow_unsafe, retention, keep_content, min_free",
    ),
    (
        "mode: sandbox\nmode: production\n",
        "relaygw.yaml:2: mode: is set twice, first on line 1; remove one",
    ),
    (
        "mode: sandbox\nretry: {first: 5}\n",
        "relaygw.yaml:2: retry.first: 5 is not a duration; write e.g. 30s, 5m, 4h or 7d",
    ),
    (
        "mode: sandbox\nretry: {first: 2h}\n",
        "relaygw.yaml:2: retry.first: is longer than retry.max; write a shorter delay",
    ),
    (
        "mode: sandbox\nrecipients:\n  allow: @a.test\n",
        "relaygw.yaml:3: a value cannot begin with this sign; put the text in quotes, e.g. "
        '"@example.com"',
    ),
    (
        "mode: sandbox\nhostname: &a x\n",
        "relaygw.yaml:2: anchors and aliases (& and *) are not supported; quote the text",
    ),
    (
        "mode: sandbox\nhostname: *a\n",
        "relaygw.yaml:2: anchors and aliases (& and *) are not supported; quote the text",
    ),
    (
        "mode: sandbox\nhostname: !!python/object/apply:os.system [id]\n",
        "relaygw.yaml:2: tags (!) are not supported; quote the text",
    ),
    (
        b"mode: sandbox\nhostname: \xff\n",
        "relaygw.yaml:2: is not UTF-8 text; save the file as UTF-8",
    ),
    (b"mode: sandbox\nhostname: a\x00\n", "relaygw.yaml:2: holds a control character; remove it"),
    ("a: " + "[" * 5000, "relaygw.yaml:1: nested deeper than 20 levels"),
    (b"#" * 2**20 + b"\n", "relaygw.yaml: longer than 1048576 bytes"),
    (
        "mode: sandbox\nqueue: {url: 'postgresql://u:hunter2@db/x'}\n",
        'relaygw.yaml:2: queue.url: "postgresql:..." holds a password; remove it and write '
        "queue.password: file:PATH (or env:NAME), or use PGPASSFILE",
    ),
    (
        "mode: sandbox\nqueue: {url: 'sqlite:///queue.db'}\n",
        'relaygw.yaml:2: queue.url: "sqlite:..." is not the URL of a SQLite file with an absolute '
        "path; write e.g. sqlite:////var/lib/relaygw/queue.db with four slashes, or "
        "postgresql://relaygw@db.example.com/relaygw",
    ),
    (
        "mode: sandbox\nqueue: {url: 'postgresql://u@db/x?password=hunter2'}\n",
        'relaygw.yaml:2: queue.url: "postgresql:..." holds a password; remove it and write '
        "queue.password: file:PATH (or env:NAME), or use PGPASSFILE",
    ),
    (
        "mode: sandbox\nqueue: {url: 'postgresql://u@db'}\n",
        'relaygw.yaml:2: queue.url: "postgresql:..." names no database; write e.g. '
        "postgresql://relaygw@db.example.com/relaygw",
    ),
    (
        "mode: sandbox\nlisteners: [{bind: 25}]\n",
        "relaygw.yaml:2: listeners.0.bind: 25 is not an address to listen on; write e.g. "
        "127.0.0.1:25",
    ),
    (
        "mode: sandbox\nproviders: {p: {host: a.test, username: u}}\n",
        "relaygw.yaml:2: providers.p.username: has no password; set both or neither",
    ),
    (
        "mode: sandbox\nproviders: {p: {host: a.test, password: env:P}}\n",
        "relaygw.yaml:2: providers.p.password: has no username; set both or neither",
    ),
    (
        "mode: sandbox\nproviders:\n  p: {host: a.test, username: u, password: env:P,\n"
        "    tls: none}\n",
        "relaygw.yaml:4: providers.p.tls: none would send the password to a.test in clear text; "
        "write tls: required, or auth_without_tls: true on a trusted network",
    ),
    (
        "mode: sandbox\nrecipients: {allow: ['@a.test'], refused: redirect:qa@b.a.test}\n",
        "relaygw.yaml:2: recipients.refused: redirects to qa@b.a.test, which may not receive "
        "mail; add it to recipients.allow",
    ),
    (
        "mode: sandbox\nrecipients: {block: ['a@b@c.test']}\n",
        'relaygw.yaml:2: recipients.block.0: "a@b@c.test" is not an address or "@domain"; write '
        'e.g. "@example.com"',
    ),
    (
        "mode: sandbox\nrecipients: {refused: bounce}\n",
        'relaygw.yaml:2: recipients.refused: "bounce" is not an action; write capture, drop or '
        "redirect:ADDRESS",
    ),
    (
        "mode: sandbox\nrewrite: {senders: {'a b': c@d.test}}\n",
        'relaygw.yaml:2: rewrite.senders.a b: is not an address, "@domain", "user@*" (at any '
        'domain), "*" (every other sender) or "<>" (the null sender); write e.g. "@example.com"',
    ),
    (
        "mode: sandbox\nweb: {bind: '0.0.0.0:8025'}\n",
        "relaygw.yaml:2: web.bind: 0.0.0.0:8025 would show captured mail to the network without a "
        "login; add web.users, or write 127.0.0.1:8025, or web.open: true if everyone there may "
        "read it",
    ),
    (
        "mode: sandbox\nlog: {format: xml}\n",
        'relaygw.yaml:2: log.format: "xml" is not one of postfix, json',
    ),
    (
        "mode: sandbox\nlog: {target: /var/log/x}\n",
        'relaygw.yaml:2: log.target: "/var/log/x" is not a target; write stderr, syslog or '
        "file:/var/log/relaygw/mail.log",
    ),
    (
        "mode: sandbox\nlog: {target: 'file:mail.log'}\n",
        'relaygw.yaml:2: log.target: "file:mail.log" has no absolute file path; write e.g. '
        "/var/log/relaygw/mail.log",
    ),
    (
        "mode: sandbox\nlog: {redact: [subjects]}\n",
        'relaygw.yaml:2: log.redact.0: "subjects" is not one of subject, local_part, '
        "addresses; did you mean subject?",
    ),
    (
        "mode: sandbox\nlog: {syslog_name: 'a b'}\n",
        'relaygw.yaml:2: log.syslog_name: "a b" is not 1-32 letters, digits or any of . _ / -; '
        "write e.g. postfix",
    ),
    (
        RELAY + "routes: [{name: default, providers: [main, main]}]\n",
        "relaygw.yaml:3: routes.0.providers: a list names a provider twice; write each once",
    ),
    (
        RELAY + "routes: [{name: default, providers: main}]\n",
        "relaygw.yaml:3: routes.0.providers: a single value is not a list; write [VALUE, VALUE]",
    ),
    (
        RELAY + "routes: [{name: default, providers: [mian]}]\n",
        'relaygw.yaml:3: routes.0.providers.0: "mian" is not one of the providers; write one of: '
        "main",
    ),
    (
        RELAY,
        "relaygw.yaml: routes: the last route must have no condition, so that every message "
        "matches a route; add {name: default, providers: [NAME]} at the end",
    ),
    (
        RELAY + "routes:\n  - {name: a, providers: [main]}\n  - {name: b, providers: [main]}\n",
        'relaygw.yaml:4: routes.0: route "a" has no condition, so no route after it is ever '
        "used; move it to the end",
    ),
    (
        RELAY + "routes:\n  - {name: a, sender: ['@x.test'], providers: [main]}\n"
        "  - {name: a, providers: [main]}\n",
        'relaygw.yaml:5: routes.1.name: "a" is the name of an earlier route; choose another',
    ),
    (
        RELAY + DEFAULT + "web: {open: true}\n",
        "relaygw.yaml:4: web.open: shows captured mail to everyone in mode production; only mode "
        "sandbox may, remove it",
    ),
    (
        RELAY + DEFAULT + "listeners: [{bind: '0.0.0.0:25', allow: [0.0.0.0/1, 128.0.0.0/1]}]\n",
        "relaygw.yaml:4: listeners.0.allow: lets everyone send through 0.0.0.0:25: an open relay; "
        "list only the networks of your application servers, or write auth: required",
    ),
]


@pytest.mark.parametrize(("text", "line"), LINES, ids=[line[:60] for _, line in LINES])
def test_a_broken_file_gets_one_line(lines_of: Fail, text: str | bytes, line: str) -> None:
    assert lines_of(text) == [line]


def test_all_mistakes_of_all_sources_are_reported_together(lines_of: Fail) -> None:
    lines = lines_of(
        "mode: prod\nmode: x\nqueue: {retention: 7}\n",
        {
            "RELAYGW__FOO": "1",
            "RELAYGW__A____B": "1",
            "RELAYGW__LISTENERS__0__BIND": "x",
            "RELAYGW__LISTENERS__7__BIND": "x",
            "RELAYGW__MODE__X": "1",
        },
        extra="log: {subject: 3}\n",
    )
    assert [line.partition(": ")[0] for line in lines] == [
        "relaygw.yaml:2",
        "environment RELAYGW__A____B",
        "environment RELAYGW__LISTENERS__7__BIND",
        "environment RELAYGW__MODE__X",
        "relaygw.yaml:1",
        "relaygw.yaml:3",
        "environment RELAYGW__LISTENERS__0__BIND",
        "conf.d/extra.yaml:1",
        "environment RELAYGW__FOO",
    ]


def test_broken_yaml_in_two_files_is_reported_together(lines_of: Fail) -> None:
    lines = lines_of("mode: [\n", extra="mode: 'x\n")
    assert [line.partition(":")[0] for line in lines] == ["relaygw.yaml", "conf.d/extra.yaml"]


def test_a_sandbox_may_listen_to_everyone(load: Load) -> None:
    loaded = load("mode: sandbox\nlisteners: [{bind: '0.0.0.0:1025', allow: [0.0.0.0/0]}]\n")
    assert not loaded.settings.listeners[0].bind.is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_password_may_go_in_clear_to_this_machine(load: Load, host: str) -> None:
    keys = f"host: '{host}', tls: none, username: u, password: env:P"
    assert load(f"mode: sandbox\nproviders: {{p: {{{keys}}}}}\n").settings.providers


def test_a_password_may_go_in_clear_where_the_user_says_so(load: Load) -> None:
    keys = "host: a.test, tls: none, username: u, password: env:P, auth_without_tls: true"
    assert load(f"mode: sandbox\nproviders: {{p: {{{keys}}}}}\n").settings.providers


LEAKS = [
    "password: {}",
    "password: *{}",
    "password: &{} x",
    "password: !{} x",
    "password: !{}!{} x",
    "password: '{}",
    'password: "\\{}"',
    "password: @{}",
    "password: [{}]",
    "password: {{{}}}",
    "password: {{{}: {}}}",
    "password: vault:{}",
    "password: command:x '{}",
    "password:{}",
    "passwd: {}",
    "timeouts: {}",
    "timeouts: {{password:{}}}",
    "username: ['{}']",
    "username: !!str {}",
    "password: plain:{}\n    port: x",
    "password: plain:{}\n    password: plain:{}",
]


@pytest.mark.parametrize("leak", LEAKS)
def test_no_error_shows_a_password(load: Load, leak: str) -> None:
    text = f"mode: sandbox\nproviders:\n  p:\n    host: a.test\n    {leak}\n"
    with pytest.raises(SettingsError) as caught:
        load(text.replace("{}", CANARY).replace("{{", "{").replace("}}", "}"))
    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in f"{error} {error!r}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    "value", [CANARY, f"[{CANARY}", f"'{CANARY}", f"{{{CANARY}: !{CANARY} x}}"]
)
def test_no_error_shows_a_password_from_the_environment(load: Load, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(RELAY + DEFAULT, {"RELAYGW__PROVIDERS__MAIN__PASSWORD": value})
    assert CANARY not in str(caught.value)
    assert "environment RELAYGW__PROVIDERS__MAIN__PASSWORD" in str(caught.value)


PLAIN = RELAY.replace("smtp.test", "smtp.test, username: u, password: plain:x") + DEFAULT


def test_a_plain_secret_needs_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "relaygw.yaml"
    file.write_text(PLAIN)
    file.chmod(0o644)
    with pytest.raises(SettingsError) as caught:
        load_settings(config=file, environ={})
    assert str(caught.value) == (
        "relaygw.yaml:2: providers.main.password: plain:***: everyone on this machine may read or "
        f"write {file} (mode 0644); run: chmod o-rwx {file}"
    )
    file.chmod(0o640)
    assert load_settings(config=file, environ={}).settings.providers["main"].password


def test_a_plain_secret_in_conf_d_needs_that_file_private(load: Load, tmp_path: Path) -> None:
    part = "providers: {main: {username: u, password: plain:x}}\n"
    with pytest.raises(SettingsError, match=r"chmod o-rwx .*/conf\.d/secret\.yaml"):
        load(RELAY + DEFAULT, secret=part)
    (tmp_path / "conf.d/secret.yaml").chmod(0o600)
    private = tmp_path / "relaygw.yaml"
    private.chmod(0o644)
    assert load_settings(config=private, environ={}).settings.providers["main"].password


def test_a_secret_file_open_to_others_stops_the_start(lines_of: Fail, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("x")
    key.chmod(0o644)
    [line] = lines_of(PLAIN.replace("plain:x", f"file:{key}"))
    assert line.startswith(f"relaygw.yaml:2: providers.main.password: file:{key}: everyone")


def test_what_keys_disagree_on_is_told_beside_wrong_values(lines_of: Fail) -> None:
    """An open relay first of all: nobody mends a port and starts the relay then."""
    open_relay = "listeners: [{bind: 0.0.0.0:25, allow: [0.0.0.0/0]}]\n"
    for wrong in (
        "retry: {first: 5}\n",
        "web: {bind: x}\n",
        "providers: {b: {host: h, port: x}}\n",
    ):
        value, relay = lines_of("mode: production\n" + open_relay + wrong)[:2]
        assert value.startswith("relaygw.yaml:3: ")
        assert "an open relay" in relay


def test_a_wrong_mode_or_listener_hides_no_open_relay(lines_of: Fail) -> None:
    text = "mode: prod\nlisteners:\n- {bind: x}\n- {bind: 0.0.0.0:25, allow: [0.0.0.0/0]}\n"
    mode, bind, relay = lines_of(text)
    assert mode.startswith("relaygw.yaml:1: mode")
    assert bind.startswith("relaygw.yaml:3: listeners.0.bind")
    assert relay.startswith("relaygw.yaml:4: listeners.1.allow: lets everyone send")


def test_what_only_follows_from_a_wrong_value_is_not_told(lines_of: Fail) -> None:
    text = (
        "mode: production\nproviders: {main: {host: smtp.test, port: x}}\n"
        "users: [{name: shop}]\nlisteners: [{bind: 127.0.0.1:25, auth: required}]\n"
        "routes: [{name: default, providers: [main]}]\n"
    )
    password, port = lines_of(text)
    assert "providers.main.port" in port
    assert "users.0.password_hash" in password


def test_a_tab_is_named(lines_of: Fail) -> None:
    (line,) = lines_of("mode: production\nproviders:\n\tmain: {host: smtp.test}\n")
    assert line == ("relaygw.yaml:3: a tab is used for indentation; write spaces instead")


@needs("root")
def test_a_secret_that_another_user_owns_is_refused(load: Load, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o600)
    login = f"smtp.test, username: u, password: 'file:{key}'"
    text = RELAY.replace("smtp.test", login) + DEFAULT
    load(text)
    os.chown(key, 33, 0)
    with pytest.raises(SettingsError, match=r"key belongs to www-data, who could replace it"):
        load(text)
    os.chown(tmp_path / "relaygw.yaml", 33, 0)  # who owns the configuration may do all of that
    load(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(text=st.text(alphabet=st.sampled_from("ab:-[]{},'\"\n #&*!|>%@`~0.\t\0\x85"), max_size=40))
def test_any_text_is_loaded_or_explained(load: Load, text: str) -> None:
    try:
        load("mode: sandbox\n" + text)
    except SettingsError as error:
        for line in str(error).splitlines():
            assert line.startswith("relaygw.yaml")
