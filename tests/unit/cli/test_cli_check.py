from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from relaygw.cli import check_findings, main, setup_host
from relaygw.errors import SettingsError
from relaygw.settings import secrets
from relaygw.settings.model import Settings
from tests.rights import needs

TLS = {"tls": {"mode": "starttls", "cert": "/x.pem", "key": "/x.key"}}
STAGING = """\
mode: staging
hostname: gw.shop.test
queue: {url: "sqlite:////nonexistent/queue.db"}
providers:
  bulk: {host: bulk.test, port: 2525, tls: none}
  main: {host: mail.test, username: shop, password: env:RELAYGW_TEST_UNSET}
routes:
  - {name: campaign, header: {X-Campaign: "*"}, providers: [bulk]}
  - {name: promo, sender: ["@promo.test"], stream: promotional, providers: [bulk]}
  - {name: default, providers: [main]}
recipients:
  allow: ["@qa.test"]
  block: [abuse@qa.test]
  blocked: reject
rewrite:
  senders: {"www-data@web1": shop@shop.test}
  recipients: {root: ops@qa.test}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    config = tmp_path / "relaygw.yaml"
    config.write_text(STAGING)
    return config


def check(config: Path, *words: str) -> Result:
    environ = {"COLUMNS": "80"}
    return CliRunner().invoke(main, ["check", "--config", str(config), *words], env=environ)


def explained(config: Path, sender: str, recipient: str, *more: str) -> dict[str, str]:
    result = check(config, "--sender", sender, "--recipient", recipient, *more)
    assert result.exit_code == 0, result.stderr
    return {line[:12].strip(): line[12:] for line in result.stdout.splitlines()}


def test_the_summary_names_mode_listeners_providers_and_routes(config: Path) -> None:
    result = check(config)
    assert result.exit_code == 0
    assert result.stdout.startswith("ok  ")
    assert "staging: mail is sent to recipients.allow only (1 entries)" in result.stdout
    assert "127.0.0.1:25 for 127.0.0.0/8" in result.stdout
    assert "main: mail.test:587, STARTTLS, verified, AUTH" in result.stdout
    assert "promo (promotional) to bulk: sender @promo.test" in result.stdout


HASH = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$qaWmiEvqxJUTQKBMbvDRaQ"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("mode: sandbox", "http://127.0.0.1:8025 for everyone on this machine"),
        (
            "mode: sandbox\nweb: {bind: '0.0.0.0:8025', open: true}",
            "http://0.0.0.0:8025 for everyone who can connect",
        ),
        (STAGING, "http://127.0.0.1:8025 for health checks only: there are no web.users"),
        (
            f"{STAGING}web: {{base_path: /mail, users: [{{name: a, password_hash: '{HASH}'}}],"
            " tokens: [{name: b, token: env:B}, {name: c, token: env:RELAYGW_TEST_UNSET}]}",
            "http://127.0.0.1:8025/mail for 1 user and 2 tokens",
        ),
    ],
)
def test_the_summary_says_who_sees_mail(config: Path, section: str, words: str) -> None:
    config.write_text(section)
    result = check(config)
    assert [line[12:] for line in result.stdout.splitlines() if line.startswith("web")] == [words]
    is_missing = "warning: web.tokens.1.token: env:RELAYGW_TEST_UNSET" in result.stderr
    assert is_missing is ("tokens" in section)


@pytest.mark.parametrize(
    ("more", "is_warned"),
    [
        ("bind: '10.0.0.5:80'", True),
        ("bind: '10.0.0.5:80', proxies: [10.0.0.9]", False),
        ("bind: '10.0.0.5:80', proxies: [127.0.0.1]", True),
        ("", False),
    ],
)
def test_passwords_in_clear_are_a_warning(config: Path, more: str, is_warned: bool) -> None:
    users = f"users: [{{name: anna, password_hash: '{HASH}'}}]"
    config.write_text(f"{STAGING}web: {{{', '.join(filter(None, (users, more)))}}}\n")
    text = "web.bind: passwords for 10.0.0.5:80 cross the network in clear"
    assert (text in check(config).stderr) is is_warned


@pytest.mark.parametrize(
    ("mode", "more", "is_warned"),
    [
        ("staging", "", False),
        ("production", "", True),
        ("production", 'listeners: [{bind: "127.0.0.1:2525", mode: staging}]', False),
    ],
)
def test_a_list_of_who_may_receive_that_protects_nobody_is_a_warning(
    config: Path, mode: str, more: str, is_warned: bool
) -> None:
    config.write_text(f"{STAGING.replace('mode: staging', f'mode: {mode}')}{more}\n")
    assert ("recipients.allow: is for mode staging" in check(config).stderr) is is_warned


@pytest.mark.parametrize(
    ("more", "bind", "is_warned"),
    [
        ({}, "0.0.0.0", True),
        ({"allow": ["::1/128"]}, "0.0.0.0", True),
        ({"allow": ["10.0.0.0/8"]}, "0.0.0.0", False),
        ({}, "127.0.0.1", False),
        (TLS, "0.0.0.0", False),  # who logs in may send
        ({**TLS, "auth": "off"}, "0.0.0.0", True),
        ({**TLS, "auth": "required"}, "0.0.0.0", False),
        ({"auth": "optional"}, "0.0.0.0", True),  # in clear nobody can
    ],
)
def test_a_listener_of_which_nobody_can_make_use_is_a_warning(
    more: dict[str, Any], bind: str, is_warned: bool
) -> None:
    listeners = [{"bind": f"{bind}:2525", **more}, {"bind": "127.0.0.1:2526"}]
    users = [{"name": "shop", "password_hash": HASH}]
    values = {"mode": "sandbox", "listeners": listeners, "users": users}
    found = list(check_findings.lonely_listeners(Settings.model_validate(values)))
    assert bool(found) is is_warned
    text = f"listeners.0.allow: {bind}:2525 can be reached from elsewhere, and takes mail of this"
    assert all(one.startswith(text) for one in found)


@pytest.mark.parametrize(
    ("web", "words"),
    [
        ({"hosts": ["gw.test"]}, ["web.url: is https, which a reverse proxy answers"]),
        ({"proxies": ["127.0.0.1"]}, ["web.url: gw.test is not in web.hosts"]),
        ({"proxies": ["127.0.0.1"], "hosts": ["GW.test"]}, []),
        ({"url": "http://localhost:8025"}, []),
    ],
)
def test_an_address_of_the_pages_that_does_not_work_is_a_warning(
    web: dict[str, Any], words: list[str]
) -> None:
    values = {"mode": "sandbox", "web": {"url": "https://gw.test", **web}}
    found = [*check_findings.web_doubts(Settings.model_validate(values))]
    assert [line[: len(text)] for line, text in zip(found, words, strict=True)] == words


def test_a_token_that_is_too_short_is_a_warning(config: Path) -> None:
    for length, is_warned in ((19, True), (20, False)):
        token = f"web: {{tokens: [{{name: t, token: 'plain:{'x' * length}'}}]}}\n"
        config.write_text(STAGING + token)
        config.chmod(0o600)
        assert ("web.tokens.t: lets nobody log in" in check(config).stderr) is is_warned


def test_staging_with_nobody_on_its_list_is_a_warning(config: Path) -> None:
    text = "recipients.allow: is empty, so that nobody receives anything"
    assert text not in check(config).stderr
    config.write_text(STAGING.replace('["@qa.test"]', "[]"))
    assert text in check(config).stderr


@pytest.mark.parametrize("place", ["/root/secrets", "/home/shop", "/run/user/7", "/var/tmp"])
def test_a_secret_that_systemd_hides_from_the_service_is_an_error(
    config: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    config.write_text(STAGING.replace("env:RELAYGW_TEST_UNSET", f"file:{place}/key"))
    said = f"error: providers.main.password: systemd hides {place}/key from the service"
    shown = ["ProtectHome=yes", "PrivateTmp=yes"]
    monkeypatch.setattr(setup_host, "shown_of_service", lambda *_: shown)
    assert said not in check(config).stderr
    monkeypatch.setattr(check_findings, "is_of_service", lambda _: True)
    done = check(config, "--online")
    assert (done.exit_code, said in done.stderr) == (78, True)
    assert done.stdout.startswith("files  ")
    assert "provider bulk:" in done.stdout
    assert "provider main:" not in done.stdout
    link = config.parent / "link"
    link.symlink_to(f"{place}/key")
    config.write_text(STAGING.replace("env:RELAYGW_TEST_UNSET", f"file:{link}"))
    hidden = f"systemd hides {place}/key, where {link} leads, from the service"
    assert hidden in check(config).stderr
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/relaygw")  # as the service has it
    with pytest.raises(SettingsError, match=f"in /etc/relaygw/secrets: {place}/key is in a home"):
        secrets.SecretRef("file", str(link)).read()
    config.write_text(STAGING.replace("env:RELAYGW_TEST_UNSET", f"command:{place}/getkey orders"))
    done = check(config, "--online", "--sender", "a@shop.test", "--recipient", "b@qa.test")
    assert f"systemd hides {place}/getkey from" in check(config).stderr
    assert "no provider is used" not in done.stderr
    shown[:] = ["ProtectHome=no", "PrivateTmp=no"]
    assert "systemd hides" not in check(config).stderr


@pytest.mark.parametrize("is_directory", [True, False])
def test_a_part_of_the_configuration_that_systemd_hides_from_the_service_is_an_error(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_directory: bool
) -> None:
    (home := tmp_path / "shop").mkdir()
    (home / "30.yaml").write_text("hostname: gw2.shop.test\n")
    parts, (link, target) = tmp_path / "conf.d", ("conf.d/30.yaml", home / "30.yaml")
    if is_directory:
        parts.symlink_to(home)
    else:
        parts.mkdir()
        (tmp_path / link).symlink_to(target)
    assert check(config).exit_code == 0
    monkeypatch.setattr(check_findings, "closed_directories", lambda: (f"{home}/",))
    monkeypatch.setattr(check_findings, "is_of_service", lambda _: True)
    done = check(config)
    assert done.exit_code == 78
    assert f"30.yaml: systemd hides {target}, where {tmp_path / link} leads, from" in done.stderr
    assert (f"error: {parts}: systemd hides {home}, where" in done.stderr) is is_directory


def test_a_certificate_that_systemd_hides_from_the_service_is_an_error(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("mode: sandbox\nproviders: {p: {host: p.test, tls_ca: /tmp/c.pem}}\n")
    monkeypatch.setattr(setup_host, "shown_of_service", lambda *_: ["PrivateTmp=yes"])
    monkeypatch.setattr(check_findings, "is_of_service", lambda _: True)
    done = check(config)
    assert done.exit_code == 78
    assert "error: providers.p.tls_ca: systemd hides /tmp/c.pem from the service" in done.stderr


def of_service(monkeypatch: pytest.MonkeyPatch, *shown: str) -> None:
    """Have the configuration be that of a service of this host, of which systemd says so."""
    monkeypatch.setattr(setup_host, "shown_of_service", lambda *_: [*shown])
    for module in (check_findings, setup_host):
        monkeypatch.setattr(module, "is_of_service", lambda _: True)


@needs("root")
def test_secrets_are_those_of_the_next_start_of_the_service(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, credentials = tmp_path / "environment", tmp_path / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "orders").write_text("key\n")
    (credentials / "orders").chmod(0o600)
    of_service(monkeypatch, f"EnvironmentFiles={file} (ignore_errors=yes)")
    monkeypatch.setattr(secrets, "CREDENTIALS", credentials)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    said = "providers.main.password: env:RELAYGW_TEST_UNSET: the environment has no variable"
    for text, is_told in (("RELAYGW_TEST_UNSET=k\n", False), ("export RELAYGW_TEST_UNSET=k", True)):
        file.write_text(text)
        assert (said in check(config).stderr) is is_told
    file.write_text("RELAYGW_TEST_UNSET=k\n")
    gateway = SimpleNamespace(queue="sqlite:////nonexistent/queue.db", config=str(config))
    running: dict[str, str] = {}
    monkeypatch.setattr(check_findings, "running_gateways", lambda _: [gateway])
    monkeypatch.setattr(check_findings, "environ_of", lambda _: running)
    said = "warning: providers.main.password: env:RELAYGW_TEST_UNSET: the service that runs does"
    for value, is_told in ((None, True), ("old", True), ("k", False)):
        running |= {"RELAYGW_TEST_UNSET": value} if value else {}
        assert (said in check(config).stderr) is is_told
    text = STAGING.replace("env:RELAYGW_TEST_UNSET", "credential:relaygw_orders")
    config.write_text(text)
    assert "providers.main.password" not in check(config).stderr
    monkeypatch.setattr(check_findings, "CREDENTIALS", credentials)
    handed = tmp_path / "handed"
    handed.mkdir()
    running["CREDENTIALS_DIRECTORY"] = str(handed)
    said = f"relaygw_orders: the service that runs does not have it as {credentials}/orders has it"
    for value, is_told in (("old\n", True), ("key\n", False)):
        (handed / "relaygw_orders").write_text(value)
        assert (said in check(config).stderr) is is_told
    del running["CREDENTIALS_DIRECTORY"]
    config.write_text(text.replace("relaygw_orders", "orders"))
    (remedy,) = (line for line in check(config).stderr.splitlines() if "credential:orders" in line)
    assert f"keep it in {credentials}/orders and name it credential:relaygw_orders" in remedy
    config.write_text(text)
    (credentials / "orders").unlink()
    assert "credential:relaygw_orders: CREDENTIALS_DIRECTORY is not set" in check(config).stderr


def test_what_is_not_read_is_a_warning_and_an_error_where_it_was_to_set_the_mode(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/note").write_text("")
    assert "warning: conf.d/note: is not read" in check(config).stderr
    for variable, kind, code in (
        ("RELAYGW_HOSTNAME=gw.test", "warning: ", 0),
        ("RELAYGW_MODE=staging", "error: the service has its own variables, and cannot start ", 78),
    ):
        of_service(monkeypatch, f"Environment={variable}")
        done = check(config)
        assert done.exit_code == code
        (line,) = (text for text in done.stderr.splitlines() if variable.partition("=")[0] in text)
        assert line.startswith(f"relaygw: {kind}")


def test_where_systemd_lets_the_service_write_nothing_is_a_warning(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(f"{STAGING}log: {{target: 'file:/srv/logs/mail.log'}}\n")
    said = "log.target: systemd lets the service write below"
    assert said not in check(config).stderr
    paths = "ReadWritePaths=-/var/spool/relaygw -/var/log/relaygw"
    of_service(monkeypatch, "ProtectSystem=strict", paths, "StateDirectory=relaygw")
    assert f"{said} /var/lib/relaygw/, /var/spool/relaygw/, /var/log/relaygw/" in (
        check(config).stderr
    )
    config.write_text(f"{STAGING}log: {{target: 'file:/var/log/relaygw/mail.log'}}\n")
    assert said not in check(config).stderr
    bound = "BindPaths=/a:/srv/logs:rbind"
    of_service(monkeypatch, "ProtectSystem=strict", bound, "StateDirectory=relaygw")
    config.write_text(f"{STAGING}log: {{target: 'file:/srv/logs/mail.log'}}\n")
    assert said not in check(config).stderr
    of_service(monkeypatch, "ProtectSystem=strict", "ReadWritePaths=/home/dev", "ProtectHome=yes")
    config.write_text(f"{STAGING}log: {{target: 'file:/home/dev/mail.log'}}\n")
    assert "log.target: systemd hides /home/dev from the service" in check(config).stderr


@pytest.mark.parametrize("is_there", [True, False])
def test_a_queue_where_systemd_lets_the_service_write_nothing_is_one_error(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_there: bool
) -> None:
    of_service(monkeypatch, "ProtectSystem=strict", "StateDirectory=relaygw")
    queue = tmp_path / "queue"
    if is_there:
        queue.mkdir()
    config.write_text(STAGING.replace("/nonexistent", str(queue)))
    done = check(config)
    assert done.exit_code == 78
    (line,) = (line for line in done.stderr.splitlines() if "error: queue.url" in line)
    assert line.startswith("relaygw: error: queue.url: systemd lets the service write below")
    assert f"ReadWritePaths={queue} by: systemctl edit relaygw" in line
    assert ("install -d -m 700 -o " in line) is not is_there
    config.write_text(STAGING)
    variable = "Environment=RELAYGW__QUEUE__URL=sqlite:////home/shop/queue.db"
    of_service(monkeypatch, "ProtectHome=yes", variable)
    done = check(config)
    assert done.exit_code == 78
    assert "error: queue.url: systemd hides /home/shop from the service" in done.stderr


def test_a_socket_that_listens_elsewhere_is_an_error(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def systemctl(*words: str) -> CompletedProcess[str]:
        shown = "Listen=127.0.0.1:25 (Stream)\n" if words[0] == "show" else ""
        return CompletedProcess(words, 0, stdout=shown)

    of_service(monkeypatch)
    monkeypatch.setattr(setup_host, "_systemctl", systemctl)
    said = "error: listeners: relaygw.socket listens at 127.0.0.1:25, and listeners name"
    assert said not in check(config).stderr
    of_service(monkeypatch, "Environment=RELAYGW__MODE=sandbox")
    done = check(config)
    assert (done.exit_code, f"{said} 127.0.0.1:1025" in done.stderr) == (78, True)
    assert done.stdout.startswith("files  ")
    of_service(monkeypatch)
    config.write_text(f"{STAGING}listeners: [{{bind: '127.0.0.1:2526'}}]\n")
    done = check(config)
    assert (done.exit_code, said in done.stderr) == (78, True)


def test_a_socket_that_does_not_run_beside_the_service_is_a_warning(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = {"relaygw.socket"}

    def systemctl(*words: str) -> CompletedProcess[str]:
        shown = "Listen=127.0.0.1:25 (Stream)\n" if words[0] == "show" else ""
        code = 3 if words[0] == "is-active" and words[-1] in stopped else 0
        return CompletedProcess(words, code, stdout=shown)

    of_service(monkeypatch)
    monkeypatch.setattr(setup_host, "_systemctl", systemctl)
    said = "warning: relaygw.socket is enabled, but does not run beside relaygw.service"
    assert said in check(config).stderr
    units = "relaygw.socket relaygw.service"
    assert f"; run: systemctl stop {units} && systemctl start {units}" in check(config).stderr
    for names in ({"relaygw.socket", "relaygw.service"}, set[str]()):
        stopped.clear()
        stopped.update(names)
        assert said not in check(config).stderr


def test_a_provider_that_no_route_names_is_a_warning(config: Path) -> None:
    assert "no route names it" not in check(config).stderr
    config.write_text(STAGING.replace("  bulk: {host", "  idle: {host: idle.test}\n  bulk: {host"))
    assert "warning: providers.idle: no route names it" in check(config).stderr


ROUTE = {"name": "r", "providers": ["p"]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"retry": {"first": "10s", "lifetime": "10s"}}, "retry.lifetime: is not longer"),
        ({"retry": {"first": "10s", "lifetime": "11s"}}, ""),
        ({"hostname": "localhost.localdomain"}, "hostname: providers are greeted as localhost."),
        ({"hostname": "localhost", "mode": "sandbox"}, ""),
        ({"rewrite": {"senders": {"a@b.test": "a@b.test"}}}, "rewrite.senders.a@b.test: is rew"),
        ({"rewrite": {"recipients": {"a@b.test": "a@b.test"}}}, "rewrite.recipients.a@b.test: is"),
        ({"rewrite": {"recipients": {"a@b.test": ["a@b.test", "c@b.test"]}}}, ""),
        ({"rewrite": {"senders": {"a@b.test": "a@b.test", "*": "c@b.test"}}}, ""),
        ({"rewrite": {"recipients": {"a@b.test": "a@b.test", "@b.test": "@c.test"}}}, ""),
        (
            {"routes": [{**ROUTE, "sender": ["@b.test"], "name": "s", "recipient": []}, ROUTE]},
            "routes.0.rec",
        ),
        (
            {"routes": [{**ROUTE, "sender": ["@b.test"]}, {**ROUTE, "name": "s", "recipient": []}]},
            "",
        ),
    ],
)
def test_a_value_that_cannot_be_meant_is_a_warning(values: dict[str, Any], words: str) -> None:
    usual = {"mode": "staging", "hostname": "gw.test", "providers": {"p": {"host": "p.test"}}}
    usual |= {"routes": [ROUTE]}
    found = [*check_findings.idle_values(Settings.model_validate({**usual, **values}))]
    assert [line[: len(words)] for line in found] == ([words] if words else [])


def test_check_tells_of_such_values(config: Path) -> None:
    config.write_text(STAGING.replace("gw.shop.test", "localhost") + "web: {url: https://g.test}\n")
    said = check(config).stderr
    assert "warning: hostname: providers are greeted as localhost" in said
    assert "warning: web.url: g.test is not in web.hosts" in said


def test_a_certificate_that_is_not_verified_is_a_warning(config: Path) -> None:
    assert "providers.main.tls" not in check(config).stderr
    config.write_text(STAGING.replace("host: mail.test", "host: mail.test, tls: encrypt"))
    result = check(config)
    assert result.exit_code == 0
    assert "mail.test:587, STARTTLS, not verified, AUTH" in result.stdout
    assert "warning: providers.main.tls: encrypt does not verify the certificate" in result.stderr


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("host: mail.test, tls: opportunistic", "opportunistic verifies no certificate"),
        ("host: mail.test, tls: none, auth_without_tls: true", "none encrypts nothing"),
        ("host: 127.0.0.1, tls: none", ""),
    ],
)
def test_a_login_without_verified_tls_is_a_warning(config: Path, provider: str, said: str) -> None:
    config.write_text(STAGING.replace("host: mail.test", provider))
    result = check(config)
    assert result.exit_code == 0, result.stderr
    assert ("warning: providers.main.tls: " + said in result.stderr) is bool(said)


@pytest.mark.parametrize(("port", "is_warned"), [(587, True), (25, True), (465, False)])
def test_implicit_tls_at_a_port_of_starttls_is_a_warning(
    config: Path, port: int, is_warned: bool
) -> None:
    text = f"host: mail.test, port: {port}, tls: implicit"
    config.write_text(STAGING.replace("host: mail.test", text))
    said = f"providers.main.tls: port {port} uses STARTTLS, and tls: implicit speaks TLS from"
    assert (said in check(config).stderr) is is_warned


@pytest.mark.parametrize("tls", ["required", "encrypt", "opportunistic", "implicit"])
def test_starttls_at_the_port_of_implicit_tls_is_a_warning(config: Path, tls: str) -> None:
    config.write_text(STAGING.replace("host: mail.test", f"host: mail.test, port: 465, tls: {tls}"))
    said = f"providers.main.tls: {tls} uses STARTTLS, but port 465 uses"
    assert (said in check(config).stderr) is (tls != "implicit")


OWN = """\
mode: production
hostname: gw.shop.test
queue: {url: "sqlite:////nonexistent/queue.db"}
listeners: [{bind: "127.0.0.1:25"}, {bind: "0.0.0.0:587", allow: [10.0.0.0/8]}]
providers: {main: {host: HOST, port: PORT, tls: none}}
routes: [{name: default, providers: [main]}]
"""


@pytest.mark.parametrize(
    ("host", "port", "exit_code", "words"),
    [
        (
            "localhost",
            25,
            78,
            "error: providers.main.host: localhost:25 is the listener 127.0.0.1:25",
        ),
        ("127.0.0.2", 587, 78, "error: providers.main.host: 127.0.0.2:587 is the listener 0.0.0.0"),
        ("127.0.0.2", 25, 0, ""),
        ("localhost", 2525, 0, ""),
        ("198.51.100.7", 587, 0, ""),
        ("smtp.example.com", 587, 0, ""),
        ("GW.shop.test", 587, 0, "warning: providers.main.host: GW.shop.test is the gateway's own"),
        ("gw.shop.test", 25, 0, ""),
    ],
)
def test_a_provider_that_is_the_gateway_itself(
    config: Path, host: str, port: int, exit_code: int, words: str
) -> None:
    config.write_text(OWN.replace("HOST", host).replace("PORT", str(port)))
    result = check(config)
    assert result.exit_code == exit_code, result.stderr
    assert words in result.stderr
    assert ("providers.main.host" in result.stderr) is bool(words)


@pytest.mark.parametrize("host", ["localhost", "not a host", "smtp.example.com"])
def test_what_refuses_a_reload_is_noted_for_its_gateway(
    config: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[tuple[int, str]] = []
    monkeypatch.setattr("relaygw.cli.check.note_refusal", lambda *words: noted.append(words))
    config.write_text(OWN.replace("HOST", host).replace("PORT", "25"))
    result = check(config, "--before-reload", "17")
    reasons = [
        (17, line.removeprefix("relaygw: ").removeprefix("error: "))
        for line in result.stderr.splitlines()
        if "providers.main.host" in line
    ]
    assert noted == reasons[:1]
    assert bool(noted) is (result.exit_code == 78)


def test_a_secret_that_is_not_there_is_a_warning(config: Path) -> None:
    result = check(config)
    assert "warning: providers.main.password: env:RELAYGW_TEST_UNSET" in result.stderr


def test_a_secret_that_ends_in_a_blank_is_a_warning(config: Path, tmp_path: Path) -> None:
    config.write_text(STAGING.replace("env:RELAYGW_TEST_UNSET", f"file:{tmp_path}/key"))
    said = "warning: providers.main.password: file:"
    (tmp_path / "key").touch(mode=0o600)
    for content, is_told in (("key\r\n", False), ("key \r\n", True), ("\tkey", True)):
        (tmp_path / "key").write_bytes(content.encode())
        assert (said in check(config).stderr) is is_told


def test_so_are_those_beside_providers(config: Path) -> None:
    config.write_text(
        "mode: sandbox\nheartbeat_url: env:RELAYGW_TEST_UNSET\n"
        "queue: {url: 'postgresql://u@127.0.0.1:1/x', password: env:RELAYGW_TEST_UNSET}\n"
        "digest: {webhook: env:RELAYGW_TEST_UNSET}\n"
    )
    result = check(config)
    assert result.exit_code == 0
    for key in ("queue.password", "heartbeat_url", "digest.webhook"):
        assert f"warning: {key}: env:RELAYGW_TEST_UNSET" in result.stderr


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("", "is a directory; name a file in it, e.g. file:{path}/mail.log"),
        ("/none/mail.log", "{path}/none does not exist; create it, writable by relaygw's user"),
        ("/relaygw.yaml/mail.log", "{path}/relaygw.yaml is not a directory; name another"),
        ("/mail.log", None),
        ("/relaygw.yaml", None),
    ],
)
def test_a_log_that_cannot_be_written_is_a_warning(
    config: Path, place: str, problem: str | None
) -> None:
    target = f"file:{config.parent}{place}"
    config.write_text(f"{STAGING}log: {{target: '{target}'}}\n")
    result = check(config)
    assert result.exit_code == 0
    assert ("log.target" in result.stderr) is (problem is not None)
    if problem is not None:
        text = problem.format(path=config.parent)
        assert f"warning: log.target: {target}: {text}" in result.stderr


def test_mistakes_are_one_line_each_and_78(config: Path) -> None:
    config.write_text("mode: staging\nlistner: 1\nrecipients: {alow: []}\n")
    result = check(config)
    assert result.exit_code == 78
    assert "did you mean listeners?" in result.stderr
    assert all(line.startswith("relaygw: relaygw.yaml") for line in result.stderr.splitlines())


def test_allowed_mail_takes_the_first_route_that_matches(config: Path) -> None:
    lines = explained(config, "a@promo.test", "b@qa.test")
    assert lines["decision"] == "sent"
    assert lines["route"] == "promo (promotional), number 2 of 3: its conditions match"
    assert lines["provider"].startswith("bulk: bulk.test:2525")
    assert lines["note"] == "an earlier route has a condition on X-Campaign; see --header"


def test_a_header_decides(config: Path) -> None:
    lines = explained(config, "a@promo.test", "b@qa.test", "--header", "x-campaign: spring")
    assert lines["route"].startswith("campaign (transactional), number 1 of 3")


def test_rewriting_is_told_and_decides(config: Path) -> None:
    lines = explained(config, "www-data@web1", "root")
    assert lines["sender"] == "www-data@web1 becomes shop@shop.test (rewrite)"
    assert lines["recipient"] == "root becomes ops@qa.test (rewrite)"
    assert lines["decision"] == "sent"
    assert lines["route"].startswith("default (transactional), number 3 of 3: no condition")


def test_each_that_a_recipient_becomes_is_explained_and_the_archive_named(config: Path) -> None:
    team = "{root: [ops@qa.test, c@cust.test]}"
    text = STAGING.replace("{root: ops@qa.test}", team) + "archive_to: archive@arch.test\n"
    config.write_text(text)
    said = check(config, "--sender", "a@b.test", "--recipient", "root").stdout
    assert text != STAGING and said.count("decision") == 2
    first, second = said.split("root becomes")[1:]
    assert first.startswith(" ops@qa.test (rewrite)\n") and "sent" in first
    assert second.startswith(" c@cust.test (rewrite)\n") and "captured" in second
    assert "archive@arch.test is a recipient as well (archive_to)" in second


@pytest.mark.parametrize(
    ("recipient", "decision"),
    [
        ("c@cust.test", "captured, 250 to the client: staging: not on the allow list"),
        ("Abuse@QA.test", "rejected, 550 5.7.1 to the client: on the block list"),
    ],
)
def test_mail_that_stays_here(config: Path, recipient: str, decision: str) -> None:
    lines = explained(config, "<>", recipient)
    assert lines["sender"] == "<>, as given"
    assert lines["decision"] == decision
    assert lines["route"] == "none is used, nothing is sent"
    assert "provider" not in lines


@pytest.mark.parametrize(
    ("refused", "decision"),
    [
        ("drop", "dropped and recorded, 250 to the client: staging: not on the allow list"),
        (
            "redirect:dev@qa.test",
            "sent to dev@qa.test instead (staging: not on the allow list, redirected)",
        ),
    ],
)
def test_what_staging_does_with_others(config: Path, refused: str, decision: str) -> None:
    config.write_text(STAGING.replace("  blocked:", f"  refused: {refused}\n  blocked:"))
    result = check(config, "--sender", "a@b.test", "--recipient", "c@cust.test")
    assert decision in " ".join(result.stdout.split())


def test_fields_in_which_a_provider_reads_recipients(config: Path) -> None:
    mail = ("--sender", "a@b.test", "--header", 'X-SMTPAPI: {"to": ["abuse@qa.test"]}')
    config.write_text(STAGING)
    staging = " ".join(check(config, *mail, "--recipient", "b@qa.test").stdout.split())
    assert "would read recipients from it: X-SMTPAPI (mode staging)" in staging
    config.write_text(STAGING.replace("mode: staging", "mode: production"))
    live = " ".join(check(config, *mail, "--recipient", "b@qa.test").stdout.split())
    assert "the mail is held: field X-SMTPAPI names abuse@qa.test, on recipients.block" in live


@pytest.mark.parametrize("address", ["", "b@", "a b@c.test", "<>", "x@y.test\r\nRCPT"])
def test_what_is_no_address_is_a_data_error(config: Path, address: str) -> None:
    result = check(config, "--sender", "a@b.test", "--recipient", address)
    assert result.exit_code == 65
    assert "is not an address" in result.stderr
    assert len(result.stderr.splitlines()) == 1


SHARED = """\
mode: production
hostname: gw.shop.test
providers: {main: {host: mail.test}, bulk: {host: bulk.test}}
listeners:
  - {bind: "127.0.0.1:25", auth: off}
  - {bind: "10.0.0.5:25", allow: [10.0.0.0/16], mode: staging}
users:
  - {name: shop1, password_hash: "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$4m7RPnoLSPPNPLEvyQ4hSA"}
routes:
  - {name: shop1, user: [shop1], listener: ["10.0.0.5:25"], providers: [bulk]}
  - {name: default, providers: [main]}
"""  # noqa: E501


def test_listeners_and_users_are_part_of_the_story(config: Path) -> None:
    config.write_text(SHARED)
    summary = check(config).stdout
    assert "listener    127.0.0.1:25 for 127.0.0.0/8, ::1/128\n" in summary
    assert "listener    10.0.0.5:25 for 10.0.0.0/16, mode staging\n" in summary
    assert "listener 10.0.0.5:25 and user shop1" in summary
    mail = ("--sender", "a@b.test", "--recipient", "b@c.test")
    assert "default (transactional)" in check(config, *mail, "--listener", "127.0.0.1:25").stdout
    staging = check(config, *mail, "--listener", "10.0.0.5:25").stdout
    assert "captured, 250 to the client: staging: not on the allow list" in staging
    config.write_text(SHARED.replace(", mode: staging", ""))
    by_user = check(config, *mail, "--listener", "10.0.0.5:25", "--user", "shop1").stdout
    assert "shop1 (transactional), number 1 of 2" in by_user


@pytest.mark.parametrize("option", ["--listener", "--user"])
def test_a_listener_or_user_that_there_is_not(config: Path, option: str) -> None:
    config.write_text(SHARED)
    result = check(config, "--sender", "a@b.test", "--recipient", "b@c.test", option, "x")
    assert result.exit_code == 65
    assert f"{option} 'x' is not in the configuration; write one of: " in result.stderr
    assert check(config, option, "x").exit_code == 64


def test_what_is_missing_for_events_is_a_warning(config: Path) -> None:
    login = {"username": "u", "password": "env:HOME"}
    topic = {"topic": "arn:aws:sns:eu-west-1:123456789012:events"}
    unset, short = {"secret": "env:RELAYGW_TEST_UNSET"}, {"secret": "plain:k"}
    ses = {"preset": "ses", "region": "eu-west-1", **login, "events": topic}
    postmark = {"preset": "postmark", "password": "env:HOME", "events": unset}
    settings = {
        "mode": "sandbox",
        "providers": {"ses": ses, "pm": postmark, "mg": {"preset": "mailgun", **login}},
        "routes": [{"name": "default", "providers": ["ses"]}],
    }
    settings["providers"]["mg"]["events"] = short  # type: ignore[index]
    config.write_text(yaml.safe_dump(settings))
    config.chmod(0o600)
    result = check(config)
    told = result.stderr
    assert result.exit_code == 0
    assert "providers.ses.events: ses reports only mail with X-SES-CONFIGURATION-SET; add" in told
    assert "providers.pm.events.secret: env:RELAYGW_TEST_UNSET: the environment has no" in told
    assert "providers.mg.events.secret: is too short" in told
    assert "nothing listens for them; set events.bind" in told
    config.write_text(yaml.safe_dump({**settings, "events": {"bind": "0.0.0.0:8026"}}))
    listening = check(config)
    assert "events      http://0.0.0.0:8026/events/ for mg, pm, ses" in listening.stdout
    assert "nothing listens" not in listening.stderr
    assert listening.exit_code == 78, "it could never believe them, and is public"
    words = "error: providers.pm.events.secret: env:RELAYGW_TEST_UNSET: the environment has no"
    assert words in listening.stderr
    assert "error: providers.mg.events.secret: is too short" in listening.stderr
    assert listening.stderr.count("events.secret") == 2, "each is told once"
    explained = check(config, "--sender", "a@shop.test", "--recipient", "b@cust.test")
    assert explained.exit_code == 0
    config.write_text(yaml.safe_dump({**settings, "events": {"bind": "127.0.0.1:8026"}}))
    assert check(config).exit_code == 0
