"""providers.NAME.idempotency: by the preset, off, or a field of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relaygw.policy.retry import doubt_waits
from relaygw.settings.idempotency import KeyHeader
from relaygw.settings.presets import presets
from relaygw.settings.provider import Provider
from tests.unit.settings.conftest import Load

Fail = Callable[..., list[str]]

BASE = """\
mode: production
providers:
  p:
    {preset}
    password: "env:KEY"
    {line}
routes: [{{name: default, providers: [p]}}]
"""
RESEND = KeyHeader("Resend-Idempotency-Key", 86_400.0)


def text(line: str, preset: str = "preset: resend") -> str:
    return BASE.format(preset=preset, line=line)


@pytest.mark.parametrize(
    ("line", "header"),
    [
        ("port: 587", RESEND),
        ("idempotency: auto", RESEND),
        ("idempotency: ~", RESEND),
        ("idempotency: off", None),
        ('idempotency: "off"', None),
        ("idempotency: {header: X-Key, life: 2h}", KeyHeader("X-Key", 7200.0)),
    ],
)
def test_where_the_key_goes(load: Load, line: str, header: KeyHeader | None) -> None:
    provider = load(text(line)).settings.providers["p"]
    assert provider.key_header == header
    assert provider.recipients_at_once == (1 if header else 100)
    assert provider.rate_is_of == ("recipients" if header else "messages")


def test_only_resend_takes_one_over_smtp() -> None:
    assert [name for name, one in presets().items() if one.idempotency] == ["resend"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("idempotency: on", "is not an idempotency key; write auto, off, or e.g. {header:"),
        ("idempotency: 24h", '"24h" is not an idempotency key'),
        ("idempotency: []", "a list is not an idempotency key"),
        ("idempotency: {header: X-Key}", "life is missing"),
        ("idempotency: {header: X-Key, life: 24h, x: 1}", "x is not a key of it"),
        ("idempotency: {header: 'X Key', life: 24h}", "is no header name"),
        ("idempotency: {header: Subject, life: 24h}", "means something else"),
        ("idempotency: {header: Content-Type, life: 24h}", "means something else"),
        ("idempotency: {header: X-Key, life: 5m}", "has a life of 5m, too short for retries"),
        ("idempotency: {header: X-Key, life: long}", "is not a duration"),
        ("headers: {resend-idempotency-key: x}", "the same idempotency key for all mail"),
        ("send_source: true", "cannot be combined with idempotency"),
    ],
)
def test_what_is_wrong_says_what_to_write(lines_of: Fail, line: str, problem: str) -> None:
    (told,) = lines_of(text(line))
    assert told.startswith("relaygw.yaml:")
    assert problem in told


def test_how_long_mail_of_a_dead_worker_waits() -> None:
    plain = {"host": "mx.test"}
    events = {"preset": "sendgrid", "events": {"secret": "env:X"}}
    key = {"idempotency": {"header": "X-Key", "life": "24h"}}
    providers = {
        name: Provider.model_validate(plain | more)
        for name, more in {"plain": {}, "key": key, "events": events, "both": events | key}.items()
    }
    assert doubt_waits(providers) == {"key": 0.0, "events": 300.0, "both": 0.0}
