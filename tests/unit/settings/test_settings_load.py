from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from relaygw.errors import SettingsError
from relaygw.settings.load import LoadedSettings, load_settings, origin_lines
from relaygw.settings.model import Settings, fingerprint
from relaygw.settings.section import Mode

Load = Callable[..., LoadedSettings]
RELAY = """\
mode: production
providers:
  ses-promo:
    host: smtp.example.com
    port: 2587
    username: shop
    password: env:SES_PASSWORD
routes:
  - name: default
    providers: [ses-promo]
"""


def without_file(environ: dict[str, str], tmp_path: Path) -> LoadedSettings:
    return load_settings(config=None, environ=environ, default_file=tmp_path / "none.yaml")


def test_without_a_file_it_is_a_sandbox(tmp_path: Path) -> None:
    loaded = without_file({"XDG_STATE_HOME": str(tmp_path)}, tmp_path)
    assert loaded.files == ()
    assert loaded.files == ()
    assert loaded.settings.mode is Mode.SANDBOX
    assert [str(one.bind) for one in loaded.settings.listeners] == ["127.0.0.1:1025"]
    assert str(loaded.settings.web.bind) == "127.0.0.1:8025"
    assert loaded.settings.queue.url == f"sqlite:///{tmp_path}/relaygw/queue.db"
    assert loaded.state_dir == tmp_path / "relaygw"
    assert set(loaded.origins.values()) == {"default"}


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {"HOME": "/root"}, "/var/lib/relaygw"),
        (1000, {"HOME": "/home/shop"}, "/home/shop/.local/state/relaygw"),
        (1000, {"HOME": "/home/shop", "XDG_STATE_HOME": "/state"}, "/state/relaygw"),
        (0, {"XDG_STATE_HOME": "relative"}, "/var/lib/relaygw"),
    ],
)
def test_the_state_directory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    environ: dict[str, str],
    expected: str,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    loaded = without_file(environ, tmp_path)
    assert str(loaded.state_dir) == expected
    assert loaded.settings.queue.url == f"sqlite:///{expected}/queue.db"


def test_whose_own_the_directory_of_the_service_is_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo -u relaygw relaygw queue list` is about the queue of the service."""
    monkeypatch.setattr("relaygw.settings.load._SYSTEM_STATE_DIR", tmp_path)
    if os.geteuid() == 0:
        os.chown(tmp_path, 1234, -1)
    uid = tmp_path.stat().st_uid
    for user, is_own in ((uid, True), (uid + 1, False)):
        monkeypatch.setattr("os.geteuid", lambda user=user: user)
        loaded = without_file({"HOME": "/home/shop"}, tmp_path)
        assert (loaded.state_dir == tmp_path) == is_own


def test_the_state_lives_beside_the_sqlite_file(load: Load) -> None:
    loaded = load("mode: sandbox\nqueue: {url: 'sqlite:////srv/mail/q.db'}\n")
    assert loaded.state_dir == Path("/srv/mail")
    assert loaded.origins["queue.url"] == "relaygw.yaml:2"


def test_with_a_file_the_listener_is_on_port_25(load: Load) -> None:
    assert str(load(RELAY).settings.listeners[0].bind) == "127.0.0.1:25"
    assert str(load("mode: sandbox").settings.listeners[0].bind) == "127.0.0.1:1025"


def test_files_are_looked_up_in_order(tmp_path: Path) -> None:
    for name in ("flag", "variable", "default"):
        (tmp_path / f"{name}.yaml").write_text(f"mode: sandbox\nhostname: {name}.test\n")
    environ = {"RELAYGW_CONFIG": str(tmp_path / "variable.yaml")}
    default = tmp_path / "default.yaml"
    flag = load_settings(config=tmp_path / "flag.yaml", environ=environ, default_file=default)
    variable = load_settings(config=None, environ=environ, default_file=default)
    last = load_settings(config=None, environ={}, default_file=default)
    found = [one.settings.hostname for one in (flag, variable, last)]
    assert found == ["flag.test", "variable.test", "default.test"]
    assert last.files != ()


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    gone = tmp_path / "gone.yaml"
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(config=gone, environ={})
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(config=None, environ={"RELAYGW_CONFIG": str(gone)})


def test_conf_d_is_merged_in_the_order_of_names(load: Load) -> None:
    loaded = load(
        RELAY + "recipients: {block: ['@a.test', '@b.test'], blocked: capture}\n",
        b20="providers: {ses-promo: {port: 465, tls: implicit}}",
        a10="providers:\n  ses-promo: {port: 25}\nrecipients: {block: ['@c.test']}",
    )
    provider = loaded.settings.providers["ses-promo"]
    assert (provider.host, provider.port, provider.tls) == ("smtp.example.com", 465, "implicit")
    assert loaded.settings.recipients.block == ("@c.test",)
    assert loaded.settings.recipients.blocked == "capture"
    assert loaded.origins["providers.ses-promo.port"] == "conf.d/b20.yaml:1"
    assert loaded.origins["providers.ses-promo.host"] == "relaygw.yaml:4"
    assert loaded.origins["recipients.block"] == "conf.d/a10.yaml:3"
    assert [file.name for file in loaded.files] == ["relaygw.yaml", "a10.yaml", "b20.yaml"]


def test_conf_d_has_the_order_of_names_not_of_the_directory(load: Load) -> None:
    names = ["c", "a", "f", "b", "e", "d", "g"]
    loaded = load("mode: sandbox", **{name: f"hostname: {name}.test" for name in names})
    assert [file.stem for file in loaded.files[1:]] == sorted(names)
    assert loaded.settings.hostname == "g.test"


def test_a_replaced_list_leaves_no_places_behind(load: Load) -> None:
    loaded = load(
        "mode: sandbox\nlisteners: [{bind: '127.0.0.1:1', max_recipients: 7}]\n",
        part="listeners: [{bind: '127.0.0.1:2'}]\n",
    )
    assert loaded.origins["listeners.0.bind"] == "conf.d/part.yaml:1"
    assert loaded.origins["listeners.0.max_recipients"] == "default"


def test_hidden_and_other_files_in_conf_d_are_left_alone(load: Load, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / ".old.yaml").write_text("nonsense: 1")
    (tmp_path / "conf.d" / "x.yaml.bak").write_text("nonsense: 1")
    loaded = load("mode: sandbox")
    assert len(loaded.files) == 1
    (doubt,) = loaded.doubts
    assert doubt.startswith("conf.d/x.yaml.bak: is not read, only names that end in .yaml are; ")


@pytest.mark.parametrize("name", ["staging.yml", "staging.YAML"])
def test_a_part_that_seems_to_be_read_is_an_error(
    load: Load, lines_of: Callable[..., list[str]], tmp_path: Path, name: str
) -> None:
    load(RELAY)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / name).write_text("mode: staging")
    (line,) = lines_of(RELAY)
    assert line.startswith(f"conf.d/{name}: is not read, only names that end in .yaml are; rename")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("RELAYGW_MODE", "MODE"),
        ("relaygw__mode", "MODE"),
        ("RELAYGW_USERS_0_MODE", "USERS"),
        ("RELAYGW_QUEUE_URL", "QUEUE"),
        ("RELAYGW_HOSTNAME", "HOSTNAME"),
        ("RELAYGW_CONFIG", None),
        ("RELAYGW_MAILDROP", None),
        ("RELAYGW_WEB_SERVICE_HOST", None),
        ("RELAYGW_WEB_PORT_8025_TCP", None),
        ("RELAYGW_SHOP", None),
        ("RELAYGW_WEB_TOKEN", None),
    ],
)
def test_a_variable_that_almost_is_a_setting_is_told(
    load: Load, lines_of: Callable[..., list[str]], name: str, key: str | None
) -> None:
    """Where it names a mode, nothing starts: mail would be sent that was to be captured."""
    text = f"{RELAY}web: {{tokens: [{{name: t, token: env:RELAYGW_WEB_TOKEN}}]}}\n"
    is_mode = name.lower().endswith("mode")
    found = lines_of(text, {name: "x"}) if is_mode else load(text, {name: "x"}).doubts
    said = f"environment {name}: is not read; write RELAYGW__{key}, with two underscores"
    assert [line[: len(said)] for line in found] == ([said] if key else [])


def test_the_environment_lies_over_the_files(load: Load) -> None:
    loaded = load(
        RELAY,
        {
            "RELAYGW__PROVIDERS__SES_PROMO__PORT": "25",
            "RELAYGW__ROUTES__0__STREAM": "promotional",
            "RELAYGW__RECIPIENTS__ALLOW": '["@qa.test", dev@a.test]',
            "RELAYGW__RETRY": "{first: 5s}",
            "RELAYGW__RETRY__MAX": "10s",
            "RELAYGW__REWRITE__DEFAULT_DOMAIN": "",
            "RELAYGW_CONFIG": "/ignored",
            "OTHER": "x",
        },
    )
    settings = loaded.settings
    assert settings.providers["ses-promo"].port == 25
    assert settings.routes[0].stream == "promotional"
    assert settings.recipients.allow == ("@qa.test", "dev@a.test")
    assert (settings.retry.first, settings.retry.max) == (5.0, 10.0)
    assert settings.rewrite.default_domain is None
    port = "environment RELAYGW__PROVIDERS__SES_PROMO__PORT"
    assert loaded.origins["providers.ses-promo.port"] == port
    assert loaded.origins["retry.first"] == "environment RELAYGW__RETRY"
    assert loaded.origins["retry.max"] == "environment RELAYGW__RETRY__MAX"
    assert loaded.origins["routes.0.stream"] == "environment RELAYGW__ROUTES__0__STREAM"
    assert loaded.origins["routes.0.name"] == "relaygw.yaml:9"


def test_the_environment_alone_can_make_a_relay(tmp_path: Path) -> None:
    environ = {
        "XDG_STATE_HOME": str(tmp_path),
        "RELAYGW__MODE": "production",
        "RELAYGW__PROVIDERS__MAIN__HOST": "smtp.example.com",
        "RELAYGW__ROUTES": "[{name: default, providers: [main]}]",
    }
    loaded = without_file(environ, tmp_path)
    assert loaded.files == ()
    assert loaded.settings.mode is Mode.PRODUCTION
    assert str(loaded.settings.listeners[0].bind) == "127.0.0.1:25"


def test_the_environment_adds_entries_to_lists(tmp_path: Path) -> None:
    environ = {
        "XDG_STATE_HOME": str(tmp_path),
        "RELAYGW__LISTENERS__0__BIND": "127.0.0.1:2525",
        "RELAYGW__LISTENERS__1__BIND": "127.0.0.1:2526",
        "RELAYGW__RECIPIENTS__ALLOW__0": "@qa.test",
    }
    loaded = without_file(environ, tmp_path)
    assert [one.bind.port for one in loaded.settings.listeners] == [2525, 2526]
    assert loaded.settings.recipients.allow == ("@qa.test",)
    assert loaded.origins["listeners.1.bind"] == "environment RELAYGW__LISTENERS__1__BIND"
    assert loaded.origins["recipients.allow"] == "environment RELAYGW__RECIPIENTS__ALLOW__0"


def test_null_means_the_default(load: Load) -> None:
    loaded = load("mode: sandbox\nhostname: ~\nretry:\nqueue: {url: ~, retention: ~}\nlisteners:\n")
    assert loaded.settings.queue.retention == 7 * 86400
    assert loaded.settings.queue.url.endswith("/queue.db")
    assert loaded.settings.retry.first == 30
    assert len(loaded.settings.listeners) == 1


def test_words_are_text_and_only_true_and_false_are_flags(load: Load) -> None:
    loaded = load(
        "mode: sandbox\nlog: {subject: no}\n"
        'rewrite: {recipients: {no: on@a.test, "1": "1@a.test"}}\n'
        'routes: [{name: a, header: {X-Level: "1"}, providers: [main]}]\n'
        "providers: {main: {host: smtp.test}}\n"
    )
    assert loaded.settings.log.subject is False
    assert loaded.settings.routes[0].header == {"X-Level": "1"}
    assert loaded.settings.rewrite.recipients == {"no": ("on@a.test",), "1": ("1@a.test",)}


def test_what_is_shown_can_be_loaded_again(load: Load) -> None:
    settings = load(RELAY + "recipients: {refused: redirect:q@a.test, allow: [q@a.test]}").settings
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings


def test_loaded_settings_survive_the_way_to_another_process(load: Load) -> None:
    loaded = load(RELAY)
    assert pickle.loads(pickle.dumps(loaded)) == loaded


def test_origin_lines_show_every_value_and_no_secret(load: Load) -> None:
    text = RELAY.replace("env:SES_PASSWORD", "plain:hunter2-canary")
    shown = {key: (value, origin) for key, value, origin in origin_lines(load(text))}
    assert shown["providers.ses-promo.port"] == ("2587", "relaygw.yaml:5")
    assert shown["providers.ses-promo.password"] == ('"plain:***"', "relaygw.yaml:7")
    assert shown["queue.retention"] == ('"7d"', "default")
    assert "hunter2-canary" not in str(shown)


def test_the_fingerprint_changes_with_what_decides_where_mail_goes(load: Load) -> None:
    base = fingerprint(load(RELAY).settings)
    assert fingerprint(load(RELAY).settings) == base
    assert fingerprint(load(RELAY.replace("SES_PASSWORD", "OTHER")).settings) == base
    assert fingerprint(load(RELAY + "log: {subject: false}").settings) == base
    own_address = "listeners: [{bind: '127.0.0.1:2599', allow: [127.0.0.0/8]}]"
    assert fingerprint(load(RELAY + own_address).settings) == base
    for change in (
        RELAY.replace("2587", "587"),
        RELAY.replace("production", "staging"),
        RELAY + "recipients: {block: ['@a.test']}",
        RELAY + "rewrite: {default_domain: a.test}",
        RELAY.replace("name: default", "name: other"),
    ):
        assert fingerprint(load(change).settings) != base


@pytest.mark.parametrize(
    ("mode", "state", "expected"),
    [
        ("production", "/srv/relaygw", "/var/spool/relaygw/maildrop"),
        ("staging", "/var/lib/relaygw", "/var/spool/relaygw/maildrop"),
        ("sandbox", "/var/lib/relaygw", "/var/spool/relaygw/maildrop"),
        ("sandbox", "/home/dev/state", "/home/dev/state/maildrop"),
    ],
)
def test_only_a_sandbox_of_ones_own_has_a_maildrop_of_its_own(
    tmp_path: Path, mode: str, state: str, expected: str
) -> None:
    file = tmp_path / "relaygw.yaml"
    file.write_text(
        RELAY.replace("mode: production", f"mode: {mode}\nqueue: {{url: 'sqlite:///{state}/q.db'}}")
    )
    assert load_settings(config=file, environ={}).settings.maildrop.path == expected
    environ = {"RELAYGW__MAILDROP__PATH": "/srv/drop"}
    assert load_settings(config=file, environ=environ).settings.maildrop.path == "/srv/drop"


def test_a_maildrop_is_an_absolute_path(tmp_path: Path) -> None:
    file = tmp_path / "relaygw.yaml"
    file.write_text(f"{RELAY}maildrop: {{path: spool}}\n")
    with pytest.raises(SettingsError, match=r"maildrop\.path: .*is not an absolute path"):
        load_settings(config=file, environ={})
