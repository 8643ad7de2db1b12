"""Routes and address rewriting."""

from __future__ import annotations

import pytest

from relaygw.policy.router import Rewriter, Router
from relaygw.settings.addresses import Rewrite
from relaygw.settings.routes import Route
from tests.tables import each_of

ROUTES = (
    Route(name="news", sender=("news@shop.test",), providers=("p",)),
    Route(name="promo", sender=("@promo.test", ".wide.test"), providers=("p",)),
    Route(name="gmail", recipient=("@gmail.test",), providers=("p",)),
    Route(name="campaign", header={"X-Campaign": "summer*"}, providers=("p",)),
    Route(name="default", providers=("p",)),
)


@each_of(
    ("sender", "recipient", "headers", "route"),
    [
        ("news@shop.test", "a@b.test", {}, "news"),
        ("NEWS@Shop.Test", "a@b.test", {}, "news"),
        ("orders@shop.test", "a@b.test", {}, "default"),
        ("x@promo.test", "a@b.test", {}, "promo"),
        ("x@sub.promo.test", "a@b.test", {}, "default"),
        ("x@a.wide.test", "a@b.test", {}, "promo"),
        ("x@wide.test", "a@b.test", {}, "promo"),
        ("x@notwide.test", "a@b.test", {}, "default"),
        ("x@shop.test", "a@gmail.test", {}, "gmail"),
        ("x@shop.test", "a@b.test", {"x-campaign": "Summer-26"}, "campaign"),
        ("x@shop.test", "a@b.test", {"x-campaign": "winter"}, "default"),
        ("", "a@b.test", {}, "default"),
    ],
)
def test_the_first_match_wins(
    sender: str, recipient: str, headers: dict[str, str], route: str
) -> None:
    found = Router(ROUTES).route_for(sender=sender, recipient=recipient, headers=headers)
    assert found is not None
    assert found.name == route


def test_without_a_matching_route_there_is_none() -> None:
    assert Router(ROUTES[:1]).route_for(sender="x@y.test", recipient="a@b.test", headers={}) is None


REWRITER = Rewriter(
    Rewrite(
        default_domain="example.com",
        senders={"www-data@web1": "shop@example.com", "@web1.internal": "noreply@example.com"},
        recipients={"root": "ops@example.com"},
    ),
    "gw.test",
)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("www-data@web1", "shop@example.com"),
        ("cron@web1.internal", "noreply@example.com"),
        ("www-data", "www-data@example.com"),
        ("a@other.test", "a@other.test"),
        ("", ""),
    ],
)
def test_senders(given: str, used: str) -> None:
    assert REWRITER.sender(given) == used


def test_recipients() -> None:
    assert REWRITER.recipient("root") == "ops@example.com"
    assert REWRITER.recipient("someone") == "someone@example.com"
    assert Rewriter(Rewrite(), "gw.test").recipient("someone") == "someone"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("www-data", "www-data@example.com"),
        ('"Shop, Team" <www-data>', '"Shop, Team" <www-data@example.com>'),
        ("<bob>", "<bob@example.com>"),
        ("a@b.test", "a@b.test"),
        ("www-data <a@b.test>", "www-data <a@b.test>"),
        ("Bob Smith", "Bob Smith"),
        ("", ""),
    ],
)
def test_a_from_field_without_a_domain(given: str, used: str) -> None:
    block = f"To: x\r\nFrom: {given}\r\nSubject: y\r\n"
    changed = f"To: x\r\nFrom: {used}\r\nSubject: y\r\n"
    assert REWRITER.whole_from(block.encode()) == changed.encode()


@pytest.mark.parametrize("words", [999, 1000, 1001, 5000])
def test_headers_are_rewritten_behind_any_number_of_words(words: int) -> None:
    field = b"From: " + b"a@ <" * words + b" www-data@web1>\r\n"
    assert REWRITER.headers(field) == field.replace(b"www-data@web1", b"shop@example.com")


def test_headers_change_only_the_address() -> None:
    block = (
        b'From: "Shop www-data@web1 team" <www-data@web1>\r\n'
        b"To: a@b.test,\r\n <root>\r\nSubject: www-data@web1\r\n"
    )
    changed = REWRITER.headers(block)
    assert b"<shop@example.com>" in changed
    assert b"<ops@example.com>" in changed
    assert b"Subject: www-data@web1" in changed
