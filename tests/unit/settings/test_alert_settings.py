"""What may stand in `alerts`, `alert_rules` and `web.url`, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaygw.errors import SettingsError
from relaygw.settings.load import LoadedSettings, load_settings, shown_leaves
from relaygw.settings.secrets import SecretUrl

HEAD = """\
mode: production
providers: {main: {host: smtp.example.com}}
routes: [{name: default, providers: [main]}]
listeners: [{bind: '127.0.0.1:25'}]
"""


def load(directory: Path, text: str) -> LoadedSettings:
    file = directory / "relaygw.yaml"
    file.write_text(HEAD + text)
    return load_settings(config=file, environ={})


MISTAKES = [
    ("alerts: [{}]", "alerts.0: names no channel; write one of webhook, command, email, apprise"),
    (
        "alerts: [{webhook: https://a.test/x, command: /bin/true}]",
        "alerts.0.command: is set together with webhook; each entry is one channel, so",
    ),
    (
        "alerts: [{webhook: 'ftp://a.test/geheim'}]",
        'alerts.0.webhook: "ftp:..." is neither a URL nor a secret reference; write e.g. '
        "https://hooks.example.com/… or env:ALERT_URL",
    ),
    (
        "alerts: [{webhook: hooks.slack.com/services/T0/B0/geheim}]",
        'alerts.0.webhook: "hooks..." is neither a URL nor a secret reference; write e.g. '
        "https://hooks.example.com/… or env:ALERT_URL",
    ),
    (
        "alerts: [{webhook: 'hooks.slack.com/services/geheim:x'}]",
        'alerts.0.webhook: "hooks..." is neither a URL nor a secret reference; write e.g. '
        "https://hooks.example.com/… or env:ALERT_URL",
    ),
    (
        "alerts: [{webhook: /services/T0/B0/geheim}]",
        "alerts.0.webhook: the value (not shown) is neither a URL nor a secret reference; write "
        "e.g. https://hooks.example.com/… or env:ALERT_URL",
    ),
    ("alerts: [{webhook: geheim}]", None),
    ("alerts: [{webhook: '12:geheim'}]", None),
    ("alerts: [{apprise: geheim/x}]", None),
    ("alerts: [{apprise: 'slack.com/geheim'}]", None),
    ("queue: {url: 'host=db password=geheim'}", 'queue.url: "host..." is not the URL'),
    ("web: {url: 'gw.example.com/geheim'}", 'web.url: "gw.example.com..." is'),
    (
        "alerts: [{webhook: 'https:///geheim'}]",
        'alerts.0.webhook: "https:..." is not an http or https URL; write e.g. '
        "https://hooks.example.com/…",
    ),
    (
        "alerts: [{command: notify ops}]",
        'alerts.0.command: "notify ***" needs the absolute path of a program; write e.g. '
        "/usr/bin/logger",
    ),
    ("alerts: [{command: 'notify --key geheim'}]", None),
    ('alerts: [{command: "/bin/notify \'geheim"}]', None),
    (
        "alerts: [{command: []}]",
        "alerts.0.command: a list names no program; write e.g. [/usr/local/bin/notify, ops]",
    ),
    (
        "alerts: [{email: ops@a.test}]",
        "alerts.0.email: needs sender as well: an address of yours that the providers accept",
    ),
    (
        "alerts: [{command: /bin/true, sender: a@a.test}]",
        "alerts.0.sender: is for email only; remove it",
    ),
    (
        "alerts: [{email: a@a.test, sender: a@a.test, providers: [spare]}]",
        'alerts.0.providers.0: "spare" is not one of the providers; write one of: main',
    ),
    (
        "alerts: [{command: /bin/true, name: x}, {command: /bin/true, name: x}]",
        'alerts.1.name: "x" is the name of an earlier one; choose another',
    ),
    ("alert_rules: {bounce_rate: 5}", None),
    ("alert_rules: {volume_factor: 1}", None),
    ("web: {url: gw.example.com}", None),
]


@pytest.mark.parametrize(("text", "problem"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_mistakes_are_named(tmp_path: Path, text: str, problem: str | None) -> None:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, text + "\n")
    line = str(raised.value)
    assert line.startswith("relaygw.yaml:5: ")
    assert "\n" not in line and "geheim" not in line
    if problem is not None:
        assert line.startswith(f"relaygw.yaml:5: {problem}")


def test_a_command_may_be_one_line_and_no_secret_is_shown(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        "alerts: [{command: '/bin/notify \"geheim b\" c'},"
        " {webhook: 'https://u:p@a.test:8/geheim?x'}, {command: /bin/true}]\n",
    )
    command, webhook, _ = loaded.settings.alerts
    assert command.command == ("/bin/notify", "geheim b", "c")
    assert webhook.webhook is not None
    assert webhook.webhook.read() == "https://u:p@a.test:8/geheim?x"
    shown = {keys: value for keys, value in shown_leaves(loaded.settings) if keys[0] == "alerts"}
    assert shown["alerts", 1, "webhook"] == '"https://a.test:8/***"'
    assert shown["alerts", 0, "command"] == '["/bin/notify", "***"]'
    assert shown["alerts", 2, "command"] == '["/bin/true"]'
    assert "geheim" not in repr(loaded.settings) + str(loaded.settings) + str(shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://hooks.example.com/T/B/x", "https://hooks.example.com/***"),
        ("http://127.0.0.1:9093/", "http://127.0.0.1:9093/"),
        ("https://a.test?token=x", "https://a.test/***"),
        ("env:ALERT_URL", "env:ALERT_URL"),
        ("file:/etc/relaygw/url", "file:/etc/relaygw/url"),
        ("plain:https://a.test/x", "https://a.test/***"),
    ],
)
def test_how_a_url_is_shown(text: str, shown: str) -> None:
    assert str(SecretUrl.parse(text)) == shown
    assert repr(SecretUrl.parse(text)) == f"SecretUrl({shown!r})"


def test_the_file_of_a_url_must_not_be_open_to_others(tmp_path: Path) -> None:
    kept = tmp_path / "url"
    kept.write_text("https://a.test/x")
    kept.chmod(0o644)
    with pytest.raises(SettingsError, match=r"relaygw.yaml:5: alerts.0.webhook: file:.*/url: "):
        load(tmp_path, f"alerts: [{{webhook: 'file:{kept}'}}]\n")
