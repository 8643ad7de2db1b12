"""The web pages behind nginx with TLS, by the very lines of docs/security.md."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import argon2
import httpx2
import pytest
import yaml

from relaygw.web.gate.credentials import COOKIE, csrf_token, token_of
from tests.e2e.doors import Pair, make_pair
from tests.e2e.gateway import PATIENCE_S, Gateway
from tests.e2e.ports import free_port

PAGE = (Path(__file__).parents[2] / "docs/security.md").read_text()
[LOCATION] = re.findall(r"```nginx\n(location .+?)```", PAGE, re.S)
[MAP] = re.findall(r"`(map \$http_upgrade .+?)` in `http`", PAGE)
[WEB] = re.findall(r"```yaml\n(web:\n  bind: .+?)```", PAGE, re.S)
PASSWORD = "anna's password"
NAME = "shop.example.com"


@contextmanager
def nginx(directory: Path, pair: Pair, web_port: int) -> Iterator[int]:
    """Run nginx in front of `web_port`; yield its own port."""
    own = free_port()
    config = directory / "nginx.conf"
    paths = "".join(
        f"{kind}_temp_path {directory}/nginx-{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    location = LOCATION.replace("127.0.0.1:8025", f"127.0.0.1:{web_port}")
    config.write_text(
        f"daemon off;\nmaster_process off;\npid {directory}/nginx.pid;\nerror_log stderr;\n"
        f"events {{}}\nhttp {{\n{paths}access_log off;\n{MAP}\n"
        f"server {{\nlisten 127.0.0.1:{own} ssl;\n"
        f"ssl_certificate {pair.cert};\nssl_certificate_key {pair.key};\n{location}}}\n}}\n"
    )
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    assert program is not None, "run tests/system-packages.sh"
    checked = subprocess.run([program, "-t", "-q", "-c", str(config)], check=False, timeout=30)
    assert checked.returncode == 0
    process = subprocess.Popen([program, "-c", str(config)], cwd=directory)
    try:
        yield own
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def browser(pair: Pair, port: int, *, address: str = "127.0.0.1") -> Iterator[httpx2.Client]:
    """Yield a client that comes from `address` and asks for the shop's name."""
    context = ssl.create_default_context(cafile=str(pair.ca))
    transport = httpx2.HTTPTransport(verify=context, local_address=address, retries=20)
    with httpx2.Client(
        transport=transport,
        base_url=f"https://127.0.0.1:{port}",
        headers={"Host": f"{NAME}:{port}", "Origin": f"https://{NAME}:{port}"},
        timeout=PATIENCE_S,
    ) as client:
        yield client


def log_in(client: httpx2.Client, password: str = PASSWORD, **headers: str) -> httpx2.Response:
    fields = {"name": "anna", "password": password, "next": "/mail/sandbox"}
    return client.post("/mail/login", data=fields, headers=headers)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Pair, int]]:
    """A sandbox as the page has it, nginx in front; returns nginx's certificate and port."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    anna = {"name": "anna", "password_hash": hasher.hash(PASSWORD), "role": "admin"}
    web = {**yaml.safe_load(WEB)["web"], "bind": "127.0.0.1:0", "users": [anna]}
    pair = make_pair(tmp_path, NAME, "127.0.0.1")
    with (
        Gateway(tmp_path, mode="sandbox", web=web) as gateway,
        nginx(tmp_path, pair, gateway.web_port) as port,
    ):
        yield pair, port


def test_people_log_in_and_change_things(shop: tuple[Pair, int]) -> None:
    pair, port = shop
    with browser(pair, port) as client:
        answer = client.get("/mail/sandbox?q=x")
        assert answer.headers["location"] == "/mail/login?next=/mail/sandbox%3Fq%3Dx"
        answer = log_in(client)
        assert (answer.status_code, answer.headers["location"]) == (303, "/mail/sandbox")
        assert re.search(
            "; HttpOnly; Path=/mail; SameSite=strict; Secure$", answer.headers["set-cookie"]
        )
        assert client.get("/mail/api/v1/messages").status_code == 200
        csrf = {"X-CSRF-Token": csrf_token(token_of(client.cookies[COOKIE]), "anna")}
        assert client.post("/mail/api/nothing", headers=csrf).status_code == 404
        assert client.post("/mail/api/nothing").status_code == 403
        for origin in (f"http://{NAME}:{port}", f"https://{NAME}", f"https://evil.test:{port}"):
            answer = client.post("/mail/api/nothing", headers={**csrf, "Origin": origin})
            assert (answer.status_code, answer.text[:17]) == (403, "this was sent by ")


def test_guesses_lock_the_guesser_alone(shop: tuple[Pair, int]) -> None:
    """nginx hands on what the client says of itself; only nginx's own word counts."""
    pair, port = shop
    with browser(pair, port, address="127.0.0.66") as guesser:
        for number in range(10):
            made_up = {"X-Forwarded-For": f"198.51.100.{number}"}
            assert log_in(guesser, "wrong", **made_up).status_code == 403
        assert log_in(guesser, **{"X-Forwarded-For": "127.0.0.67"}).status_code == 429
    with browser(pair, port, address="127.0.0.67") as client:
        assert log_in(client).status_code == 303
