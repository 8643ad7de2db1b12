"""The strictest mode holds, and what is not configured any more never loosens it."""

from __future__ import annotations

import itertools

import pytest

from relaygw.policy.recipients import Fate, Modes, RecipientPolicy, strictest
from relaygw.policy.router import Explainer, Router
from relaygw.settings.addresses import Recipients
from relaygw.settings.model import Settings
from relaygw.settings.routes import Route
from relaygw.settings.section import Mode

HASH = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$4m7RPnoLSPPNPLEvyQ4hSA"


def settings(everywhere: str = "production") -> Settings:
    return Settings.model_validate(
        {
            "mode": everywhere,
            "listeners": [
                {"bind": "127.0.0.1:25"},
                {"bind": "127.0.0.1:26", "mode": "staging"},
                {"bind": "127.0.0.1:0", "mode": "sandbox"},
                {"bind": "127.0.0.1:0"},
            ],
            "users": [
                {"name": "live", "password_hash": HASH},
                {"name": "test", "password_hash": HASH, "mode": "staging"},
            ],
            "providers": {"main": {"host": "smtp.example.com"}},
            "routes": [{"name": "default", "providers": ["main"]}],
        }
    )


@pytest.mark.parametrize(
    ("recipient", "listener", "decision", "route"),
    [
        ("b@x.test", None, "sent", "default"),
        ("b@x.test", "127.0.0.1:0", "captured, 250 to the client: sandbox mode", None),
    ],
)
def test_the_way_of_mail_is_told_with_its_reason(
    recipient: str, listener: str | None, decision: str, route: str | None
) -> None:
    explainer = Explainer(settings())
    way = explainer.way(sender="a@x.test", recipient=recipient, headers={}, listener=listener)
    assert (way.decision, way.route_name) == (decision, route)


@pytest.mark.parametrize(
    ("listener", "user", "mode"),
    [
        (None, None, "production"),
        ("127.0.0.1:25", None, "production"),
        ("127.0.0.1:25", "live", "production"),
        ("127.0.0.1:26", "live", "staging"),
        ("127.0.0.1:25", "test", "staging"),
        ("127.0.0.1:26", "test", "staging"),
        ("127.0.0.1:0", "live", "sandbox"),  # two of one name: the stricter
    ],
)
def test_the_strictest_holds(listener: str | None, user: str | None, mode: str) -> None:
    assert Modes(settings()).of(listener, user) == mode
    # what held when it was accepted does not count while both are configured
    assert Modes(settings()).of(listener, user, accepted_in=Mode.SANDBOX) == mode


@pytest.mark.parametrize(("listener", "user"), [("127.0.0.1:99", None), (None, "gone")])
def test_what_is_gone_leaves_the_mode_of_acceptance(listener: str | None, user: str | None) -> None:
    modes = Modes(settings())
    assert modes.of(listener, user, accepted_in=Mode.STAGING) is Mode.STAGING
    assert modes.of(listener, user, accepted_in=Mode.PRODUCTION) is Mode.PRODUCTION


def test_nothing_is_looser_than_any_part() -> None:
    for parts in itertools.product(Mode, repeat=3):
        assert all(strictest(*parts).strictness >= part.strictness for part in parts)


def test_a_stricter_mode_is_looked_at_in_both_decisions() -> None:
    policy = RecipientPolicy(Mode.PRODUCTION, Recipients(allow=("dev@agency.test",)))
    assert policy.decide("b@cust.test").fate is Fate.DELIVER
    assert policy.decide("b@cust.test", Mode.STAGING).fate is Fate.CAPTURE
    assert policy.decide("dev@agency.test", Mode.STAGING).fate is Fate.DELIVER
    assert policy.decide("dev@agency.test", Mode.SANDBOX).fate is Fate.CAPTURE
    assert policy.obstacle_in(Mode.PRODUCTION, "b@cust.test") is None
    assert policy.obstacle_in(Mode.STAGING, "b@cust.test") == "mode"
    assert policy.obstacle_in(Mode.STAGING, "dev@agency.test") is None
    assert policy.obstacle_in(Mode.SANDBOX, "dev@agency.test") == "mode"


def test_a_looser_one_changes_nothing() -> None:
    policy = RecipientPolicy(Mode.SANDBOX, Recipients(allow=("dev@agency.test",)))
    assert policy.decide("dev@agency.test", Mode.PRODUCTION).fate is Fate.CAPTURE
    now = Modes(Settings.model_validate({"mode": "sandbox"}))
    assert now.of(None, None, accepted_in=Mode.PRODUCTION) is Mode.SANDBOX


def test_routes_by_listener_and_user() -> None:
    def route(name: str, **conditions: object) -> Route:
        return Route.model_validate({"name": name, "providers": ["p"], **conditions})

    router = Router(
        (
            route("both", listener=["127.0.0.1:25"], user=["a"]),
            route("listener", listener=["127.0.0.1:25", "[::1]:25"]),
            route("user", user=["a", "b"]),
            route("default"),
        )
    )

    def found(listener: str | None, user: str | None) -> str:
        chosen = router.route_for(
            sender="s@x.test", recipient="r@y.test", headers={}, listener=listener, user=user
        )
        assert chosen is not None
        return chosen.name

    assert found("127.0.0.1:25", "a") == "both"
    assert found("127.0.0.1:25", None) == "listener"
    assert found("[::1]:25", "a") == "listener"
    assert found("127.0.0.1:26", "b") == "user"
    assert found(None, "c") == "default"
    assert found(None, None) == "default"
