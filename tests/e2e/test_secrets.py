"""No secret gets anywhere but to the provider: not into logs, pages, commands or the queue.

The providers do their worst: they refuse each login and echo what they were sent, in every form.
"""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.gateway import Gateway
from tests.fakes.notice_receiver import NoticeReceiver
from tests.fakes.scripted_provider import ThreadedProvider
from tests.fakes.token_endpoint import TokenEndpoint
from tests.forked import run_relaygw

SECRETS = {
    "file": "cAnary+file/7f3a1=&x",
    "command": "cAnary+command/7f3a2=&x",
    "env": "cAnary+refresh/7f3a3=&x",
    "token": "cAnary.token.7f3a4-with-some-length",
    "plain": "cAnary+plain/7f3a5=&x",
    "heartbeat": "cAnary-heartbeat-7f3a6",
}


def forms(secret: str) -> set[str]:
    """Return how a secret may show."""
    sasl = (secret, f"\0shop\0{secret}", f"user=shop\1auth=Bearer {secret}\1\1")
    coded = {base64.b64encode(text.encode()).decode() for text in sasl}
    return {secret, quote(secret, safe=""), *coded, *(quote(one, safe="") for one in coded)}


ALL_FORMS = {form for secret in SECRETS.values() for form in forms(secret)}


def run(gateway: Gateway, *words: str) -> str:
    argv = ["--debug", "--config", str(gateway.config), *words]
    done = run_relaygw(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def web(gateway: Gateway, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.web_port}{path}") as answer:
            return str(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return str(error.read())


def echo_of(secret: str) -> bytes:
    said = " ".join(sorted(forms(secret))).encode()
    return b"535-5.7.8 " + said[: len(said) // 2] + b"\r\n535 5.7.8 " + said + b"\r\n"


def logins(tmp_path: Path, endpoint: TokenEndpoint) -> dict[str, dict[str, Any]]:
    """Return a login for each way to keep a secret."""
    file = tmp_path / "key"
    file.write_text(SECRETS["file"])
    file.chmod(0o600)
    command = tmp_path / "get-key"
    command.write_text(f"#!/bin/sh\necho '{SECRETS['command']}'\n")
    command.chmod(0o700)
    refused = {"error": SECRETS["env"], "error_description": SECRETS["command"]}
    endpoint.answers.append((400, refused))
    for _ in range(50):
        endpoint.answers.append((200, {"access_token": SECRETS["token"], "expires_in": 60}))
    oauth = endpoint.oauth(client_secret=f"command:{command}", refresh_token="env:CANARY_KEY")
    return {
        "file": {"password": f"file:{file}"},
        "command": {"password": f"command:{command}"},
        "plain": {"password": f"plain:{SECRETS['plain']}"},
        "token": {"oauth": oauth},
    }


def test_no_secret_shows_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDEVMODE", "1")  # asyncio tells what it does
    (tmp_path / "sitecustomize.py").write_text("import logging; logging.basicConfig(level=0)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CANARY_KEY", SECRETS["env"])
    with ExitStack() as stack:
        endpoint = stack.enter_context(TokenEndpoint())
        providers = {}
        for name, login in logins(tmp_path, endpoint).items():
            server = stack.enter_context(
                ThreadedProvider(tls="starttls", users={"shop": "right"}, auth=["PLAIN", "XOAUTH2"])
            )
            server.script("AUTH", *[echo_of(SECRETS[name])] * 50)
            place = {"host": "127.0.0.1", "port": server.port, "tls_ca": server.tls_ca}
            providers[name] = {**place, "username": "shop", **login}
        routes = [
            {"name": name, "sender": [f"{name}@x.test"], "providers": [name]} for name in providers
        ]
        routes.append({"name": "default", "providers": ["file"]})
        monitor = stack.enter_context(NoticeReceiver())
        heartbeat = f"http://127.0.0.1:{monitor.port}/ping/{SECRETS['heartbeat']}"
        monkeypatch.setenv("CANARY_HEARTBEAT", heartbeat)
        gateway = Gateway(
            tmp_path,
            providers=providers,
            routes=routes,
            heartbeat_url="env:CANARY_HEARTBEAT",
            has_web=True,
        )
        stack.enter_context(gateway)
        gateway.wait_for_log("heartbeat_url is called each minute")
        shown = run_all(gateway)
        assert monitor.bodies, "the canary was called"
    for told in ("DEBUG:asyncio:", "FAILED", "***"):
        assert told in shown["online"]
    for told in ("DEBUG:asyncio:", "535", "***"):
        assert told in shown["log"]
    shown |= {
        str(path): path.read_bytes().decode("latin-1")
        for path in (tmp_path / "state").rglob("*")
        if path.is_file()
    }
    found = {where: form for where, text in shown.items() for form in ALL_FORMS if form in text}
    assert found == {}


def run_all(gateway: Gateway) -> dict[str, str]:
    """Have each provider refuse a login, look everywhere, stop; return what was shown where."""
    names = list(gateway.settings["providers"])
    for name in names:
        gateway.send(f"{name}@x.test", ["b@y.test"], b"Subject: x\r\n\r\nx\r\n")
    for name in names:
        gateway.wait_for_log(f"provider {name} is held")
    shown = {
        "config": run(gateway, "config", "show", "--origin"),
        "status": run(gateway, "status", "--json") + run(gateway, "status"),
        "queue": run(gateway, "queue", "list", "--json"),
        "online": run(gateway, "check", "--online"),
        "web": "".join(web(gateway, path) for path in ("/", "/health", "/healthz")),
    }
    gateway.stop()
    return {**shown, "log": "\n".join(gateway.lines)}


@pytest.mark.parametrize("password", ["x", "limit", "exceeded"])
def test_a_password_that_is_a_word_changes_no_meaning_and_its_login_shows_nowhere(
    tmp_path: Path, password: str
) -> None:
    """A quota is told as one, and what AUTH was sent is masked."""
    sent = base64.b64encode(f"\0shop\0{password}".encode()).decode()
    with ThreadedProvider(tls="starttls", users={"shop": password}, auth=["PLAIN"]) as server:
        said = f"550 5.4.5 Daily user sending limit exceeded ({sent})\r\n".encode()
        server.script("MAIL", *[said] * 50)
        place = {"host": "127.0.0.1", "port": server.port, "tls_ca": server.tls_ca}
        main = {**place, "username": "shop", "password": f"plain:{password}"}
        with Gateway(tmp_path, providers={"main": main}, has_web=True) as gateway:
            gateway.send("a@x.test", ["b@y.test"], b"Subject: x\r\n\r\nx\r\n")
            gateway.wait_for_log(r"provider main is held \(provider\)")
            online = run(
                gateway, "check", "--online", "--sender", "a@x.test", "--recipient", "b@y.test"
            )
            shown = {
                "status": run(gateway, "status") + run(gateway, "status", "--json"),
                "queue": run(gateway, "queue", "list", "--json"),
                "online": online,
                "web": web(gateway, "/"),
            }
            gateway.stop()
            shown["log"] = "\n".join(gateway.lines)
    stored = (path for path in (tmp_path / "state").rglob("*") if path.is_file())
    shown |= {str(path): path.read_bytes().decode("latin-1") for path in stored}
    assert {where for where, text in shown.items() if sent in text} == set()
    is_word = len(password) < 6
    for where in ("status", "queue", "log", "online"):
        assert ("Daily user sending limit exceeded" in shown[where]) is is_word, where
    assert "reached its sending limit" in online or "limit of the account" in online
