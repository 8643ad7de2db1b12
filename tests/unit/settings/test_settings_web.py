"""The section web: who may see captured mail, told at the line that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relaygw.settings.load import load_settings, origin_lines

Fail = Callable[..., list[str]]
SANDBOX = "mode: sandbox\n"
RELAY = (
    "mode: production\nproviders: {main: {host: a.test}}\n"
    "routes: [{name: default, providers: [main]}]\n"
)
HASH = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$qaWmiEvqxJUTQKBMbvDRaQ"
ANNA = f'{{name: anna, password_hash: "{HASH}"}}'
CI = "{name: ci, token: 'env:MAIL_TEST_TOKEN'}"

LINES = [
    (
        SANDBOX + f"web: {{open: true, users: [{ANNA}]}}\n",
        "relaygw.yaml:2: web.open: lets everyone in, but there are web.users or web.tokens; "
        "remove one of the two",
    ),
    (
        SANDBOX + f"web: {{open: true, tokens: [{CI}]}}\n",
        "relaygw.yaml:2: web.open: lets everyone in, but there are web.users or web.tokens; "
        "remove one of the two",
    ),
    (
        RELAY + f"web: {{open: true, users: [{ANNA}]}}\n",
        "relaygw.yaml:4: web.open: shows captured mail to everyone in mode production; only mode "
        "sandbox may, remove it",
    ),
    (
        SANDBOX + f'web:\n  users:\n    - {ANNA}\n    - {{name: Anna, password_hash: "{HASH}"}}\n',
        'relaygw.yaml:5: web.users.1.name: "Anna" is the name of an earlier user or token; '
        "choose another",
    ),
    (
        SANDBOX + f"web:\n  users: [{ANNA}]\n  tokens: [{{name: anna, token: 'env:X'}}]\n",
        'relaygw.yaml:4: web.tokens.0.name: "anna" is the name of an earlier user or token; '
        "choose another",
    ),
    (
        SANDBOX + f'web: {{users: [{{name: a, password_hash: "{HASH}", role: root}}]}}\n',
        'relaygw.yaml:2: web.users.0.role: "root" is not one of viewer, operator, admin',
    ),
    (
        SANDBOX + "web: {users: [{name: anna, password_hash: hunter2}]}\n",
        "relaygw.yaml:2: web.users.0.password_hash: the value (not shown) is not an argon2 hash; "
        "write what `relaygw users hash` prints, in quotes",
    ),
    (
        SANDBOX + "web: {tokens: [{name: ci, token: hunter2}]}\n",
        "relaygw.yaml:2: web.tokens.0.token: the value (not shown) is not a secret reference; "
        "write env:NAME, file:PATH, credential:NAME, command:ARGV or plain:VALUE",
    ),
    (
        SANDBOX + "web: {proxies: [0.0.0.0/0]}\n",
        "relaygw.yaml:2: web.proxies.0: 0.0.0.0/0 trusts everyone to name the client; list only "
        "your reverse proxies",
    ),
    (
        SANDBOX + "web: {networks: [10.0.0.0/8, 0.0.0.0/0]}\n",
        "relaygw.yaml:2: web.networks.1: 0.0.0.0/0 is everybody; list the networks of those who "
        "use the pages and the API, or remove web.networks",
    ),
    (
        SANDBOX + "web: {networks: [10.0.0.0/33]}\n",
        'relaygw.yaml:2: web.networks.0: "10.0.0.0/33" is not a network; write e.g. 10.0.0.0/8',
    ),
]


@pytest.mark.parametrize(("text", "line"), LINES, ids=[line[13:60] for _, line in LINES])
def test_a_broken_section_gets_one_line(lines_of: Fail, text: str, line: str) -> None:
    assert lines_of(text) == [line]


@pytest.mark.parametrize(
    "path", ["mail", "/mail?x", "/ma il", "//evil.test", "/a//b", "/../x", "/a/.", "/ü", "/a%2f"]
)
def test_what_is_no_base_path(lines_of: Fail, path: str) -> None:
    [line] = lines_of(SANDBOX + f"web: {{base_path: '{path}'}}\n")
    assert "web.base_path" in line
    assert line.endswith("is not a path; write e.g. /mail, with letters, digits and - _ . ~ only")


@pytest.mark.parametrize(
    ("written", "base_path"),
    [("/", "/"), ("/mail", "/mail"), ("/mail/", "/mail"), ("/a/b-c_d.e~f", "/a/b-c_d.e~f")],
)
def test_base_paths(tmp_path: Path, written: str, base_path: str) -> None:
    file = tmp_path / "relaygw.yaml"
    file.write_text(SANDBOX + f"web: {{base_path: {written}}}\n")
    assert load_settings(config=file, environ={}).settings.web.base_path == base_path


@pytest.mark.parametrize("who", [f"users: [{ANNA}]", f"tokens: [{CI}]"])
@pytest.mark.parametrize("mode", [SANDBOX, RELAY])
def test_with_logins_any_address_will_do(tmp_path: Path, mode: str, who: str) -> None:
    file = tmp_path / "relaygw.yaml"
    file.write_text(mode + f"web: {{bind: '0.0.0.0:8025', {who}}}\n")
    web = load_settings(config=file, environ={}).settings.web
    assert web.has_logins
    assert {entry.role for entry in (*web.users, *web.tokens)} == {"viewer"}


def test_a_token_in_a_file_that_all_may_read_is_refused(lines_of: Fail, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("x" * 20)
    secret.chmod(0o644)
    [line] = lines_of(SANDBOX + f"web: {{tokens: [{{name: ci, token: 'file:{secret}'}}]}}\n")
    assert line.startswith("relaygw.yaml:2: web.tokens.0.token: ")
    assert "chmod" in line


def test_no_secret_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "relaygw.yaml"
    file.write_text(
        SANDBOX + f"web:\n  users: [{ANNA}]\n"
        "  tokens: [{name: ci, token: 'plain:a-token-of-20-letters'}]\n"
    )
    file.chmod(0o600)
    loaded = load_settings(config=file, environ={})
    shown = "\n".join(" ".join(line) for line in origin_lines(loaded)) + repr(loaded.settings.web)
    assert "20-letters" not in shown
    assert HASH not in "\n".join(" ".join(line) for line in origin_lines(loaded))
