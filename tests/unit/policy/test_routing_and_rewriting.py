"""Routes and address rewriting."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.policy.rewriting import Rewriter
from relaygw.policy.router import Router
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
        recipients={"root": ("ops@example.com",)},
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
    assert REWRITER.recipients("root") == ("ops@example.com",)
    assert REWRITER.recipients("someone") == ("someone@example.com",)
    assert Rewriter(Rewrite(), "gw.test").recipients("someone") == ("someone",)


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


MAPS: dict[str, Any] = {
    "senders": {
        "*": "shop@new.test",
        "@keep.test": "@keep.test",
        "@old.test": "@new.test",
        "boss@old.test": "chief@new.test",
        "<>": "bounces@new.test",
    },
    "recipients": {
        "root": ["ops@new.test", "backup@new.test", "OPS@new.test"],
        "user@old.test": "reader@new.test",
        "user+known@old.test": "known@new.test",
        "@old.test": "@new.test",
        "@one.test": "all@new.test",
        "list@old.test": ["a@new.test", "b@new.test"],
    },
    "recipient_delimiter": "+",
}


@each_of(
    ("given", "used"),
    [
        ("a@any.test", "shop@new.test"),
        ("www-data", "shop@new.test"),
        ("a@keep.test", "a@keep.test"),
        ("a+b@OLD.test", "a+b@new.test"),
        ("Boss@old.test", "chief@new.test"),
        ("boss+x@old.test", "chief+x@new.test"),
        ("", "bounces@new.test"),
    ],
)
def test_every_sender_but_those_with_an_entry(given: str, used: str) -> None:
    assert Rewriter(Rewrite.model_validate(MAPS), "gw.test").sender(given) == used


def test_star_leaves_the_null_sender_and_keeps_local_parts_of_a_domain() -> None:
    rewriter = Rewriter(Rewrite(senders={"*": "@new.test"}), "gw.test")
    assert [rewriter.sender(one) for one in ("", "a@b.test", "c")] == [
        "", "a@new.test", "c@new.test",
    ]  # fmt: skip


@each_of(
    ("given", "used"),
    [
        ("www-data@any.test", "shop@new.test"),
        ("WWW-Data@Any.Test", "shop@new.test"),
        ("www-data@old.test", "shop@new.test"),  # before the domain's entry
        ("www-data@own.test", "own@new.test"),  # after that of the address
        ("www-data", "own@new.test"),  # at the default domain
        ("www-data+x@any.test", "www-data+x@any.test"),
        ("other@old.test", "other@new.test"),
        ("*@any.test", "*@any.test"),
    ],
)
def test_a_local_part_at_any_domain(given: str, used: str) -> None:
    entries = {
        "www-data@*": "shop@new.test", "@old.test": "@new.test", "www-data@own.test": "own@new.test"
    }  # fmt: skip
    section = {"senders": entries, "recipients": entries, "recipient_delimiter": "+"}
    rewriter = Rewriter(
        Rewrite.model_validate({**section, "default_domain": "own.test"}), "gw.test"
    )
    assert (rewriter.sender(given), rewriter.recipients(given)) == (used, (used,))


def test_a_bare_sender_has_the_entry_of_its_whole_address_before_the_star() -> None:
    senders = {"*": "shop@new.test", "cron@gw.test": "cron@gw.test"}
    assert Rewriter(Rewrite(senders=senders), "gw.test").sender("cron") == "cron@gw.test"


@each_of(
    ("given", "used"),
    [
        ("root", "ops@new.test backup@new.test"),
        ("root+x", "ops+x@new.test backup+x@new.test"),
        ("user@old.test", "reader@new.test"),
        ("user+Known@old.test", "known@new.test"),
        ("user+Ext@Old.Test", "reader+Ext@new.test"),
        ("user+a+b@old.test", "reader+a+b@new.test"),
        ("list+x@old.test", "a+x@new.test b+x@new.test"),
        ("+x@old.test", "+x@new.test"),
        ("other+x@old.test", "other+x@new.test"),
        ("x+y@one.test", "all@new.test"),
        ('"a b"@old.test', '"a b"@new.test'),
        ('"root+x"@old.test', '"root+x"@new.test'),
        ("a@other.test", "a@other.test"),
    ],
)
def test_what_a_recipient_becomes(given: str, used: str) -> None:
    rewriter = Rewriter(Rewrite.model_validate(MAPS), "gw.test")
    assert " ".join(rewriter.recipients(given)) == used


def test_without_a_delimiter_an_extension_is_part_of_the_address() -> None:
    rewriter = Rewriter(Rewrite.model_validate({**MAPS, "recipient_delimiter": None}), "gw.test")
    assert rewriter.recipients("user+x@old.test") == ("user+x@new.test",)
    assert rewriter.recipients("root+x") == ("root+x",)


NAMES = (
    b'From: "Shop www-data@web1 team" <www-data@web1> (a@web1 (b@web1))\r\n'
    b"Return-Receipt-To: www-data@web1\r\nTo: a@b.test,\r\n <root>\r\nSubject: www-data@web1\r\n"
)


@each_of(
    ("header", "changed"),
    [
        ("senders", [(b"<www-data@web1>", b"<shop@example.com>")]),
        ("recipients", [(b"<root>", b"<ops@example.com>")]),
        ("", []),
    ],
)
def test_headers_change_only_the_address(header: str, changed: list[tuple[bytes, bytes]]) -> None:
    rewrite = Rewrite.model_validate(
        {
            "senders": {"www-data@web1": "shop@example.com", "a@web1": "x@example.com"},
            "recipients": {"root": "ops@example.com"},
            "header": header.split(),
        }
    )
    expected = NAMES
    for old, new in changed:
        expected = expected.replace(old, new)
    if header == "senders":
        expected = expected.replace(b"To: www-data@web1", b"To: shop@example.com")
    assert Rewriter(rewrite, "gw.test").headers(NAMES) == expected


def test_a_star_changes_every_address_of_a_sender_in_the_header() -> None:
    rewriter = Rewriter(Rewrite.model_validate(MAPS), "gw.test")
    block = b'From: "Ann (ann@any.test" <ann@any.test>\r\nReply-To: x@keep.test, y@any.test\r\n'
    assert rewriter.headers(block) == (
        b'From: "Ann (ann@any.test" <shop@new.test>\r\nReply-To: x@keep.test, shop@new.test\r\n'
    )


def test_a_recipient_that_becomes_several_stays_in_the_header() -> None:
    rewriter = Rewriter(Rewrite.model_validate({**MAPS, "header": ["recipients"]}), "gw.test")
    block = b"To: Root <root>, user@old.test\r\n"
    assert rewriter.headers(block) == b"To: Root <root>, reader@new.test\r\n"


def test_a_bare_from_is_completed_where_the_envelope_alone_is_rewritten() -> None:
    rewriter = Rewriter(Rewrite.model_validate({**MAPS, "header": []}), "gw.test")
    assert rewriter.whole_from(b"From: cron\r\n") == b"From: cron@gw.test\r\n"
