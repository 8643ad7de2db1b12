"""Own rows of the reply catalogue: those that would break a promise are refused, in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relaygw.settings.load import LoadedSettings

KEY = "relaygw.yaml:2: providers.main.replies.0"

REFUSED = [
    ("{verdict: hold}", f"{KEY}: matches every reply; add a code, a status or a text"),
    ("{stages: [auth], verdict: hold}", f"{KEY}: matches every reply; add a code"),
    ("{code: 5xx, verdict: hold}", f'{KEY}.code: 5xx matches no reply code; write e.g. "421"'),
    ('{code: "2..", stages: [content], verdict: retry}', f"{KEY}.code: 2.. matches 200, but only"),
    ('{code: ".*", verdict: hold}', f"{KEY}.code: .* matches 200, but only 4xx and 5xx are"),
    ('{code: "254", verdict: bounce, text: x}', f"{KEY}.code: 254 matches 254, but only 4xx"),
    ('{code: "254", stages: [rcpt], verdict: bounce}', f"{KEY}.code: 254 matches 254, but"),
    ('{code: "2..", stages: [rcpt], verdict: bounce, text: x}', f"{KEY}.code: 2.. matches 200"),
    ('{code: "[25]54", stages: [rcpt], verdict: bounce, text: x}', f"{KEY}.code: [25]54 matches"),
    ('{code: "354", verdict: retry}', f"{KEY}.code: 354 matches 354"),
    ('{code: "4..", verdict: bounce}', f"{KEY}.code: 4.. matches 400, but only 5xx bounces"),
    ('{code: "[45]..", verdict: bounce}', f"{KEY}.code: [45].. matches 400, but only 5xx"),
    (
        '{code: "535", stages: [mail, auth], verdict: bounce}',
        f"{KEY}.verdict: bounce cannot be at stage auth: a refusal before MAIL says nothing about",
    ),
    (
        "{text: x, verdict: throttle, scope: recipient}",
        f"{KEY}.scope: recipient cannot be combined with throttle; write credential or provider",
    ),
    (
        "{text: x, verdict: bounce, scope: provider}",
        f"{KEY}.scope: provider cannot be combined with",
    ),
    (
        "{text: x, stages: [auth], verdict: hold, scope: sender domain}",
        f"{KEY}.scope: sender domain cannot be at stage auth, where the message is not known",
    ),
    (
        "{text: x, verdict: hold, limit: rate}",
        f"{KEY}.limit: cannot be combined with hold; remove it",
    ),
    (
        "{text: x, verdict: bounce, wait: [1m]}",
        f"{KEY}.wait: cannot be combined with bounce, which is",
    ),
    ("{text: x, verdict: retry, wait: [0s]}", f'{KEY}.wait.0: "0s" must be longer than 0s'),
    ('{text: "(", verdict: hold}', f'{KEY}.text: "(" is not a regular expression'),
]


def config(row: str) -> str:
    return f"mode: sandbox\nproviders: {{main: {{host: a.test, replies: [{row}]}}}}\n"


@pytest.mark.parametrize(("row", "line"), REFUSED, ids=[row for row, _ in REFUSED])
def test_a_row_that_breaks_a_promise(
    lines_of: Callable[..., list[str]], row: str, line: str
) -> None:
    (found,) = lines_of(config(row))
    assert found.startswith(line)


@pytest.mark.parametrize(
    "row",
    [
        '{code: "5..", verdict: bounce}',
        "{text: x, verdict: bounce}",
        '{code: "421|45.", verdict: throttle, limit: connections, wait: [5s, 1m]}',
        "{status: '5\\.7\\..*', stages: [mail], verdict: hold, scope: sender domain, wait: [1h]}",
        '{code: "535", stages: [auth], verdict: retry, scope: credential}',
    ],
)
def test_a_row_that_is_right(load: Callable[..., LoadedSettings], row: str) -> None:
    assert len(load(config(row)).settings.providers["main"].replies) == 1
