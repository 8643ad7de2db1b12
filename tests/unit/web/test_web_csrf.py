"""The token in a header or a form, and in nothing else."""

from __future__ import annotations

import pytest

from relaygw.web.gate.access import form_field, has_token
from relaygw.web.gate.credentials import csrf_token
from tests.tables import each_of
from tests.unit.web.heads import connection

FORM = ("content-type", "application/x-www-form-urlencoded")
TOKEN = csrf_token(b"key", "anna")


def test_a_token_is_of_one_key_and_one_name() -> None:
    assert csrf_token(b"key", "anna") == TOKEN
    assert len({TOKEN, csrf_token(b"key", "bert"), csrf_token(b"yek", "anna")}) == 3


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([("x-csrf-token", TOKEN)], b""),
        ([FORM], f"a=b&csrf={TOKEN}".encode()),
        ([("content-type", FORM[1] + "; charset=utf-8")], f"csrf={TOKEN}".encode()),
    ],
)
def test_where_it_may_stand(headers: list[tuple[str, str]], body: bytes) -> None:
    assert has_token(connection(*headers), body, TOKEN)


@each_of(
    ("headers", "body"),
    [
        ([], b""),
        ([("x-csrf-token", "")], b""),
        ([("x-csrf-token", TOKEN[:-1])], b""),
        ([("x-csrf-token", "wrong"), FORM], f"csrf={TOKEN}".encode()),
        ([("cookie", f"csrf={TOKEN}")], b""),
        ([("content-type", "text/plain")], f"csrf={TOKEN}".encode()),
        ([("content-type", "application/json")], f'{{"csrf":"{TOKEN}"}}'.encode()),
        ([FORM], f"csrf=&csrf={TOKEN}".encode()),
        ([FORM], b"\xff\xfe=x"),
        ([FORM], b"a=b&" * 6000 + f"csrf={TOKEN}".encode()),
    ],
)
def test_where_it_is_worth_nothing(headers: list[tuple[str, str]], body: bytes) -> None:
    assert not has_token(connection(*headers), body, TOKEN)


def test_letters_that_are_none_of_a_token() -> None:
    assert not has_token(connection(FORM), "csrf=ü".encode(), TOKEN)
    assert not has_token(connection(FORM), b"csrf=%ff", TOKEN)
    assert form_field(connection(FORM), b"name=a%0d%0ab", "name") == "a\r\nb"
