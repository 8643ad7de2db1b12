"""Subjects that a program writes alike have one template, and others have another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.subject_template import MAX_TEMPLATE, subject_template
from tests.tables import each_of

ALIKE = {
    "number": ("Your order #100000123", "Your order #100000124", "Your order # W-2026-7"),
    "hex": (
        "Reset 9f8e7d6c5b4a",
        "Reset deadbeefcafe",
        "Reset deadbeef",
        "Reset 550e8400-e29b-41d4-a716-446655440000",
    ),
    "salutation": (
        "Hello Anna, your cart",
        "Hello Peter Müller, your cart",
        "Hello bob, your cart",
    ),
    "comma": ("Hello, Anna your cart", "Hello, Bob your cart"),
    "title": ("Dear Mr. Smith, news", "Dear Mrs. Dr. Jones, news"),
    "German": ("Sehr geehrte Frau Meier, Ihr Konto", "Sehr geehrte Frau Öztürk, Ihr Konto"),
    "at the begin": ("Anna, your cart waits", "Bob, your cart waits", "Ann Lee, your cart waits"),
    "at the end": ("Your cart waits, Anna!", "Your cart waits, Bob!"),
    "from": ("New message from Anna Schmidt", "New message from Bo Li"),
    "quotes": ('Review of "Red shoes"', 'Review of "Hat"', "Review of „Grüner Hut“"),
    "address": ("Login of anna@shop.test", "Login of b.c@other.example"),
    "date": ("Invoice for October 2026", "Invoice for May 2026"),
    "price": ("Sale: 20% off until 5 pm", "Sale: 30% off until 11 pm"),
    "money": ("Total $1,234.56 paid", "Total $12.50 paid", "Total $9 paid"),
    "spaces": ("Order  12   is sent", "Order 13 is sent"),
    "no spaces": ("ご注文123ありがとう", "ご注文4567ありがとう"),
}


@each_of("subjects", ALIKE.values(), ids=ALIKE)
def test_what_changes_from_mail_to_mail_is_folded(subjects: tuple[str, ...]) -> None:
    assert len({subject_template(one) for one in subjects}) == 1, [*map(subject_template, subjects)]


def test_only_what_begins_a_subject_is_a_name_that_is_spoken_to() -> None:
    assert subject_template("Ann Lee, your cart") == subject_template("Bob, your cart")
    assert subject_template("your Order, thanks") == "your Order, thanks"
    assert subject_template("Ann, Order, thanks") != subject_template("Ann, Basket, thanks")


def test_what_programs_mean_differently_stays_apart() -> None:
    subjects = [
        *("Your order # 12", "Your invoice # 12", "Your shipment # 12", "Welcome to Main Store"),
        *("Passwort zurücksetzen", "Bestellbestätigung 12", "Versandbestätigung 12", ""),
        *("Hello! Orders wait", "Hello! Baskets wait"),
        *("Buy cheap pills now", "You won the lottery", "ご注文123ありがとう", "発送123しました"),
    ]
    assert len({subject_template(one) for one in subjects}) == len(subjects)


@pytest.mark.parametrize("subject", ["x" * 1000, "a " * 900, "1 " * 900, '"' * 500, "@" * 500])
def test_length_is_bounded(subject: str) -> None:
    assert len(subject_template(subject)) <= MAX_TEMPLATE


@given(st.text(max_size=400))
def test_any_text_has_a_template(subject: str) -> None:
    template = subject_template(subject)
    assert len(template) <= MAX_TEMPLATE
    assert subject_template(subject) == template
