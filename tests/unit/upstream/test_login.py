"""No form of a secret that a provider may have seen gets into a text."""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus

import pytest

from relaygw.upstream.credentials import Login, Mask
from tests.tables import each_of

SECRET = "cAnary p@ss+wörd/7f3a=&x"


def masked(text: str, login: Login) -> str:
    return Mask(login)(text)


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


@each_of("form", FORMS)
def test_every_form_is_masked(form: str) -> None:
    login = Login(username="shop", secret=SECRET)
    text = masked(f"501 cannot parse AUTH {form} here, {form}", login)
    assert text == "501 cannot parse AUTH *** here, ***"


@each_of("form", [form for form in FORMS if " " not in form])
def test_a_part_of_it_is_masked(form: str) -> None:
    login = Login(username="shop", secret=SECRET)
    text = masked(f"501 cannot parse AUTH {form[:-8]}... here", login)
    assert text == "501 cannot parse AUTH *** here"


def test_other_words_stay() -> None:
    login = Login(username="shop", secret="hunter2")
    said = "535 5.7.8 shop: Username and Password not accepted"
    assert masked(said, login) == said


@pytest.mark.parametrize("secret", ["x", "limit", "admin", "12345"])
def test_a_short_one_is_no_secret_and_takes_nothing_out_of_words(secret: str) -> None:
    said = f"452 x limit exceeded, admin: {secret} limits 12345 bytes"
    assert masked(said, Login(username="shop", secret=secret)) == said


@pytest.mark.parametrize("secret", ["exceed", "hunter2", "sending", "se-ret_x", "=secret="])
def test_a_usual_one_is_masked_as_a_whole_word_only(secret: str) -> None:
    login = Login(username="shop", secret=secret)
    for said in (f"not {secret}!", f"key={secret};", f"'{secret}'", f"_{secret}_", f"at {secret}"):
        assert masked(said, login) == said.replace(secret, "***")
    if secret[0].isalnum():
        for said in (f"x{secret}", f"{secret}ed", f"x{secret}y"):
            assert masked(said, login) == said


def test_a_long_one_is_masked_wherever_it_stands() -> None:
    login = Login(username="shop", secret="SG.a1b2c3d4e5f6")
    assert masked("xSG.a1b2c3d4e5f6y", login) == "x***y"


def test_what_a_short_one_was_sent_as_is_masked() -> None:
    login = Login(username="shop", secret="x")
    said = f"501 cannot decode {b64(f'{chr(0)}shop{chr(0)}x')}"
    assert masked(said, login) == "501 cannot decode ***"
