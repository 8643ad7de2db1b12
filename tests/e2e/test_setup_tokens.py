"""`relaygw setup` by access token: to the first accepted mail, each thing in the way named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.test_setup import PATIENCE_S, Host, Terminal
from tests.fakes.entra import CLIENT_ID, TENANT, EntraEndpoint, write_certificate
from tests.fakes.scripted_provider import ThreadedProvider
from tests.fakes.token_endpoint import TokenEndpoint
from tests.forked import RelaygwProcess

SECRET = "canary~client-secret.7Qd"
REFRESH = "1//canary-refresh-token"
MAILBOX = "shop@contoso.test"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "host").mkdir()
    return Host(tmp_path / "host")


@pytest.fixture(scope="module")
def exchange() -> Iterator[ThreadedProvider]:
    """A mail service that is logged in to by access token only."""
    with ThreadedProvider(
        tls="starttls", certificate="self_signed", users={MAILBOX: "none"}, auth=["XOAUTH2"]
    ) as provider:
        yield provider


def words_for(exchange: ThreadedProvider, preset: str, *more: str) -> list[str]:
    words = f"--use shop --preset {preset} --host 127.0.0.1 --port {exchange.port} --tls encrypt"
    words += f" --username {MAILBOX} --sender {MAILBOX} --yes --no-sendmail"
    return [*words.split(), *more]


def file_with(host: Host, name: str, text: str) -> str:
    path = host.directory.parent / name
    path.write_text(f"{text}\n")
    return str(path)


def test_from_nothing_to_the_first_mail_at_microsoft(
    host: Host, exchange: ThreadedProvider
) -> None:
    right, wrong = (file_with(host, name, text) for name, text in (("s", SECRET), ("w", "id")))
    with EntraEndpoint(secret=SECRET) as entra:
        entra.exchange = exchange.users, MAILBOX
        entra.roles = []

        def setup(tenant: str, client_id: str, key: str) -> tuple[int, str]:
            where = ["--token-url", entra.url_of(tenant), "--client-id", client_id]
            words = words_for(exchange, "microsoft365", *where, "--key-file", key)
            done = host.setup(*words, key=None)
            assert SECRET not in done.stdout + done.stderr
            return done.returncode, done.stdout + done.stderr

        for given, said, remedy in (
            (("nowhere.test", CLIENT_ID, right), "AADSTS90002: Tenant", "Write the directory"),
            ((TENANT, "other", right), "AADSTS700016: Application", "Set --client-id"),
            ((TENANT, CLIENT_ID, wrong), "AADSTS7000215: Invalid", "Store the secret's value"),
            ((TENANT, CLIENT_ID, right), "lacks the permission SMTP.SendAsApp", "grant admin"),
        ):
            code, shown = setup(*given)
            assert code == 69, shown
            (line,) = [one for one in shown.splitlines() if one.startswith("provider ")]
            assert line.startswith("provider microsoft365: token")
            assert "logs in by password" not in shown
            assert said in line
            assert remedy in line
            assert "none of these files was written: the line above says what to correct" in shown
            assert list(host.directory.iterdir()) == []
        assert exchange.connections == []

        entra.roles = ["SMTP.SendAsApp"]
        right_words = TENANT, CLIENT_ID, right
        for reply, remedy in (
            ("5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the "
             "Mailbox.", "Set-CASMailbox MAILBOX -SmtpClientAuthenticationDisabled $false"),
            ("5.7.3 Authentication unsuccessful", "run New-ServicePrincipal, then Add-Mailbox"),
        ):  # fmt: skip
            exchange.script("AUTH", f"535 {reply}\r\n".encode())
            code, shown = setup(*right_words)
            assert code == 69, shown
            (line,) = [one for one in shown.splitlines() if ": AUTH " in one]
            assert reply.removeprefix("5.7.139 ") in line
            assert remedy in line

        code, shown = setup(*right_words)
        assert code == 0, shown
        tree = yaml.safe_load(host.config.read_text())
        kept = host.config.parent / "secrets/microsoft365"
        assert tree["providers"]["microsoft365"]["oauth"] == {
            "token_url": entra.url_of(TENANT),
            "client_id": CLIENT_ID,
            "client_secret": f"file:{kept}",
        }
        assert (kept.read_text(), kept.stat().st_mode & 0o777) == (f"{SECRET}\n", 0o600)
        before = host.files()
        code, shown = setup(TENANT, CLIENT_ID, wrong)
        assert (code, f"{kept}: holds another client secret than" in shown) == (73, True)
        assert setup(*right_words)[0] == host.setup("--no-sendmail", key=None).returncode == 0
        assert host.files() == before
        assert first_mail(host, exchange) == MAILBOX


def first_mail(host: Host, exchange: ThreadedProvider) -> str | None:
    """Start the gateway, send the test mail and return who logged in for it."""
    log = host.directory.parent / "log"
    with log.open("w") as stderr:
        serve = ["--config", str(host.config), "serve"]
        gateway = RelaygwProcess(serve, env=host.environ, stderr=stderr)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while "started: " not in log.read_text():
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        done = host.setup("--to", "b@cust.test", "--no-sendmail", key=None)
        assert done.returncode == 0, done.stdout + done.stderr
        assert SECRET not in log.read_text()
        return exchange.messages[-1].user
    finally:
        gateway.terminate()
        assert gateway.wait(PATIENCE_S) == 0


def test_a_certificate_instead_of_a_secret(
    host: Host, exchange: ThreadedProvider, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    other = write_certificate(tmp_path, name="other")[1]
    with EntraEndpoint(certificate=certificate) as entra:
        entra.exchange = exchange.users, MAILBOX
        where = ["--token-url", entra.url_of(TENANT), "--client-id", CLIENT_ID]
        words = words_for(exchange, "microsoft365", *where, "--certificate", str(certificate))
        for more, code, said in (
            ([], 64, "give --key-file FILE with the private key"),
            (["--key-file", str(tmp_path / "none")], 66, "none: No such file or directory; name a"),
            (["--key-file", str(host.directory / "..")], 66, "is not a regular file; name a file"),
            (["--key-file", file_with(host, "x", "x")], 65, "x holds no private key; give the who"),
            (["--key-file", str(other)], 69, f"--key-file is not the key of {certificate}; store"),
        ):
            done = host.setup(*words, *more, key=None)
            assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
            assert list(host.directory.iterdir()) == []
        done = host.setup(*words, "--key-file", str(key), key=None)
        assert done.returncode == 0, done.stderr
        secrets = host.config.parent / "secrets"
        oauth = yaml.safe_load(host.config.read_text())["providers"]["microsoft365"]["oauth"]
        assert oauth["certificate"] == str(secrets / "microsoft365.pem")
        assert oauth["key"] == f"file:{secrets / 'microsoft365'}"
        assert (secrets / "microsoft365").read_bytes() == key.read_bytes()
        before = host.files()
        assert host.setup(*words, "--key-file", str(key), key=None).returncode == 0
        assert host.setup(*words, "--key-file", str(other), key=None).returncode == 73
        assert host.files() == before


def test_a_refresh_token_of_google(host: Host, exchange: ThreadedProvider) -> None:
    with TokenEndpoint() as endpoint:
        where = ["--login", "token", "--token-url", endpoint.url, "--client-id", "app"]
        words = words_for(exchange, "gmail", *where, "--key-file", file_with(host, "s", SECRET))
        done = host.setup(*words, key=None)
        assert (done.returncode, "give --refresh-token-file FILE" in done.stderr) == (64, True)
        words += ["--refresh-token-file", file_with(host, "r", REFRESH)]
        said = {"error": "invalid_grant", "error_description": f"Token {REFRESH} expired"}
        endpoint.answers.append((400, said))
        done = host.setup(*words, key=None)
        assert done.returncode == 69
        assert "invalid_grant: Token *** expired; Google no longer accepts" in done.stdout
        assert list(host.directory.iterdir()) == []
        exchange.users[MAILBOX] = "token-2"  # the first one is for the trial
        done = host.setup(*words, key=None)
        assert done.returncode == 0, done.stdout + done.stderr
        form = endpoint.requests[-1]
        assert (form["client_secret"], form["refresh_token"]) == (SECRET, REFRESH)
        (kept,) = host.config.parent.glob("secrets/gmail.refresh")
        kept.unlink()
        exchange.users[MAILBOX] = "token-3"
        done = host.setup(*words, key=None)
        assert (done.returncode, kept.read_text()) == (0, f"{REFRESH}\n"), done.stderr
        assert REFRESH not in done.stdout + done.stderr


def test_what_is_missing_or_has_no_use_is_told(host: Host, exchange: ThreadedProvider) -> None:
    for preset, more, said in (
        ("microsoft365", [], "give --tenant (Tenant: its directory id, or a domain of it); --cli"),
        ("microsoft365", ["--tenant", "a/b"], '--tenant "a/b" is not a tenant; write its direct'),
        ("microsoft365", ["--token-url", "http://a.test"], "is not an https URL; write e.g. "),
        (
            "microsoft365",
            ["--login", "password", "--tenant", TENANT],
            "--tenant: not for this service and login; see --login, or omit it",
        ),
        (
            "microsoft365",
            ["--tenant", TENANT, "--token-url", "https://a.test/token"],
            "--tenant and --token-url: the URL names the tenant; omit one",
        ),
        ("gmail", ["--client-id", "app"], "--client-id: not for this service and login"),
        ("sendgrid", ["--login", "token"], "--login: not for this service and login"),
    ):
        done = host.setup(*words_for(exchange, preset, *more), key=SECRET)
        assert (done.returncode, said in done.stderr) == (64, True), done.stderr
        assert list(host.directory.iterdir()) == []


def test_a_password_at_microsoft_is_said_to_end(host: Host, exchange: ThreadedProvider) -> None:
    words = words_for(exchange, "microsoft365", "--login", "password", "--dry-run")
    done = host.setup(*words, key=SECRET)
    assert done.returncode == 0, done.stderr
    assert "note: provider microsoft365 logs in by password: " in done.stdout
    assert f"write {host.config.parent}/secrets/microsoft365 (mode " in done.stdout
    words = words_for(exchange, "microsoft365", "--offline")
    assert host.setup(*words, "--login", "password", key=SECRET).returncode == 0
    done = host.setup(*words, key=SECRET)  # a call from before there was a choice
    assert done.returncode == 0, done.stderr


def test_a_dialogue(host: Host) -> None:
    terminal = Terminal(host)
    terminal.answer("What is this machine for?", "shop")
    terminal.answer("Which mail service?", "microsoft365")
    terminal.answer("User name: ", MAILBOX)
    terminal.answer("Log in by access token, or by password (token, password) [token]", "")
    terminal.answer("Tenant: ", TENANT)
    terminal.answer("Client id: ", CLIENT_ID)
    terminal.answer("certificate, PEM (empty", "")
    terminal.answer("Sender for mail", MAILBOX)
    terminal.answer("Keep sent mail this long", "")
    terminal.answer("Client secret (not shown)", SECRET)
    terminal.wait_for(f"token_url: https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token")
    terminal.answer("Go on?", "n")
    assert terminal.end() == 0
    assert SECRET not in terminal.shown
    assert list(host.directory.iterdir()) == []


def test_a_dialogue_with_a_certificate(host: Host, tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    words = [
        "--use",
        "shop",
        "--preset",
        "microsoft365",
        "--username",
        MAILBOX,
        "--sender",
        MAILBOX,
    ]
    words += ["--tenant", TENANT, "--client-id", CLIENT_ID, "--keep-content", "7d"]
    terminal = Terminal(host, *words)
    terminal.answer("Log in by access token", "token")
    terminal.answer("certificate, PEM (empty", str(certificate))
    terminal.answer("File with the private key, PEM", str(key))
    terminal.wait_for("key: file:")
    terminal.answer("Go on?", "n")
    assert terminal.end() == 0
    assert list(host.directory.iterdir()) == []
