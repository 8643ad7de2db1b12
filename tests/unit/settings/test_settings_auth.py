"""What the keys for logging in must agree on, told with file, line, key and remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relaygw.settings.provider import Provider
from tests.unit.settings.conftest import Load

OAUTH = "oauth: {token_url: 'https://t.test/x', client_id: app, client_secret: env:C}"
WHERE = "relaygw.yaml:2: providers.p"


def text(keys: str) -> str:
    return f"mode: sandbox\nproviders: {{p: {{host: a.test, {keys}}}}}\n"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("username: u, auth: xoauth2", ".auth: xoauth2 needs a token source"),
        (f"{OAUTH}", ".oauth: has no username; add the mailbox"),
        (f"{OAUTH}, username: u, auth: plain", ".oauth: has no effect with auth: plain"),
        (
            f"{OAUTH}, username: u, tls: none",
            ".tls: none would send the access token to a.test in clear text",
        ),
        (
            "username: u, oauth: {token_url: 'https://t.test/x', client_id: app}",
            ".oauth: has neither client_secret, certificate nor refresh_token",
        ),
        (
            f"username: u, {OAUTH[:-1]}, certificate: /a.pem, key: 'file:/a.key'}}",
            ".oauth.certificate: cannot be combined with client_secret; remove one of them",
        ),
        (
            "username: u, oauth: {token_url: 'https://t.test/x', client_id: app, certificate: a}",
            ".oauth.certificate: has no key; add a reference to its private key",
        ),
        (
            f"username: u, {OAUTH[:-1]}, key: 'file:/a.key'}}",
            ".oauth.key: has no certificate; add the PEM file",
        ),
        ("username: u", ".username: has no password; set both or neither"),
        ("password: env:P", ".password: has no username; set both or neither"),
    ],
)
def test_what_does_not_fit_together(
    lines_of: Callable[..., list[str]], keys: str, line: str
) -> None:
    (found,) = lines_of(text(keys))
    assert found.startswith(WHERE + line)


@pytest.mark.parametrize(
    "url",
    [
        "http://t.test/x",
        "ftp://t.test/x",
        "t.test/x",
        "https://",
        "https:///x",
        "https://u:p@t.test/x",
        "https://t.test:99999/x",
        "https://t.test/a b",
        "https://t.test/x#part",
        "",
    ],
)
def test_a_token_url_that_is_none(lines_of: Callable[..., list[str]], url: str) -> None:
    keys = f"username: u, oauth: {{token_url: '{url}', client_id: a, client_secret: env:C}}"
    (found,) = lines_of(text(keys))
    assert "providers.p.oauth.token_url" in found
    assert "is not an https URL; write e.g. https://oauth2.googleapis.com/token" in found


@pytest.mark.parametrize("key", ["client_id", "client_secret", "refresh_token"])
def test_what_may_be_a_secret_in_a_wrong_place_is_not_shown(
    lines_of: Callable[..., list[str]], key: str
) -> None:
    value = "[hunter2-canary]" if key == "client_id" else "hunter2-canary"
    keys = {"token_url": "'https://t.test/x'", "client_id": "a", "client_secret": "env:C"}
    oauth = ", ".join(f"{name}: {text}" for name, text in {**keys, key: value}.items())
    (found,) = lines_of(text(f"username: u, oauth: {{{oauth}}}"))
    assert f"oauth.{key}" in found
    assert "hunter2-canary" not in found


@pytest.mark.parametrize(
    "url", ["https://t.test/x?tenant=1", "http://127.0.0.1:8080/t", "http://localhost/t"]
)
def test_a_token_url_that_is_taken(load: Load, url: str) -> None:
    keys = f"username: u, oauth: {{token_url: '{url}', client_id: a, client_secret: env:C}}"
    provider = load(text(keys)).settings.providers["p"]
    assert provider.uses_xoauth2
    assert provider.has_credentials


def test_a_password_beside_oauth_is_not_used() -> None:
    keys = {"host": "a.test", "username": "u", "password": "env:P"}
    assert not Provider.model_validate(keys).uses_xoauth2
    oauth = {"token_url": "https://t.test/x", "client_id": "a", "refresh_token": "env:R"}
    for auth in ("auto", "xoauth2"):
        assert Provider.model_validate({**keys, "oauth": oauth, "auth": auth}).uses_xoauth2
