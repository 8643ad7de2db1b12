"""No form of a secret that a provider may have seen gets into a text."""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus

import pytest

from relaygw.upstream.login import Login, masked

SECRET = "cAnary p@ss+wörd/7f3a=&x"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS = [
    SECRET,
    b64(SECRET),
    b64(SECRET).rstrip("="),
    base64.urlsafe_b64encode(SECRET.encode()).decode(),
    b64(f"\0shop\0{SECRET}"),
    b64(f"user=shop\1auth=Bearer {SECRET}\1\1"),
    quote(SECRET),
    quote(SECRET, safe=""),
    quote_plus(SECRET),
    quote(b64(f"\0shop\0{SECRET}"), safe=""),
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_masked(form: str) -> None:
    login = Login(username="shop", secret=SECRET)
    text = masked(f"501 cannot parse AUTH {form} here, {form}", login)
    assert text == "501 cannot parse AUTH *** here, ***"


@pytest.mark.parametrize("form", [form for form in FORMS if " " not in form])
def test_a_part_of_it_is_masked(form: str) -> None:
    login = Login(username="shop", secret=SECRET)
    text = masked(f"501 cannot parse AUTH {form[:-8]}... here", login)
    assert text == "501 cannot parse AUTH *** here"


def test_other_words_stay() -> None:
    login = Login(username="shop", secret="hunter2")
    said = "535 5.7.8 shop: Username and Password not accepted"
    assert masked(said, login) == said
