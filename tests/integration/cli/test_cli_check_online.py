"""`relaygw check --online` against real providers with real TLS: each way it can fail, and none."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from relaygw.cli import main
from relaygw.mail.clock import clock_ms, utc_text
from relaygw.store.holds import PAUSED, Hold
from relaygw.store.store import open_store
from relaygw.upstream import diagnosis
from tests.e2e.gateway import Gateway
from tests.fakes.entra import CLIENT_ID, SCOPE, TENANT, EntraEndpoint
from tests.fakes.scripted_provider import Action, ThreadedProvider
from tests.fakes.token_endpoint import TokenEndpoint
from tests.forked import run_relaygw
from tests.queues import make_queue

USERS = {"shop": "s3cret"}
LOGIN = {"username": "shop", "password": "plain:s3cret"}


class Shop:
    """A configuration with one provider or more, and the command."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.providers: dict[str, dict[str, Any]] = {}
        self.more: dict[str, Any] = {}

    def add(self, name: str, provider: Any, **changes: Any) -> None:
        policy = {None: "none", "starttls": "required", "implicit": "implicit"}[provider.tls]
        keys = {"host": "127.0.0.1", "port": provider.port, "tls": policy}
        if provider.tls_ca:
            keys["tls_ca"] = provider.tls_ca
        self.providers[name] = {**keys, **changes}

    def write(self) -> Path:
        config = self._directory / "relaygw.yaml"
        default = {"name": "default", "providers": list(self.providers)}
        tree = {
            "mode": "production",
            "hostname": "gw.test",
            "providers": self.providers,
            "routes": [default],
            **self.more,
        }
        config.write_text(yaml.safe_dump(tree))
        config.chmod(0o600)
        return config

    def check(self, *words: str) -> tuple[int, list[dict[str, Any]]]:
        """Run it in this process; return exit code and findings."""
        argv = ["check", "--online", "--json", "--config", str(self.write()), *words]
        result = CliRunner().invoke(main, argv)
        return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]

    def result_of(self, step: str, *words: str) -> tuple[str, str, str]:
        """Return result, detail and remedy of the one finding about a step."""
        exit_code, findings = self.check(*words)
        (one,) = [finding for finding in findings if finding["step"] == step]
        has_failed = any(finding["result"] == "failed" for finding in findings)
        assert exit_code == (69 if has_failed else 0)
        if one["result"] == "failed" and step not in ("sender", "AUTH"):
            assert findings[-1] == one  # nothing after it
        return one["result"], one["detail"], one["remedy"] or ""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@contextmanager
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def steps(findings: list[dict[str, Any]], name: str) -> list[str]:
    return [f"{one['step']} {one['result']}" for one in findings if one["provider"] == name]


def test_all_is_well(shop: Shop) -> None:
    shop.more["routes"] = [
        {"name": "orders", "sender": ["shop@x.test", "@y.test"], "providers": ["main"]},
        {"name": "default", "providers": ["main", "plain"]},
    ]
    with ThreadedProvider(tls="starttls", users=USERS) as provider, ThreadedProvider() as plain:
        shop.add("main", provider, **LOGIN, senders=["ceo@x.test", ".x.test", "@x.test"])
        shop.add("plain", plain)
        exit_code, findings = shop.check()
        assert exit_code == 0
        usual = ["DNS ok", "TCP ok", "TLS ok", "EHLO ok", "AUTH ok", "SIZE ok"]
        assert steps(findings, "main") == [*usual, "sender ok", "sender ok"]
        assert steps(findings, "plain") == usual
        tried = [one["detail"] for one in findings if one["step"] == "sender"]
        assert tried == ["ceo@x.test", "shop@x.test"]
        assert provider.messages == []
        said = [seen.verbs() for seen in provider.connections]
        hello = ["EHLO", "STARTTLS", "EHLO"]
        assert said == [[*hello, "QUIT"], [*hello, "AUTH", *["MAIL", "RSET"] * 2, "QUIT"]]
        assert provider.connections[1].commands[0] == b"EHLO gw.test"


def test_the_providers_of_the_way_that_this_listener_leads_are_asked(shop: Shop) -> None:
    shop.more["listeners"] = [{"bind": "127.0.0.1:2525"}, {"bind": "127.0.0.1:2526"}]
    shop.more["routes"] = [
        {"name": "other", "listener": ["127.0.0.1:2526"], "providers": ["spare"]},
        {"name": "default", "providers": ["main"]},
    ]
    mail = ("--sender", "a@x.test", "--recipient", "b@y.test")
    with ThreadedProvider() as main_one, ThreadedProvider() as spare:
        shop.add("main", main_one)
        shop.add("spare", spare)
        for listener, name in (("127.0.0.1:2525", "main"), ("127.0.0.1:2526", "spare")):
            _, findings = shop.check(*mail, "--listener", listener)
            assert {one["provider"] for one in findings} == {name}


def test_the_lines_for_people(shop: Shop) -> None:
    with ThreadedProvider(tls="starttls", users=USERS) as provider:
        shop.add("main", provider, **{**LOGIN, "password": "plain:wrong"})
        argv = ["check", "--online", "--config", str(shop.write())]
        done = run_relaygw(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 69, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("provider main: ")]
    assert lines[0] == "provider main: DNS      ok      127.0.0.1 is 127.0.0.1"
    assert lines[1] == f"provider main: TCP      ok      port {provider.port} at 127.0.0.1"
    assert lines[2].startswith(
        "provider main: TLS      ok      TLSv1.3, certificate verified, until"
    )
    assert lines[4].startswith("provider main: AUTH     FAILED  127.0.0.1[127.0.0.1]:")
    assert "said: 535 5.7.8 no; " in lines[4]
    assert all(len(line) <= 80 for line in lines[:4])
    assert "wrong" not in done.stdout + done.stderr


@pytest.mark.usefixtures("is_unknown")
@pytest.mark.parametrize(
    ("keys", "host", "named"),
    [
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid", "host"),
        (
            {"preset": "ses", "region": "eu-west-9", **LOGIN},
            "email-smtp.eu-west-9.amazonaws.com",
            "region (eu-west-9) or host",
        ),
    ],
)
def test_an_unknown_host(shop: Shop, keys: dict[str, Any], host: str, named: str) -> None:
    shop.providers["main"] = keys
    result, detail, remedy = shop.result_of("DNS")
    assert (result, remedy) == (
        "failed",
        f"check the spelling of {named}, and this machine's DNS",
    )
    assert f"{host} not found" in detail


SetPorts = Callable[..., None]


@pytest.fixture
def set_ports(monkeypatch: pytest.MonkeyPatch) -> SetPorts:
    """Return what says which ports are usual, and at which of them TLS begins at once."""

    def set_(*ports: int, implicit: Sequence[int] = ()) -> None:
        monkeypatch.setattr(diagnosis, "_USUAL_PORTS", ports)
        monkeypatch.setattr(diagnosis, "_IMPLICIT_TLS_PORTS", implicit)

    return set_


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_shut_port_names_those_that_work(shop: Shop, tls: str, set_ports: SetPorts) -> None:
    with ThreadedProvider(tls=tls) as provider, closed_port() as shut, closed_port() as other:
        set_ports(other, provider.port, implicit=(provider.port,) if tls == "implicit" else ())
        shop.add("main", provider, port=shut, tls="required")
        result, detail, remedy = shop.result_of("TCP")
        assert result == "failed"
        assert "Connection refused" in detail
        change = " and tls: implicit" if tls == "implicit" else ""
        assert (
            remedy == f"ports that work here: {provider.port}; write port: {provider.port}{change}"
        )


def test_no_port_works(shop: Shop, set_ports: SetPorts) -> None:
    with closed_port() as shut, closed_port() as other:
        set_ports(other)
        shop.providers["main"] = {"host": "127.0.0.1", "port": shut}
        _, _, remedy = shop.result_of("TCP")
        assert remedy.endswith(f"allow port {shut} in the firewall")


FOREIGN = {
    "of another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a TLS alert": b"\x15\x03\x01\x00\x02\x02\x0a\r\n",
    "without an end": b"220-welcome\r\n" * 100_000,
    "a line without an end": b"x" * 1_000_000,
    "begun only": (b"220-welcome\r\n", Action.HANG),
    "a prompt": (b"login: ", Action.HANG),
    "another reply": b"250 ready\r\n",
}


@pytest.mark.parametrize("answer", FOREIGN.values(), ids=FOREIGN)
def test_what_answers_and_is_no_smtp_server(shop: Shop, set_ports: SetPorts, answer: Any) -> None:
    set_ports()
    with ThreadedProvider() as provider:
        provider.script("greeting", answer)
        shop.add("main", provider, tls="required", timeouts={"command": "2s"})
        result, detail, remedy = shop.result_of("greeting")
        assert result == "failed"
        assert remedy == (
            "no other common port works either; "
            f"what answers at port {provider.port} does not speak SMTP: check host and port; "
            "if it expects implicit TLS, write tls: implicit"
        )
        assert "no greeting" not in detail


def test_a_garbled_answer_to_ehlo_is_not_for_the_name(shop: Shop) -> None:
    with ThreadedProvider() as provider:
        provider.script("EHLO", b"garbage\r\n")
        shop.add("main", provider)
        _, _, remedy = shop.result_of("EHLO")
        assert remedy.startswith(f"what answers at port {provider.port} does not speak SMTP")


def test_a_port_for_tls_at_once(shop: Shop, set_ports: SetPorts) -> None:
    with ThreadedProvider(tls="implicit") as provider:
        set_ports(provider.port, implicit=(provider.port,))
        limits = {"command": "500ms"}
        shop.add("main", provider, tls="required", timeouts=limits)
        result, _, remedy = shop.result_of("greeting")
        assert result == "failed"
        assert remedy.endswith(f"write port: {provider.port} and tls: implicit")


def test_tls_at_once_where_there_is_none(shop: Shop) -> None:
    with ThreadedProvider(tls="starttls") as provider:
        shop.add("main", provider, tls="implicit")
        assert shop.result_of("TLS")[2].endswith("try tls: required")


@pytest.mark.parametrize(
    ("certificate", "words", "remedy"),
    [
        ("wrong_host", "mismatch", "the name in the certificate"),
        ("expired", "expired", "needs a new certificate"),
        ("untrusted", "certificate not verified", "tls_ca"),
    ],
)
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_a_bad_certificate(shop: Shop, tls: str, certificate: str, words: str, remedy: str) -> None:
    with ThreadedProvider(tls=tls, certificate=certificate, users=USERS) as provider:
        shop.add("main", provider, **LOGIN)
        result, detail, advice = shop.result_of("TLS")
        assert result == "failed"
        assert words in detail
        assert remedy in advice
        assert not any(b"AUTH" in seen.transcript for seen in provider.connections)


def test_a_certificate_that_ends_soon_is_a_warning(shop: Shop) -> None:
    with ThreadedProvider(tls="starttls", certificate="ending") as provider:
        shop.add("main", provider)
        result, detail, remedy = shop.result_of("TLS")
        assert result == "warning"
        assert detail.endswith(" left")
        assert "renew" in remedy


def test_no_starttls(shop: Shop) -> None:
    with ThreadedProvider(users=USERS) as provider:
        shop.add("main", provider, tls="required", **LOGIN)
        result, detail, _ = shop.result_of("TLS")
        assert result == "failed"
        assert "offers none" in detail
        assert not any(b"AUTH" in seen.transcript for seen in provider.connections)


def test_ehlo_refused(shop: Shop) -> None:
    with ThreadedProvider() as provider:
        provider.script("EHLO", (b"550 5.7.1 who are you\r\n", Action.DROP))
        shop.add("main", provider)
        assert shop.result_of("EHLO")[:2] == (
            "failed",
            f"127.0.0.1[127.0.0.1]:{provider.port} said: 550 5.7.1 who are you",
        )


def test_a_secret_that_is_not_there_does_not_hide_the_rest(shop: Shop) -> None:
    with ThreadedProvider(tls="starttls", users=USERS) as provider:
        shop.add("main", provider, username="shop", password="env:RELAYGW_TEST_UNSET")
        exit_code, findings = shop.check()
        assert exit_code == 69
        assert steps(findings, "main")[-2:] == ["EHLO ok", "AUTH failed"]
        assert "RELAYGW_TEST_UNSET" in findings[-1]["detail"]


def test_a_token_that_is_refused(shop: Shop) -> None:
    with (
        TokenEndpoint() as endpoint,
        ThreadedProvider(tls="starttls", users=USERS, auth=["XOAUTH2"]) as provider,
    ):
        endpoint.answers.append((401, {"error": "invalid_client"}))
        shop.add("main", provider, username="shop", oauth=endpoint.oauth())
        exit_code, findings = shop.check()
        assert (exit_code, steps(findings, "main")[-1]) == (69, "token failed")
        assert "invalid_client" in findings[-1]["detail"]
        assert "Check oauth.client_id" in findings[-1]["remedy"]
        assert len(provider.connections) == 1  # the login would be pointless
        provider.users["shop"] = "token-1"
        assert shop.result_of("token")[0] == "ok"
        provider.users["shop"] = "token-2"
        assert shop.result_of("AUTH")[0] == "ok"


def test_a_token_without_the_permission_is_told_and_tried(shop: Shop) -> None:
    with (
        EntraEndpoint(secret="right") as entra,
        ThreadedProvider(tls="starttls", users=USERS, auth=["XOAUTH2"]) as provider,
    ):
        entra.exchange = provider.users, "shop"
        entra.roles = ["Mail.Read"]
        provider.script("AUTH", b"535 5.7.3 Authentication unsuccessful\r\n")
        oauth = {"token_url": entra.url_of(TENANT), "client_id": CLIENT_ID, "scope": SCOPE}
        oauth["client_secret"] = "plain:right"
        shop.add("main", provider, username="shop", oauth=oauth)
        exit_code, findings = shop.check()
        assert (exit_code, steps(findings, "main")[-2:]) == (69, ["token warning", "AUTH failed"])
        lacks, refused = findings[-2:]
        assert lacks["detail"] == "the access token lacks the permission SMTP.SendAsApp"
        assert lacks["remedy"].startswith("in Entra, API permissions of the application, add")
        assert "535 5.7.3 Authentication unsuccessful" in refused["detail"]
        for roles in (["SMTP.SendAsApp"], ["IMAP.AccessAsApp", "SMTP.SendAsApp"]):
            entra.roles = roles
            assert shop.result_of("AUTH")[0] == "ok"
        assert len(entra.requests) == 3  # one for each check


def test_a_refused_sender_is_explained(shop: Shop) -> None:
    with ThreadedProvider() as provider:
        provider.script("MAIL", b"553 5.7.1 sender not verified\r\n")
        shop.add("main", provider, senders=["a@x.test", "b@x.test"])
        exit_code, findings = shop.check()
        assert exit_code == 69
        assert steps(findings, "main")[-2:] == ["sender failed", "sender ok"]
        assert "a@x.test: 553 5.7.1 sender not verified" in findings[-2]["detail"]
        assert findings[-2]["remedy"]


def test_one_sender_at_all_providers(shop: Shop) -> None:
    with ThreadedProvider() as one, ThreadedProvider() as other:
        shop.add("one", one)
        shop.add("other", other, senders=["@else.test"])
        exit_code, findings = shop.check("--sender", "<>")
        assert exit_code == 0
        assert steps(findings, "one")[-1] == "sender ok"
        assert steps(findings, "other")[-1] == "sender warning"
        assert b"MAIL FROM:<>" in one.connections[-1].commands
        assert "MAIL" not in other.connections[-1].verbs()


def test_a_pair_is_explained_and_only_its_route_is_asked(shop: Shop) -> None:
    with ThreadedProvider() as one, ThreadedProvider() as other:
        shop.add("one", one)
        shop.add("other", other)
        shop.more["routes"] = [
            {"name": "promo", "sender": ["@promo.test"], "providers": ["other"]},
            {"name": "default", "providers": ["one"]},
        ]
        config = shop.write()
        words = ("--online", "--sender", "a@promo.test", "--recipient", "b@c.test")
        result = CliRunner().invoke(main, ["check", "--config", str(config), *words])
        assert result.exit_code == 0, result.output
        assert "promo (transactional), number 1 of 2" in result.stdout
        assert "provider other: sender   ok      a@promo.test" in result.stdout
        assert one.connections == []


def test_a_provider_that_hangs_holds_up_nobody_else(
    shop: Shop, set_ports: SetPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaygw.upstream.diagnosis.STEP_LIMIT_S", 0.5)
    set_ports()
    monkeypatch.setattr("relaygw.cli.check._PATIENCE_S", 0.1)
    with ThreadedProvider() as slow, ThreadedProvider() as fast:
        slow.script("greeting", Action.HANG)
        shop.add("slow", slow)
        shop.add("spare", fast)
        result = CliRunner().invoke(main, ["check", "--config", str(shop.write()), "--online"])
        assert result.exit_code == 69
        lines = [line for line in result.stdout.splitlines() if line.startswith("provider ")]
        slows = [line for line in lines if line.startswith("provider slow: ")]
        assert "greeting FAILED  no greeting within 0.5 s" in slows[-1]
        fasts = [line for line in lines if line.startswith("provider spare: ")]
        assert fasts and lines[-len(fasts) :] == fasts  # one after the other
        assert "relaygw: waiting for slow" in result.stderr


def test_what_the_gateway_holds_is_said_beside_a_provider_that_works(
    shop: Shop, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    at_ms = clock_ms() + 100_000
    with closing(open_store(url)) as store:
        for scope in ("credential", PAUSED):
            store.holds.put_hold(
                Hold(
                    scope=scope, key="main", reason=f"of {scope}", remedy="wait",
                    since_ms=clock_ms(), probe_at_ms=at_ms,
                )
            )  # fmt: skip
    shop.more["queue"] = {"url": url}
    with ThreadedProvider() as main_one, ThreadedProvider() as spare:
        shop.add("spare", spare)
        shop.add("main", main_one)
        exit_code, findings = shop.check()
    assert exit_code == 0
    said = [finding for finding in findings if finding["step"] == "gateway"]
    assert [(one["provider"], one["result"], one["remedy"]) for one in said] == [
        ("main", "warning", "wait")
    ] * 2
    assert said[0]["detail"].startswith("the gateway has held credential main since ")
    assert said[1]["detail"].startswith("the gateway has paused main since ")
    assert f"of {PAUSED}; " in said[1]["detail"]
    assert f"next probe at {utc_text(at_ms)}" in said[0]["detail"]


def test_without_online_nothing_is_asked(shop: Shop) -> None:
    with ThreadedProvider() as provider:
        shop.add("main", provider)
        environ = {**os.environ, "COLUMNS": "80"}
        result = CliRunner().invoke(main, ["check", "--config", str(shop.write())], env=environ)
        assert result.exit_code == 0
        assert provider.connections == []


def test_secrets_are_those_of_the_gateway_that_runs(tmp_path: Path) -> None:
    """Its service has a variable that nobody who runs the command has."""
    login = {"username": "shop", "password": "env:KEY_OF_THE_SERVICE"}
    with ThreadedProvider(users=USERS) as provider:
        shop = {"host": "127.0.0.1", "port": provider.port, "tls": "none", **login}
        sections = {
            "providers": {"shop": shop},
            "routes": [{"name": "default", "providers": ["shop"]}],
        }
        variables = ("env", "KEY_OF_THE_SERVICE=s3cret")  # a process of its own, not a fork of this
        with Gateway(tmp_path, mode="production", before=variables, **sections) as gateway:
            asked = ["--config", str(gateway.config), "check", "--online"]
            beside = run_relaygw(asked, capture_output=True, text=True, check=False)
            other = os.environ | {"KEY_OF_THE_SERVICE": "wrong"}
            own = run_relaygw(asked, capture_output=True, text=True, check=False, env=other)
        alone = run_relaygw(asked, capture_output=True, text=True, check=False)
    assert "shop: AUTH     ok" in beside.stdout, beside.stdout + beside.stderr
    assert "shop: AUTH     ok" in own.stdout, "those of who runs the command do not count"
    assert "KEY_OF_THE_SERVICE" not in beside.stderr
    assert "s3cret" not in beside.stdout + beside.stderr
    assert "no variable KEY_OF_THE_SERVICE" in alone.stderr
