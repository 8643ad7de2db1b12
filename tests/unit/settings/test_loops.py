"""By which listeners the mail of a provider would come back to it."""

from __future__ import annotations

from typing import Any

from relaygw.settings.addresses import Bind
from relaygw.settings.loops import listening_at, looping_binds
from relaygw.settings.model import Settings
from tests.tables import each_of

INNER, OUTER = "127.0.0.1:14225", "0.0.0.0:587"
TO_OWN = {"name": "default", "providers": ["own"]}
HASH = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$qaWmiEvqxJUTQKBMbvDRaQ"


def settings(*routes: dict[str, Any], **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "listeners": [{"bind": INNER}, {"bind": OUTER, "allow": ["10.0.0.0/8"]}],
            "users": [{"name": "shop", "password_hash": HASH}],
            "providers": {
                "own": {"host": "localhost", "port": 14225, "tls": "none"},
                "real": {"host": "smtp.example.com"},
            },
            "routes": list(routes),
            **more,
        }
    )


@each_of(
    ("routes", "binds"),
    [
        ([TO_OWN], [INNER, OUTER]),
        ([{"name": "default", "providers": ["real", "own"]}], [INNER, OUTER]),
        ([{"name": "default", "providers": ["real"]}], []),
        # what comes from a provider has no user
        (
            [
                {"name": "shop", "user": ["shop"], "providers": ["own"]},
                {"name": "default", "providers": ["real"]},
            ],
            [],
        ),
        # a listener of its own leads it on
        ([{"name": "inner", "listener": [INNER], "providers": ["real"]}, TO_OWN], [OUTER]),
        (
            [
                {"name": "outer", "listener": [OUTER], "providers": ["own"]},
                {"name": "default", "providers": ["real"]},
            ],
            [OUTER],
        ),
        # some of it goes elsewhere
        ([{"name": "some", "sender": ["@a.test"], "providers": ["real"]}, TO_OWN], [INNER, OUTER]),
    ],
)
def test_the_listeners_that_lead_back(routes: list[dict[str, Any]], binds: list[str]) -> None:
    assert list(map(str, looping_binds(settings(*routes), "own"))) == binds


def test_what_is_captured_does_not_go_round() -> None:
    listeners = [{"bind": INNER, "mode": "sandbox"}, {"bind": "[::1]:25"}]
    found = looping_binds(settings(TO_OWN, listeners=listeners), "own")
    assert list(map(str, found)) == ["[::1]:25"]
    assert looping_binds(settings(TO_OWN, mode="sandbox"), "own") == ()


@each_of(
    ("host", "port", "bind"),
    [
        ("localhost", 14225, INNER),
        ("LOCALHOST", 14225, INNER),
        ("127.0.0.1", 14225, INNER),
        ("127.0.0.1", 14226, None),
        ("127.0.0.2", 14225, None),
        ("127.0.0.2", 587, OUTER),
        ("10.1.2.3", 587, OUTER),
        ("::1", 587, None),
        ("::1", 25, "[::1]:25"),
        ("localhost", 25, "[::1]:25"),
        ("fe80::1%eth0", 26, "[::]:26"),
        ("smtp.example.com", 587, None),
    ],
)
def test_who_listens_at_an_address(host: str, port: int, bind: str | None) -> None:
    binds = tuple(map(Bind.parse, (INNER, OUTER, "[::1]:25", "[::]:26")))
    found = listening_at(host, port, binds)
    assert (found and str(found)) == bind
