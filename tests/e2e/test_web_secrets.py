"""What people and programs log in with shows nowhere: not in the log, the answers or the queue.

The log is at its chattiest; logins go wrong in every way, also with the password as the name.
"""

from __future__ import annotations

import base64
import http.client
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import argon2
import pytest

from relaygw.web.gate.credentials import COOKIE
from tests.e2e.gateway import Gateway
from tests.forked import run_relaygw

PASSWORD = "cAnary+password/8e2b1=&x"
WRONG = "cAnary+wrong/8e2b2=&x"
TOKENS = {"plain": "cAnary+plain+token/8e2b3=&x", "env": "cAnary+env+token/8e2b4=&x"}
CLOSE = {"Connection": "close"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def forms(secret: str) -> set[str]:
    """Return how a secret may show."""
    sent = (secret, *(f"{name}:{secret}" for name in ("anna", "plain", "env")))
    coded = {base64.b64encode(text.encode()).decode() for text in sent}
    return {secret, quote(secret, safe=""), *coded, *(quote(one, safe="") for one in coded)}


def ask(gateway: Gateway, method: str, path: str, **sent: Any) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.web_port, timeout=30)
    connection.request(method, path, **{**sent, "headers": sent["headers"] | CLOSE})
    return connection.getresponse()


def shown_by(answer: http.client.HTTPResponse) -> str:
    """Return all of an answer but a cookie, which is the browser's own."""
    with answer:
        lines = [f"{k}: {v}" for k, v in answer.getheaders() if k.lower() != "set-cookie"]
        return "\n".join([str(answer.status), *lines, answer.read().decode("latin-1")])


def basic(name: str, password: str) -> dict[str, str]:
    coded = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {coded}"}


def log_in(gateway: Gateway, name: str, password: str) -> http.client.HTTPResponse:
    body = urlencode({"name": name, "password": password})
    return ask(gateway, "POST", "/login", body=body, headers=FORM)


def run(gateway: Gateway, *words: str) -> str:
    argv = ["--debug", "--config", str(gateway.config), *words]
    done = run_relaygw(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def test_nothing_to_log_in_with_shows_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDEVMODE", "1")  # asyncio tells what it does
    (tmp_path / "sitecustomize.py").write_text("import logging; logging.basicConfig(level=0)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CANARY_TOKEN", TOKENS["env"])
    password_hash = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    web = {
        "bind": "127.0.0.1:0",
        "users": [{"name": "anna", "password_hash": password_hash, "role": "admin"}],
        "tokens": [
            {"name": "plain", "token": f"plain:{TOKENS['plain']}"},
            {"name": "env", "token": "env:CANARY_TOKEN"},
        ],
    }
    shown = {}
    with Gateway(tmp_path, mode="sandbox", web=web) as gateway:
        answer = log_in(gateway, "anna", PASSWORD)
        cookie = str(answer.getheader("Set-Cookie")).partition(";")[0]
        shown["login"] = shown_by(answer)
        shown["session"] = shown_by(ask(gateway, "GET", "/", headers={"Cookie": cookie}))
        shown["wrong"] = shown_by(log_in(gateway, "anna", WRONG))
        shown["swapped"] = shown_by(log_in(gateway, "x", PASSWORD))
        for name, secret in (("anna", PASSWORD), *TOKENS.items(), ("anna", WRONG)):
            for headers in (basic(name, secret), {"Authorization": f"Bearer {secret}"}):
                answer = ask(gateway, "GET", "/api/v1/messages", headers=headers)
                shown[f"{name} {secret} {headers}"] = shown_by(answer)
        shown["config"] = run(gateway, "config", "show", "--origin")
        shown["check"] = run(gateway, "check")
        shown["status"] = run(gateway, "status", "--json")
        gateway.stop()
        shown["log"] = "\n".join(gateway.lines)
    assert "login of anna from 127.0.0.1 failed" in shown["log"]
    assert "login of (unknown) from 127.0.0.1 failed" in shown["log"]
    assert "TRACE:uvicorn.asgi:" in shown["log"]
    shown |= {
        str(path): path.read_bytes().decode("latin-1")
        for path in (tmp_path / "state").rglob("*")
        if path.is_file()
    }
    secrets = {PASSWORD, WRONG, *TOKENS.values()}
    unwanted = {form for secret in secrets for form in forms(secret)}
    unwanted |= {cookie.removeprefix(f"{COOKIE}="), cookie.partition("=")[2].partition(".")[0]}
    unwanted.add(password_hash)
    found = {where: form for where, text in shown.items() for form in unwanted if form in text}
    assert found == {}
